"""The main path on the 8×8 digits: plan, sweep, kill, resume, report; and what a user may do wrong on the way."""

import importlib.metadata
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dphyper.audits.store_check import check_store
from dphyper.bench.catalog import METHODS
from dphyper.bench.runner import Runner
from dphyper.bench.store import Store
from dphyper.bench.tracking import Tracking
from dphyper.cli.main import main, read_sweep
from dphyper.core.specs import Cell
from dphyper.sweeps.queue import Queue

SweepFile = Callable[..., Path]
COMMAND = [sys.executable, "-W", "ignore", "-c", "from dphyper.cli.main import main; main()"]
TUNING = "5"  # of digits8
MEASURED_TIMES = ["seconds_public", "seconds_adapt", "seconds_evaluate"]


def dphyper(*arguments: str | Path) -> int:
    """Run a command in this process and return its exit status."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


def test_plan_sweep_kill_resume_report(
    sweep_file: SweepFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, store = sweep_file(wandb="offline"), Store(tmp_path / "store")
    assert dphyper("sweep", "plan", path) == 0
    assert "6 cells: 6 to do" in capsys.readouterr().out  # 4 methods x 2 epsilon, unused axes collapsed
    assert not store.root.exists()

    # Kill the whole process group once the first row is there: a crash, not an orderly end.
    running = subprocess.Popen([*COMMAND, "sweep", "run", str(path)], start_new_session=True)
    while not list(store.root.glob("cells/*/row.json")):
        assert running.poll() is None, "the sweep ended before its first row"
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    finished = {p: p.stat().st_mtime_ns for p in store.root.glob("cells/*/row.json")}
    assert 1 <= len(finished) < 6

    assert dphyper("sweep", "run", path) == 0
    assert all(p.stat().st_mtime_ns == before for p, before in finished.items()), "a finished cell ran again"
    capsys.readouterr()
    assert dphyper("sweep", "plan", path) == 0
    assert "6 cells: 6 done" in capsys.readouterr().out
    rows = store.rows()
    assert len(rows) == 6
    assert set(rows["status"]) == {"done"}
    assert len(pd.read_parquet(store.root / "rows.parquet")) == 6
    assert len(list(store.root.glob("wandb/offline-run-*"))) >= 6

    # The rows alone carry a sweep to another machine: spec, ledger and every number, but no samples.
    assert dphyper("merge", store.root / "rows.parquet", "--store", tmp_path / "elsewhere") == 0
    assert "6 rows" in capsys.readouterr().out
    elsewhere = Store(tmp_path / "elsewhere")
    pd.testing.assert_frame_equal(elsewhere.rows(), rows)
    assert check_store(elsewhere) == check_store(store)
    assert dphyper("merge", store.root / "rows.parquet", "--store", tmp_path / "elsewhere") == 0
    assert "0 rows" in capsys.readouterr().out
    frame = pd.read_parquet(store.root / "rows.parquet")
    frame.assign(spec=frame["spec"].str.replace('"seed": 0', '"seed": 1')).to_parquet(tmp_path / "edited.parquet")
    assert dphyper("merge", tmp_path / "edited.parquet", "--store", tmp_path / "other") == 2
    assert "it was edited" in capsys.readouterr().err
    assert dphyper("merge", path, "--store", tmp_path / "other") == 2
    assert "expected the rows.parquet" in capsys.readouterr().err

    everything = {p: p.stat().st_mtime_ns for p in store.root.glob("cells/*/row.json")}
    assert dphyper("sweep", "run", path) == 0
    assert everything == {p: p.stat().st_mtime_ns for p in store.root.glob("cells/*/row.json")}

    assert dphyper("report", "--store", store.root) == 0
    written = {p.name for p in (store.root / "report").rglob("*")}
    assert {"index.html", "fid_vs_epsilon.pdf", "fid_vs_epsilon.png", "samples_8.png"} <= written


def test_interrupt_keeps_finished_cells(sweep_file: SweepFile, tmp_path: Path) -> None:
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


def test_workers_end_with_the_sweep_that_started_them(sweep_file: SweepFile, tmp_path: Path) -> None:
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


def test_parts_of_a_sweep_side_by_side_never_take_each_others_cells(tmp_path: Path) -> None:
    store, (first, second) = Store(tmp_path), [Cell(task="0", method="dp_sgd", seed=seed) for seed in (1, 2)]
    plans = ([first], [second], [first, second])
    queues = [Queue(store, "parts", plan) for plan in plans]
    for queue, plan in zip(queues, plans, strict=True):
        queue.fill(plan)
    for queue, plan in zip(queues, plans, strict=True):
        twin = Queue(store, "parts", plan[::-1])  # a second run of the same part shares its queue
        taken = [twin.take(), *(queue.take() for _ in plan)]
        assert [entry[1] if entry else None for entry in taken] == [*(cell.id for cell in plan), None]


def test_same_sweep_twice_gives_the_same_rows(sweep_file: SweepFile, tmp_path: Path) -> None:
    tables, provenance = [], []
    for name in ("first", "second"):
        # Private caches: the public phases are trained twice, too.
        path = sweep_file(name=name, store=str(tmp_path / name), performance={"cache": str(tmp_path / name / "cache")})
        assert dphyper("sweep", "run", path) == 0
        tables.append(Store(tmp_path / name).rows().drop(columns=[*MEASURED_TIMES, "sweep", "provenance", "commit"]))
        provenance.append(Store(tmp_path / name).rows()["provenance"])
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert provenance[0].nunique() == 1  # of one task in one store
    assert not set(provenance[0]) & set(provenance[1])  # each under its store's own key
    assert not tables[0]["private"].any()  # reproducible noise protects nobody


def test_os_noise_differs_between_runs(sweep_file: SweepFile, tmp_path: Path) -> None:
    distances: dict[str, list[float]] = {"public_only": [], "hypernetwork": []}
    for name in ("first", "second"):
        cell = {"reproducible_noise": False, "epsilon": 1}
        path = sweep_file(name=name, store=str(tmp_path / name), cell=cell, grid=[{"method": list(distances)}])
        assert dphyper("sweep", "run", path) == 0
        for row in Store(tmp_path / name).rows().itertuples():
            distances[row.method].append(row.denoising_loss)
            assert row.private
    assert distances["public_only"][0] == distances["public_only"][1]
    assert distances["hypernetwork"][0] != distances["hypernetwork"][1]


def test_releases_on_a_grid_are_what_the_ledger_says(sweep_file: SweepFile, tmp_path: Path) -> None:
    cell = {"reproducible_noise": False, "epsilon": 1}
    assert dphyper("sweep", "run", sweep_file(cell=cell, grid=[{"method": ["hypernetwork", "dp_sgd"]}])) == 0
    store = Store(tmp_path / "store")
    rows = store.rows()
    assert len(rows) == 2
    for row in rows.itertuples():
        ledger = json.loads((store.directory(row.cell) / "ledger.json").read_text())
        assert ledger["noise"] == {"source": "os", "sampler": "rounded"}
        assert "rounded to a grid that the noise covers" in row.statement
    assert rows["private"].all()


def test_options_of_a_recorded_search_are_labelled_so_and_others_unknown(
    sweep_file: SweepFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
    object.__setattr__(runner.collection(cell.data), "show_reference", False)
    row = runner.run(cell)
    assert (runner.store.directory(row["cell"]) / "reference.png").exists() is shown
    assert ("sheet of reference images" in row["statement"]) is shown


def test_a_private_method_without_a_budget_claims_nothing(sweep_file: SweepFile, tmp_path: Path) -> None:
    cell = {"reproducible_noise": False, "epsilon": math.inf}
    assert dphyper("sweep", "run", sweep_file(cell=cell, grid=[{"method": ["dp_sgd", "public_only"]}])) == 0
    rows = Store(tmp_path / "store").rows().set_index("method")
    assert rows["private"].to_dict() == {"dp_sgd": False, "public_only": True}
    assert rows["statement"]["dp_sgd"].startswith("No privacy guarantee: private records were used without noise")


def test_failed_cell_is_a_row_and_is_retried(sweep_file: SweepFile, tmp_path: Path) -> None:
    grid = [{"method": ["public_only"], "seed": [0, 1]}]
    path, store = sweep_file(grid=grid), Store(tmp_path / "store")
    assert dphyper("sweep", "run", path) == 0
    cell_id = store.rows()["cell"][0]
    row = store.directory(cell_id) / "row.json"
    failed = {k: v for k, v in json.loads(row.read_text()).items() if k != "fid"} | {"status": "failed", "error": "x"}
    row.write_text(json.dumps(failed))
    assert store.status(cell_id) == "failed"
    assert dphyper("sweep", "run", path) == 0
    assert set(store.rows()["status"]) == {"done"}


def test_every_method_goes_through_the_harness(sweep_file: SweepFile, tmp_path: Path) -> None:
    """Public phase, cache, adaptation, samples, row: with options that make each quick, and no row failed."""
    few = {"steps": 2, "multiplicity": 1}
    guided = {**few, "public_tasks": 4, "public_images": 2}
    space = {**guided, "basis_size": 2}
    fit = {"fit_steps": 2, "fit_batch_size": 8}
    phase = {"train_steps": 4, "tasks": 4, "query": 2, "probe_tasks": 8, "probe_records": 4, "probe_multiplicity": 1}
    network = {"train_steps": 4, "tasks": 4, "support": 32, "query": 2, "width": 16, "nested": "2, 4"}
    matched, warm = {**fit, "public_images": 64}, {**few, **fit}
    quick: list[tuple[str, dict[str, Any]]] = [
        ("dp_sgd nonprivate_lora nonprivate_full", few),
        ("pda_dpmd adadps dope_sgd rgp", guided),
        ("pdp_sgd gep b_gep", space),
        ("pazo", {**space, "probes": 2}),
        ("pe_sgd", {**few, "synthetic_images": 4, "synthetic_draws": 1}),
        ("dp_sgd_tuned", {**few, "mean_trials": 1.5, "score_draws": 1}),
        ("dpagg", {"code_draws": 1, "public_tasks": 2, "public_images": 4, "query_images": 4}),
        ("private_evolution", {**fit, "population": 8, "votes": 2}),
        ("dp_mepf dp_merf", matched),
        ("privimage dp_feta", warm),
        ("subspace_dp_sgd", {**phase, **few}),
        ("subspace_one_shot", phase),
        ("hypernetwork hypernetwork_sigma0 public_mean", network),
    ]
    options = {name: dict(values) for names, values in quick for name in names.split()}
    path = sweep_file(grid=[{"method": sorted(METHODS), "epsilon": [2]}], options=options, cell={"n": 32})
    assert dphyper("sweep", "run", path) == 0
    rows = Store(tmp_path / "store").rows().set_index("method")
    assert sorted(rows.index) == sorted(METHODS)
    assert rows["fid"].notna().all()
    assert check_store(Store(tmp_path / "store")) == []
    assert rows.loc["hypernetwork", "embedding_shift"] > 0
    assert rows.loc["nonprivate_full", "parameters"] > 10 * rows.loc["nonprivate_lora", "parameters"]
    assert (rows.loc[rows["private"] & (rows["role"] == "method"), "epsilon_spent"] > 1.9).all()
