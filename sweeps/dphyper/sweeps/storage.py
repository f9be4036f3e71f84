"""Where the claims of a sweep are kept: a journal file beside its rows, or a database.

Both are Optuna's own storages. They differ in how a worker that died is known. Beside a journal, which serves one host,
each worker holds a lock that the system frees when the process ends. In a database each claim has a heartbeat by the
database's clock, and no file lock and no host's clock decides anything. A database that restarts is waited for. A line
of the journal that was cut short, by a full disk or a kill, is taken away before the next one is written.

Passwords belong into ``~/.pgpass`` or ``PGPASSWORD`` rather than into a sweep file; none is written into a store.
"""

import contextlib
import os
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_all,
    wait_random_exponential,
)

from dphyper.core.errors import UserError

JOURNAL = "queue.log"
WORKER, ERROR = "worker", "error"  # attributes of a trial: who claimed it, and what was wrong with the item
LOST_LEASE = 75  # exit status of a worker whose claim has run out, EX_TEMPFAIL of sysexits.h
_SILENCE = (SQLAlchemyError, StorageInternalError)  # what a database that does not answer makes Optuna raise
_FENCE = 0.75  # of the grace: a worker without contact ends itself before others may take its cell
_ATTEMPTS = 8  # at least, since one may take long on a busy machine, and many that begin at once meet often
_OPEN_SECONDS = 10  # that a database is waited for at the beginning, where its address may be wrong

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=ExperimentalWarning)


