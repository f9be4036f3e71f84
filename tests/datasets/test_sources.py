"""Every data source honours the contract of a collection, and names what is wrong with its input."""

import functools
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torchvision
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from dphyper.bench.catalog import DATASETS
from dphyper.bench.tasks import Collection
from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets import glyphs

PER_CLASS = 30
CLASSES = ("0", "1", "2", "3", "4", "5")
_digits = load_digits()
DIGITS = {name: (_digits.images[_digits.target == int(name)][:PER_CLASS] * 15).astype(np.uint8) for name in CLASSES}
IMAGES = np.concatenate(list(DIGITS.values()))
LABELS = np.repeat(np.arange(len(CLASSES)), PER_CLASS)


def load(spec: DataSpec) -> Collection:
    collection: Collection = DATASETS[spec.scheme].load(spec)
    return collection


def small(source: str, **changes: Any) -> DataSpec:
    return DataSpec(**{"source": source, "image_size": 8, "cluster_sizes": (10,), "min_task_size": 5, **changes})


def write_folder(root: Path, families: Mapping[str, NDArray[np.uint8]] = DIGITS) -> DataSpec:
    for family, images in families.items():
        (root / family).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / family / f"{i:03d}.png")
    (root / next(iter(families)) / "notes.txt").write_text("no image")
    return small(f"folder:{root}")


def write_npz(root: Path) -> DataSpec:
    np.savez(root / "a.npz", x=IMAGES, y=LABELS, names=np.asarray(CLASSES))
    return small(f"npz:{root / 'a.npz'}", channels=3)


def png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(root: Path) -> DataSpec:
    features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": [f"n{c}" for c in CLASSES]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for name, rows in (("train", slice(0, None, 2)), ("test", slice(1, None, 2))):
        cells = [{"bytes": png(image), "path": None} for image in IMAGES[rows]]
        table = pa.table({"img": cells, "label": LABELS[rows]}).replace_schema_metadata(metadata)
        pq.write_table(table, root / f"{name}-00000-of-00001.parquet")
    return small(f"parquet:{root}", image_size=10)


def write_mnist(root: Path) -> DataSpec:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    large = np.repeat(np.repeat(IMAGES, 2, axis=1), 2, axis=2)
    for name, rows in (("train", slice(0, None, 2)), ("t10k", slice(1, None, 2))):
        for kind, values in (("images-idx3", large[rows]), ("labels-idx1", LABELS[rows].astype(np.uint8))):
            header = (0x800 + values.ndim).to_bytes(4, "big") + np.asarray(values.shape, ">i4").tobytes()
            (raw / f"{name}-{kind}-ubyte").write_bytes(header + values.tobytes())
    return small("torchvision:MNIST", root=str(root), private=("3", "4"))


ICON_WORDS = ("mail", "car", "tree", "clock", "flag")


def write_icons(root: Path) -> DataSpec:
    rng = np.random.default_rng(0)
    (root / "json").mkdir()
    for prefix in ("one", "two"):
        icons = {}
        for word in ICON_WORDS:
            for i in range(12):
                x, y, w, h = rng.integers(1, 12, 4)
                icons[f"{word}-{i}"] = {"body": f'<path fill="currentColor" d="M{x} {y}h{w}v{h}h-{w}z"/>'}
        aliases = {"flag-banner": {"parent": "flag-0"}, "envelope-flag": {"parent": "flag-1"}}
        plain = {"prefix": prefix, "icons": icons, "aliases": aliases, "width": 24, "height": 24}
        (root / "json" / f"{prefix}.json").write_text(json.dumps(plain))
    colourful = {"prefix": "three", "info": {"palette": True}, "icons": {"car-1": {"body": "<never drawn"}}}
    (root / "json" / "three.json").write_text(json.dumps(colourful))
    return small(f"icons:{root}", root=str(root / "cache"), image_size=12)


SOURCES: dict[str, Callable[[Path], DataSpec]] = {
    "glyphs": lambda _: DataSpec(),
    "digits8": lambda _: DataSpec(source="digits8", image_size=8),
    "folder": write_folder,
    "npz": write_npz,
    "parquet": write_parquet,
    "torchvision": write_mnist,
    "icons": write_icons,
}


@dataclass(frozen=True)
class Loaded:
    spec: DataSpec
    collection: Collection


@pytest.fixture(scope="session")
def load_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Loaded]:
    @functools.cache
    def cached(name: str) -> Loaded:
        spec = SOURCES[name](tmp_path_factory.mktemp(name))
        return Loaded(spec, load(spec))

    return cached


