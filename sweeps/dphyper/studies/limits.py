"""What keeps the hypernetwork from the best LoRA: ``python -m dphyper.studies.limits sweeps/gap.yaml``.

On each tuning task, whose images cost no privacy, the network's own answer is set beside three fits to two thirds of
the task's images, each begun at that answer and free in one place further down: the mean embedding, what the linear
head is given, and the parameters themselves. Where the last is far better than the one before, the head cannot say what
the task wants; where that is far better than the first, the k numbers or the trunk cannot. All are judged on the images
that no fit has seen: by the denoising loss, on the same times and noises, which is what the fits go by, and by the
Fréchet distance of samples, which they do not. The fits are short and stochastic: each shows what can be reached at
least, and may even end above where it began. Few images are unseen: these distances are not those of the tables.
A table that exists already is gone on with if it is of the same network, and begun anew if it is not.

Shapes: k embedding dimension, W width of the network, P parameters.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jsonargparse import auto_cli
from torch import Tensor

from dphyper.bench.runner import Runner
from dphyper.bench.store import Store
from dphyper.bench.tracking import Tracking
from dphyper.core.errors import UserError
from dphyper.core.specs import content_hash
from dphyper.methods.fitting import FitOptions, fit
from dphyper.methods.hypernetwork import Hypernetwork
from dphyper.metrics.evaluation import Evaluator
from dphyper.sweeps.plan import read_sweep
from dphyper.targets.diffusion import to_uint8, to_unit

FIT = {"fit_steps": 100, "fit_batch_size": 48}
JUDGED, DRAWS = 300, 3  # images, and times and noises of each


@dataclass(frozen=True, kw_only=True)
class _Through:
    """A target whose parameters are those that ``decode`` makes of what is fitted."""

    target: Any
    decode: Callable[[Tensor], Tensor]

    def per_example_loss(self, code: Tensor, x: Tensor, rng: torch.Generator, *, stratified: bool) -> Tensor:
        losses: Tensor = self.target.per_example_loss(self.decode(code), x, rng, stratified=stratified)
        return losses


def fitted(method: Hypernetwork, decode: Callable[[Tensor], Tensor], start: Tensor, images: Tensor) -> Tensor:
    """Parameters of the best code that a short fit finds; its step is a twentieth of the code's size."""
    rate = 0.05 * float(start.square().mean().sqrt())
    rng = torch.Generator(images.device).manual_seed(1)
    through: Any = _Through(target=method.target, decode=decode)
    return decode(fit(through, start, images, FitOptions(**FIT, fit_learning_rate=rate), rng)).detach()


def answers(method: Hypernetwork, given: Tensor, n: int) -> dict[str, Tensor]:
    """Parameters of public model, prior, network and the three fits; the first ``n`` images are embedded."""
    with torch.no_grad():
        z_1k = method.embed(given[:n]).mean(0, keepdim=True)
    zero, infinite, n_1 = z_1k.new_zeros(1), z_1k.new_full((1,), math.inf), z_1k.new_full((1,), float(n))
    with torch.no_grad():
        hidden_1W = method.hidden(z_1k, zero, n_1)
        own_P = method.decode(z_1k, zero, n_1)[0]
        found = {
            "public_model": method.target.initial(),
            "prior": method.decode(z_1k, infinite, n_1)[0],
            "hypernetwork": own_P,
        }
    found["best_embedding"] = fitted(method, lambda z: method.decode(z, zero, n_1)[0], z_1k, given)
    found["best_hidden"] = fitted(method, lambda hidden: method.head(hidden)[0], hidden_1W, given)
    found["best_parameters"] = fitted(method, lambda theta: theta, own_P, given)
    return found


def cut(images: Tensor) -> tuple[Tensor, Tensor]:
    """The images of a task that the fits are given, two thirds, and those on which they are judged."""
    split = len(images) * 2 // 3
    return images[:split], images[split:]


