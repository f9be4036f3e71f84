"""A sweep's trained hypernetwork, and the tuning tasks on which studies probe it.

Tuning tasks are public, so nothing here costs privacy. Losses are compared on the same times and noises. Rows are
saved as they come and belong to one network: a table of another one is not continued.

Shapes: k embedding dimension, P parameters.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dphyper.bench.runner import Runner
from dphyper.bench.store import Store
from dphyper.bench.tracking import Tracking
from dphyper.core.errors import UserError
from dphyper.core.specs import content_hash
from dphyper.methods.hypernetwork import Hypernetwork
from dphyper.metrics.evaluation import Evaluator
from dphyper.sweeps.plan import read_sweep

LOSS_RECORDS, LOSS_DRAWS = 300, 3  # records that a mean loss is taken over, and times and noises of each


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A trained network with what it is probed on.

    Attributes:
        method: The network, frozen.
        network: A hash of its weights.
        n: How many records of a task are embedded.
        evaluator: The judge of its samples.
        records: Tuning task to all of its records, in an order that the cell's seed fixes.
    """

    method: Hypernetwork
    network: str
    n: int
    evaluator: Evaluator
    records: dict[str, NDArray[Any]]

    def encode(self, records: NDArray[Any]) -> Tensor:
        """Records as the network takes them, on its device."""
        return self.method.target.encode(records).to(self.method.device)


def load_probe(sweep: str) -> Probe:
    """Network and tuning tasks of a sweep file's first `hypernetwork` cell; trained if it is not in the cache.

    Raises:
        UserError: There is no such cell, or the file is missing or wrong.
    """
    plan, cells = read_sweep(sweep)
    cell = next((cell for cell in cells if cell.method == "hypernetwork"), None)
    if cell is None:
        raise UserError(f"'{sweep}' has no cell of hypernetwork: expected one, whose network is probed")
    store = Store(plan.store_path)
    runner = Runner(store, plan.performance, Tracking("off", store.root, plan.name), plan.name)
    method, _ = runner.public.method(cell)
    assert isinstance(method, Hypernetwork)
    method.requires_grad_(False)
    collection = runner.public.collection(cell.data)
    records = {}
    for task in collection.select("tuning"):
        order = np.random.default_rng(cell.seed).permutation(task.indices)
        records[task.id] = collection.records[order]
    return Probe(
        method=method,
        network=content_hash(
            [(name, value.cpu().numpy().tobytes().hex()) for name, value in method.state_dict().items()]
        ),
        n=cell.n,
        evaluator=runner.evaluator(cell.protocol),
        records=records,
    )


@contextmanager
def without_retreat(method: Hypernetwork) -> Iterator[None]:
    """Let the network believe every embedding and take no record for novel."""
    shrinkage = method._shrinkage(method.embedding_dim)
    reach, limit = shrinkage.reach, method.novelty.limit
    shrinkage.reach = method.novelty.limit = math.inf
    try:
        yield
    finally:
        shrinkage.reach, method.novelty.limit = reach, limit


@torch.no_grad()
def mean_loss(method: Hypernetwork, theta_P: Tensor, x: Tensor) -> float:
    """Mean denoising loss of encoded records, on the same times and noises for all parameters."""
    rng = torch.Generator(x.device).manual_seed(2)
    means = [method.target.per_example_loss(theta_P, x, rng, stratified=True).mean() for _ in range(LOSS_DRAWS)]
    return float(torch.stack(means).mean())


def load_rows(path: Path | None, network: str) -> list[dict[str, Any]]:
    """The rows of this network in a CSV file; none if the file is not there or not named."""
    if path is None or not path.exists():
        return []
    names = {"network": str, "task": str}  # which may look like numbers
    rows = [
        {str(column): value for column, value in row.items()}
        for row in pd.read_csv(path, dtype=names).to_dict("records")
    ]
    return [row for row in rows if row.get("network") == network]


def save_rows(rows: list[dict[str, Any]], path: Path | None) -> None:
    """Write the rows as CSV, if a file is named."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(path, index=False, float_format="%.5f")
