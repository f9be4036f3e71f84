"""The command of the theory study goes on where it stopped, and reports on what there is."""

import multiprocessing
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from dphyper.studies.theory import __main__ as command
from dphyper.studies.theory import experiment
from dphyper.studies.theory.points import Point

POINTS = [Point(d=d, k=2, n=64, epsilon=4.0, public_tasks=40, public_size=64) for d in (8, 16, 32)]


def test_finished_points_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"WORLDS": 2, "TASKS": 1, "DRAWS": 1}.items():
        monkeypatch.setattr(experiment, name, value)
    # Threads, not processes, so that these few worlds hold for the workers too.
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: SimpleNamespace(Pool=ThreadPool))
    monkeypatch.setattr(command, "plan_points", lambda: (("d", point) for point in POINTS))
    out, store = tmp_path / "out", tmp_path / "store"

    command.main(out, store, workers=1, limit=1)
    (first,) = store.iterdir()
    assert set(pd.read_parquet(first)["d"]) == {32}, "the largest first"
    written = first.stat().st_mtime_ns

    command.main(out, store, workers=1)
    assert (len([*store.iterdir()]), first.stat().st_mtime_ns) == (3, written)
    runs = pd.read_parquet(out / "runs.parquet")
    assert set(runs["d"]) == {8, 16, 32}
    said = capsys.readouterr().out
    assert f"# Results of the theory sweep: {len(runs)} runs" in said
    assert said.count("runs in the store") == 2
