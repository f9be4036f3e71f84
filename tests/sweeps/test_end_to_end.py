"""The main path on the 8×8 digits: plan, sweep, kill, resume, merge, report; and what the rows then say."""

import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from dphyper.audits.store_check import check_store
from dphyper.bench.catalog import METHODS
from dphyper.bench.store import Store

SweepFile, Command = Callable[..., Path], Callable[..., int]
COMMAND = [sys.executable, "-W", "ignore", "-c", "from dphyper.cli.main import main; main()"]
TUNING = "5"  # of digits8
MEASURED_TIMES = ["seconds_public", "seconds_adapt", "seconds_evaluate"]


def test_plan_sweep_kill_resume_report(
    sweep_file: SweepFile, dphyper: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = [{"method": ["public_only", "dp_sgd", "nonprivate_lora"], "epsilon": [1, 8]}]
    path = sweep_file(wandb="offline", grid=grid, cell={"protocol": {"num_images": 8}})
    store = Store(tmp_path / "store")
    assert dphyper("sweep", "plan", path) == 0
    assert "4 cells: 4 to do" in capsys.readouterr().out  # 3 methods x 2 epsilon, unused axes collapsed
    assert not store.root.exists()

    # Kill the whole process group once the first row is there: a crash, not an orderly end.
    running = subprocess.Popen([*COMMAND, "sweep", "run", str(path)], start_new_session=True)
    while not list(store.root.glob("cells/*/row.json")):
        assert running.poll() is None, "the sweep ended before its first row"
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    finished = {p: p.stat().st_mtime_ns for p in store.root.glob("cells/*/row.json")}
    assert 1 <= len(finished) < 4

    assert dphyper("sweep", "run", path) == 0
    assert all(p.stat().st_mtime_ns == before for p, before in finished.items()), "a finished cell ran again"
    capsys.readouterr()
    assert dphyper("sweep", "plan", path) == 0
    assert "4 cells: 4 done" in capsys.readouterr().out
    rows = store.rows()
    assert len(rows) == 4
    assert set(rows["status"]) == {"done"}
    assert len(pd.read_parquet(store.root / "rows.parquet")) == 4
    assert len(list(store.root.glob("wandb/offline-run-*"))) >= 4

    # The rows alone carry a sweep to another machine: spec, ledger and every number, but no samples.
    assert dphyper("merge", store.root / "rows.parquet", "--store", tmp_path / "elsewhere") == 0
    assert "4 rows" in capsys.readouterr().out
    elsewhere = Store(tmp_path / "elsewhere")
    pd.testing.assert_frame_equal(elsewhere.rows(), rows)
    assert check_store(elsewhere) == check_store(store)
    assert dphyper("merge", store.root / "rows.parquet", "--store", tmp_path / "elsewhere") == 0
    assert "0 rows" in capsys.readouterr().out
    frame = pd.read_parquet(store.root / "rows.parquet")
    frame.assign(spec=frame["spec"].str.replace('"seed": 0', '"seed": 1')).to_parquet(tmp_path / "edited.parquet")
    assert dphyper("merge", tmp_path / "edited.parquet", "--store", tmp_path / "other") == 0
    told = capsys.readouterr()
    assert "0 rows" in told.out
    assert told.err.count("is left out: its spec is that of another cell, or was edited") == 4
    assert dphyper("merge", path, "--store", tmp_path / "other") == 2
    assert "expected the rows.parquet" in capsys.readouterr().err

    everything = {p: p.stat().st_mtime_ns for p in store.root.glob("cells/*/row.json")}
    assert dphyper("sweep", "run", path) == 0
    assert everything == {p: p.stat().st_mtime_ns for p in store.root.glob("cells/*/row.json")}

    assert dphyper("report", "--store", store.root) == 0
    written = {p.name for p in (store.root / "report").rglob("*")}
    assert {"index.html", "samples_8.png"} <= written
    assert {Path(name).suffix for name in written if Path(name).stem.endswith("_vs_epsilon")} == {".pdf", ".png"}


# The name of the sweep, what the store's own key makes, the commit, and hashes that cover these.
UNLIKE = ("sweep", "provenance", "commit", "digest", "ledger_digest")


def test_same_sweep_twice_gives_the_same_rows(sweep_file: SweepFile, dphyper: Command, tmp_path: Path) -> None:
    tables, provenance = [], []
    grid = [{"method": ["public_only", "hypernetwork", "dp_sgd", "nonprivate_lora"], "epsilon": [8]}]
    for name in ("first", "second"):
        # Private caches: the public phases are trained twice, too.
        performance, store = {"cache": str(tmp_path / name / "cache")}, str(tmp_path / name)
        path = sweep_file(name=name, store=store, performance=performance, grid=grid)
        assert dphyper("sweep", "run", path) == 0
        tables.append(Store(tmp_path / name).rows().drop(columns=[*MEASURED_TIMES, *UNLIKE]))
        provenance.append(Store(tmp_path / name).rows()["provenance"])
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert provenance[0].nunique() == 1  # of one task in one store
    assert not set(provenance[0]) & set(provenance[1])  # each under its store's own key
    assert not tables[0]["private"].any()  # reproducible noise protects nobody


def test_options_of_a_recorded_search_are_labelled_so_and_others_unknown(
    sweep_file: SweepFile, dphyper: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = sweep_file(
        name="search", store=str(tmp_path / "search"), options={}, cell={"task": TUNING, "n": 32},
        grid=[{"method": ["dp_sgd"], "epsilon": [8], "options.steps": [2, 3], "options.multiplicity": [1]}],
    )  # fmt: skip
    assert dphyper("sweep", "run", search) == 0
    assert {*Store(tmp_path / "search").rows()["selection"]} == {"tuned_public"}
    path = sweep_file(
        options={}, searches=[str(tmp_path / "search")],
        grid=[{"method": ["dp_sgd"], "epsilon": [8], "options.steps": [3, 4], "options.multiplicity": [1]}],
    )  # fmt: skip
    assert dphyper("sweep", "run", path) == 0
    store = Store(tmp_path / "store")
    steps = [store.cell(cell).options["steps"] for cell in store.rows()["cell"]]
    rows = store.rows().assign(steps=steps).set_index("steps")
    assert rows["selection"].to_dict() == {3: "tuned_public", 4: "unknown"}
    assert rows["search"].to_dict() == {3: "search", 4: ""}
    assert {*rows["harness"]} == {importlib.metadata.version("dphyper")}
    assert any("2 settings ran on this private task" in line for line in check_store(store))
    capsys.readouterr()
    assert dphyper("sweep", "plan", sweep_file(searches=[str(tmp_path / "store")])) == 2
    assert "has 2 rows on other than tuning tasks" in capsys.readouterr().err


def test_every_method_goes_through_the_harness(sweep_file: SweepFile, dphyper: Command, tmp_path: Path) -> None:
    """Public phase, cache, adaptation, samples, row: with the options that make each quick, and no row failed."""
    options = {name: dict(METHODS[name].quick_options) for name in METHODS}
    path = sweep_file(grid=[{"method": sorted(METHODS), "epsilon": [2]}], options=options, cell={"n": 32})
    assert dphyper("sweep", "run", path) == 0
    rows = Store(tmp_path / "store").rows().set_index("method")
    assert sorted(rows.index) == sorted(METHODS)
    assert rows["frechet"].notna().all()
    assert check_store(Store(tmp_path / "store")) == []
    assert rows.loc["hypernetwork", "embedding_shift"] > 0
    assert rows.loc["nonprivate_full", "parameters"] > rows.loc["nonprivate_lora", "parameters"]
    assert (rows.loc[rows["private"] & (rows["role"] == "method"), "epsilon_spent"] > 1.9).all()
