"""``dphyper status STORE``: what is done, running, failed and to do in the sweeps of a store, and the time left.

It reads and neither writes nor locks, so that it disturbs no worker and works where one may only read.
"""

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from dphyper.core.errors import UserError

if TYPE_CHECKING:
    from dphyper.sweeps.status import Status

HELP = "tell what is done, running, failed and to do in a store"
_AGAIN = 2  # seconds between two pictures


def parser() -> ArgumentParser:
    """Which store, and whether once."""
    made = ArgumentParser(exit_on_error=False, description="Tell how far the sweeps of a store are.")
    made.add_argument("store", type=str, help="folder of results")
    made.add_argument("--live", action="store_true", help="draw it again every two seconds until nothing is running")
    made.add_argument("--storage", type=str, default="", help="URL of the queue, where a password has to be in it")
    return made


def execute(config: Namespace) -> int:
    """Print it; with ``--live`` until nothing is running."""
    from rich.console import Console
    from rich.live import Live

    from dphyper.bench.store import Store
    from dphyper.sweeps.status import statuses

    store, console = Store(config.store), Console(highlight=False, soft_wrap=True)
    found = statuses(store, config.storage)
    if not found:
        raise UserError(f"'{store.root}' has no plan of a sweep: run one into it first, or name another folder")
    if not config.live:
        console.print(_picture(found), markup=False)
        return 0
    with Live(_picture(found), console=console, auto_refresh=False) as live:
        while any(status.running for status in found):
            time.sleep(_AGAIN)
            found = statuses(store, config.storage)
            live.update(_picture(found), refresh=True)
    return 0


def _picture(found: "list[Status]") -> str:
    return "\n".join(line for status in found for line in _lines(status))


def _lines(status: "Status") -> list[str]:
    lines = [
        f"sweep {status.sweep}: {status.done} done, {len(status.failed)} failed, {status.to_do} to do"
        + (
            f", about {timedelta(seconds=round(status.left.total_seconds()))} left"
            if status.left and status.to_do
            else ""
        )
    ]
    lines += [f"  search {line}" for line in status.searches]
    for entry in status.running:
        word = "silent, will be run again:" if entry.silent else "running"
        lines.append(f"  {word} {entry.what} on {entry.worker} since {entry.since:%Y-%m-%d %H:%M:%S}")
    lines += [f"  failed {cell}: {error}" for cell, error in status.failed.items()]
    return lines