@torch.no_grad()
def judged(method: Hypernetwork, theta_P: Tensor, images: Tensor) -> float:
    """Mean denoising loss, on the same times and noises for all parameters."""
    rng = torch.Generator(images.device).manual_seed(2)
    means = [method.target.per_example_loss(theta_P, images, rng, stratified=True).mean() for _ in range(DRAWS)]
    return float(torch.stack(means).mean())


@torch.no_grad()
def drawn(method: Hypernetwork, theta_P: Tensor, images: Tensor, evaluator: Evaluator) -> float:
    """Fréchet distance of samples, from the same noise for all parameters."""
    rng = torch.Generator(images.device).manual_seed(3)
    samples = method.target.sample(theta_P, evaluator.protocol.num_images, rng)
    return evaluator.scores(evaluator.features(samples), evaluator.features(to_uint8(images))).fid


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A trained network with what it is looked at on.

    Attributes:
        method: The network.
        name: A hash of its weights.
        n: How many images of a task are embedded.
        evaluator: The judge of its samples.
        images: Tuning task to all of its images, in an order that the cell's seed fixes, in [-1, 1].
    """

    method: Hypernetwork
    name: str
    n: int
    evaluator: Evaluator
    images: dict[str, Tensor]


def looked_at(sweep: str) -> Looked:
    """Network and tuning tasks of a sweep file's first `hypernetwork` cell; trained if it is not in the cache.

    Raises:
        UserError: There is no such cell.
    """
    found, cells = read_sweep(sweep)
    cell = next((cell for cell in cells if cell.method == "hypernetwork"), None)
    if cell is None:
        raise UserError(f"'{sweep}' has no cell of hypernetwork: expected one, whose network is looked at")
    store = Store(found.store_path)
    runner = Runner(store, found.performance, Tracking("off", store.root, found.name), found.name)
    method, _ = runner.method(cell)
    assert isinstance(method, Hypernetwork)
    method.requires_grad_(False)
    collection = runner.collection(cell.data)
    images = {}
    for task in collection.select("tuning"):
        order = np.random.default_rng(cell.seed).permutation(task.indices)
        images[task.id] = to_unit(np.asarray(collection.records[order], np.uint8)).to(method.device)
    return Looked(
        method=method,
        name=content_hash([(name, value.cpu().numpy().tobytes().hex()) for name, value in method.state_dict().items()]),
        n=cell.n,
        evaluator=runner.evaluator(cell.protocol),
        images=images,
    )


def kept(out: Path | None, network: str) -> list[dict[str, Any]]:
    """The rows of this network in ``out``, if that is a file."""
    if out is None or not out.exists():
        return []
    names = {"network": str, "task": str}  # which may look like numbers
    rows = [
        {str(column): value for column, value in row.items()}
        for row in pd.read_csv(out, dtype=names).to_dict("records")
    ]
    return [row for row in rows if row.get("network") == network]


def keep(rows: list[dict[str, Any]], out: Path | None) -> None:
    """Write the rows as CSV, if a file is named."""
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(out, index=False, float_format="%.5f")


def main(sweep: str, out: Path | None = None) -> None:
    """Print, and write as CSV, losses and distances on every tuning task.

    Args:
        sweep: Sweep file with a `hypernetwork` cell, whose collection, base model and network are used.
        out: File of the table, if it is to be kept.
    """
    at = looked_at(sweep)
    rows = kept(out, at.name)
    done = {row["task"] for row in rows}
    for task, images in at.images.items():
        if task in done:
            continue
        given, unseen = cut(images)
        found = answers(at.method, given, at.n)
        losses = {name: judged(at.method, theta_P, unseen[:JUDGED]) for name, theta_P in found.items()}
        distances = {name: drawn(at.method, theta_P, unseen, at.evaluator) for name, theta_P in found.items()}
        place = {"network": at.name, "task": task}
        rows += [{**place, "measure": "denoising_loss", **losses}, {**place, "measure": "fid", **distances}]
        keep(rows, out)
        print(pd.DataFrame(rows[-2:]).to_string(index=False, float_format="%.4f"), flush=True)


if __name__ == "__main__":
    try:
        auto_cli(main)
    except UserError as error:
        sys.exit(f"limits: {error}")
