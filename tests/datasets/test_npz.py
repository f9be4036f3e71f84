"""NumPy archives in each layout, further archives, and names that repeat."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dphyper.core.errors import UserError
from dphyper.core.specs import DataSpec
from dphyper.datasets.npz import Npz

IMAGES = np.random.default_rng(0).integers(0, 256, (180, 8, 8), np.uint8)
LABELS = np.repeat(np.arange(6), 30)


def small(source: str, **changes: Any) -> DataSpec:
    return DataSpec(**{"source": source, "image_size": 8, "cluster_sizes": (10,), "min_task_size": 5, **changes})


def test_concepts_may_overlap_and_an_image_goes_to_the_most_closed_split(tmp_path: Path, digits: Any) -> None:
    lists = [np.arange(0, 40), np.arange(30, 70), np.arange(60, 100), np.arange(90, 130), np.arange(85, 92)]
    np.savez(
        tmp_path / "c.npz",
        x=digits.images,
        concept_index=np.concatenate(lists),
        concept_offsets=np.cumsum([0, *map(len, lists)]),
        concept_names=np.asarray(["a", "b", "c", "d", "e"]),
    )
    spec = small(f"npz:{tmp_path / 'c.npz'}", tuning=("b",), private=("c", "d"))
    sizes = {task.id: len(task) for task in Npz.load(spec).tasks if not task.id.startswith("cluster")}
    assert sizes == {"a": 30, "b": 30, "c": 30, "d": 30}  # c and d drop what they share, e is all theirs
    clustered = [task for task in Npz.load(spec).select("public") if task.id.startswith("cluster")]
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
    collection = Npz.load(small(f"npz:{source}", private=("2", "pens.b", "rays.1"), tuning=("1",)))
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
        Npz.load(small(f"npz:{source}", private=("pens.d",)))


def archives(root: Path, three: Any) -> DataSpec:
    """One archive of two families, and two archives of one stem, with 40 and 2 images of one family."""
    (root / "b").mkdir()
    np.savez(root / "a.npz", x=np.concatenate([three.holiday, three.phantoms]), y=np.repeat([0, 1], 40))
    for path, images in ((root / "c.npz", three.patients), (root / "b" / "c.npz", three.pictures(6, 2))):
        np.savez(path, x=images, y=np.zeros(len(images), np.int64))
    source = "+".join(str(root / name) for name in ("a.npz", "c.npz", "b/c.npz"))
    spec: DataSpec = three.spec(f"npz:{source}", private=("c.0",), tuning=("1",))
    return spec


def test_archives_of_one_stem_make_one_family_and_lose_no_row(tmp_path: Path, three: Any) -> None:
    collection = Npz.load(archives(tmp_path, three))
    (task,) = collection.select("private")
    assert len(task) == 42
    assert len(np.unique(np.concatenate([task.indices for task in collection.select("public")]))) == 40


def test_development_families_of_further_archives_need_not_be_held_out(tmp_path: Path, three: Any) -> None:
    spec = archives(tmp_path, three)
    np.savez(tmp_path / "d.npz", x=three.pictures(9), y=np.repeat([0, 1], 20))
    spec = replace(spec, source=f"{spec.source}+{tmp_path / 'd.npz'}", development=("c.0", "d.1"))
    assert [task.id for task in Npz.load(spec).tasks if task.development] == ["c.0"]
    with pytest.raises(UserError, match=r"unknown family 'd.2'"):
        Npz.load(replace(spec, development=("d.2",)))


@pytest.mark.parametrize("name", ["a+b.npz", "a#b.npz", "a+b#c.npz"])
def test_a_path_may_hold_plus_and_hash(name: str, tmp_path: Path) -> None:
    np.savez(tmp_path / name, x=IMAGES, other=LABELS, y=LABELS % 4)
    np.savez(tmp_path / "far.npz", x=255 - IMAGES, y=LABELS)
    plain = Npz.load(small(f"npz:{tmp_path / name}"))
    assert {task.family for task in plain.tasks if task.kind == "family"} == {"0", "1", "2", "3"}
    spec = small(f"npz:{tmp_path / name}#other+{tmp_path / 'far.npz'}", private=("5", "far.0"))
    assert {task.id for task in Npz.load(spec).select("private")} == {"5", "far.0"}


def bad_file(name: str, content: bytes) -> Callable[[Path, Any], DataSpec]:
    def write(root: Path, _: Any) -> DataSpec:
        (root / name).write_bytes(content)
        return small(f"{Path(name).suffix[1:]}:{root / name}")

    return write


def bad_npz(**arrays: NDArray[Any]) -> Callable[[Path, Any], DataSpec]:
    def write(root: Path, _: Any) -> DataSpec:
        np.savez(root / "a.npz", allow_pickle=True, **arrays)
        return small(f"npz:{root / 'a.npz'}")

    return write


BAD: dict[str, tuple[Callable[..., DataSpec], str]] = {
    "missing": (lambda root, write: small(f"npz:{root / 'none.npz'}"), "a file that exists"),
    "corrupt": (bad_file("a.npz", b"no archive"), "expected an .npz archive of plain arrays"),
    "pickled": (bad_npz(x=np.asarray([{}])), "expected an .npz archive of plain arrays"),
    "without x": (bad_npz(images=IMAGES, y=LABELS), "only the keys images, y: expected 'x'"),
    "of floats": (bad_npz(x=IMAGES / 255, y=LABELS), "has float64 .* expected 'x' as uint8"),
    "empty": (bad_npz(x=IMAGES[:0], y=LABELS[:0]), "has no image .* expected at least one"),
    "without an array": (bad_npz(), r"only the keys \(none\): expected 'x'|only the keys .*: expected 'x'"),
    "of MedMNIST without labels": (bad_npz(train_images=IMAGES), "train_images.*: expected 'train_labels' too"),
    "of MedMNIST with two sizes": (
        bad_npz(train_images=IMAGES, test_images=IMAGES[:, 1:], train_labels=LABELS, test_labels=LABELS),
        "its images do not go together",
    ),
    "without labels": (bad_npz(x=IMAGES), "expected either 'y'"),
    "with too few labels": (bad_npz(x=IMAGES, y=LABELS[:5]), "5 labels for 180 images"),
    "with too few names": (bad_npz(x=IMAGES, y=LABELS, names=np.asarray(["a"])), "from 0 to 5: .* the 1 'names'"),
    "with bad concepts": (
        bad_npz(
            x=IMAGES,
            concept_index=np.arange(10),
            concept_offsets=np.asarray([0, 5, 11]),
            concept_names=np.asarray(["a", "b"]),
        ),
        "its concepts disagree",
    ),
    "with falling concepts": (
        bad_npz(
            x=IMAGES,
            concept_index=np.arange(10),
            concept_offsets=np.asarray([3, 2, 10]),
            concept_names=np.asarray(["a", "b"]),
        ),
        "rising from 0 to the length",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str, tmp_path: Path, write: Any) -> None:
    make, message = BAD[case]
    with pytest.raises(UserError, match=message) as caught:
        Npz.load(make(tmp_path, write))
    assert "\n" not in str(caught.value)