class Storage(ABC):
    """The trials of studies, and which of them somebody still works on.

    Args:
        storage: Optuna's.

    Attributes:
        patience: Seconds between two searches for dead workers.
    """

    patience = 1

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def find(self, name: str) -> int | None:
        """The number of a study; None where there is none."""
        studies = self._lasting(self._storage.get_all_studies)
        return next((study._study_id for study in studies if study.study_name == name), None)

    def study(self, name: str) -> int:
        """The number of a study, which is made first where it is missing."""
        found = self.find(name)
        if found is None:
            study = self._lasting(optuna.create_study, storage=self._storage, study_name=name, load_if_exists=True)
            found = study._study_id
        return found

    def trials(self, study: int) -> list[FrozenTrial]:
        """All trials of a study by their number; not to be changed."""
        found: list[FrozenTrial] = self._lasting(self._storage.get_all_trials, study, deepcopy=False)
        return found

    def begin(
        self,
        study: int,
        attributes: dict[str, Any],
        params: dict[str, Any],
        distributions: dict[str, BaseDistribution],
    ) -> None:
        """Add a running trial. An error that is ridden out may leave two of them."""
        trial = create_trial(
            state=TrialState.RUNNING, user_attrs=attributes, params=params, distributions=distributions
        )
        self._lasting(self._storage.create_new_trial, study, template_trial=trial)

    def end(
        self, trial: int, state: TrialState, value: float | None = None, attributes: Mapping[str, str] = {}
    ) -> None:
        """Close a trial; one that somebody else has closed stays as it is."""
        with contextlib.suppress(UpdateFinishedTrialError):
            for name, content in attributes.items():
                self._lasting(self._storage.set_trial_user_attr, trial, name, content)
            self._lasting(self._storage.set_trial_state_values, trial, state, None if value is None else [value])

    def bury(self, study: int, running: Sequence[FrozenTrial]) -> None:
        """Fail those of a study's running trials whose worker is gone."""
        for trial in self.dead(study, running):
            self.end(trial._trial_id, TrialState.FAIL)

    @abstractmethod
    def dead(self, study: int, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those of a study's running trials whose worker is gone."""

    @abstractmethod
    def at_work(self, worker: str) -> AbstractContextManager[None]:
        """While this lasts, and no longer than its process, a worker counts as living."""

    @abstractmethod
    def holding(self, trial: int) -> AbstractContextManager[None]:
        """While this lasts, a trial of this process is known to be worked on."""

    @abstractmethod
    def turn(self) -> AbstractContextManager[Any]:
        """Workers that look and then claim do so one after another where that is cheap; nothing depends on it."""

    def _lasting(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        """The result of a call to Optuna's storage, with what this kind of storage can ride out."""
        return call(*args, **kwargs)


class Journal(Storage):
    """A journal file in a store, for the processes of one host.

    Args:
        root: The store.

    Raises:
        UserError: The file holds something else than whole lines of a journal.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._locks = root / "locks"
        self._locks.mkdir(exist_ok=True)
        self._path = root / JOURNAL
        lock: Any = _WholeLines(self._path, self._locks)  # Optuna's base class is not public
        super().__init__(self._lasting(lambda: JournalStorage(JournalFileBackend(str(self._path), lock))))
        self._turn = FileLock(self._locks / "turn.lock")

    def _lasting(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except (ValueError, KeyError, AttributeError, TypeError) as error:  # what a damaged line makes Optuna raise
            raise UserError(
                f"'{self._path}' is damaged ({type(error).__name__}): stop the workers and remove it; no result is "
                "lost, and the same command goes on"
            ) from error

    def bury(self, study: int, running: Sequence[FrozenTrial]) -> None:
        """Fail the trials whose worker is gone.

        Raises:
            UserError: A worker of another host is among them, which nobody here can tell to be dead.
        """
        for trial in self.dead(study, running):
            worker = trial.user_attrs[WORKER]
            host, _, _ = worker.rpartition(":")
            if host != os.uname().nodename:
                raise UserError(
                    f"worker {worker} of another host holds a cell of this sweep, and with 'storage: journal' nobody "
                    "here can tell whether it lives: name a database (storage: postgresql://...), or remove "
                    f"'{self._path}' if that host is done, no result is lost"
                )
        super().bury(study, running)

    def dead(self, study: int, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those whose worker holds its lock no more."""
        return [trial for trial in running if not self._lives(trial.user_attrs[WORKER])]

    def _lives(self, worker: str) -> bool:
        path = self._lock(worker)
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0):
                return False
        except (Timeout, OSError):  # held, or not ours to try
            return True

    def _lock(self, worker: str) -> Path:
        return self._locks / f"worker-{worker}.lock"

    @contextmanager
    def at_work(self, worker: str) -> Iterator[None]:
        """Hold the worker's lock."""
        path = self._lock(worker)
        with FileLock(path):
            yield
        path.unlink(missing_ok=True)

    def holding(self, trial: int) -> AbstractContextManager[None]:
        """Nothing to do: the worker's lock says it."""
        return nullcontext()

    def turn(self) -> AbstractContextManager[Any]:
        """One process at a time."""
        return self._turn


class _WholeLines:
    """The lock around writing to a journal; whoever gets it finds whole lines only."""

    def __init__(self, path: Path, locks: Path) -> None:
        self._path, self._lock = path, FileLock(locks / f"{path.name}.lock")

    def acquire(self) -> bool:
        self._lock.acquire()
        with self._path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            whole = size
            while whole and not _ends_line(file, whole):
                whole -= 1
            if whole < size:
                file.truncate(whole)
        return True

    def release(self) -> None:
        self._lock.release()


def _ends_line(file: Any, position: int) -> bool:
    file.seek(position - 1)
    return bool(file.read(1) == b"\n")


class Database(Storage):
    """A database that all hosts reach.

    Args:
        url: As SQLAlchemy takes it.
        grace: Seconds without a heartbeat after which a worker counts as dead. A worker that cannot reach the database
            for nearly as long ends itself, so that no cell is ever run by two.

    Raises:
        UserError: The database cannot be reached, or its driver is missing.
    """

    def __init__(self, url: URL, grace: int) -> None:
        self._grace = grace
        self.patience = max(grace // 8, 1)
        self._first_seen: dict[int, float] = {}
        engine = {"pool_pre_ping": True, **({} if url.drivername == "sqlite" else _few_connections(self.patience))}
        shown = url.render_as_string(hide_password=True)
        try:
            # Several workers that begin on an empty database may disturb each other's making of its tables.
            found = _patient(_OPEN_SECONDS)(
                RDBStorage,
                url.render_as_string(hide_password=False),
                engine,
                heartbeat_interval=self.patience,
                grace_period=grace,
            )
        except ImportError as error:
            raise UserError(f"storage '{shown}' needs a driver: pip install 'dphyper[cluster]'") from error
        except _SILENCE as error:
            first = str(error.__cause__ or error).strip().splitlines()[0]
            raise UserError(f"storage '{shown}' does not answer ({first}): is it up, and its name right?") from error
        super().__init__(optuna.storages.get_storage(found))

    def bury(self, study: int, running: Sequence[FrozenTrial]) -> None:
        """Fail the trials without a heartbeat for longer than the grace."""
        super().bury(study, running)
        # A worker that died between its claim and its first heartbeat never had one, and so is never stale. A trial
        # that has been seen running for the whole grace beats, was failed above, or is such a one: a heartbeat in its
        # name starts its clock.
        for trial in running:
            since = self._first_seen.setdefault(trial._trial_id, time.monotonic())
            if time.monotonic() - since > self._grace:
                self._lasting(self._beat, trial._trial_id)
                self._first_seen[trial._trial_id] = time.monotonic()

    def dead(self, study: int, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those without a heartbeat for longer than the grace, by the database's clock."""
        backend: Any = self._storage
        stale = self._lasting(backend._get_stale_trial_ids, study) if running else []
        return [trial for trial in running if trial._trial_id in stale]

    def at_work(self, worker: str) -> AbstractContextManager[None]:
        """Nothing to do: heartbeats say it."""
        return nullcontext()

    @contextmanager
    def holding(self, trial: int) -> Iterator[None]:
        """Beat from a thread; end this process when the claim has run out, or may have."""
        done = threading.Event()

        def beat() -> None:
            last, lost = time.monotonic(), False
            while not done.wait(self.patience):
                with contextlib.suppress(*_SILENCE):
                    now = self._storage.get_trial(trial)
                    lost = now.state == TrialState.FAIL and ERROR not in now.user_attrs  # others thought us dead
                    if now.state == TrialState.RUNNING:
                        self._beat(trial)
                    last = time.monotonic()
                if lost or time.monotonic() - last > _FENCE * self._grace:
                    print("worker: no contact with the storage for too long, its cell is given up", flush=True)
                    os._exit(LOST_LEASE)

        self._lasting(self._beat, trial)
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _beat(self, trial: int) -> None:
        backend: Any = self._storage
        backend.record_heartbeat(trial)

    def turn(self) -> AbstractContextManager[Any]:
        """Nothing: two that claim one cell see it, and one withdraws."""
        return nullcontext()

    def _lasting(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        return _patient(self._grace)(call, *args, **kwargs)


def _few_connections(seconds: int) -> dict[str, Any]:
    """One connection a worker and one for its heartbeat, on which nothing hangs for longer than given."""
    bounds = {"connect_timeout": max(seconds, 2), "tcp_user_timeout": 1000 * seconds}  # seconds, milliseconds
    return {"pool_size": 1, "max_overflow": 1, "pool_timeout": seconds, "connect_args": bounds}


def _patient(seconds: float) -> Retrying:
    """Calls again while a database does not answer, for so long and so often at least."""
    return Retrying(
        retry=retry_if_exception_type(_SILENCE),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_all(stop_after_delay(seconds), stop_after_attempt(_ATTEMPTS)),
        reraise=True,
    )


def open_storage(address: str, root: Path, grace: int) -> Storage:
    """The storage of a sweep.

    Args:
        address: ``journal``, or the URL of a database.
        root: The store, where a journal lies.
        grace: Seconds without a heartbeat after which a worker of a database counts as dead.

    Raises:
        UserError: It cannot be opened.
    """
    return Journal(root) if address == "journal" else Database(_url(address), grace)


def check_storage(address: str, *, alone: bool) -> None:
    """Find a mistake in the storage of a sweep without opening it.

    Args:
        address: As in `open_storage`.
        alone: Whether there is one worker for certain.

    Raises:
        UserError: It is no storage, or one worker's where there are several.
    """
    if address != "journal" and _url(address).drivername == "sqlite" and not alone:
        raise UserError(
            f"storage = '{address}' with several workers: SQLite has no locks that hold under many writers or on a "
            "shared disk; use 'journal' (one host) or 'postgresql://USER@HOST/DATABASE' (many hosts)"
        )


def address_without_password(address: str) -> str:
    """What may be written into a store.

    >>> address_without_password("postgresql://ada:secret@host/sweeps")
    'postgresql+psycopg://ada@host/sweeps'
    """
    if address == "journal":
        return address
    url = _url(address)
    return URL.create(
        url.drivername, username=url.username, host=url.host, port=url.port, database=url.database, query=url.query
    ).render_as_string()


def _url(address: str) -> URL:
    """A database's address, taken apart.

    Raises:
        UserError: It is neither PostgreSQL's nor SQLite's.

    >>> _url("postgresql://host/sweeps").drivername
    'postgresql+psycopg'
    """
    expected = "expected 'journal' (one host) or 'postgresql://USER@HOST/DATABASE' (many hosts)"
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise UserError(f"storage = '{address}': {expected}") from error
    if url.drivername in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("postgresql+psycopg", "sqlite"):
        raise UserError(f"storage = '{url.render_as_string(hide_password=True)}': {expected}")
    return url
