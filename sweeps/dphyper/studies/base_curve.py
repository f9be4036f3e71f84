"""How long to train a base model: ``python -m dphyper.studies.base_curve SWEEP '[500, 1000, 2000]'``.

At each number of steps the public model is judged without any adaptation: by the Fréchet distance of its samples from
images of the public families, and by its denoising loss on the tuning families, which it has not met. Beside them
stands the distance of real public images, judged alike. A longer training goes on from a shorter one, so the whole
curve costs what its last point costs. No private image is looked at. Rows are written as they come; those that are
there are kept.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from dphyper.bench.runner import Runner
from dphyper.bench.store import Store
from dphyper.bench.tracking import Tracking
from dphyper.core.specs import Cell
from dphyper.metrics.metric import METRICS, Evidence
from dphyper.studies.command import run_command
from dphyper.studies.probe import LOSS_RECORDS
from dphyper.sweeps.plan import read_sweep

REFERENCE = 2000  # public images that samples are judged by, drawn once
PLACE = ["learning_rate", "seed", "steps"]


def main(sweep: str, steps: list[int], learning_rate: float | None = None, out: Path | None = None) -> None:
    """Print, and write as CSV, how far the base model is after so many steps.

    Args:
        sweep: Sweep file, whose first cell names data, base model and protocol.
        steps: Lengths of training, in rising order.
        learning_rate: Instead of the cell's.
        out: File of the table; nothing is written if it is not given.
    """
    plan, cells = read_sweep(sweep)
    store = Store(plan.store_path)
    runner = Runner(store, plan.performance, Tracking("off", store.root, plan.name), plan.name)
    base = dataclasses.replace(cells[0].base, learning_rate=learning_rate or cells[0].base.learning_rate)
    cell = dataclasses.replace(cells[0], base=base)
    rows: list[dict[Any, Any]] = pd.read_csv(out).to_dict("records") if out and out.exists() else []
    for num in steps:
        place = {"learning_rate": base.learning_rate, "seed": base.seed, "steps": num}
        if any(all(row[key] == value for key, value in place.items()) for row in rows):
            continue
        rows.append(
            {**place, **judge(runner, dataclasses.replace(cell, base=dataclasses.replace(base, train_steps=num)))}
        )
        frame = pd.DataFrame(rows).sort_values(PLACE)
        print(frame.tail(1).to_string(index=False, float_format="%.4f"), flush=True)
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            frame.to_csv(out, index=False, float_format="%.5f")


@torch.no_grad()
def judge(runner: Runner, cell: Cell) -> dict[str, float]:
    """Distances and loss of a cell's base model, with what real images score."""
    collection = runner.public.collection(cell.data)
    target = runner.public.target(cell)
    rng = np.random.default_rng(0)
    public = rng.permutation(np.unique(np.concatenate([task.indices for task in collection.select("public")])))
    reference, real = np.split(public[: REFERENCE + cell.protocol.num_images], [REFERENCE])
    evaluator = runner.evaluator(cell.protocol)
    features = runner.public.features(evaluator, collection.records[reference])
    samples = target.sample(target.initial(), cell.protocol.num_images, torch.Generator().manual_seed(0))
    found = {
        "frechet": _distance(evaluator.features(samples), features),
        "real_frechet": _distance(evaluator.features(collection.records[real]), features),
    }
    losses = []
    for task in collection.select("tuning"):
        x = target.encode(collection.records[rng.permutation(task.indices)[:LOSS_RECORDS]])
        losses.append(target.per_example_loss(target.initial(), x, torch.Generator().manual_seed(1), stratified=True))
    return {**found, "tuning_loss": float(torch.cat(losses).mean())}


def _distance(generated: Any, reference: Any) -> float:
    return METRICS["frechet"].compute(Evidence(generated_features=generated, reference_features=reference))


if __name__ == "__main__":
    run_command(main)
