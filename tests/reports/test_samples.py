"""Which sample grids are shown, and under which title."""

import math
from pathlib import Path

from toy_store import add, only

from dphyper.bench.store import Store
from dphyper.core.specs import Cell
from dphyper.reports.samples import strips


def test_samples_of_the_first_seed_stand_in_strips_and_missing_files_are_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = add(store, Cell(task="kettle", epsilon=1.0), "private", 9.0)
    add(store, Cell(task="kettle", epsilon=1.0, seed=1), "private", 1.0)
    lost = add(store, Cell(task="kettle", epsilon=4.0), "private", 9.0)
    public = add(store, Cell(task="kettle", method="public_only", epsilon=math.inf), "private", 9.0)
    (store.directory(lost.id) / "samples.png").unlink()
    without, own = strips(store, only(store), "kettle")
    assert without.title == "Without ε"
    assert without.samples == [("Public only (fixed)", store.directory(public.id) / "samples.png")]
    assert own.samples == [("ε = 1", store.directory(first.id) / "samples.png")]
    reference = store.directory(first.id) / "reference.png"
    reference.touch()
    assert strips(store, only(store), "kettle")[0].samples[0] == ("Real images (reference)", reference)
