"""One worker of a sweep: it claims cells and runs them until none is left.

All workers are alike, wherever they run and whoever started them. Public work that several cells need is claimed like a
cell: one worker does it, while the others run what does not need it. A worker without work waits while others have some
in hand, since theirs becomes free when they die. A cell that fails is a row with its error; so is every cell whose
public work fails, and one that takes its worker down again and again. A full disk is the machine's fault and no cell's:
the cell is given back, and the worker ends.
"""

import dataclasses
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dphyper.bench.store import Row, Store
from dphyper.core.errors import UserError, disk_is_full, in_one_line
from dphyper.core.specs import Cell, Performance
from dphyper.sweeps.plan import Sweep
from dphyper.sweeps.queue import MAX_DEATHS, PART, Claim, Queue, new_token, public_study_name, study_name, worker_name
from dphyper.sweeps.storage import Storage, open_storage

if TYPE_CHECKING:
    from dphyper.bench.public_work import PublicPart
    from dphyper.bench.runner import Runner
    from dphyper.bench.searches import RecordedSearch
    from dphyper.sweeps.trials import Agenda

_POLL = 0.5  # seconds between two looks at what others do, of a worker without work


def make_runner(sweep: Sweep, store: Store, performance: Performance) -> "Runner":
    """What runs the cells of a sweep into a store.

    Raises:
        UserError: A recorded search that cannot be read.
    """
    from dphyper.bench.runner import Runner
    from dphyper.bench.tracking import Tracking

    tracking = Tracking(sweep.wandb, store.root, sweep.name)
    return Runner(store, performance, tracking, sweep.name, recorded_searches(sweep))


def recorded_searches(sweep: Sweep) -> "list[RecordedSearch]":
    """The searches that options of a sweep may come from, as far as they are through.

    Raises:
        UserError: One that cannot be read.
    """
    from dphyper.bench.searches import RecordedSearch

    recorded = [RecordedSearch.read(path) for path in sweep.searches]
    return recorded + [RecordedSearch.of(c.method, c.options, c.search) for c in sweep.choices()]


def check(runner: "Runner", cells: Sequence[Cell], agenda: "Agenda | None") -> None:
    """Find the user's mistakes before anything is computed.

    Raises:
        UserError: There is one.
    """
    if agenda is None:
        runner.check(cells)
    else:
        runner.check(agenda.examples(), agenda.judges())


def agenda_of(sweep: Sweep) -> "Agenda | None":
    """What a sweep with searches has to do; None for one whose cells are all known."""
    if not sweep.search:
        return None
    from dphyper.sweeps.trials import Agenda

    return Agenda(sweep)


