"""A signal that ends a process is raised once, in order; one that was ignored stays ignored."""

import os
import signal
import threading
import time

import pytest

from dphyper.core.stopping import Stopped, stoppable


def stopped_by(number: int, cleaned: list[int]) -> None:
    with stoppable():
        try:
            os.kill(os.getpid(), number)
            time.sleep(1)  # it arrives within
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned.append(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_raised_and_a_second_one_disturbs_no_cleaning_up(number: int) -> None:
    before, cleaned = signal.signal(number, signal.SIG_DFL), list[int]()
    try:
        with pytest.raises(Stopped) as stopped:
            stopped_by(number, cleaned)
        assert (stopped.value.status, str(stopped.value), cleaned) == (
            128 + number,
            signal.Signals(number).name,
            [number],
        )
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_than_the_main_one_may_use_it_too() -> None:
    ended = []

    def use() -> None:
        with stoppable():
            ended.append(True)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert ended
