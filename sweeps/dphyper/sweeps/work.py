"""Running a sweep on this machine: N local workers, each line as its cell is done, and a worker for one that died.

Workers may run elsewhere on the same sweep at the same time; their cells are told here too. A worker that dies is named
with what killed it and what it had in hand, which becomes free at once, and another takes its place. Ctrl-C, SIGTERM
and SIGHUP give back the cells in hand; a kill of this process lets its workers finish them and end.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dphyper.bench.store import Row, Store
from dphyper.core.errors import UserError
from dphyper.core.specs import Cell
from dphyper.core.stopping import Stopped, stoppable
from dphyper.metrics.metric import METRICS
from dphyper.sweeps import worker
from dphyper.sweeps.plan import Sweep
from dphyper.sweeps.queue import new_token, worker_name
from dphyper.sweeps.status import record_plan
from dphyper.sweeps.storage import LOST_LEASE
from dphyper.sweeps.worker import Queues, agenda_of, threads_of_a_worker, work

if TYPE_CHECKING:
    from dphyper.sweeps.trials import Agenda

_LOOK = 0.5  # seconds between two looks at what has ended
_MAX_BARREN = 3  # workers in a row that die with nothing in hand: another would, too
_TO_GIVE_BACK = 30  # seconds for a worker that was told to stop


def states(cells: list[Cell], store: Store) -> pd.DataFrame:
    """One line for each cell of a plan, with its state in the store."""
    columns = ["method", "task", "n", "epsilon", "embedding_dim", "seed", "noise_draw"]
    frame = pd.DataFrame([{name: getattr(cell, name) for name in columns} for cell in cells])
    frame.insert(0, "state", [store.status(cell.id) for cell in cells])
    frame.insert(0, "cell", [cell.id for cell in cells])
    return frame


def run_sweep(
    sweep: Sweep, cells: Sequence[Cell], report: Callable[[Store], Path], *, retry_failed: bool = False
) -> int:
    """Run every cell that has no row, and with ``retry_failed`` those that failed.

    Args:
        sweep: What to run.
        cells: Of its grid, as far as they are known.
        report: Makes a folder with the report of a store, which W&B keeps where it is on.
        retry_failed: Whether failed cells are run again.

    Returns:
        How many cells of the plan are not done afterwards.

    Raises:
        UserError: A mistake in the sweep, found before anything is computed, or workers that die at their start.
        Stopped: A signal asked it to end; finished cells are kept.
    """
    store = Store(sweep.store_path)
    store.require_current()
    console = Console(highlight=False)
    agenda = agenda_of(sweep)
    final = {"done"} if retry_failed else {"done", "failed"}
    missing = [cell for cell in cells if store.status(cell.id) not in final]
    done = sum(store.status(cell.id) == "done" for cell in cells)
    console.print(f"sweep {sweep.name}: {len(cells)} cells{' so far' * bool(agenda)}, {done} done, into {store.root}")
    if missing or agenda:
        runner = worker.make_runner(sweep, store, sweep.performance)
        worker.check(runner, missing, agenda)
        if agenda:
            missing = [cell for cell in agenda.look() if store.status(cell.id) not in final]
            cells = [*agenda.cells.values()]
        record_plan(sweep, cells)
        queues = Queues(sweep, worker_name(os.getpid(), new_token()))
        count = sweep.performance.workers if agenda else min(sweep.performance.workers, len(missing))
        with _Crew(sweep, missing, queues, retry_failed=retry_failed, console=console) as crew:
            crew.start(count)
            _follow(sweep, crew, queues, store, missing, console, agenda)
        runner.tracking.table(store, lambda: report(store))
        store.export()
    if agenda:
        agenda.look()
        cells = [*agenda.cells.values()]
        for line in agenda.lines():
            console.print(line, markup=False, soft_wrap=True)
    states = {cell.id: store.status(cell.id) for cell in cells}
    done, failed = (sum(state == name for state in states.values()) for name in ("done", "failed"))
    console.print(f"sweep {sweep.name}: {done} of {len(cells)} cells done" + f", {failed} failed" * bool(failed))
    if failed:
        console.print("failed cells are kept; with --retry-failed they are run again", soft_wrap=True)
    waiting = agenda.waiting if agenda else 0
    if waiting:
        console.print(f"{waiting} cells wait for the choice of a search that came to none", soft_wrap=True)
    return len(cells) - done + waiting


class _Crew:
    """Local workers, which are replaced when they die and told to stop when the block is left.

    Args:
        sweep: Theirs.
        cells: What there is to do.
        queues: To close what a dead worker had in hand.
        retry_failed: As in `work`.
        console: Where deaths are told.
    """

    def __init__(
        self, sweep: Sweep, cells: Sequence[Cell], queues: Queues, *, retry_failed: bool, console: Console
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._cells, self._queues, self._console = {cell.id: cell for cell in cells}, queues, console
        self._arguments = (sweep, [cell.to_dict() for cell in cells], retry_failed, queues.lengths)
        self._threads = str(threads_of_a_worker(sweep.performance))
        self._workers: list[tuple[BaseProcess, str]] = []
        self._barren = 0

    def start(self, count: int) -> None:
        """Start so many workers."""
        openmp = {"OMP_NUM_THREADS": self._threads, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
        with _environment(openmp), _unheard(signal.SIGINT, signal.SIGHUP):
            for _ in range(count):
                token = new_token()
                process = self._context.Process(target=_local_worker, args=(*self._arguments, token))
                process.start()
                self._workers.append((process, worker_name(process.pid or 0, token)))

    def know(self, cells: Sequence[Cell]) -> None:
        """Take note of more cells, so that deaths with one in hand are told in words."""
        self._cells |= {cell.id: cell for cell in cells}

    def look(self) -> bool:
        """Wait a little, replace who died; False when all have ended in order."""
        wait([process.sentinel for process, _ in self._workers], timeout=_LOOK)
        for process, name in list(self._workers):
            if process.exitcode is None:
                continue
            self._workers.remove((process, name))
            how = _how(process.exitcode)
            held = self._queues.release(name, how)
            if process.exitcode == 0 and not held:
                continue  # nothing was left for it
            what = ", ".join(self._told(item) for item in held)
            self._console.print(
                f"worker {name} {how}" + (f" while it ran {what}" if what else " with nothing in hand")
                + "; another takes its place", markup=False, soft_wrap=True,
            )  # fmt: skip
            self._barren = 0 if held else self._barren + 1
            if self._barren >= _MAX_BARREN:
                raise UserError(
                    f"{self._barren} workers in a row ended before they had a cell ({how}): see above for why"
                )
            self.start(1)
        return bool(self._workers)

    def _told(self, item: str) -> str:
        cell = self._cells.get(item)
        return f"cell {item} ({place(cell)}, seed {cell.seed})" if cell else item

    def __enter__(self) -> "_Crew":
        return self

    def __exit__(self, *unused: object) -> None:
        for process, _ in self._workers:
            process.terminate()
        for process, name in self._workers:
            process.join(_TO_GIVE_BACK)
            if process.exitcode is None:
                process.kill()
                process.join()
                self._queues.release(name, "was told to stop and did not")


def _how(exitcode: int) -> str:
    """How a process ended, in words.

    >>> _how(-9), _how(-11), _how(3)
    ('was killed by SIGKILL', 'was killed by SIGSEGV', 'ended with status 3')
    """
    if exitcode == LOST_LEASE:
        return "lost contact with the storage"
    return f"was killed by {signal.Signals(-exitcode).name}" if exitcode < 0 else f"ended with status {exitcode}"


def _local_worker(
    sweep: Sweep, plain: Sequence[dict[str, Any]], retry_failed: bool, since: tuple[int, int], token: str
) -> None:
    """A worker that ends with the process that started it, once its cell is done."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    try:
        with stoppable():
            cells = [*map(Cell.from_dict, plain)]
            work(
                sweep,
                cells,
                retry_failed=retry_failed,
                checked=True,
                token=token,
                since=since,
                wanted=parent.is_alive,
            )
    except Stopped as stopped:
        sys.exit(stopped.status)
    except UserError as error:
        print(f"dphyper: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


@contextmanager
def _unheard(*numbers: signal.Signals) -> Iterator[None]:
    """Processes that are started in the block never hear these; a terminal sends them to all, and this one passes on.

    What comes meanwhile this process hears afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables for the processes that are started in the block; OpenMP reads its own when it is loaded.

    Threads that wait sleep: two processes of two threads on two cores take five times as long where they spin.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _follow(
    sweep: Sweep,
    crew: _Crew,
    queues: Queues,
    store: Store,
    cells: Sequence[Cell],
    console: Console,
    agenda: "Agenda | None",
) -> None:
    """Tell each cell when it has ended, whoever ran it, until all local workers are through."""
    left = {cell.id: cell for cell in cells}
    total = len(left)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        progress = bar.add_task("cells", total=len(cells))
        working = True
        while working:
            working = crew.look()
            queues.sync()
            if agenda and agenda.open:
                new = agenda.look()
                left |= {cell.id: cell for cell in new}
                total += len(new)
                bar.update(progress, total=total)
                if new:
                    crew.know(new)
                    record_plan(sweep, [*agenda.cells.values()])
            for cell_id in [*queues.cells.done, *queues.cells.errors]:
                # The row of another host may take a moment to be seen here.
                if cell_id not in left or store.status(cell_id) == "to do":
                    continue
                cell = left.pop(cell_id)
                line = f"[{total - len(left)}/{total}] {describe(cell, store.row(cell_id))}"
                console.print(line, markup=False, soft_wrap=True)
                bar.advance(progress)


def place(cell: Cell) -> str:
    """Where a cell stands in the grid, but for its seed."""
    where = f"{cell.method} on {cell.task}, n={cell.n}"
    if cell.epsilon < float("inf"):
        where += f", ε={cell.epsilon:g}"
    if cell.embedding_dim:
        where += f", k={cell.embedding_dim}"
    return where + f", draw {cell.noise_draw}" * bool(cell.noise_draw)


def describe(cell: Cell, row: Row) -> str:
    """One line about a finished or failed cell."""
    where = place(cell)
    if row["status"] == "failed":
        return f"{where}, seed {cell.seed}: FAILED, {row['error']}"
    took = f" in {row['seconds_adapt'] + row['seconds_evaluate']:.0f} s" if "seconds_adapt" in row else ""
    label, distance = METRICS["frechet"].label_on(row["extractor"]), row["metrics"]["frechet"]
    return f"{where}, seed {cell.seed}: {label} {distance:.1f}{took}"
