"""What a sweep's queue costs a cell, by the number of cells planned and of workers.

``python -m dphyper.studies.queue_cost`` lets workers claim and close cells that take no time, on a journal and on
PostgreSQL. Such workers meet at the queue all the time: what a claim takes with several of them is an upper bound of
what workers with real cells wait for each other.
"""

import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import pandas as pd

from dphyper.core.files import whole_file
from dphyper.core.specs import Cell
from dphyper.studies.command import run_command
from dphyper.studies.postgres import running_server
from dphyper.sweeps.queue import Queue, new_token, worker_name
from dphyper.sweeps.storage import open_storage

_PLANNED = (100, 1000, 10_000)
_WORKERS = (1, 8)
_GRACE = 120


def main(out: str = "docs/results/cost/queue.csv", claims: int = 100) -> None:
    """Measure and write the table.

    Args:
        out: A CSV file: storage, cells planned, workers, median and greatest seconds of a claim with its end, and CPU
            seconds of a claim.
        claims: Cells that each worker claims.
    """
    context = multiprocessing.get_context("spawn")
    lines = []
    with running_server() as server:
        for storage, address in (("journal", "journal"), ("postgresql", server.url())):
            for cells in _PLANNED:
                for count in _WORKERS:
                    with tempfile.TemporaryDirectory() as root, context.Pool(count) as pool:
                        tasks = [
                            (address, root, f"{cells} {count}", cells, worker, count, claims) for worker in range(count)
                        ]
                        found = pool.starmap(_claim, tasks, chunksize=1)
                    seconds = pd.Series([second for times, _ in found for second in times])
                    lines.append(
                        {
                            "storage": storage,
                            "cells": cells,
                            "workers": count,
                            "median_seconds": seconds.median(),
                            "greatest_seconds": seconds.max(),
                            "cpu_seconds": sum(cpu for _, cpu in found) / len(seconds),
                        }
                    )
                    print(lines[-1], flush=True)
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        pd.DataFrame(lines).to_csv(temporary, index=False, float_format="%.4g")


def _claim(
    address: str, root: str, study: str, cells: int, worker: int, workers: int, claims: int
) -> tuple[list[float], float]:
    """Seconds of each claim of one worker, and CPU seconds of all."""
    storage, name = open_storage(address, Path(root), _GRACE), worker_name(os.getpid(), new_token())
    with storage.at_work(name):
        queue = Queue(storage, study, name)
        left = {f"{number}": Cell(task="a", seed=number) for number in range(cells)}
        seconds, begin_cpu = [], time.process_time()
        for number in range(worker, min(cells, claims * workers), workers):
            begin = time.perf_counter()
            with storage.turn():
                queue.sync()
                for item in queue.done:
                    left.pop(item, None)
                item = next(item for item in left if item not in queue.running)
                claim = queue.claim(item, {"method": "none", "task": "a"}, left[item])
            if claim:
                with queue.holding(claim):
                    queue.complete(claim, float(number))
            seconds.append(time.perf_counter() - begin)
        return seconds, time.process_time() - begin_cpu


if __name__ == "__main__":
    run_command(main)
