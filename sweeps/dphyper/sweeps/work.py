"""Running a sweep: public phases first, with all cores, then N worker processes that pull cells.

Ctrl-C and kills lose at most the cells in progress; starting again goes on. Every finished cell is printed as one
line; a terminal also gets a progress bar.
"""

import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd
from filelock import Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dphyper.bench.runner import Runner
from dphyper.bench.searches import RecordedSearch
from dphyper.bench.store import Row, Store
from dphyper.bench.tracking import Tracking
from dphyper.core.errors import UserError
from dphyper.core.specs import Cell, Performance
from dphyper.metrics.metric import METRICS
from dphyper.sweeps.plan import Sweep
from dphyper.sweeps.queue import Queue


def states(cells: list[Cell], store: Store) -> pd.DataFrame:
    """One line for each cell of a plan, with its state in the store."""
    columns = ["method", "task", "n", "epsilon", "embedding_dim", "seed", "noise_draw"]
    frame = pd.DataFrame([{name: getattr(cell, name) for name in columns} for cell in cells])
    frame.insert(0, "state", [store.status(cell.id) for cell in cells])
    frame.insert(0, "cell", [cell.id for cell in cells])
    return frame


def run_sweep(sweep: Sweep, cells: list[Cell]) -> int:
    """Run every cell that is not done.

    Returns:
        How many cells of the plan have no finished row afterwards.

    Raises:
        UserError: A mistake in the sweep, found before anything is computed.
        KeyboardInterrupt: The user stopped it; finished cells are kept.
    """
    store = Store(sweep.store_path)
    store.require_current()
    searches = [RecordedSearch.read(path) for path in sweep.searches]
    console = Console(highlight=False)
    missing = [cell for cell in cells if store.status(cell.id) != "done"]
    console.print(f"sweep {sweep.name}: {len(cells)} cells, {len(cells) - len(missing)} done, into {store.root}")
    if missing:
        tracking = Tracking(sweep.wandb, store.root, sweep.name)
        runner = Runner(store, sweep.performance, tracking, sweep.name, searches)
        runner.check(missing)
        runner.public.prepare(missing)
        queue = Queue(store, sweep.name, cells)
        queue.fill(missing)
        with _workers(sweep, cells, searches, min(sweep.performance.workers, len(missing))) as workers:
            _follow(workers, store, missing, console)
        tracking.table(store)
        store.export()
    left = sum(store.status(cell.id) != "done" for cell in cells)
    console.print(f"sweep {sweep.name}: {len(cells) - left} of {len(cells)} cells done")
    return left


@contextmanager
def _workers(
    sweep: Sweep, cells: list[Cell], searches: list[RecordedSearch], count: int
) -> Iterator[list[multiprocessing.process.BaseProcess]]:
    """``count`` worker processes for a plan of cells; they are ended when the block is left."""
    context = multiprocessing.get_context("spawn")
    threads = sweep.performance.threads or max((os.cpu_count() or 1) // count, 1)
    plain = [cell.to_dict() for cell in cells]
    performance = vars(sweep.performance) | {"threads": threads}
    arguments = (sweep.name, sweep.store_path, sweep.wandb, performance, plain, searches)
    workers: list[multiprocessing.process.BaseProcess] = []
    # A child's OpenMP runtime reads this when it is loaded; more threads than cores would slow each other down.
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        for _ in range(count):
            workers.append(context.Process(target=_work, args=arguments))
            workers[-1].start()
        yield workers
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _follow(
    workers: list[multiprocessing.process.BaseProcess], store: Store, cells: list[Cell], console: Console
) -> None:
    """Print each cell when its row appears, until all workers have ended."""
    began = time.time()
    open_cells = {cell.id: cell for cell in cells}
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
        alive = True
        while alive:
            alive = any(worker.is_alive() for worker in workers)
            for cell_id in list(open_cells):
                path = store.directory(cell_id) / "row.json"
                if path.exists() and path.stat().st_mtime >= began:
                    cell = open_cells.pop(cell_id)
                    line = f"[{len(cells) - len(open_cells)}/{len(cells)}] {describe(cell, store.row(cell_id))}"
                    console.print(line, markup=False, soft_wrap=True)
                    bar.advance(progress)
            if alive:
                time.sleep(0.5)


def describe(cell: Cell, row: Row) -> str:
    """One line about a finished or failed cell."""
    where = f"{cell.method} on {cell.task}, n={cell.n}"
    if row["epsilon"] < float("inf"):
        where += f", ε={cell.epsilon:g}"
    if cell.embedding_dim:
        where += f", k={cell.embedding_dim}"
    if cell.noise_draw:
        where += f", draw {cell.noise_draw}"
    if row["status"] == "failed":
        return f"{where}, seed {cell.seed}: FAILED, {row['error']}"
    took = f" in {row['seconds_adapt'] + row['seconds_evaluate']:.0f} s" if "seconds_adapt" in row else ""
    label, distance = METRICS["frechet"].label_on(row["extractor"]), row["metrics"]["frechet"]
    return f"{where}, seed {cell.seed}: {label} {distance:.1f}{took}"


def _work(
    name: str,
    store_path: str,
    wandb: Any,
    performance: Mapping[str, Any],
    plain: list[Mapping[str, Any]],
    searches: list[RecordedSearch],
) -> None:
    """A worker: pull cells until the queue is empty or the parent process is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    store = Store(store_path)
    plan = [*map(Cell.from_dict, plain)]
    queue = Queue(store, name, plan)
    cells = {cell.id: cell for cell in plan}
    runner = Runner(store, Performance(**performance), Tracking(wandb, store.root, name), name, searches)
    try:
        while parent.is_alive() and (taken := queue.take()):
            trial, cell_id = taken
            try:
                with store.lock(cell_id):
                    row = runner.run(cells[cell_id]) if store.status(cell_id) != "done" else store.row(cell_id)
            except (Timeout, UserError) as error:
                print(f"cell {cell_id}: {error}", flush=True)
                queue.failed(trial)
                continue
            if row["status"] == "done":
                queue.done(trial, row["metrics"]["frechet"])
            else:
                queue.failed(trial)
    except KeyboardInterrupt:
        pass  # the parent says what was kept
