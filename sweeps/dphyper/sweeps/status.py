"""What has become of the sweeps of a store, seen from outside: it reads, and neither writes nor locks.

Each sweep writes its plan and the address of its queue into ``STORE/sweeps/NAME.json`` when it starts, so that nobody
needs its file to ask. Rows say what is done or failed, the queue who is at work and since when. Times of the beginning
are by the clock of the worker's host.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from dphyper.bench.store import Store
from dphyper.core.files import write_json
from dphyper.core.specs import Cell
from dphyper.sweeps.plan import Sweep
from dphyper.sweeps.queue import ITEM, PART, public_study_name, study_name
from dphyper.sweeps.search import progress
from dphyper.sweeps.storage import JOURNAL, WORKER, Storage, address_without_password, open_storage

_PLANS = "sweeps"
_RECENT = 50  # cells that the time left is reckoned from


@dataclass(frozen=True, kw_only=True)
class Running:
    """Something in hand.

    Attributes:
        item: What was claimed: the id of a cell, or the key of public work.
        what: The same for people, a cell with its axes.
        worker: Host and process.
        since: When it was claimed.
        silent: Whether the worker is gone; another takes the cell when it comes to it.
    """

    item: str
    what: str
    worker: str
    since: datetime
    silent: bool


@dataclass(frozen=True, kw_only=True)
class Status:
    """One sweep of a store.

    Attributes:
        sweep: Its name.
        done: Number of finished cells.
        failed: Cell to the first line of its error.
        running: What is in hand.
        to_do: Number of cells without a row, those in hand included.
        searches: A line on each method and ε of its searches.
        left: Time until all is done at the present number of workers; None where nothing tells.
    """

    sweep: str
    done: int
    failed: dict[str, str]
    running: list[Running]
    to_do: int
    searches: list[str]
    left: timedelta | None


def record_plan(sweep: Sweep, cells: Sequence[Cell]) -> None:
    """Write down what a sweep is about to do, for `statuses`."""
    folder = Store(sweep.store_path).root / _PLANS
    folder.mkdir(parents=True, exist_ok=True)
    plan = {
        "storage": address_without_password(sweep.storage),
        "grace": sweep.performance.grace,
        "cells": [cell.id for cell in cells],
        "searches": {
            name: {"key": sweep.search_key(name), "trials": search.trials} for name, search in sweep.search.items()
        },
    }
    write_json(folder / f"{sweep.name}.json", plan)


def statuses(store: Store, address: str = "") -> list[Status]:
    """The sweeps of a store by name.

    Args:
        store: With the plans of sweeps that have run.
        address: Of the queue, where the recorded one, which has no password, does not do.

    Raises:
        UserError: The queue cannot be reached.
    """
    plans = sorted((store.root / _PLANS).glob("[!.]*.json"))
    return [_status(store, path.stem, json.loads(path.read_text()), address) for path in plans]


def _status(store: Store, sweep: str, plan: Mapping[str, Any], address: str) -> Status:
    states = {cell_id: store.status(cell_id) for cell_id in plan["cells"]}
    cells: list[FrozenTrial] = []
    running: list[Running] = []
    address = address or plan["storage"]
    if address != "journal" or (store.root / JOURNAL).exists():
        storage, name = open_storage(address, store.root, plan["grace"]), study_name(sweep, store)
        cells, running = _study(storage, name)
        running += _study(storage, public_study_name(sweep, store))[1]
    to_do = sum(state == "to do" for state in states.values())
    return Status(
        sweep=sweep,
        done=sum(state == "done" for state in states.values()),
        failed={cell: store.row(cell)["error"] for cell, state in states.items() if state == "failed"},
        running=running,
        to_do=to_do,
        searches=[
            line for name, known in plan.get("searches", {}).items() for line in progress(store.root, name, **known)
        ],
        left=_left(cells, to_do, sum(not entry.silent for entry in running)),
    )


def _study(storage: Storage, name: str) -> tuple[list[FrozenTrial], list[Running]]:
    """The trials of a study, and what is in hand."""
    study = storage.find(name)
    if study is None:
        return [], []
    trials = storage.trials(study)
    open_trials = [trial for trial in trials if trial.state == TrialState.RUNNING]
    dead = {trial.number for trial in storage.dead(study, open_trials)}
    return trials, [
        Running(
            item=trial.user_attrs[ITEM],
            what=_told(trial),
            worker=trial.user_attrs[WORKER],
            since=trial.datetime_start or datetime.now(),
            silent=trial.number in dead,
        )
        for trial in open_trials
    ]


def _told(trial: FrozenTrial) -> str:
    """What a trial is about, as `Queue.claim` has written it down."""
    attributes = trial.user_attrs
    if PART in attributes:
        return str(attributes[PART])
    axes = ", ".join(f"{name}={value:g}" for name, value in trial.params.items() if value)
    return f"{attributes[ITEM]} ({attributes['method']} on {attributes['task']}, {axes})"


def _left(trials: Sequence[FrozenTrial], to_do: int, workers: int) -> timedelta | None:
    """Time until all is done, by the median of the last cells."""
    complete = [trial.duration for trial in trials if trial.state == TrialState.COMPLETE and trial.duration]
    ended = [duration.total_seconds() for duration in complete[-_RECENT:]]
    if not ended or not workers:
        return None
    return timedelta(seconds=statistics.median(ended) * to_do / workers)