@pytest.fixture(params=SOURCES)
def loaded(request: pytest.FixtureRequest, load_once: Callable[[str], Loaded]) -> Loaded:
    return load_once(request.param)


def test_all_registered_sources_are_checked() -> None:
    assert len(SOURCES) == 7
    assert set(SOURCES) == set(DATASETS)


def test_records_have_the_size_and_type_asked_for(loaded: Loaded) -> None:
    spec, records = loaded.spec, loaded.collection.records
    assert records.dtype == np.uint8
    assert records.shape[1:] == (spec.image_size, spec.image_size, spec.channels)
    assert records.max() > 200
    assert loaded.collection.licence


def test_no_two_splits_share_an_image(loaded: Loaded) -> None:
    collection = loaded.collection
    contents = {
        split: {collection.records[row].tobytes() for task in collection.tasks if task.split == split
                for row in (*task.indices, *task.reference)}
        for split in ("public", "tuning", "private")
    }  # fmt: skip
    assert all(contents.values())
    assert not contents["public"] & (contents["tuning"] | contents["private"])
    assert not contents["tuning"] & contents["private"]


def test_held_out_tasks_never_repeat_an_image(loaded: Loaded) -> None:
    collection = loaded.collection
    for task in collection.tasks:
        if task.split != "public":
            rows = np.concatenate([task.indices, task.reference])
            assert len({collection.records[row].tobytes() for row in rows}) == len(rows)


def test_public_tasks_are_large_enough_and_come_from_families_and_clusters(loaded: Loaded) -> None:
    public = loaded.collection.select("public")
    assert all(len(task) >= loaded.spec.min_task_size for task in public)
    assert all(not len(task.reference) for task in public)
    clusters = {task.id for task in public if task.id.startswith("cluster")}
    assert clusters == {task.id for task in public if task.kind == "cluster"}
    assert clusters
    assert len(public) > len(clusters)


def summary(collection: Collection) -> dict[str, str]:
    held_out = [task.id for task in collection.tasks if task.split != "public"]
    return {task_id: collection.provenance(task_id, b"key") for task_id in held_out} | {
        "public": collection.public_fingerprint
    }


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "glyphs"])
def test_two_loads_are_equal(name: str, load_once: Callable[[str], Loaded]) -> None:
    loaded = load_once(name)
    assert summary(load(loaded.spec)) == summary(loaded.collection)


def test_glyphs_are_equal_in_another_process_that_orders_sets_differently(load_once: Callable[[str], Loaded]) -> None:
    loaded = load_once("glyphs")
    code = (
        "from dphyper.core.specs import DataSpec; from dphyper.datasets.glyphs import Glyphs; "
        "print(Glyphs.load(DataSpec()).public_fingerprint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": "7"}, capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == loaded.collection.public_fingerprint


def test_glyphs_offer_hundreds_of_public_tasks_and_large_held_out_ones(load_once: Callable[[str], Loaded]) -> None:
    collection = load_once("glyphs").collection
    assert len(collection.select("public")) >= 300
    assert {task.id for task in collection.select("private")} == set(glyphs.PRIVATE)
    assert {task.id for task in collection.select("tuning")} == set(glyphs.TUNING)
    for task in collection.tasks:
        if task.split != "public":
            assert len(task) >= 128 + 300
            assert (task.distance == "far") == (task.id == glyphs.DIGITS)
    assert [task.id for task in collection.tasks if task.development] == [glyphs.DIGITS]
    assert collection.show_reference
    # Near copies of held-out glyphs leave, and they are few.
    left = [line for line in collection.passed_over if "nearly equal to images of" in line]
    assert 1 <= sum(int(line.split()[0]) for line in left if "public" in line or "no family" in line) <= 40


def public_side(collection: Collection) -> dict[str, list[bytes]]:
    return {
        task.id: [collection.records[row].tobytes() for row in task.indices] for task in collection.select("public")
    }


@pytest.mark.parametrize("family", CLASSES)
def test_only_public_images_reach_the_public_side(family: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, DIGITS[family].shape, np.uint8)
    before = load(write_folder(tmp_path / "a"))
    after = load(write_folder(tmp_path / "b", {**DIGITS, family: noise}))
    split = before.task(family).split
    assert (public_side(after) == public_side(before)) == (split != "public")
    assert (after.public_fingerprint == before.public_fingerprint) == (split == "private")


