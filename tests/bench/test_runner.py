"""The runner: a failure is a row, and private images are shown only where that is allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dphyper.bench.catalog import METHODS
from dphyper.bench.runner import Runner
from dphyper.bench.store import Store
from dphyper.bench.tracking import Tracking
from dphyper.sweeps.plan import read_sweep

SweepFile = Callable[..., Path]
TUNING = "5"  # of digits8


def test_an_exception_without_a_text_is_a_failed_cell(
    sweep_file: SweepFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any, **keywords: Any) -> None:
        raise ValueError

    path = sweep_file(grid=[{"method": ["public_only"]}])
    sweep, (cell,) = read_sweep(str(path))
    runner = Runner(Store(tmp_path / "store"), sweep.performance, Tracking("off", tmp_path, "x"), "x")
    monkeypatch.setattr(METHODS["public_only"], "adapt", fails)
    row = runner.run(cell)
    assert (row["status"], row["error"]) == ("failed", "ValueError")


@pytest.mark.parametrize(("task", "show", "shown"), [("8", False, False), ("8", True, True), (TUNING, False, True)])
def test_private_images_are_shown_only_where_that_is_allowed(
    sweep_file: SweepFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    show: bool,
    shown: bool,
) -> None:
    data = {"source": "digits8", "image_size": 8, "cluster_sizes": [60], "show_reference": show}
    path = sweep_file(grid=[{"method": ["public_only"]}], cell={"data": data, "task": task})
    sweep, (cell,) = read_sweep(str(path))
    runner = Runner(Store(tmp_path / "store"), sweep.performance, Tracking("off", tmp_path, "x"), "x")
    # Of digits, which are anyone's, the source says that they may be shown; here it does not.
    object.__setattr__(runner.public.collection(cell.data), "show_reference", False)
    row = runner.run(cell)
    assert (runner.store.directory(row["cell"]) / "reference.png").exists() is shown
    assert ("sheet of reference images" in row["statement"]) is shown
