"""A queue gives each item into one hand at a time, and takes it back from a hand that is gone."""

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from dphyper.core.errors import UserError
from dphyper.core.specs import Cell
from dphyper.studies.postgres import Server
from dphyper.sweeps.queue import MAX_DEATHS, Queue, new_token, worker_name
from dphyper.sweeps.storage import LOST_LEASE, Database, Storage, check_storage, open_storage

Opener = Callable[[], Storage]
GRACE = 4


def test_an_item_is_in_one_hand(storage: Opener) -> None:
    ada, bob = Queue(storage(), "s", "ada"), Queue(storage(), "s", "bob")
    claim = ada.claim("x", {"method": "dp_sgd", "task": "8"}, Cell(task="8", epsilon=2.0))
    assert claim is not None
    assert bob.claim("x", {}) is None
    other = bob.claim("y", {})
    assert other is not None
    ada.complete(claim, 3.5)
    bob.fail(other, "ValueError: no")
    for queue in (ada, bob):
        queue.sync()
        assert (queue.done, queue.errors, queue.running) == ({"x"}, {"y": "ValueError: no"}, {})
    (first, withdrawn, failed) = storage().trials(storage().find("s") or 0)
    assert (first.value, first.params["epsilon"], first.user_attrs["method"]) == (3.5, 2.0, "dp_sgd")
    assert [withdrawn.state, failed.state] == [TrialState.PRUNED, TrialState.FAIL]


def test_what_ended_before_a_run_is_history_and_what_ends_in_it_counts(storage: Opener) -> None:
    ada = Queue(storage(), "s", "ada")
    for item in ("x", "y"):
        claim = ada.claim(item, {})
        assert claim is not None
        ada.fail(claim, "no")
    running = ada.claim("z", {})
    later = Queue(storage(), "s", "bob")
    assert later.errors == {}
    assert Queue(storage(), "s", "eve", since=1).errors == {"y": "no"}
    assert running is not None
    ada.complete(running, 1.0)
    later.sync()
    assert later.done == {"z"}


def test_a_claim_that_is_left_without_an_outcome_is_free_again(storage: Opener) -> None:
    ada, bob = Queue(storage(), "s", "ada"), Queue(storage(), "s", "bob")
    claim = ada.claim("x", {})
    assert claim is not None
    with pytest.raises(KeyboardInterrupt), ada.holding(claim):
        raise KeyboardInterrupt
    again = bob.claim("x", {})
    assert again is not None
    assert again.deaths == 0
    with bob.holding(again):
        bob.complete(again, 1.0)
    bob.sync()
    assert bob.done == {"x"}


def _claim_all(address: str, root: Path, worker: str, items: list[str], hands: "multiprocessing.Queue[str]") -> None:
    # What ended before this process began counts too: there is no store here that would tell.
    queue = Queue(open_storage(address, root, GRACE), "s", worker, since=0)
    for item in items:
        if item not in queue.done and (claim := queue.claim(item, {})):
            if item not in queue.done:
                hands.put(item)
            queue.complete(claim, 0.0)


