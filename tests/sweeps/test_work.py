"""Running a sweep: what an interrupt, a kill, a failed cell or a full disk leaves behind."""

import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from dphyper.bench.store import Store
from dphyper.core.errors import UserError
from dphyper.core.specs import Cell
from dphyper.sweeps import plan, work, worker
from dphyper.sweeps.plan import read_sweep
from dphyper.sweeps.status import record_plan, statuses
from dphyper.sweeps.work import describe, states

SweepFile, Command = Callable[..., Path], Callable[..., int]
TOYS = Path(__file__).with_name("toy.py")


@pytest.fixture
def toys(tmp_path: Path) -> Callable[..., Path]:
    """Write a sweep of toy cells, one for each seed."""

    def write(cells: int, **changes: Any) -> Path:
        grid = [{"seed": list(range(cells))}]
        sweep = {"name": "toys", "wandb": "off", "store": str(tmp_path / "store"), "grid": grid, **changes}
        sweep["cell"] = {"task": "a", "method": "public_only"}
        path = tmp_path / "toys.yaml"
        path.write_text(yaml.safe_dump(sweep))
        return path

    return write


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toy cells in this process and in those that it forks."""
    monkeypatch.setattr(worker, "make_runner", None)  # both are put back after the test
    monkeypatch.setattr(plan, "canonical", None)
    runpy.run_path(str(TOYS))["install"]()
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(work.multiprocessing, "get_context", lambda kind: context)
    monkeypatch.setenv("TOY_SECONDS", "0")


def start(path: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", str(TOYS), "sweep", "run", str(path)],
        start_new_session=True,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A suite that a shell runs in the background would hand down that interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def await_one(running: "subprocess.Popen[str]", root: Path, pattern: str) -> None:
    while not list(root.glob(pattern)):
        assert running.poll() is None, "the sweep ended before that"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("number", "status", "whole_group"),
    [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, False), (signal.SIGHUP, 129, False)],
)
def test_a_signal_gives_back_what_is_in_hand(
    toys: Callable[..., Path], tmp_path: Path, number: int, status: int, whole_group: bool
) -> None:
    path, root = toys(60), tmp_path / "store"
    running = start(path, TOY_SECONDS="0.2")
    await_one(running, root, "cells/*/row.json")
    (os.killpg if whole_group else os.kill)(running.pid, number)
    told, _ = running.communicate()
    assert running.returncode == status, told
    assert f"dphyper: stopped by {signal.Signals(number).name}; finished cells are kept, the same command" in told
    assert "Traceback" not in told, told
    (found,) = statuses(Store(root))
    assert (found.running, found.failed) == ([], {})
    assert 1 <= found.done < 60


def test_a_signal_during_public_work_is_told_too(toys: Callable[..., Path], tmp_path: Path) -> None:
    running = start(toys(2), TOY_SECONDS="60")
    await_one(running, tmp_path / "store", "parts/*")
    running.terminate()
    told, _ = running.communicate()
    assert running.returncode == 143
    assert "stopped by SIGTERM" in told
    assert statuses(Store(tmp_path / "store"))[0].to_do == 2


def test_workers_end_with_the_sweep_that_started_them(toys: Callable[..., Path], tmp_path: Path) -> None:
    running, root = start(toys(60), TOY_SECONDS="0.2"), tmp_path / "store"
    await_one(running, root, "cells/*/row.json")
    running.kill()  # the parent alone, as an out-of-memory killer would
    running.communicate()
    with suppress(ProcessLookupError):  # once the whole group is gone
        while True:
            os.killpg(running.pid, 0)
            time.sleep(0.1)
    assert 1 <= len(Store(root).rows()) < 60


@pytest.mark.usefixtures("in_process")
def test_a_worker_that_dies_is_named_and_replaced_and_a_cell_that_kills_fails(
    toys: Callable[..., Path],
    dphyper: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TOY", json.dumps({"1": "die", "2": "exit"}))
    assert dphyper("sweep", "run", toys(5, performance={"workers": 2})) == 1
    told = capsys.readouterr().out
    assert told.count("was killed by SIGKILL while it ran cell") == 4
    assert told.count("seed 1); another takes its place") == 4
    rows = Store(tmp_path / "store").rows().set_index("seed")
    assert rows["status"].to_dict() == {0: "done", 1: "failed", 2: "failed", 3: "done", 4: "done"}
    assert rows["error"][1] == "WorkerDied: 4 workers died while they ran it, by a crash or for want of memory"
    assert rows["error"][2] == "SystemExit: 0"


@pytest.mark.usefixtures("in_process")
def test_workers_that_cannot_begin_end_the_sweep(
    toys: Callable[..., Path], refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "work", lambda *arguments, **keywords: os._exit(7))
    assert "3 workers in a row ended before they had a cell (ended with status 7)" in refusal("sweep", "run", toys(5))


@pytest.mark.usefixtures("in_process")
def test_a_failed_cell_is_kept_and_run_again_only_on_demand(
    toys: Callable[..., Path],
    dphyper: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, store = toys(3), Store(tmp_path / "store")
    monkeypatch.setenv("TOY", json.dumps({"1": "fail"}))
    assert dphyper("sweep", "run", path) == 1
    assert "2 of 3 cells done, 1 failed" in capsys.readouterr().out
    (found,) = statuses(store)
    assert [*found.failed.values()] == ["AssertionError"]
    monkeypatch.delenv("TOY")
    assert dphyper("sweep", "run", path) == 1
    assert dphyper("sweep", "worker", path) == 0
    assert statuses(store)[0].done == 2
    assert dphyper("sweep", "worker", path, "--retry-failed") == 0
    assert statuses(store)[0].done == 3


@pytest.mark.usefixtures("in_process")
def test_public_work_that_fails_fails_the_cells_that_need_it(
    toys: Callable[..., Path], dphyper: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_PART", "base 2")
    assert dphyper("sweep", "worker", toys(2, grid=[{"embedding_dim": [2, 3], "seed": [0, 1]}])) == 0
    rows = Store(tmp_path / "store").rows()
    assert rows.groupby("embedding_dim")["error"].unique().map(list).to_dict() == {
        2: ["part base 2: AssertionError"],
        3: [""],
    }
    assert (tmp_path / "store" / "parts" / "base 2").read_text().count("\n") == 1  # once, not once for each cell


@pytest.mark.usefixtures("in_process")
def test_a_full_disk_is_no_fault_of_a_cell(
    toys: Callable[..., Path],
    refusal: Callable[..., str],
    dphyper: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = toys(3)
    monkeypatch.setenv("TOY", json.dumps({"1": "full"}))
    assert "the disk cannot be written to (OSError: [Errno 28] No space left" in refusal("sweep", "worker", path)
    (found,) = statuses(Store(tmp_path / "store"))
    assert (found.failed, found.running, found.done + found.to_do) == ({}, [], 3)
    monkeypatch.delenv("TOY")
    assert dphyper("sweep", "worker", path) == 0
    assert statuses(Store(tmp_path / "store"))[0].done == 3


@pytest.mark.usefixtures("in_process")
def test_status_tells_what_is_running_where_and_writes_nothing(
    toys: Callable[..., Path], dphyper: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, (sweep, cells) = tmp_path / "store", read_sweep(str(toys(3)))
    record_plan(sweep, cells)
    queues = worker.Queues(sweep, "host:12-ab")
    with queues.storage.at_work("host:12-ab"):
        claim = queues.cells.claim(cells[0].id, {"method": "public_only", "task": "a"}, cells[0])
        assert claim is not None
        with queues.cells.holding(claim):
            before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
            assert dphyper("status", root) == 0
            assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
            Store(root).directory(cells[0].id).mkdir(parents=True)
            assert dphyper("reset", cells[0].id, "--store", root) == 2
            assert Store(root).directory(cells[0].id).exists()
    told, refused = capsys.readouterr()
    assert f"cell {cells[0].id} is running: stop its sweep first" in refused
    assert "sweep toys: 0 done, 0 failed, 3 to do" in told
    assert f"running {cells[0].id} (public_only on a, epsilon=1, embedding_dim=32, n=128) on host:12-ab since" in told
    assert dphyper("status", tmp_path / "nowhere") == 2


@pytest.mark.usefixtures("in_process")
def test_a_journal_and_slurm_do_not_go_together(toys: Callable[..., Path], tmp_path: Path) -> None:
    from dphyper.sweeps.launchers import submit

    sweep, cells = read_sweep(str(toys(1)))
    with pytest.raises(UserError, match="'journal' serves one host, and SLURM may use several: name a database"):
        submit(sweep, cells)


@pytest.mark.usefixtures("in_process")
def test_a_cluster_s_jobs_are_workers(toys: Callable[..., Path], tmp_path: Path) -> None:
    from dphyper.sweeps.launchers import launch

    sweep, cells = read_sweep(str(toys(4, slurm={"timeout_min": 5})))
    (job,) = launch(sweep, cells, cluster="debug")  # submitit's own, in this process
    assert job.result() == "nothing is left"
    assert statuses(Store(tmp_path / "store"))[0].done == 4
    refused, cells = read_sweep(str(toys(4, slurm={"timeout": 5})))
    with pytest.raises(UserError, match=r"submitit refuses: .*timeout"):
        launch(refused, cells, cluster="debug")


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
def test_a_cell_is_told_in_one_line(row: Mapping[str, Any], said: str) -> None:
    cell = Cell(task="8", method="dp_sgd", epsilon=2.0, embedding_dim=0, seed=1, noise_draw=3)
    assert describe(cell, {"status": "done", "epsilon": 2.0, **row}) == said  # type: ignore[typeddict-item]


def test_states_of_cells_that_never_ran(tmp_path: Path) -> None:
    frame = states([Cell(task="8", seed=seed) for seed in (0, 1)], Store(tmp_path))
    assert frame["state"].tolist() == ["to do", "to do"]
    assert frame["seed"].tolist() == [0, 1]
