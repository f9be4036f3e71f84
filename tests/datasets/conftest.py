"""What the tests of data sources share: small data in each source's layout, written from scikit-learn's digits."""

import functools
import gzip
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from dphyper.bench.catalog import DATASETS
from dphyper.bench.tasks import Collection
from dphyper.core.names import Part
from dphyper.core.specs import DataSpec

PER_CLASS = 30
CLASSES = ("0", "1", "2", "3", "4", "5")
_digits = load_digits()
DIGITS = {name: (_digits.images[_digits.target == int(name)][:PER_CLASS] * 15).astype(np.uint8) for name in CLASSES}
IMAGES = np.concatenate(list(DIGITS.values()))
LABELS = np.repeat(np.arange(len(CLASSES)), PER_CLASS)
ICON_WORDS = ("mail", "car", "tree", "clock", "flag")


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


def write_hf(root: Path) -> DataSpec:
    """As `datasets.DatasetDict.save_to_disk` lays it out."""
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": [f"n{c}" for c in CLASSES]}}
    for name, rows in (("train", slice(0, None, 2)), ("test", slice(1, None, 2))):
        cells = [{"bytes": png(image), "path": None} for image in IMAGES[rows]]
        write_arrow(root / name, pa.table({"image": cells, "label": LABELS[rows]}), features)
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    return small(f"hf:{root}")


def write_arrow(folder: Path, table: pa.Table, features: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True)
    name = "data-00000-of-00001.arrow"
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))


def write_idx(root: Path) -> DataSpec:
    write_mnist_files(root, zipped=True)
    return small(f"idx:{root}")


def write_mixed(root: Path) -> DataSpec:
    """Private photographs in a folder, tuning in a further one, public images in an archive and a table."""
    write_npz(root)
    (root / "table").mkdir()
    write_parquet(root / "table")
    write_folder(root / "scans", {"patients": pictures(1)})
    write_folder(root / "phantoms", {"left": pictures(2), "right": pictures(3)})
    return small(
        "glyphs",
        public=(f"npz:{root / 'a.npz'}", Part(source=f"parquet:{root / 'table'}", families=("n0", "n1"))),
        private=(f"folder:{root / 'scans'}",),
        tuning=(Part(source=f"folder:{root / 'phantoms'}", families=("left",)),),
    )


def write_mnist(root: Path) -> DataSpec:
    write_mnist_files(root / "MNIST" / "raw")
    return small("torchvision:MNIST", root=str(root), private=("3", "4"))


def write_mnist_files(raw: Path, *, zipped: bool = False) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    large = np.repeat(np.repeat(IMAGES, 2, axis=1), 2, axis=2)
    for name, rows in (("train", slice(0, None, 2)), ("t10k", slice(1, None, 2))):
        for kind, values in (("images-idx3", large[rows]), ("labels-idx1", LABELS[rows].astype(np.uint8))):
            header = (0x800 + values.ndim).to_bytes(4, "big") + np.asarray(values.shape, ">i4").tobytes()
            content = header + values.tobytes()
            file = raw / f"{name}-{kind}-ubyte{'.gz' if zipped else ''}"
            file.write_bytes(gzip.compress(content) if zipped else content)


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


# Each writes its data below a folder and returns the spec that reads them.
SOURCES: dict[str, Callable[..., DataSpec]] = {
    "glyphs": lambda _: DataSpec(),
    "digits8": lambda _: DataSpec(source="digits8", image_size=8),
    "folder": write_folder,
    "npz": write_npz,
    "parquet": write_parquet,
    "torchvision": write_mnist,
    "icons": write_icons,
    "hf": write_hf,
    "idx": write_idx,
    "mixed": write_mixed,
}


def write_one_to_folder(root: Path, name: str, content: bytes) -> DataSpec:
    (root / "a").mkdir()
    (root / "a" / name).write_bytes(content)
    return small(f"folder:{root}")


def write_one_to_parquet(root: Path, name: str, content: bytes) -> DataSpec:
    pq.write_table(pa.table({"image": [{"bytes": content, "path": name}], "label": [0]}), root / "train.parquet")
    return small(f"parquet:{root}")


def write_one_to_hf(root: Path, name: str, content: bytes) -> DataSpec:
    write_arrow(root / "train", pa.table({"image": [{"bytes": content, "path": name}], "label": [0]}), {})
    return small(f"hf:{root}")


# Each writes one image file for a source that decodes such files. The others draw, or read arrays of pixels.
ONE_FILE: dict[str, Callable[[Path, str, bytes], DataSpec]] = {
    "folder": write_one_to_folder,
    "parquet": write_one_to_parquet,
    "hf": write_one_to_hf,
}
DECODE_NOTHING = {"glyphs", "digits8", "icons", "npz", "idx", "torchvision", "mixed"}


@pytest.fixture(scope="session")
def one_file() -> Mapping[str, Callable[[Path, str, bytes], DataSpec]]:
    """For each source that decodes image files, a function that writes one and returns the spec that reads it."""
    return ONE_FILE


@pytest.fixture(scope="session")
def decode_nothing() -> set[str]:
    """Sources that decode no image files."""
    return DECODE_NOTHING


@pytest.fixture(scope="session")
def write() -> Mapping[str, Callable[..., DataSpec]]:
    """For each source a function that writes small data below a folder and returns the spec that reads them."""
    return SOURCES


@pytest.fixture(scope="session")
def digits() -> SimpleNamespace:
    """What the writers write: ``families`` of 30 images by ``classes``, or together ``images`` and ``labels``."""
    return SimpleNamespace(families=DIGITS, classes=CLASSES, images=IMAGES, labels=LABELS, size=PER_CLASS)


@pytest.fixture(scope="session")
def load_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[DataSpec, Collection]]:
    """Spec and collection of a source, which is loaded once."""

    @functools.cache
    def cached(name: str) -> tuple[DataSpec, Collection]:
        spec = SOURCES[name](tmp_path_factory.mktemp(name))
        return spec, DATASETS[spec.scheme].load(spec)

    return cached


EACH = 40


def pictures(seed: int, number: int = EACH) -> NDArray[np.uint8]:
    """(N, 16, 16) images that differ from each other, smooth enough for JPEG; nothing is brighter than 250."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 236, (number, 4, 4), np.uint8)
    fine = [Image.fromarray(each).resize((16, 16), Image.Resampling.BICUBIC) for each in coarse]
    return np.stack([np.asarray(image) for image in fine]).clip(0, 250)


class Three:
    """Three families of smooth pictures: holiday (public), phantoms (tuning) and patients (private).

    Attributes:
        each: Pictures of a family.
        families: (40, 16, 16) pictures of each.
    """

    each = EACH
    pictures = staticmethod(pictures)

    def __init__(self) -> None:
        self.families = dict(zip(("holiday", "phantoms", "patients"), map(pictures, (1, 2, 3)), strict=True))
        self.holiday, self.phantoms, self.patients = self.families.values()

    def spec(self, source: str, **changes: Any) -> DataSpec:
        """One cluster, which holds all that is public."""
        chosen = {"private": ("patients",), "tuning": ("phantoms",), "cluster_sizes": (1000,), "min_task_size": 5}
        return DataSpec(**{"source": source, **chosen, **changes})

    def folder(self, root: Path, families: Mapping[str, NDArray[np.uint8]] | None = None) -> DataSpec:
        """Write a folder of families."""
        write_folder(root, families or self.families)
        (root / next(iter(families or self.families)) / "notes.txt").unlink()
        return self.spec(f"folder:{root}")


@pytest.fixture(scope="session")
def three() -> Three:
    """Three families of smooth pictures."""
    return Three()
