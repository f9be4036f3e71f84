"""Running a sweep: what an interrupt, a kill or a failed cell leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dphyper.bench.store import Store
from dphyper.core.specs import Cell
from dphyper.sweeps.work import describe, states

SweepFile, Command = Callable[..., Path], Callable[..., int]
COMMAND = [sys.executable, "-W", "ignore", "-c", "from dphyper.cli.main import main; main()"]


def test_interrupt_keeps_finished_cells(sweep_file: SweepFile, dphyper: Command, tmp_path: Path) -> None:
    # Many cells: the sweep must not be over before a busy machine lets this test send its signal.
    path = sweep_file(grid=[{"method": ["dp_sgd"], "epsilon": list(range(1, 61))}])
    store = Store(tmp_path / "store")
    running = subprocess.Popen(
        [*COMMAND, "sweep", "run", str(path)],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        # A suite that a shell runs in the background would hand down that interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    while not list(store.root.glob("cells/*/row.json")):
        assert running.poll() is None, "the sweep ended before its first row"
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate()
    assert running.returncode == 130
    assert "Traceback" not in errors
    assert "finished cells are kept" in errors


def test_workers_end_with_the_sweep_that_started_them(sweep_file: SweepFile, dphyper: Command, tmp_path: Path) -> None:
    path, store = sweep_file(grid=[{"method": ["dp_sgd"], "epsilon": list(range(1, 61))}]), Store(tmp_path / "store")
    running = subprocess.Popen([*COMMAND, "sweep", "run", str(path)], start_new_session=True)
    while not list(store.root.glob("cells/*/row.json")):
        assert running.poll() is None, "the sweep ended before its first row"
        time.sleep(0.1)
    running.kill()  # the parent alone, as an out-of-memory killer would
    running.wait()
    with suppress(ProcessLookupError):  # once the whole group is gone
        while True:
            os.killpg(running.pid, 0)
            time.sleep(0.1)
    assert 1 <= len(store.rows()) < 60


def test_failed_cell_is_a_row_and_is_retried(sweep_file: SweepFile, dphyper: Command, tmp_path: Path) -> None:
    grid = [{"method": ["public_only"], "seed": [0, 1]}]
    path, store = sweep_file(grid=grid), Store(tmp_path / "store")
    assert dphyper("sweep", "run", path) == 0
    cell_id = store.rows()["cell"][0]
    row = store.directory(cell_id) / "row.json"
    failed = {k: v for k, v in json.loads(row.read_text()).items() if k != "metrics"} | {
        "status": "failed",
        "error": "x",
    }
    row.write_text(json.dumps(failed))
    assert store.status(cell_id) == "failed"
    assert dphyper("sweep", "run", path) == 0
    assert set(store.rows()["status"]) == {"done"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"status": "failed", "error": "ValueError: no"},
            "dp_sgd on 8, n=128, ε=2, draw 3, seed 1: FAILED, ValueError: no",
        ),
        (
            {"extractor": "inception", "metrics": {"frechet": 12.34}, "seconds_adapt": 1.0, "seconds_evaluate": 2.0},
            "dp_sgd on 8, n=128, ε=2, draw 3, seed 1: FID 12.3 in 3 s",
        ),
    ],
)
def test_a_cell_is_told_in_one_line(row: dict[str, Any], said: str) -> None:
    cell = Cell(task="8", method="dp_sgd", epsilon=2.0, embedding_dim=0, seed=1, noise_draw=3)
    assert describe(cell, {"status": "done", "epsilon": 2.0, **row}) == said  # type: ignore[typeddict-item]


def test_states_of_cells_that_never_ran(tmp_path: Path) -> None:
    frame = states([Cell(task="8", seed=seed) for seed in (0, 1)], Store(tmp_path))
    assert frame["state"].tolist() == ["to do", "to do"]
    assert frame["seed"].tolist() == [0, 1]
