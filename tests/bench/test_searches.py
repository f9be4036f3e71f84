"""How a cell's options came to be: defaults, a recorded search on tuning tasks, or nobody knows."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from dphyper.bench.catalog import METHODS, canonical
from dphyper.bench.searches import RecordedSearch, selection_of
from dphyper.bench.store import SCHEMA, Row, Store
from dphyper.core.errors import UserError
from dphyper.core.specs import Cell


def add(store: Store, options: dict[str, Any], *, split: str = "tuning", method: str = "dp_sgd", seed: int = 0) -> None:
    cell = canonical(Cell(task="t", method=method, options=options, seed=seed))
    values: dict[str, Any] = dict.fromkeys(Row.__required_keys__, "")
    values |= {"schema": SCHEMA, "cell": cell.id, "status": "done", "split": split, "method": method, "sweep": "tune"}
    values |= {"task": "t", "epsilon": 1.0, "n": 128, "seed": seed, "noise_draw": 0, "embedding_dim": 0}
    store.write(cell, Row(**values))  # type: ignore[typeddict-item]


@pytest.fixture
def search(tmp_path: Path) -> Store:
    store = Store(tmp_path / "tune")
    add(store, {"steps": 3})
    add(store, {"steps": 4})
    add(store, {"steps": 4}, seed=1)
    add(store, {"steps": 7}, method="gep")  # one setting is no search
    return store


def label(method: str, options: dict[str, Any], *searches: RecordedSearch, split: str = "private") -> tuple[str, str]:
    return selection_of(METHODS[method], method, options, searches, split=split)


@pytest.mark.parametrize("form", ["folder", "file"])
def test_the_label_follows_from_how_the_options_came_to_be(search: Store, form: str) -> None:
    recorded = RecordedSearch.read(search.root if form == "folder" else search.export())
    assert label("dp_sgd", {}) == ("tuned_public", "")  # its class's
    assert label("public_only", {}) == ("fixed", "")
    assert label("dp_sgd", dataclasses.asdict(METHODS["dp_sgd"].options_type())) == ("tuned_public", "")
    assert label("dp_sgd", {"steps": 3}) == ("unknown", "")
    assert label("dp_sgd", {"steps": 3}, recorded) == ("tuned_public", "tune")
    assert label("dp_sgd", {"steps": 5}, recorded) == ("unknown", "")
    assert label("dp_sgd", {"steps": 3, "l2_clip_norm": 2.0}, recorded) == ("unknown", "")
    assert label("gep", {"steps": 7}, recorded) == ("unknown", "")
    assert label("dp_sgd", {"gone": 3}, recorded) == ("unknown", "")
    assert label("dp_sgd", {"steps": 5}, split="tuning") == ("tuned_public", "")  # a trial itself
    assert label("nonprivate_lora", {"steps": 3}, recorded) == ("non_private", "")
    assert label("dp_sgd_tuned", {"steps": 3}, recorded) == ("tuned_private", "")


def test_what_is_no_search_is_refused(search: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing: name a store's folder or its rows"):
        RecordedSearch.read(tmp_path / "nowhere")
    single = Store(tmp_path / "single")
    add(single, {"steps": 3})
    add(single, {"steps": 3}, seed=1)
    with pytest.raises(UserError, match="has no method with two settings"):
        RecordedSearch.read(single.root)
    add(search, {"steps": 5}, split="private")
    with pytest.raises(UserError, match="has 1 rows on other than tuning tasks, the first of dp_sgd on the private"):
        RecordedSearch.read(search.root)
