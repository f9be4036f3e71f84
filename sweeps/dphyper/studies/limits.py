"""What keeps the hypernetwork from the best LoRA: ``python -m dphyper.studies.limits sweeps/small_target/gap.yaml``.

On each tuning task, the network's own answer stands beside three fits to two thirds of the task's records. Each fit
begins at that answer and is free in one place: the mean embedding, the input of the linear head, or the parameters
themselves. Where the parameters do far better than the head's input, the head cannot say what the task wants. Where
the head's input does far better than the embedding, the k numbers or the trunk cannot.

All are judged on the records that no fit has seen, in two ways: by the denoising loss, which the fits minimise, and by
the Fréchet distance of samples, which they do not. A fit is short and stochastic, so it shows what can be reached at
least, and may end above where it began. Few records are unseen, so these distances are not those of the tables.
Resumes an existing table if it came from the same network; otherwise starts over.

Shapes: k embedding dimension, W width of the network, P parameters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dphyper.methods.fitting import FitOptions, fit
from dphyper.methods.hypernetwork import Hypernetwork
from dphyper.metrics.evaluation import Evaluator
from dphyper.metrics.metric import METRICS, Evidence
from dphyper.studies.command import run_command
from dphyper.studies.probe import LOSS_RECORDS, load_probe, load_rows, mean_loss, save_rows, without_retreat

FIT: dict[str, Any] = {"fit_steps": 100, "fit_batch_size": 48}
RELATIVE_RATE = 0.05  # the fits' step, relative to the root mean square of what is fitted


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    """A target whose parameters are decoded from what is fitted."""

    target: Any
    decode: Callable[[Tensor], Tensor]

    def per_example_loss(self, code: Tensor, x: Tensor, rng: torch.Generator, *, stratified: bool) -> Tensor:
        losses: Tensor = self.target.per_example_loss(self.decode(code), x, rng, stratified=stratified)
        return losses


def fit_code(method: Hypernetwork, decode: Callable[[Tensor], Tensor], start: Tensor, x: Tensor) -> Tensor:
    """Parameters that ``decode`` makes of the code on which a short fit to ``x`` ends."""
    rate = RELATIVE_RATE * float(start.square().mean().sqrt())
    rng = torch.Generator(x.device).manual_seed(1)
    decoded: Any = _Decoded(target=method.target, decode=decode)
    return decode(fit(decoded, start, x, FitOptions(**FIT, fit_learning_rate=rate), rng)).detach()


def find_answers(method: Hypernetwork, x: Tensor, n: int) -> dict[str, Tensor]:
    """(P,) parameters of public model, prior, network and the three fits to ``x``; its first ``n`` are embedded."""
    with torch.no_grad():
        z_1k = method.embed(x[:n]).mean(0, keepdim=True)
        zero, infinite, n_1 = z_1k.new_zeros(1), z_1k.new_full((1,), math.inf), z_1k.new_full((1,), float(n))
        hidden_1W = method.hidden(z_1k, zero, n_1)
        own_P = method.decode(z_1k, zero, n_1)[0]
        prior_P = method.decode(z_1k, infinite, n_1)[0]
    with without_retreat(method):  # a fit of the embedding may leave the ball of the public tasks, and is to show where
        best_embedding_P = fit_code(method, lambda z: method.decode(z, zero, n_1)[0], z_1k, x)
    return {
        "public_model": method.target.initial(),
        "prior": prior_P,
        "hypernetwork": own_P,
        "best_embedding": best_embedding_P,
        "best_hidden": fit_code(method, lambda hidden: method.head(hidden)[0], hidden_1W, x),
        "best_parameters": fit_code(method, lambda theta: theta, own_P, x),
    }


def split_records(records: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The records of a task that the fits are given, two thirds, and those on which they are judged."""
    split = len(records) * 2 // 3
    return records[:split], records[split:]


@torch.no_grad()
def sample_distance(method: Hypernetwork, theta_P: Tensor, records: NDArray[Any], evaluator: Evaluator) -> float:
    """Fréchet distance of samples from images, from the same noise for all parameters."""
    rng = torch.Generator(method.device).manual_seed(3)
    samples = method.target.sample(theta_P, evaluator.protocol.num_images, rng)
    given = Evidence(
        generated_features=evaluator.features(samples),
        reference_features=evaluator.features(records),
    )
    return METRICS["frechet"].compute(given)


def main(sweep: str, out: Path | None = None) -> None:
    """Print, and write as CSV, losses and distances on every tuning task.

    Args:
        sweep: Sweep file with a `hypernetwork` cell, whose collection, base model and network are used.
        out: File of the table; nothing is written if it is not given.
    """
    probe = load_probe(sweep)
    method = probe.method
    rows = load_rows(out, probe.network)
    finished = {row["task"] for row in rows}
    for task, records in probe.records.items():
        if task in finished:
            continue
        given, unseen = split_records(records)
        answers = find_answers(method, probe.encode(given), probe.n)
        x = probe.encode(unseen[:LOSS_RECORDS])
        losses = {name: mean_loss(method, theta_P, x) for name, theta_P in answers.items()}
        distances = {
            name: sample_distance(method, theta_P, unseen, probe.evaluator) for name, theta_P in answers.items()
        }
        place = {"network": probe.network, "task": task}
        rows += [{**place, "measure": "denoising_loss", **losses}, {**place, "measure": "frechet", **distances}]
        save_rows(rows, out)
        print(pd.DataFrame(rows[-2:]).to_string(index=False, float_format="%.4f"), flush=True)


if __name__ == "__main__":
    run_command(main)
