"""The queue of a sweep: an Optuna study whose waiting trials are cells.

Cells are enqueued once, by id, and identical worker processes pull them. The store decides what is finished; the queue
only hands out work. A worker that dies releases the lock that it held on its cell, so that the cell is handed out
again. The storage is a journal file, which is sound for many processes on one host.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState

from dphyper.bench.store import Store
from dphyper.core.specs import Cell, content_hash

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Queue:
    """The study of one plan in one store.

    Args:
        store: Holds the journal file ``queue.log`` and the truth about cells.
        name: Name of the sweep.
        plan: All cells of the sweep. Runs of the same plan share a queue. Any other selection of cells has its own,
            so that no worker is handed a cell that it does not know.
    """

    def __init__(self, store: Store, name: str, plan: Sequence[Cell]) -> None:
        self.store = store
        store.root.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(store.root / "queue.lock")
        storage = JournalStorage(JournalFileBackend(str(Path(store.root / "queue.log"))))
        with self._lock:
            study = f"{name} {content_hash(sorted(cell.id for cell in plan))}"
            self.study = optuna.create_study(study_name=study, storage=storage, load_if_exists=True)

    def fill(self, cells: Sequence[Cell]) -> None:
        """Enqueue every cell that is not done, being run, or waiting; take back what dead workers left."""
        with self._lock:
            waiting = set()
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING)):
                cell_id = trial.user_attrs.get("cell", "")
                if trial.state == TrialState.WAITING:
                    waiting.add(cell_id)
                elif not self.store.is_running(cell_id):
                    self.study.tell(trial.number, state=TrialState.FAIL)
            for cell in cells:
                open_ = self.store.status(cell.id) != "done" and not self.store.is_running(cell.id)
                if open_ and cell.id not in waiting:
                    axes: dict[str, float] = {"embedding_dim": cell.embedding_dim}
                    if math.isfinite(cell.epsilon):
                        axes["epsilon"] = cell.epsilon
                    names = {"cell": cell.id, "method": cell.method, "task": cell.task, "axes": list(axes)}
                    self.study.enqueue_trial(axes, user_attrs=names)

    def take(self) -> tuple[optuna.Trial, str] | None:
        """The next trial and the id of its cell; None when nothing waits."""
        with self._lock:
            if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                return None
            trial = self.study.ask()
        # Enqueued axes become parameters of the trial, and thus visible to optuna-dashboard, when suggested.
        trial.suggest_int("embedding_dim", 0, 1 << 20)
        if "epsilon" in trial.user_attrs["axes"]:
            trial.suggest_float("epsilon", 1e-6, 1e6, log=True)
        return trial, trial.user_attrs["cell"]

    def done(self, trial: optuna.Trial, value: float) -> None:
        """Close a trial with the distance that its cell reached."""
        self.study.tell(trial, value)

    def failed(self, trial: optuna.Trial) -> None:
        """Close a trial whose cell failed; the next run of the sweep enqueues it again."""
        self.study.tell(trial, state=TrialState.FAIL)
