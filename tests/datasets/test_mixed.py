"""Several sources in one collection: who is private, what families are called, and what is refused."""

from collections import ChainMap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dphyper.bench.catalog import DATASETS
from dphyper.bench.source import Source
from dphyper.bench.tasks import Collection, Task
from dphyper.core.errors import UserError
from dphyper.core.names import Part
from dphyper.core.specs import DataSpec
from dphyper.datasets import mixed
from dphyper.datasets.mixed import Mixed


@pytest.fixture
def split(tmp_path: Path, three: Any) -> DataSpec:
    """Private patients in a folder, public and tuning images in an archive; both have a family called holiday."""
    three.folder(tmp_path / "scans", {"patients": three.patients, "holiday": three.pictures(7)})
    images = np.concatenate([three.holiday, three.phantoms, three.patients[:4]])
    labels = ["holiday"] * 40 + ["phantoms"] * 40 + ["holiday"] * 4
    np.savez(tmp_path / "open.npz", x=images, y=labels)
    return DataSpec(
        public=(f"npz:{tmp_path / 'open.npz'}",),
        private=(Part(source=f"folder:{tmp_path / 'scans'}", families=("patients",)),),
        tuning=("phantoms",),
        min_task_size=5,
        cluster_sizes=(1000,),
    )


def sizes(collection: Collection) -> dict[str, tuple[str, int]]:
    return {task.id: (task.split, len(task)) for task in collection.tasks if task.kind == "family"}


def test_private_images_in_a_folder_and_public_ones_elsewhere(split: DataSpec) -> None:
    collection = Mixed.load(split)
    assert split.scheme == "mixed"
    assert sizes(collection) == {"holiday": ("public", 40), "phantoms": ("tuning", 40), "patients": ("private", 40)}
    assert collection.task("patients").distance == "far"
    (cluster,) = [task for task in collection.tasks if task.kind == "cluster"]
    assert len(cluster) == 40  # nothing of the private folder is public, also what was not selected
    assert collection.remarks == (
        "4 images of the public family 'holiday', equal to images of the private family 'patients'",
    )
    assert "scans" in collection.licence
    assert "open.npz" in collection.licence


def test_families_of_one_name_are_told_apart_by_their_source(split: DataSpec) -> None:
    (part,) = split.private
    assert isinstance(part, Part)
    whole = Mixed.load(replace(split, private=(part.source,)))
    assert sizes(whole) == {
        "scans.holiday": ("private", 40),
        "open.holiday": ("public", 40),
        "patients": ("private", 40),
        "phantoms": ("tuning", 40),
    }
    with pytest.raises(UserError, match=r"unknown family 'holiday'"):
        Mixed.load(replace(split, private=(part.source,), tuning=("holiday",)))


def test_one_source_in_two_lists_is_split_by_its_families(split: DataSpec) -> None:
    (part,) = split.private
    assert isinstance(part, Part)
    both = replace(split, public=(part.source,), tuning=())
    assert sizes(Mixed.load(both)) == {"holiday": ("public", 40), "patients": ("private", 40)}
    one = replace(both, public=(), source=part.source, private=("patients",))
    assert one.scheme == "folder"
    assert np.array_equal(Mixed.load(both).records, DATASETS["folder"].load(one).records)


def test_the_public_sources_of_a_list_replace_the_source(split: DataSpec) -> None:
    assert split.source == "glyphs"
    with pytest.raises(UserError, match=r"data.public stands in place of data.source"):
        replace(split, source="digits8")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown family": ({"private": (Part(source="digits8", families=("11",)),)}, "unknown family of 'digits8' '11'"),
    "an unknown source": ({"private": (Part(source="foldr:x"),)}, "unknown data source 'foldr': did you mean 'folder'"),
    "a missing file": ({"public": ("npz:none.npz",)}, "'npz:none.npz': expected npz:PATH with a file that exists"),
    "itself": ({"public": ("mixed",)}, "has no images of its own"),
    "one family of two splits": (
        {"private": (Part(source="digits8", families=("1",)),), "tuning": (Part(source="digits8"),)},
        "family '1' of 'digits8' is taken both by data.private and by data.tuning",
    ),
    "nothing public": (
        {"public": (Part(source="digits8", families=("1",)),), "private": (Part(source="digits8"),), "tuning": ()},
        "all are held out",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str, split: DataSpec) -> None:
    changes, message = BAD[case]
    with pytest.raises(UserError, match=message) as caught:
        Mixed.load(replace(split, **changes))
    assert "\n" not in str(caught.value)


def test_two_sources_of_one_name_and_one_family_are_refused(split: DataSpec, tmp_path: Path, three: Any) -> None:
    three.folder(tmp_path / "other" / "scans", {"patients": three.pictures(9)})
    whole = Part(source=f"folder:{tmp_path / 'other' / 'scans'}")
    with pytest.raises(UserError, match=r"both have a family that would be called 'scans.patients'"):
        Mixed.load(replace(split, private=(*split.private, whole)))


class Bare(Source):
    """A source of an outside package, which only makes a collection: two families, one of them private to it."""

    dtype: type = np.uint8

    @classmethod
    def load(cls, spec: DataSpec) -> Collection:
        """Flat squares."""
        shape = (20, spec.image_size, spec.image_size, spec.channels)
        records = np.broadcast_to(np.arange(20).reshape(-1, 1, 1, 1) * 12, shape).astype(cls.dtype)
        halves = np.split(np.arange(20), 2)
        tasks = [
            Task(id=name, family=name, split=split, indices=rows)
            for name, split, rows in zip(("dark", "light"), ("public", "private"), halves, strict=True)
        ]
        return Collection(name="bare", records=records, tasks=tuple(tasks), show_reference=True)


def test_a_source_that_makes_its_own_collection_joins_in(split: DataSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed, "DATASETS", ChainMap({"bare": Bare}, DATASETS))
    collection = Mixed.load(replace(split, private=(*split.private, Part(source="bare", families=("light",)))))
    assert sizes(collection)["light"] == ("private", 10)
    assert "dark" not in sizes(collection)
    assert not collection.show_reference  # the folder does not say that its images may be shown
    monkeypatch.setattr(Bare, "dtype", np.float32)
    with pytest.raises(UserError, match=r"has records of float32 .* expected uint8 images of 16 × 16 × 1"):
        Mixed.load(replace(split, private=(Part(source="bare"),)))
