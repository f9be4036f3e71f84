"""Claims on the work of a sweep: an Optuna study that any number of workers share.

What there is to do, the sweep file says; what is done, the store. The study says who is at work on what, and what came
of it. A claim is a running trial. The storage numbers trials, and of several running ones for one item only the first
counts, so that an item is never in two hands. A claim whose worker died is closed, and the item can be claimed again. A
trial that is complete was done; one that failed has the item's error, or lost its worker; a pruned one was given back.

Nothing waits in the study: the cost of a claim does not grow with the number of items that are left.
"""

import os
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from dphyper.bench.store import Store
from dphyper.core.specs import Cell, content_hash
from dphyper.sweeps.storage import ERROR, WORKER, Storage

# Attributes of a trial: what was claimed, and what its worker died of; public work has a name for people.
ITEM, DEATH, PART = "item", "death", "part"
# So often a cell may take its worker down before it counts as failed; Spark's spark.task.maxFailures.
MAX_DEATHS = 4
# Axes of a cell that optuna-dashboard shows as parameters.
_AXES: dict[str, BaseDistribution] = {
    "epsilon": FloatDistribution(1e-300, 1e300, log=True),
    "embedding_dim": IntDistribution(0, 1 << 20),
    "n": IntDistribution(1, 1 << 30),
    "seed": IntDistribution(0, 1 << 62),
}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An item in hand.

    Attributes:
        item: Its id.
        trial: The trial's id in the storage.
        deaths: Workers that have died with the item in hand, one after another.
    """

    item: str
    trial: int
    deaths: int


class Queue:
    """One study, as one process sees it.

    Args:
        storage: Where it lies.
        study: Its name.
        worker: Who claims here; see `worker_name`.
        since: Number of the first trial whose end counts as of this run; by default all before now are history.

    Attributes:
        errors: Items that failed in this run to the first line of their error.
        done: Items that were done in this run.
        running: Items to the trial that counts.
    """

    def __init__(self, storage: Storage, study: str, worker: str, *, since: int | None = None) -> None:
        self.worker = worker
        self._storage, self._study = storage, storage.study(study)
        self._since = since
        self._seen = 0
        self._running: list[FrozenTrial] = []
        self._deaths: Counter[str] = Counter()
        self.errors: dict[str, str] = {}
        self.done: set[str] = set()
        self.running: dict[str, FrozenTrial] = {}
        self.sync()

    @property
    def length(self) -> int:
        """How many trials have begun: the number of the next."""
        return self._seen

    def sync(self) -> None:
        """Learn what others did."""
        trials = self._storage.trials(self._study)
        if self._since is None:
            self._since = len(trials)
        running = []
        followed = {trial.number for trial in self._running}
        for trial in [trials[number] for number in sorted(followed)] + trials[self._seen :]:
            if not trial.state.is_finished():
                running.append(trial)
                continue
            if trial.state == TrialState.PRUNED:
                continue
            item, error = trial.user_attrs[ITEM], trial.user_attrs.get(ERROR)
            died = trial.state == TrialState.FAIL and error is None
            self._deaths[item] = self._deaths[item] + 1 if died else 0
            if trial.number < self._since and trial.number not in followed:
                continue
            if trial.state == TrialState.COMPLETE:
                self.done.add(item)
            elif error is not None:
                self.errors[item] = error
        self._seen, self._running = len(trials), running
        self.running = {}
        for trial in running:
            self.running.setdefault(trial.user_attrs[ITEM], trial)

    def bury(self) -> None:
        """Close the claims of workers that died."""
        self._storage.bury(self._study, [trial for trial in self._running if trial.user_attrs[WORKER] != self.worker])
        self.sync()

    def give_back(self) -> None:
        """Free what this worker has in hand, as after a signal between a claim and its work."""
        self.sync()
        for trial in self._running:
            if trial.user_attrs[WORKER] == self.worker:
                self._storage.end(trial._trial_id, TrialState.PRUNED)

    def release(self, worker: str, death: str) -> list[str]:
        """Close what a worker that is known to be dead had in hand; the items."""
        self.sync()
        left = [trial for trial in self._running if trial.user_attrs[WORKER] == worker]
        for trial in left:
            self._storage.end(trial._trial_id, TrialState.FAIL, attributes={DEATH: death})
        return [trial.user_attrs[ITEM] for trial in left]

    def claim(self, item: str, about: Mapping[str, Any], cell: Cell | None = None) -> Claim | None:
        """Claim an item; None if another worker was faster.

        Args:
            item: Its id.
            about: Attributes that people read.
            cell: Its axes become parameters of the trial.
        """
        params = {} if cell is None else {name: getattr(cell, name) for name in _AXES}
        if params.get("epsilon") == float("inf"):
            del params["epsilon"]
        attributes = {ITEM: item, WORKER: self.worker, **about}
        self._storage.begin(self._study, attributes, params, {name: _AXES[name] for name in params})
        self.sync()
        # Somebody may have claimed and closed it since this worker looked.
        held = None if item in self.done or item in self.errors else self.running.get(item)
        for trial in self._running:  # an attempt whose answer was lost may have left a second one
            if trial.user_attrs[WORKER] == self.worker and trial is not held:
                self._storage.end(trial._trial_id, TrialState.PRUNED)
        if held is None or held.user_attrs[WORKER] != self.worker:
            return None
        return Claim(item=item, trial=held._trial_id, deaths=self._deaths[item])

    @contextmanager
    def holding(self, claim: Claim) -> Iterator[None]:
        """While this lasts others know that a claim is worked on; left without an outcome, it is given back."""
        with self._storage.holding(claim.trial):
            try:
                yield
            finally:
                self._storage.end(claim.trial, TrialState.PRUNED)

    def complete(self, claim: Claim, value: float) -> None:
        """Close a claim: the item is done, and a number for people."""
        self._storage.end(claim.trial, TrialState.COMPLETE, value)

    def fail(self, claim: Claim, error: str) -> None:
        """Close a claim: the item failed, which is an outcome, and nobody tries it again in this run."""
        self._storage.end(claim.trial, TrialState.FAIL, attributes={ERROR: error})


def study_name(sweep: str, store: Store) -> str:
    """Name of the study of a sweep's cells; stores that share a database have different ones."""
    return f"{sweep} {content_hash(store.key().hex())[:6]}"


def public_study_name(sweep: str, store: Store) -> str:
    """Name of the study of the public work that a sweep's cells share."""
    return f"{study_name(sweep, store)}, public work"


def worker_name(pid: int, token: str) -> str:
    """Who a worker is: host, process, and what tells it from a later process of that number."""
    return f"{os.uname().nodename}:{pid}-{token}"


def new_token() -> str:
    """A fresh token for `worker_name`."""
    return secrets.token_hex(4)
