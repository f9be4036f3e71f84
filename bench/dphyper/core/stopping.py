"""Signals that end a process in order: Ctrl-C, SIGTERM of a scheduler, SIGHUP of a closed terminal.

Each is raised as `Stopped` in the main thread, once; what is in hand can be given back on the way out. It is no
``KeyboardInterrupt``, which libraries catch and turn into an exit of their own. A signal that was ignored when the
process began stays ignored, so that ``nohup`` works.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

# SLURM announces the end of a job's time by SIGUSR1 or SIGUSR2, as submitit asks it to.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)


class Stopped(BaseException):
    """The process was asked to end.

    Args:
        number: Of the signal.

    >>> Stopped(signal.SIGTERM).status
    143
    """

    def __init__(self, number: int) -> None:
        self.status = 128 + number  # as a shell reports it
        super().__init__(signal.Signals(number).name)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` inside the block when a signal asks this process to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        # What is given back on the way out is given back in peace.
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