def test_a_public_image_that_is_also_private_leaves_the_public_side(tmp_path: Path) -> None:
    spec = write_folder(tmp_path, {**DIGITS, "5": np.concatenate([DIGITS["5"], DIGITS["0"][:3], DIGITS["5"][:2]])})
    collection = load(spec)
    assert (len(collection.task("0")), len(collection.task("5"))) == (PER_CLASS - 3, PER_CLASS + 3)


def test_test_images_are_references_of_held_out_classes_only(tmp_path: Path) -> None:
    collection = load(write_parquet(tmp_path))
    assert [(t.id, len(t), len(t.reference)) for t in collection.tasks if t.split != "public"] == [
        ("n3", 15, 15),
        ("n4", 15, 15),
        ("n5", 15, 15),
    ]
    assert len(np.unique(np.concatenate([t.indices for t in collection.select("public")]))) == 3 * 15


def test_concepts_may_overlap_and_an_image_goes_to_the_most_closed_split(tmp_path: Path) -> None:
    lists = [np.arange(0, 40), np.arange(30, 70), np.arange(60, 100), np.arange(90, 130), np.arange(85, 92)]
    np.savez(
        tmp_path / "c.npz",
        x=IMAGES,
        concept_index=np.concatenate(lists),
        concept_offsets=np.cumsum([0, *map(len, lists)]),
        concept_names=np.asarray(["a", "b", "c", "d", "e"]),
    )
    spec = small(f"npz:{tmp_path / 'c.npz'}", tuning=("b",), private=("c", "d"))
    sizes = {task.id: len(task) for task in load(spec).tasks if not task.id.startswith("cluster")}
    assert sizes == {"a": 30, "b": 30, "c": 30, "d": 30}  # c and d drop what they share, e is all theirs
    clustered = [task for task in load(spec).select("public") if task.id.startswith("cluster")]
    assert sum(map(len, clustered)) <= 30 + 50  # of a alone, and of no concept at all


def test_further_archives_give_held_out_families_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    first, second, third = (rng.integers(0, 256, (120, 8, 8), np.uint8) for _ in range(3))
    np.savez(tmp_path / "first.npz", x=first, y=np.repeat([0, 1, 2], 40))
    np.savez(tmp_path / "pens.npz", x=second, script=np.repeat([0, 1, 2], 40), names=np.asarray(["a", "b", "c"]))
    medical = {}
    for name, images in zip(("train", "val", "test"), np.split(third, 3), strict=True):
        medical |= {f"{name}_images": images, f"{name}_labels": np.repeat([[0], [1]], 20, 0)}
    np.savez(tmp_path / "rays.npz", **medical)
    source = "+".join(str(tmp_path / name) for name in ("first.npz", "pens.npz#script", "rays.npz"))
    collection = load(small(f"npz:{source}", private=("2", "pens.b", "rays.1"), tuning=("1",)))
    held_out = {t.id: (t.split, t.distance, len(t)) for t in collection.tasks if t.split != "public"}
    assert held_out == {
        "1": ("tuning", "near", 40),
        "2": ("private", "near", 40),
        "pens.b": ("private", "far", 40),
        "rays.1": ("private", "far", 60),
    }
    public = np.unique(np.concatenate([task.indices for task in collection.select("public")]))
    assert len(public) == 40  # of the first archive alone: neither "pens.a" nor an X-ray
    with pytest.raises(UserError, match=r"unknown family 'pens.d'"):
        load(small(f"npz:{source}", private=("pens.d",)))


def test_icons_follow_synonyms_and_aliases(load_once: Callable[[str], Loaded]) -> None:
    loaded = load_once("icons")
    split = {task.id: task.split for task in loaded.collection.tasks if not task.id.startswith("cluster")}
    assert split == {"tree": "public", "flag": "public", "clock": "tuning", "car": "private", "mail": "private"}
    # "envelope-flag" is an alias of flag-1 in both sets, so these two are mail.
    assert len(loaded.collection.task("mail")) > len(loaded.collection.task("flag"))
    assert len(list(Path(loaded.spec.root).glob("icons-*.npz"))) == 1


def test_a_word_reaches_an_icon_through_an_alias_of_an_alias(tmp_path: Path) -> None:
    spec = write_icons(tmp_path)
    path = tmp_path / "json" / "one.json"
    before = len(load(spec).task("mail"))
    content = json.loads(path.read_text())
    content["aliases"] |= {"inbox": {"parent": "banner"}, "banner": {"parent": "flag-2"}, "lost": {"parent": "lost"}}
    path.write_text(json.dumps(content))
    assert len(load(spec).task("mail")) == before + 1


