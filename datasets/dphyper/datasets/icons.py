"""Icons of an unpacked ``@iconify/json`` package as a collection: ``icons:PATH``, sorted by the words of their names.

``PATH/json/*.json`` holds one icon set each (``npm pack @iconify/json`` fetches them). The commonest words make
concepts; words of nearly the same meaning make one concept. The icons are rendered once, with resvg, into an archive
under ``data.root`` that the source ``npz`` reads too. Sets of coloured icons are left out.

Guarantees that an icon with a tuning or private concept's word in its name or any alias is not public. Not guaranteed:
two sets may draw the same thing under words that the table below does not join; it then stays public unless it is
nearly the same image.
"""

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec, content_hash
from dphyper.datasets._cut import Pool, PooledSource
from dphyper.datasets._files import visible_files
from dphyper.datasets.npz import read_archive

VERSION = 2  # raised when the same files come to be drawn in another way
CONCEPTS = 400  # commonest words that make concepts
PER_CONCEPT = 640  # most rendered icons of one concept: 128 private records leave more than 500 as the reference

PRIVATE = ("car", "cloud", "heart", "mail")
TUNING = ("camera", "clock")

# Words of nearly the same meaning or look; the concept has the name of the first one.
SYNONYMS = (
    "mail email envelope inbox mailbox",
    "pencil pen edit write",
    "smile smiley emoticon emoji emotion face happy sad laugh",
    "person people user users account profile avatar human man woman male female child baby",
    "home house",
    "building office hotel school hospital bank city",
    "car cars taxi vehicle automobile",
    "truck van lorry delivery",
    "train tram subway metro railway",
    "bicycle bike cycling",
    "airplane plane flight aircraft",
    "phone telephone call smartphone mobile cellphone",
    "chat chats message messages comment comments bubble speech",
    "trash bin delete garbage",
    "clock time watch timer alarm stopwatch hourglass history",
    "cloud clouds cloudy rain rainy snow snowy weather",
    "sun sunny brightness",
    "gear settings setting cog",
    "image images picture photo photos gallery",
    "camera cameras webcam",
    "video movie film",
    "document documents file files page paper note notes",
    "folder folders directory",
    "chart charts graph analytics",
    "lock locked unlock unlocked padlock password",
    "cart basket shopping bag handbag",
    "store shop market",
    "search magnifier magnify zoom",
    "arrow arrows chevron caret",
    "speaker sound volume audio",
    "microphone mic",
    "television tv",
    "monitor screen display desktop computer laptop",
    "money cash dollar currency coin coins payment",
    "map location pin marker",
    "bell notification notifications",
    "star stars favorite",
    "heart hearts like love",
    "fire flame",
    "tree plant leaf",
    "water drop droplet",
    "hand hands finger thumb thumbs",
    "book books library",
    "cup glass drink",
    "game gamepad controller",
    "lightning bolt thunder flash",
    "calendar date event",
    "lightbulb bulb lamp",
    "tool tools wrench hammer",
    "question help",
    "warning alert exclamation error",
    "information info",
)

# Words for a form, a style or a badge. Their icons have nothing in common, so they make no concept.
MODIFIERS = (
    "outline outlined filled fill bold circle solid line off square right left down alt two one three four five six "
    "text light add check round rounded plus minus open horizontal vertical box broken bar top bottom remove with "
    "number link multiple forward small double sign slash close closed and simple duotone thin regular sharp back full "
    "half out none all more not the from new big large medium no dashed mark end start center stroke loop twotone"
)


class Icons(PooledSource):
    """Icons of an unpacked ``@iconify/json`` package: ``icons:PATH``."""

    @classmethod
    def read(cls, spec: DataSpec) -> Pool:
        """Read the icons, rendering them on first use.

        Raises:
            UserError: The path holds no icon sets, a set is corrupt, or resvg-py is missing.
        """
        root = Path(spec.argument)
        files, passed_over = visible_files(root, root.glob("json/*.json"))
        if not spec.argument or not files:
            raise UserError(
                f"data.source '{spec.source}': expected icons:PATH with an unpacked @iconify/json package, which has "
                "json/*.json (npm pack @iconify/json, then unpack it)"
            )
        known = [[file.name, file.stat().st_size] for file in files]
        key = content_hash([VERSION, known, spec.image_size, SYNONYMS, MODIFIERS, CONCEPTS, PER_CONCEPT])
        archive = Path(spec.root) / f"icons-{key}.npz"
        archive.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(archive.with_suffix(".lock")):
            if not archive.exists():
                _render(files, spec.image_size, archive)
        images, families = read_archive(str(archive), spec)
        return Pool(
            name="icons",
            images=images,
            families=families,
            passed_over=passed_over,
            private=PRIVATE,
            tuning=TUNING,
            show_reference=True,
            licence=f"{len(files)} icon sets of @iconify/json, each under the licence that its file names",
        )


