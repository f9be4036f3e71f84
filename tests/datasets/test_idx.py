"""Files in MNIST's format: zipped or not, with a dot or a hyphen, and what is refused."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets.idx import Idx

IMAGES = "train-images-idx3-ubyte.gz"


def test_test_files_are_the_reference_of_held_out_labels(tmp_path: Path, write: Any) -> None:
    spec = write["idx"](tmp_path)
    collection = Idx.load(spec)
    assert [(t.id, len(t), len(t.reference)) for t in collection.tasks if t.split != "public"] == [
        ("3", 15, 15),
        ("4", 15, 15),
        ("5", 15, 15),
    ]
    for file in tmp_path.iterdir():
        plain = file.name.removesuffix(".gz").replace("-idx", ".idx")
        (tmp_path / plain).write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    assert Idx.load(spec).provenance("4", b"key") == collection.provenance("4", b"key")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "without labels": (
        lambda root: (root / "train-labels-idx1-ubyte.gz").unlink(),
        "has no labels: expected train-labels",
    ),
    "no gzip": (lambda root: (root / IMAGES).write_bytes(b"junk"), "cannot read .*: expected an intact file"),
    "cut short": (
        lambda root: (root / IMAGES).write_bytes(gzip.compress(gzip.decompress((root / IMAGES).read_bytes())[:-1])),
        "is no idx file of bytes in 3 dimensions, or cut short",
    ),
    "of another type": (
        lambda root: (root / IMAGES).write_bytes(gzip.compress(b"\0\0\x0d\x03" + bytes(12))),
        "is no idx file of bytes",
    ),
    "empty": (lambda root: (root / IMAGES).write_bytes(gzip.compress(b"")), "is no idx file of bytes"),
    "with too few labels": (
        lambda root: (root / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\1\5")),
        "has 90 images and train-labels-idx1-ubyte.gz 1 labels",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str, tmp_path: Path, write: Any) -> None:
    spec = write["idx"](tmp_path)
    spoil, message = BAD[case]
    spoil(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        Idx.load(spec)
    assert "\n" not in str(caught.value)


def test_a_folder_without_such_files_is_refused(tmp_path: Path) -> None:
    for source in (f"idx:{tmp_path}", "idx", f"idx:{tmp_path / 'none'}"):
        with pytest.raises(UserError, match="expected idx:PATH with a folder of files such as"):
            Idx.load(DataSpec(source=source))