def test_images_of_every_mode_are_read(tmp_path: Path) -> None:
    spec = write_folder(tmp_path)
    grey = Image.fromarray(DIGITS["0"][0])
    for mode in ("1", "LA", "P", "RGBA", "CMYK"):
        grey.convert(mode).save(tmp_path / "0" / f"mode-{mode}.{'jpg' if mode == 'CMYK' else 'png'}")
    Image.fromarray(np.full((20, 10), 65535, np.uint16)).save(tmp_path / "1" / "deep.png")
    Image.new("RGBA", (9, 9)).save(tmp_path / "2" / "clear.png")
    assert load(spec).records.shape == (len(IMAGES) + 3, 8, 8, 1)
    # "LA", "P" and "RGBA" equal their original, both white images each other: equal images count once.
    assert load(replace(spec, channels=3)).records.shape[-1] == 3


class Omniglot:
    """Stands in for torchvision's loader, which wants the published archive by its hash."""

    def __init__(self, root: str, background: bool) -> None:
        self.target_folder = root


def test_omniglot_takes_alphabets_as_families(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, {f"{alphabet}/character01": DIGITS[alphabet] for alphabet in CLASSES})
    monkeypatch.setattr(torchvision.datasets, "Omniglot", Omniglot)
    collection = load(small("torchvision:Omniglot", root=str(tmp_path), private=("2", "3"), tuning=("4",)))
    assert [len(collection.task(family)) for family in CLASSES] == [PER_CLASS] * len(CLASSES)


class CIFAR10:
    """Stands in for torchvision's loader; colour arrays, labels as a list."""

    classes = CLASSES

    def __init__(self, root: str, train: bool) -> None:
        rows = slice(0, None, 2) if train else slice(1, None, 2)
        self.data, self.targets = np.stack([IMAGES[rows]] * 3, axis=-1), LABELS[rows].tolist()


def test_cifar10_is_read_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", CIFAR10)
    collection = load(small("torchvision:CIFAR10", channels=3))
    assert collection.records.shape[1:] == (8, 8, 3)
    assert {t.id: (len(t), len(t.reference)) for t in collection.select("private")} == {"4": (15, 15), "5": (15, 15)}


def absent(root: str, **_: object) -> None:
    raise RuntimeError("Dataset not found.\nNo network.")


def bad_torchvision(root: Path, patch: pytest.MonkeyPatch) -> DataSpec:
    patch.setattr(torchvision.datasets, "MNIST", absent)
    return small("torchvision:MNIST", root=str(root))


def bad_file(name: str, content: bytes) -> Callable[[Path, pytest.MonkeyPatch], DataSpec]:
    def write(root: Path, _: pytest.MonkeyPatch) -> DataSpec:
        (root / name).write_bytes(content)
        return small(f"{Path(name).suffix[1:]}:{root / name}")

    return write


def bad_npz(**arrays: NDArray[Any]) -> Callable[[Path, pytest.MonkeyPatch], DataSpec]:
    def write(root: Path, _: pytest.MonkeyPatch) -> DataSpec:
        np.savez(root / "a.npz", allow_pickle=True, **arrays)
        return small(f"npz:{root / 'a.npz'}")

    return write


def bad_parquet(**columns: list[Any]) -> Callable[[Path, pytest.MonkeyPatch], DataSpec]:
    def write(root: Path, _: pytest.MonkeyPatch) -> DataSpec:
        pq.write_table(pa.table(columns), root / "train.parquet")
        return small(f"parquet:{root}")

    return write


def relabel(root: Path, label: int) -> None:
    path = root / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "label", pa.array([label] * len(table))), path)


def corrupt_image(root: Path, _: pytest.MonkeyPatch) -> DataSpec:
    spec = write_folder(root)
    file = root / "1" / "000.png"
    file.write_bytes(file.read_bytes()[:50])
    return spec


def bad_icons(content: str) -> Callable[[Path, pytest.MonkeyPatch], DataSpec]:
    def write(root: Path, _: pytest.MonkeyPatch) -> DataSpec:
        spec = write_icons(root)
        (root / "json" / "bad.json").write_text(content)
        return spec

    return write


def no_resvg(root: Path, patch: pytest.MonkeyPatch) -> DataSpec:
    patch.setattr("dphyper.datasets.icons.find_spec", lambda name: None)
    return write_icons(root)


def no_qtawesome(root: Path, patch: pytest.MonkeyPatch) -> DataSpec:
    patch.setattr("dphyper.datasets.glyphs.find_spec", lambda name: None)
    return DataSpec()