class Queues:
    """The two studies of a sweep in a store: its cells, and the public work that these share.

    Args:
        sweep: Whose queues they are.
        worker: Who claims in them.
        since: Lengths of both at the beginning of the run; by default it begins now.
    """

    def __init__(self, sweep: Sweep, worker: str, since: tuple[int | None, int | None] = (None, None)) -> None:
        store = Store(sweep.store_path)
        self.storage: Storage = open_storage(sweep.storage, store.root, sweep.performance.grace)
        self.cells = Queue(self.storage, study_name(sweep.name, store), worker, since=since[0])
        self.public = Queue(self.storage, public_study_name(sweep.name, store), worker, since=since[1])

    @property
    def lengths(self) -> tuple[int, int]:
        """How many trials have begun in each."""
        return self.cells.length, self.public.length

    def sync(self) -> None:
        """Learn what others did."""
        self.cells.sync()
        self.public.sync()

    def bury(self) -> None:
        """Close the claims of workers that died."""
        self.cells.bury()
        self.public.bury()

    def give_back(self) -> None:
        """Free what this worker has in hand still."""
        self.cells.give_back()
        self.public.give_back()

    def release(self, worker: str, death: str) -> list[str]:
        """Close what a worker that is known to be dead had in hand; the items."""
        return [*self.cells.release(worker, death), *self.public.release(worker, death)]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def threads_of_a_worker(performance: Performance) -> int:
    """Torch threads for cells."""
    return performance.threads or max(cores() // performance.workers, 1)


def work(
    sweep: Sweep,
    cells: Sequence[Cell],
    *,
    retry_failed: bool = False,
    checked: bool = False,
    token: str = "",
    since: tuple[int | None, int | None] = (None, None),
    wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Claim and run cells until none is left.

    Args:
        sweep: Store, storage, performance.
        cells: What there is to do.
        retry_failed: Whether cells that failed in a former run are run again.
        checked: Whether somebody has looked for the user's mistakes already.
        token: Tells this worker from a later process of its number; see `dphyper.sweeps.queue.worker_name`.
        since: Lengths of the queues when the run began, where it began before this worker.
        wanted: Asked before each claim; the worker ends when it says no.

    Raises:
        UserError: A mistake in the sweep, a storage that cannot be reached, or a disk that cannot be written to.
        Stopped: A signal asked it to end; the cell in hand was given back.
    """
    store = Store(sweep.store_path)
    performance = dataclasses.replace(sweep.performance, threads=threads_of_a_worker(sweep.performance))
    runner = make_runner(sweep, store, performance)
    if not checked:
        check(runner, cells, agenda_of(sweep))
    name = worker_name(os.getpid(), token or new_token())
    queues = Queues(sweep, name, since)
    with queues.storage.at_work(name):
        worker = _Worker(runner, store, queues, cells, sweep, retry_failed=retry_failed)
        try:
            while wanted() and worker.step():
                pass
        except Exception as error:
            if disk_is_full(error):
                raise UserError(
                    f"the disk cannot be written to ({in_one_line(error)}): make room, the same command goes on"
                ) from error
            raise
        finally:
            queues.give_back()


class _Worker:
    """What a worker knows."""

    def __init__(
        self,
        runner: "Runner",
        store: Store,
        queues: Queues,
        cells: Sequence[Cell],
        sweep: Sweep,
        *,
        retry_failed: bool,
    ) -> None:
        self._runner, self._store, self._queues = runner, store, queues
        # Mostly the others wait for it, as for the base model.
        self._threads_for_public_work = sweep.performance.threads or cores()
        self._sweep, self._agenda, self._known = sweep, agenda_of(sweep), -1
        self._final = {"done"} if retry_failed else {"done", "failed"}
        self._left = {cell.id: cell for cell in cells if store.status(cell.id) not in self._final}
        self._parts: dict[str, list[PublicPart]] = {}  # by configuration
        self._needed: dict[str, list[PublicPart]] = {}  # by cell
        self._looked = -math.inf

    def step(self) -> bool:
        """Do one thing, or wait a little; False when nothing is left."""
        queues = self._queues
        if time.monotonic() - self._looked > queues.storage.patience:
            queues.bury()
            self._looked = time.monotonic()
        self._choose()  # what has to be built to choose is built while nobody waits for this worker's turn
        with queues.storage.turn():
            queues.sync()
            for cell_id in [*queues.cells.done, *queues.cells.errors]:
                self._left.pop(cell_id, None)
            do = self._claim(self._choose())
        do()
        more = self._learn()
        return bool(self._left) or more

    def _learn(self) -> bool:
        """Take up the cells that searches have come to ask for; whether they will ask for more."""
        if self._agenda is None:
            return False
        ended = len(self._queues.cells.done) + len(self._queues.cells.errors)
        if ended != self._known or not self._left:
            self._known = ended
            new = self._agenda.look()
            self._runner.searches = recorded_searches(self._sweep)
            self._left |= {cell.id: cell for cell in new if self._store.status(cell.id) not in self._final}
        return self._agenda.open

    def _claim(self, chosen: "Cell | PublicPart | None") -> Callable[[], None]:
        """Claim what was chosen; what to do then."""
        if chosen is None:
            return lambda: time.sleep(_POLL if self._left or self._agenda else 0)
        if isinstance(chosen, Cell):
            about = {"method": chosen.method, "task": chosen.task}
            claim = self._queues.cells.claim(chosen.id, about, chosen)
            return lambda: self._run(chosen, claim) if claim else None
        claim = self._queues.public.claim(chosen.key, {PART: chosen.name})
        return lambda: self._make(chosen, claim) if claim else None

    def _choose(self) -> "Cell | PublicPart | None":
        """The first cell that nobody runs and whose public work is there, or public work that nobody does."""
        public = self._queues.public
        for cell_id, cell in self._left.items():
            if cell_id in self._queues.cells.running:
                continue
            part = next((part for part in self._needs(cell_id, cell) if part.key not in public.done), None)
            if part is None or part.key in public.errors:
                return cell
            if part.key not in public.running:
                return part
        return None

    def _needs(self, cell_id: str, cell: Cell) -> "list[PublicPart]":
        if cell_id not in self._needed:
            key = cell.public_configuration
            if key not in self._parts:
                try:
                    self._parts[key] = self._runner.public.parts(cell)
                except Exception:  # the cell will say so when it runs
                    self._parts[key] = []
            self._needed[cell_id] = self._parts[key]
        return self._needed[cell_id]

    def _make(self, part: "PublicPart", claim: Claim) -> None:
        """Do public work; an error is kept for the cells that need it."""
        queue = self._queues.public
        with queue.holding(claim):
            if claim.deaths >= MAX_DEATHS:
                queue.fail(claim, _deadly(claim))
                return
            try:
                seconds = self._runner.make(part, threads=self._threads_for_public_work)
            except Exception as error:
                if disk_is_full(error):
                    raise
                logging.getLogger(__name__).exception("%s failed", part.name)
                queue.fail(claim, f"{part.name}: {in_one_line(error)}")
            else:
                queue.complete(claim, seconds)

    def _run(self, cell: Cell, claim: Claim) -> None:
        queue = self._queues.cells
        with queue.holding(claim):
            row = self._row(cell, claim)
            if row["status"] == "done":
                queue.complete(claim, row["metrics"]["frechet"])
            else:
                queue.fail(claim, row["error"])

    def _row(self, cell: Cell, claim: Claim) -> Row:
        """The row of a claimed cell: one that is there already, or the outcome of running it."""
        if self._store.status(cell.id) in self._final:
            return self._store.row(cell.id)
        if claim.deaths >= MAX_DEATHS:
            return self._runner.failed(cell, _deadly(claim))
        errors = self._queues.public.errors
        for part in self._needs(cell.id, cell):
            if part.key in errors:
                return self._runner.failed(cell, errors[part.key])
        try:
            return self._runner.run(cell)
        except (Exception, SystemExit) as error:
            if disk_is_full(error):
                raise
            return self._runner.failed(cell, in_one_line(error))


def _deadly(claim: Claim) -> str:
    return f"WorkerDied: {claim.deaths} workers died while they ran it, by a crash or for want of memory"
