"""What adapting to one private dataset costs: ``python -m dphyper.studies.adaptation_cost sweeps/hypernetwork.yaml``.

The methods of a sweep file adapt side by side to the same tuning task, whose records cost no privacy, each in a process
of its own: seconds of the fastest of several adaptations, and how far the process's peak memory rose above what it held
when they began, model and data (Linux only). Public phases come from the cache, and are trained first where they are
missing. Sampling and evaluation, which are the same for every method, are left out. Numbers of one small U-Net on this
machine; with a larger model every gradient costs more, and so do the activations that it keeps.
"""

import dataclasses
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jsonargparse import auto_cli

from dphyper.bench.runner import Runner
from dphyper.bench.store import Store
from dphyper.bench.tracking import Tracking
from dphyper.core.errors import UserError
from dphyper.core.specs import Cell, Performance
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData
from dphyper.sweeps.plan import read_sweep
from dphyper.targets.diffusion import to_unit


def main(sweep: str, threads: int = 1, repetitions: int = 5, out: Path | None = None) -> None:
    """Print, and write as CSV, seconds and memory of every method of the sweep that spends a budget.

    Args:
        sweep: Sweep file; of each method its first cell with a finite ε is taken, and moved to the first tuning task.
        threads: Of torch.
        repetitions: Adaptations of each method.
        out: File of the table, if it is to be kept.
    """
    found, cells = read_sweep(sweep)
    first: dict[str, Cell] = {}
    for cell in cells:
        if cell.epsilon < float("inf"):
            first.setdefault(cell.method, cell)
    if not first:
        raise UserError(f"'{sweep}' has no cell with a finite epsilon: expected one, whose adaptation is timed")
    performance = dataclasses.replace(found.performance, threads=threads)
    # Forked from a server that has only imported: a spawned process would begin with the peak of this one.
    context = multiprocessing.get_context("forkserver")
    rows = []
    for cell in first.values():
        with context.Pool(1) as pool:
            rows.append(pool.apply(measure, (cell, performance, found.store_path, repetitions)))
        print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1), flush=True)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(out, index=False)


def measure(cell: Cell, performance: Performance, store: str, repetitions: int) -> dict[str, str | float]:
    """Time and memory of one method, for a process that does nothing else."""
    runner = Runner(Store(store), performance, Tracking("off", Path(store), "adaptation_cost"), "adaptation_cost")
    collection = runner.collection(cell.data)
    draw = collection.draw(collection.select("tuning")[0].id, cell.n, cell.seed)
    method, _ = runner.method(cell)
    budget = Budget(epsilon=cell.epsilon, delta=cell.delta, relation=Relation(cell.relation))
    records = to_unit(np.asarray(draw.records, np.uint8)).to(runner.device)
    # Loading took more than it left: without this, an adaptation could hide below that peak. 5 resets it (proc(5)).
    Path("/proc/self/clear_refs").write_text("5")
    before, seconds = _peak(), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repetitions):
            ledger = Ledger.open(Path(folder) / f"{number}.json", budget)
            private = PrivateData(records, n=cell.n, ledger=ledger, noise=NoiseSource.os())
            begin = time.perf_counter()
            method.adapt(private, budget, torch.Generator().manual_seed(number))
            seconds.append(time.perf_counter() - begin)
    return {"method": cell.method, "seconds": round(min(seconds), 3), "mib_before": before, "mib": _peak() - before}


def _peak() -> int:
    """Greatest resident memory of this process in MiB since it was reset; on Linux, whose unit is the KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    try:
        auto_cli(main)
    except UserError as error:
        sys.exit(f"adaptation_cost: {error}")