def _render(files: list[Path], size: int, archive: Path) -> None:
    """Write the archive of concepts (see the module ``npz``), (N, size, size) uint8, white on black.

    At most `PER_CONCEPT` icons of a concept are drawn. Which ones does not depend on what will be private.

    Raises:
        UserError: resvg-py is missing, or an icon cannot be drawn.
    """
    if find_spec("resvg_py") is None:
        raise UserError("data.source 'icons' draws with resvg-py, which is missing: pip install 'dphyper[icons]'")
    import resvg_py

    icons = {name: (words, svg) for file in files for name, words, svg in _icons(file, size)}
    common = Counter(word for words, _ in icons.values() for word in words)
    concepts = sorted(sorted(common, key=lambda word: (-common[word], word))[:CONCEPTS])
    rows: dict[str, list[int]] = {concept: [] for concept in concepts}
    drawn: list[np.ndarray] = []
    taken: Counter[str] = Counter()
    # In the order of a hash, so that a concept's icons come from all sets and not from the first ones.
    for name in sorted(icons, key=lambda name: hashlib.sha256(name.encode()).digest()):
        words, svg = icons[name]
        mine = words & rows.keys()
        if not any(taken[concept] < PER_CONCEPT for concept in mine):
            continue
        try:
            png = resvg_py.svg_to_bytes(svg_string=svg, background="black", skip_system_fonts=True)
        except ValueError as error:
            raise UserError(f"cannot draw the icon {name} ({error}): expected SVG, replace its set") from error
        taken.update(mine)
        for concept in mine:
            rows[concept].append(len(drawn))
        drawn.append(np.asarray(Image.open(io.BytesIO(png)).convert("L")))
    part = archive.with_suffix(".part")
    with part.open("wb") as file:
        np.savez_compressed(
            file,
            x=np.stack(drawn),
            concept_names=np.asarray(concepts),
            concept_index=np.concatenate([np.asarray(rows[concept], np.int64) for concept in concepts]),
            concept_offsets=np.cumsum([0, *(len(rows[concept]) for concept in concepts)]),
        )
    part.replace(archive)


def _icons(file: Path, size: int) -> Iterator[tuple[str, set[str], str]]:
    """Name, concepts and SVG of each icon of one set; nothing of a set with colours of its own.

    Raises:
        UserError: The file is not an icon set.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        prefix, icons = found["prefix"], found["icons"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read the icon set {file} ({error!r}): expected JSON with 'prefix' and 'icons', unpack it again"
        ) from error
    if found.get("info", {}).get("palette"):
        return
    names = {name: [name] for name in icons}
    aliases = found.get("aliases", {})
    for alias in aliases:
        icon, passed = alias, set[str]()
        while icon in aliases and icon not in passed:  # an alias may be of another alias
            passed.add(icon)
            icon = aliases[icon]["parent"]
        if icon in names:
            names[icon].append(alias)
    for name, icon in icons.items():
        shape = {**found, **icon}
        left, top, width, height = (
            shape.get(k, d) for k, d in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        )
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{size}" '
            f'height="{size}" viewBox="{left} {top} {width} {height}" color="white">{icon["body"]}</svg>'
        )
        yield f"{prefix}:{name}", _concepts(names[name]), svg


def _concepts(names: list[str]) -> set[str]:
    """Concepts of all names of an icon: their words, synonyms joined, without modifiers and fragments."""
    words = {word for name in names for word in re.split("[-_]", name)}
    joined = {_JOINED.get(word, word) for word in words - _MODIFIERS}
    return {word for word in joined if len(word) > 2 and not word.isdigit()}


_JOINED = {word: group.split()[0] for group in SYNONYMS for word in group.split()}
_MODIFIERS = set(MODIFIERS.split())