PNG = {"bytes": png(IMAGES[0]), "path": None}
BAD: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], DataSpec], str]] = {
    "folder missing": (lambda root, _: small(f"folder:{root / 'none'}"), "a folder that exists"),
    "folder without argument": (lambda root, _: small("folder"), "expected folder:PATH"),
    "folder empty": (lambda root, _: small(f"folder:{root}"), "holds no image"),
    "folder with a corrupt image": (corrupt_image, r"cannot read the image .*1.000\.png"),
    "one family": (lambda root, _: write_folder(root, {"0": DIGITS["0"]}), "has 1 families .* at least one public"),
    "all held out": (
        lambda root, _: replace(write_folder(root), private=CLASSES[:3], tuning=CLASSES[3:]),
        "has 6 families .* held out",
    ),
    "unknown family": (lambda root, _: replace(write_folder(root), private=("55",)), "unknown family '55'.*'5'"),
    "family too small": (
        lambda root, _: replace(write_folder(root), min_task_size=31),
        "tuning family '3' .* has 30 images of its own, expected at least data.min_task_size = 31",
    ),
    "npz missing": (lambda root, _: small(f"npz:{root / 'none.npz'}"), "a file that exists"),
    "npz corrupt": (bad_file("a.npz", b"no archive"), "expected an .npz archive of plain arrays"),
    "npz pickled": (bad_npz(x=np.asarray([{}])), "expected an .npz archive of plain arrays"),
    "npz without x": (bad_npz(images=IMAGES, y=LABELS), "only the keys images, y: expected 'x'"),
    "npz of floats": (bad_npz(x=IMAGES / 255, y=LABELS), "has float64 .* expected 'x' as uint8"),
    "npz without labels": (bad_npz(x=IMAGES), "expected either 'y'"),
    "npz with too few labels": (bad_npz(x=IMAGES, y=LABELS[:5]), "5 labels for 180 images"),
    "npz with too few names": (bad_npz(x=IMAGES, y=LABELS, names=np.asarray(["a"])), "from 0 to 5: .* the 1 'names'"),
    "npz with bad concepts": (
        bad_npz(
            x=IMAGES,
            concept_index=np.arange(10),
            concept_offsets=np.asarray([0, 5, 11]),
            concept_names=np.asarray(["a", "b"]),
        ),
        "its concepts disagree",
    ),
    "npz with falling concepts": (
        bad_npz(
            x=IMAGES,
            concept_index=np.arange(10),
            concept_offsets=np.asarray([3, 2, 10]),
            concept_names=np.asarray(["a", "b"]),
        ),
        "rising from 0 to the length",
    ),
    "parquet missing": (lambda root, _: small(f"parquet:{root / 'none'}"), r"a \.parquet file or a folder"),
    "parquet corrupt": (bad_file("a.parquet", b"PAR1"), "expected an intact parquet file"),
    "parquet without image": (bad_parquet(text=["a"], label=[0]), "columns text, label: expected an image column"),
    "parquet without label": (bad_parquet(img=[PNG], kind=[0]), "columns img, kind: expected a column 'label'"),
    "parquet with links": (bad_parquet(img=[{**PNG, "bytes": None}, PNG], label=[0, 0]), "row 0 of .* no image bytes"),
    "parquet with a label without name": (
        lambda root, _: (write_parquet(root), relabel(root, -2))[0],
        "row 0 of .* has the label -2: expected 0 to 5",
    ),
    "parquet unlabelled": (bad_parquet(img=[PNG], label=[-1]), "no labelled image"),
    "parquet with a corrupt image": (
        bad_parquet(img=[PNG, {"bytes": b"x", "path": None}], label=[0, 1]),
        "cannot read the image in row 1 of",
    ),
    "torchvision unknown": (lambda root, _: small("torchvision:CIFAR"), "unknown torchvision set 'CIFAR'"),
    "torchvision absent": (bad_torchvision, "download failed .*: put MNIST/raw/"),
    "icons missing": (lambda root, _: small(f"icons:{root}"), "unpacked @iconify/json"),
    "icons corrupt": (bad_icons("{"), r"cannot read the icon set .*bad\.json"),
    "icons not drawn": (
        bad_icons('{"prefix": "bad", "icons": {"car": {"body": "<path"}}}'),
        "cannot draw the icon bad:car",
    ),
    "icons without resvg": (no_resvg, r"pip install 'dphyper\[icons\]'"),
    "glyphs without qtawesome": (no_qtawesome, "pip install qtawesome"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, message = BAD[case]
    with pytest.raises(UserError, match=message) as caught:
        load(make(tmp_path, monkeypatch))
    assert "\n" not in str(caught.value)
