"""Every registered source passes every check of what a collection must keep, and the number of checks is asserted.

A source that joins the registry needs one line in ``conftest.py``, which writes small data for it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from dphyper.bench.catalog import DATASETS
from dphyper.bench.tasks import Collection
from dphyper.core.specs import DataSpec


def check_records_have_the_size_and_type_asked_for(spec: DataSpec, collection: Collection) -> None:
    records = collection.records
    assert records.dtype == np.uint8
    assert records.shape[1:] == (spec.image_size, spec.image_size, spec.channels)
    assert records.max() > 200
    assert collection.licence


def check_no_two_splits_share_an_image(spec: DataSpec, collection: Collection) -> None:
    contents = {
        split: {collection.records[row].tobytes() for task in collection.tasks if task.split == split
                for row in (*task.indices, *task.reference)}
        for split in ("public", "tuning", "private")
    }  # fmt: skip
    assert all(contents.values())
    assert not contents["public"] & (contents["tuning"] | contents["private"])
    assert not contents["tuning"] & contents["private"]


def check_held_out_tasks_never_repeat_an_image(spec: DataSpec, collection: Collection) -> None:
    for task in collection.tasks:
        if task.split != "public":
            rows = np.concatenate([task.indices, task.reference])
            assert len({collection.records[row].tobytes() for row in rows}) == len(rows)


def check_public_tasks_are_large_enough_and_come_from_families_and_clusters(
    spec: DataSpec, collection: Collection
) -> None:
    public = collection.select("public")
    assert all(len(task) >= spec.min_task_size for task in public)
    assert all(not len(task.reference) for task in public)
    clusters = {task.id for task in public if task.id.startswith("cluster")}
    assert clusters == {task.id for task in public if task.kind == "cluster"}
    assert clusters
    assert len(public) > len(clusters)


def fingerprints(collection: Collection) -> dict[str, str]:
    held_out = [task.id for task in collection.tasks if task.split != "public"]
    return {task_id: collection.provenance(task_id, b"key") for task_id in held_out} | {
        "public": collection.public_fingerprint
    }


def check_two_loads_are_equal(spec: DataSpec, collection: Collection) -> None:
    if spec.scheme != "glyphs":  # they are loaded in another process instead, in test_glyphs.py
        assert fingerprints(DATASETS[spec.scheme].load(spec)) == fingerprints(collection)


CHECKS = [value for key, value in sorted(globals().items()) if key.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", sorted(DATASETS))
def test_contract(
    name: str, check: Callable[[DataSpec, Collection], None], load_once: Callable[[str], tuple[DataSpec, Collection]]
) -> None:
    check(*load_once(name))


def test_number_of_checks(write: Mapping[str, Any]) -> None:
    assert len(CHECKS) == 5, "the contract suite lost checks"
    assert len(DATASETS) >= 10, "the contract suite lost sources"
    assert set(write) == set(DATASETS), "a source without small data in conftest.py"


def test_contract_catches_a_collection_that_keeps_no_promise(
    load_once: Callable[[str], tuple[DataSpec, Collection]],
) -> None:
    """The suite can fail: another size than was asked for, and a public task that is too small."""
    spec, collection = load_once("digits8")
    check_records_have_the_size_and_type_asked_for(spec, collection)
    check_public_tasks_are_large_enough_and_come_from_families_and_clusters(spec, collection)
    other = DataSpec(source="digits8", image_size=9, min_task_size=10_000)
    with pytest.raises(AssertionError):
        check_records_have_the_size_and_type_asked_for(other, collection)
    with pytest.raises(AssertionError):
        check_public_tasks_are_large_enough_and_come_from_families_and_clusters(other, collection)
