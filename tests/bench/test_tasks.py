"""Tasks and collections: splits share nothing, only what is held out is drawn, hashes of content need a key."""

import stat
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dphyper.bench.store import Store
from dphyper.bench.tasks import Collection, Task
from dphyper.core.errors import UserError

Images = NDArray[np.uint8]


def pictures() -> Images:
    return np.random.default_rng(7).integers(0, 256, (9, 8, 8, 1), np.uint8)


def toy(records: Images) -> Collection:
    tasks = (
        Task(id="a", family="a", split="public", indices=np.arange(3)),
        Task(id="b", family="b", split="tuning", indices=np.arange(3, 6)),
        Task(id="c", family="c", split="private", indices=np.arange(6, 9)),
        Task(id="cluster2/000", family="cluster2/000", split="public", indices=np.arange(3), kind="cluster"),
    )
    return Collection(name="toy", records=records, tasks=tasks)


def test_a_provenance_is_told_by_nobody_without_the_key(tmp_path: Path) -> None:
    records = pictures()
    collection, shuffled = toy(records), toy(records[[0, 1, 2, 3, 4, 5, 8, 6, 7]])
    changed = toy(np.concatenate([records[:8], records[8:] + 1]))
    key = Store(tmp_path).key()
    assert collection.provenance("c", key) == shuffled.provenance("c", key)
    assert collection.provenance("c", key) != changed.provenance("c", key)
    assert collection.provenance("c", key) != collection.provenance("c", Store(tmp_path / "other").key())
    assert len(key) == 32
    assert Store(tmp_path).key() == key
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    with pytest.raises(ValueError, match=r"key .* is empty"):
        collection.provenance("c", b"")


def test_only_what_is_held_out_is_drawn() -> None:
    collection = toy(pictures())
    assert len(collection.draw("b", 2, 0).records) == len(collection.draw("c", 2, 0).records) == 2
    with pytest.raises(
        UserError, match=r"public: .* expected one of 'b' \(tuning\), 'c' \(private\), or name its family in"
    ):
        collection.draw("a", 2, 0)
    with pytest.raises(UserError, match=r"expected one of 'b' \(tuning\), 'c' \(private\)$"):
        collection.draw("cluster2/000", 2, 0)


def test_a_draw_and_its_reference_are_the_whole_task_and_share_nothing() -> None:
    collection = toy(pictures())
    draw, again, other = (collection.draw("c", 2, seed) for seed in (0, 0, 1))
    assert np.array_equal(draw.records, again.records)
    assert not np.array_equal(draw.records, other.records)
    both = np.concatenate([draw.records, draw.reference])
    assert {image.tobytes() for image in both} == {image.tobytes() for image in pictures()[6:]}
    with pytest.raises(UserError, match="n = 3 records asked of task 'c', which has 3"):
        collection.draw("c", 3, 0)
    with pytest.raises(UserError, match="unknown task 'cc': did you mean 'c'"):
        collection.draw("cc", 2, 0)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"a": ("public", [0]), "b": ("private", [0])}, "record 0 .* lies in the public task 'a' and in the private"),
        ({"a": ("public", [0]), "b": ("private", [1])}, "record 1 .* lies in the public task 'a' and in the private"),
        ({"a": ("public", [0]), "b": ("private", [])}, "task 'b' .* has no record"),
        ({"a": ("public", [0])}, "has no private task"),
        ({"b": ("private", [2])}, "has no public task"),
    ],
)
def test_what_is_no_collection_is_refused(tasks: dict[str, tuple[str, list[int]]], message: str) -> None:
    records = pictures()
    records[1] = records[0]  # the same content in another row

    def make(given: dict[str, tuple[str, list[int]]]) -> Collection:
        made = [
            Task(id=name, family=name, split=split, indices=np.array(rows, int))  # type: ignore[arg-type]
            for name, (split, rows) in given.items()
        ]
        return Collection(name="toy", records=records, tasks=tuple(made))

    with pytest.raises(UserError, match=message):
        make(tasks)
    assert make({"a": ("public", [0]), "b": ("private", [2])}).select("private")[0].id == "b"


def test_two_tasks_of_one_name_are_refused() -> None:
    task = Task(id="a", family="a", split="public", indices=np.arange(2))
    with pytest.raises(UserError, match="has the task id 'a' twice"):
        Collection(name="toy", records=pictures(), tasks=(task, task))


def test_private_records_do_not_enter_the_public_fingerprint() -> None:
    records = pictures()
    before = toy(records).public_fingerprint
    private, public = records.copy(), records.copy()
    private[7] += 1
    public[1] += 1
    assert toy(private).public_fingerprint == before
    assert toy(public).public_fingerprint != before
