"""One family for each name, and no row is lost on the way from labels to families."""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dphyper.bench.tasks import Collection
from dphyper.core.specs import DataSpec
from dphyper.datasets._families import by_label
from dphyper.datasets.npz import Npz

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "malad\u00e9s") for form in ("NFC", "NFD"))
SIZES = (40, 40, 2, 40)


def pool(three: Any) -> NDArray[np.uint8]:
    """Families of `SIZES` pictures; the third one's name comes twice in the tests below."""
    return np.concatenate([three.holiday, three.phantoms, three.pictures(6, 2), three.patients])


def labelled(names: list[str], private: str = "patients") -> Callable[[Path, Any], DataSpec]:
    def write(root: Path, three: Any) -> DataSpec:
        np.savez(root / "a.npz", x=pool(three), y=np.repeat(np.arange(4), SIZES), names=np.asarray(names))
        spec: DataSpec = three.spec(f"npz:{root / 'a.npz'}", private=(private,))
        return spec

    return write


def strings(root: Path, three: Any) -> DataSpec:
    labels = np.repeat(["holiday", "phantoms", "patients", " patients"], SIZES)
    np.savez(root / "a.npz", x=pool(three), y=labels)
    spec: DataSpec = three.spec(f"npz:{root / 'a.npz'}")
    return spec


def concepts(root: Path, three: Any) -> DataSpec:
    np.savez(
        root / "a.npz",
        x=pool(three),
        concept_index=np.arange(sum(SIZES)),
        concept_offsets=np.cumsum([0, *SIZES]),
        concept_names=np.asarray(["holiday", "phantoms", "patients", "patients"]),
    )
    spec: DataSpec = three.spec(f"npz:{root / 'a.npz'}")
    return spec


def public_rows(collection: Collection) -> int:
    return len(np.unique(np.concatenate([task.indices for task in collection.select("public")])))


@pytest.mark.parametrize(
    "write_repeated",
    [
        labelled(["holiday", "phantoms", "patients", "patients"]),
        labelled(["holiday", "phantoms", "patients", "patients "]),
        labelled(["holiday", "phantoms", COMPOSED, DECOMPOSED], DECOMPOSED),
        strings,
        concepts,
    ],
    ids=["equal", "space", "Unicode", "text labels", "concepts"],
)
def test_names_that_repeat_make_one_family_and_lose_no_row(
    write_repeated: Callable[[Path, Any], DataSpec], tmp_path: Path, three: Any
) -> None:
    collection = Npz.load(write_repeated(tmp_path, three))
    (task,) = collection.select("private")
    assert len(task) == 42
    assert public_rows(collection) == 40


def test_different_names_stay_different_families(tmp_path: Path, three: Any) -> None:
    collection = Npz.load(labelled(["holiday", "phantoms", "patients", "Patients"], "Patients")(tmp_path, three))
    assert len(collection.task("Patients")) == 40
    assert public_rows(collection) == 42


def test_a_label_without_a_name_is_an_error() -> None:
    assert by_label(np.asarray([0, 1]), ["a", "b"]).keys() == {"a", "b"}
    for labels in ([0, 2], [-1, 0]):
        with pytest.raises(ValueError, match="for 2 names"):
            by_label(np.asarray(labels), ["a", "b"])