def test_many_processes_that_want_the_same_items_get_each_once(address: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    items, hands = [f"item {number}" for number in range(12)], context.Queue()
    crew = [
        context.Process(target=_claim_all, args=(address, tmp_path, f"w{number}", items, hands)) for number in range(4)
    ]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
    assert [process.exitcode for process in crew] == [0] * 4
    assert Counter(hands.get() for _ in items) == Counter(items)
    assert hands.empty()


def _hold(address: str, root: Path, item: str, ready: "multiprocessing.Queue[str]") -> None:
    storage, name = open_storage(address, root, GRACE), worker_name(os.getpid(), new_token())
    queue = Queue(storage, "s", name)
    with storage.at_work(name):
        claim = queue.claim(item, {})
        assert claim is not None
        with queue.holding(claim):
            ready.put(name)
            time.sleep(60)


def test_a_living_worker_keeps_its_item_and_a_dead_one_loses_it(address: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Queue()
    holder = context.Process(target=_hold, args=(address, tmp_path, "x", ready))
    holder.start()
    ready.get()
    queue = Queue(open_storage(address, tmp_path, GRACE), "s", "ada")
    until = time.monotonic() + 1.5 * GRACE * (address != "journal")
    while time.monotonic() < until or not queue.running:
        queue.bury()
        time.sleep(0.2)
    assert list(queue.running) == ["x"]
    holder.kill()
    holder.join()
    while queue.running:
        queue.bury()
        time.sleep(0.1)
    claim = queue.claim("x", {})
    assert claim is not None
    assert claim.deaths == 1


def test_deaths_count_until_an_outcome(storage: Opener) -> None:
    queue, parent = Queue(storage(), "s", "ada"), Queue(storage(), "s", "parent")
    for deaths in range(MAX_DEATHS + 1):
        claim = queue.claim("x", {})
        assert claim is not None
        assert claim.deaths == deaths
        assert parent.release("ada", "was killed by SIGKILL") == ["x"]
    claim = Queue(storage(), "s", "bob").claim("x", {})
    assert claim is not None
    assert claim.deaths == MAX_DEATHS + 1
    queue.fail(claim, "WorkerDied")
    assert queue.claim("x", {}) is None  # an outcome is one for the whole run
    again = Queue(storage(), "s", "cy").claim("x", {})
    assert again is not None
    assert again.deaths == 0


def test_nothing_waits_in_a_queue(storage: Opener) -> None:
    queue = Queue(storage(), "s", "ada")
    assert storage().trials(storage().find("s") or 0) == []
    assert queue.claim("x", {}) is not None
    assert len(storage().trials(storage().find("s") or 0)) == 1


def test_half_a_line_in_a_journal_is_taken_away(tmp_path: Path) -> None:
    claim = Queue(open_storage("journal", tmp_path, GRACE), "s", "ada").claim("x", {})
    assert claim is not None
    with (tmp_path / "queue.log").open("ab") as file:
        file.write(b'{"op_code": 4, "worker')
    queue = Queue(open_storage("journal", tmp_path, GRACE), "s", "bob")
    assert queue.claim("y", {}) is not None
    assert sorted(Queue(open_storage("journal", tmp_path, GRACE), "s", "eve").running) == ["x", "y"]


def test_a_damaged_line_in_a_journal_is_named(tmp_path: Path) -> None:
    queue = Queue(open_storage("journal", tmp_path, GRACE), "s", "ada")
    with (tmp_path / "queue.log").open("ab") as file:
        file.write(b"\0\0\0\n")
    for touch in (lambda: queue.claim("x", {}), lambda: open_storage("journal", tmp_path, GRACE)):
        with pytest.raises(
            UserError, match=r"queue\.log' is damaged \(JSONDecodeError\).*remove it; no result is lost"
        ):
            touch()


def test_a_journal_does_not_bury_workers_of_other_hosts(tmp_path: Path) -> None:
    assert Queue(open_storage("journal", tmp_path, GRACE), "s", "elsewhere:12-ab").claim("x", {}) is not None
    queue = Queue(open_storage("journal", tmp_path, GRACE), "s", "ada")
    with pytest.raises(UserError, match=r"worker elsewhere:12-ab of another host holds a cell.*name a database"):
        queue.bury()


def test_a_database_that_restarts_is_waited_for(database: str, server: Server, tmp_path: Path) -> None:
    queue = Queue(open_storage(database, tmp_path, 30), "s", "ada")
    claim = queue.claim("x", {})
    assert claim is not None
    server.control("restart", "-m", "immediate")
    queue.complete(claim, 1.0)
    assert queue.claim("y", {}) is not None
    assert (queue.done, list(queue.running)) == ({"x"}, ["y"])


def test_a_worker_that_others_thought_dead_ends_itself(database: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Queue()
    holder = context.Process(target=_hold, args=(database, tmp_path, "x", ready))
    holder.start()
    ready.get()
    os.kill(holder.pid or 0, signal.SIGSTOP)  # as a machine that was suspended
    queue = Queue(open_storage(database, tmp_path, GRACE), "s", "ada")
    while queue.running:
        queue.bury()
        time.sleep(0.1)
    os.kill(holder.pid or 0, signal.SIGCONT)
    holder.join()
    assert holder.exitcode == LOST_LEASE


def test_storages_that_cannot_serve_are_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_storage("sqlite:///a.db", alone=True)
    check_storage("journal", alone=False)
    for address, said in (
        ("sqlite:///a.db", "SQLite has no locks that hold under many writers"),
        ("mysql://host/sweeps", "expected 'journal' .one host. or 'postgresql"),
        ("nonsense", "expected 'journal'"),
    ):
        with pytest.raises(UserError, match=said):
            check_storage(address, alone=False)
    monkeypatch.setattr("dphyper.sweeps.storage._OPEN_SECONDS", 0)
    with pytest.raises(UserError, match="does not answer") as refused:
        open_storage(server.url().replace("postgres@", "ada:secret@") + "_none", tmp_path, GRACE)
    assert "secret" not in str(refused.value)


def test_a_worker_that_died_before_its_first_heartbeat_loses_its_item(database: str, tmp_path: Path) -> None:
    assert Queue(open_storage(database, tmp_path, 1), "s", "ada").claim("x", {}) is not None  # and never holds it
    queue = Queue(open_storage(database, tmp_path, 1), "s", "bob")
    assert isinstance(queue._storage, Database)
    until = time.monotonic() + 30
    while queue.running and time.monotonic() < until:
        queue.bury()
        time.sleep(0.2)
    assert not queue.running
