"""What is public, and what leaves it: splits, copies across them, and families that cannot be cut."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dphyper.bench.tasks import Collection
from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets._duplicates import NEAR
from dphyper.datasets.folder import Folder

Images = NDArray[np.uint8]


def of(collection: Collection, split: str) -> Images:
    """All images of a split, references included."""
    rows = [np.concatenate([task.indices, task.reference]) for task in collection.tasks if task.split == split]
    return np.asarray(collection.records[np.unique(np.concatenate(rows))], np.uint8)


def closest(a: Images, b: Images) -> float:
    difference = a.reshape(len(a), 1, -1).astype(float) - b.reshape(1, len(b), -1)
    return float(np.sqrt((difference**2).mean(-1)).min())


def jpeg(image: Images) -> Images:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=85)
    return np.asarray(Image.open(buffer))


def public_side(collection: Collection) -> dict[str, list[bytes]]:
    return {
        task.id: [collection.records[row].tobytes() for row in task.indices] for task in collection.select("public")
    }


@pytest.mark.parametrize("family", list("012345"))
def test_only_public_images_reach_the_public_side(family: str, tmp_path: Path, write: Any, digits: Any) -> None:
    noise = np.random.default_rng(1).integers(0, 256, digits.families[family].shape, np.uint8)
    before = Folder.load(write["folder"](tmp_path / "a"))
    after = Folder.load(write["folder"](tmp_path / "b", {**digits.families, family: noise}))
    split = before.task(family).split
    assert (public_side(after) == public_side(before)) == (split != "public")
    assert (after.public_fingerprint == before.public_fingerprint) == (split == "private")


def test_a_public_image_that_is_also_private_leaves_the_public_side(tmp_path: Path, write: Any, digits: Any) -> None:
    spec = write["folder"](
        tmp_path,
        {
            **digits.families,
            "5": np.concatenate([digits.families["5"], digits.families["0"][:3], digits.families["5"][:2]]),
        },
    )
    collection = Folder.load(spec)
    assert (len(collection.task("0")), len(collection.task("5"))) == (digits.size - 3, digits.size + 3)


def test_copies_of_private_images_leave_the_public_side(tmp_path: Path, three: Any) -> None:
    copies = np.stack([jpeg(image) if i % 2 else image for i, image in enumerate(three.patients)])
    plain = Folder.load(three.folder(tmp_path / "plain"))
    assert plain.remarks == ()
    copied = Folder.load(
        three.folder(tmp_path / "copied", {**three.families, "holiday": np.concatenate([three.holiday, copies])})
    )
    assert copied.remarks == (
        "40 images of the public family 'holiday', 20 equal and 20 nearly equal to images of the private family "
        "'patients'",
    )
    assert closest(of(copied, "public"), of(copied, "private")) > NEAR
    assert np.array_equal(of(copied, "private"), of(plain, "private"))  # none was dropped for its copy
    assert len(of(copied, "public")) == len(three.holiday)
    assert copied.public_fingerprint == plain.public_fingerprint


def test_copies_leave_the_tuning_side_too_and_of_tuning_images_the_public_one(tmp_path: Path, three: Any) -> None:
    families = {
        "beach": np.concatenate([three.pictures(4), three.holiday[:2] + 1, three.patients[:1]]),
        "holiday": np.concatenate(
            [three.holiday, three.holiday[:3], three.phantoms[:6] + 2, three.patients[5:8] + 2, three.patients[5:8] + 2]
        ),
        "phantoms": np.concatenate([three.phantoms, three.patients[:4]]),
        "patients": three.patients,
    }
    collection = Folder.load(three.folder(tmp_path, families))
    assert collection.passed_over == ("3 exact duplicates",)
    assert collection.remarks == (
        "4 images of the tuning family 'phantoms', equal to images of the private family 'patients'",
        "7 images of the public families 'holiday' (6), 'beach' (1), 1 equal and 6 nearly equal to images of the "
        "private family 'patients'",
        "6 images of the public family 'holiday', nearly equal to images of the tuning family 'phantoms'",
    )
    public, tuning, private = (of(collection, split) for split in ("public", "tuning", "private"))
    assert min(closest(public, private), closest(public, tuning), closest(tuning, private)) > NEAR
    assert [len(images) for images in (public, tuning, private)] == [
        2 * three.each + 2,
        three.each,
        three.each,
    ]  # beach's near copies stay


def test_a_family_of_copies_alone_is_named(tmp_path: Path, three: Any) -> None:
    spec = three.folder(tmp_path, {**three.families, "phantoms": three.patients})
    with pytest.raises(
        UserError, match=r"tuning family 'phantoms' .* has 0 images of its own beside 40 copies of these or of others"
    ):
        Folder.load(spec)


def test_development_and_show_reference_are_the_sources_and_the_users(tmp_path: Path, three: Any) -> None:
    spec = three.folder(tmp_path)
    plain, marked = (
        Folder.load(spec),
        Folder.load(replace(spec, development=("patients", "holiday"), show_reference=True)),
    )
    assert not plain.show_reference
    assert not any(task.development for task in plain.tasks)
    assert marked.show_reference
    assert {task.id for task in marked.tasks if task.development} == {"patients", "holiday"}
    with pytest.raises(UserError, match="unknown family 'patient': did you mean 'patients'"):
        Folder.load(replace(spec, development=("patient",)))


FAMILIES = {str(i): np.random.default_rng(i + 1).integers(0, 256, (30, 8, 8), np.uint8) for i in range(4)}
FAMILY = np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8)
BAD: dict[str, tuple[Callable[..., DataSpec], str]] = {
    "one family": (lambda root, write: write["folder"](root, {"0": FAMILY}), "has 1 family .* at least one public"),
    "all held out": (
        lambda root, write: replace(write["folder"](root), private=tuple("012"), tuning=tuple("345")),
        "has 6 families .* held out",
    ),
    "unknown family": (lambda root, write: replace(write["folder"](root), private=("55",)), "unknown family '55'.*'5'"),
    "copies of one image": (
        lambda root, write: write["folder"](root, {**FAMILIES, "4": FAMILY[[0] * 30]}),
        "private family '4' .* has 1 image of its own beside 29 copies of these or of others",
    ),
    "family too small": (
        lambda root, write: replace(write["folder"](root), min_task_size=31),
        "tuning family '3' .* has 30 images of its own, expected at least data.min_task_size = 31",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str, tmp_path: Path, write: Any) -> None:
    make, message = BAD[case]
    with pytest.raises(UserError, match=message) as caught:
        Folder.load(make(tmp_path, write))
    assert "\n" not in str(caught.value)
