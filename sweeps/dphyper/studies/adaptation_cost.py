"""What adapting to one private dataset costs: ``python -m dphyper.studies.adaptation_cost SWEEP``.

The methods of a sweep file adapt to the same tuning task, whose records cost no privacy, each in a process of its own
(Linux only). Two numbers are taken: the seconds of the fastest of several adaptations, and how far the process's peak
memory rose above what model and data held when they began. Public phases come from the cache; missing ones are trained
first. Sampling and evaluation are left out: they are the same for every method. The numbers are those of one small
U-Net on this machine; with a larger model every gradient, and the activations that it keeps, cost more.
"""

import dataclasses
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

from dphyper.bench.runner import Runner
from dphyper.bench.store import Store
from dphyper.bench.tracking import Tracking
from dphyper.core.errors import UserError
from dphyper.core.specs import Cell, Performance
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData
from dphyper.studies.command import run_command
from dphyper.studies.process import peak_mib, run_alone
from dphyper.sweeps.plan import read_sweep


def main(sweep: str, threads: int = 1, repetitions: int = 5, out: Path | None = None) -> None:
    """Print, and write as CSV, seconds and memory of every method of the sweep that spends a budget.

    Args:
        sweep: Sweep file; of each method its first cell with a finite ε is taken, and moved to the first tuning task.
        threads: Of torch.
        repetitions: Adaptations of each method.
        out: File of the table; nothing is written if it is not given.
    """
    plan, cells = read_sweep(sweep)
    first: dict[str, Cell] = {}
    for cell in cells:
        if cell.epsilon < float("inf"):
            first.setdefault(cell.method, cell)
    if not first:
        raise UserError(f"'{sweep}' has no cell with a finite epsilon: expected one, whose adaptation is timed")
    performance = dataclasses.replace(plan.performance, threads=threads)
    rows = []
    for cell in first.values():
        rows.append(run_alone(measure, cell, performance, plan.store_path, repetitions))
        print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1), flush=True)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(out, index=False)


def measure(cell: Cell, performance: Performance, store: str, repetitions: int) -> dict[str, str | float]:
    """Time and memory of one method, for a process that does nothing else."""
    runner = Runner(Store(store), performance, Tracking("off", Path(store), "adaptation_cost"), "adaptation_cost")
    collection = runner.public.collection(cell.data)
    draw = collection.draw(collection.select("tuning")[0].id, cell.n, cell.seed)
    method, _ = runner.public.method(cell)
    budget = Budget(epsilon=cell.epsilon, delta=cell.delta, relation=Relation(cell.relation))
    x = method.target.encode(draw.records).to(runner.public.device)
    # Loading took more memory than it left, and an adaptation could hide below that peak. 5 resets it (proc(5)).
    Path("/proc/self/clear_refs").write_text("5")
    before, seconds = peak_mib(), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repetitions):
            ledger = Ledger.open(Path(folder) / f"{number}.json", budget)
            private = PrivateData(x, n=cell.n, ledger=ledger, noise=NoiseSource.os())
            begin = time.perf_counter()
            method.adapt(private, budget, torch.Generator().manual_seed(number))
            seconds.append(time.perf_counter() - begin)
    return {"method": cell.method, "seconds": round(min(seconds), 3), "mib_before": before, "mib": peak_mib() - before}


if __name__ == "__main__":
    run_command(main)
