"""Where the hypernetwork would begin to do harm: ``python -m dphyper.studies.edge sweeps/small_target/gap.yaml``.

The images of the tuning families are moved away from the public tasks step by step: blurred, flattened, sheared, made
noisy, thicker, thinner, inverted, enlarged. For each change it records the embedding's distance from the public tasks,
the share of records that are unlike all public ones, and two denoising losses on images that were not embedded. One is
that of the network's answer without its retreat to the prior, the other that of the prior. A good edge lies where the
first becomes worse than the second.

The same is measured of releases at the smallest ε of the sweeps, with the retreat and without: there the noise may hide
how far a family lies. Only losses are compared; whether the images look better is not asked. Resumes an existing table
if it came from the same network; otherwise starts over.

Shapes: k embedding dimension, P parameters.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from dphyper.methods.hypernetwork import Hypernetwork
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData
from dphyper.studies.command import run_command
from dphyper.studies.probe import LOSS_RECORDS, load_probe, load_rows, mean_loss, save_rows, without_retreat

Change = Callable[[Tensor], Tensor]
BUDGET = Budget(epsilon=0.5, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)  # the smallest of the sweeps
RELEASES = 2  # draws of the noise that a noisy loss is the mean of


def _add_noise(x: Tensor, std: float) -> Tensor:
    return (x + std * torch.randn_like(x)).clamp(-1, 1)


def _thicken(x: Tensor, share: float) -> Tensor:
    return x.lerp(nn.functional.max_pool2d(x, 3, 1, 1), share)


def _thin(x: Tensor, share: float) -> Tensor:
    return -_thicken(-x, share)


def _blur(x: Tensor, std: float) -> Tensor:
    blurred: Tensor = transforms.gaussian_blur(x, kernel_size=[7, 7], sigma=[std, std])
    return blurred


def _shear(x: Tensor, degrees: float) -> Tensor:
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "interpolation": InterpolationMode.BILINEAR}
    sheared: Tensor = transforms.affine(x, shear=[degrees, 0.0], fill=[-1.0], **still)
    return sheared


def _enlarge(x: Tensor) -> Tensor:
    size = [*x.shape[-2:]]
    enlarged: Tensor = transforms.resize(transforms.center_crop(x, [side * 5 // 8 for side in size]), size)
    return enlarged


CHANGES: dict[str, Change] = {
    "none": nn.Identity(),
    **{f"blur {std}": partial(_blur, std=std) for std in (0.5, 1.0, 1.5)},
    **{f"contrast {factor}": partial(torch.mul, factor) for factor in (0.9, 0.65, 0.4)},
    **{f"shear {degrees:g}°": partial(_shear, degrees=degrees) for degrees in (6.0, 20.0)},
    **{f"noise {std}": partial(_add_noise, std=std) for std in (0.1, 0.3)},
    **{f"thicker {share}": partial(_thicken, share=share) for share in (0.2, 0.6)},
    **{f"thinner {share}": partial(_thin, share=share) for share in (0.5, 1.0)},
    "inverted": torch.neg,
    "enlarged": _enlarge,
}
"""Changes of images in [-1, 1], white on black, by name; the first leaves them as they are."""


@torch.no_grad()
def measure(method: Hypernetwork, x: Tensor, n: int) -> dict[str, float]:
    """Distance and losses of one task, whose first ``n`` images are embedded and whose others are judged.

    Losses named ``noisy`` are means over `RELEASES` releases at `BUDGET`; ``novel`` is the share of records that the
    network takes to be unlike all public ones.
    """
    given, unseen = x[:n], x[n:]
    z_1k = method.embed(given).mean(0, keepdim=True)
    novel = method.contribution(given)[:, -1].count_nonzero() / n
    zero, infinite, n_1 = z_1k.new_zeros(1), z_1k.new_full((1,), math.inf), z_1k.new_full((1,), float(n))
    noisy_with_retreat = _mean_loss_of_releases(method, given, unseen)
    with without_retreat(method):
        return {
            "embedding_shift": float(method._shrinkage(z_1k.shape[1]).distance(z_1k, zero, n_1)),
            "novel": float(novel),
            "prior": mean_loss(method, method.decode(z_1k, infinite, n_1)[0], unseen),
            "hypernetwork": mean_loss(method, method.decode(z_1k, zero, n_1)[0], unseen),
            "noisy_hypernetwork": _mean_loss_of_releases(method, given, unseen),
            "noisy_with_retreat": noisy_with_retreat,
        }


def _mean_loss_of_releases(method: Hypernetwork, given: Tensor, unseen: Tensor) -> float:
    """Mean loss on ``unseen`` of what the network makes of noisy releases of ``given``."""
    answers = [_release(method, given, seed) for seed in range(RELEASES)]
    return float(np.mean([mean_loss(method, theta_P, unseen) for theta_P in answers]))


def _release(method: Hypernetwork, x: Tensor, seed: int) -> Tensor:
    private = PrivateData(x, n=len(x), ledger=Ledger(BUDGET), noise=NoiseSource.reproducible(seed))
    return method.adapt(private, BUDGET, torch.Generator().manual_seed(seed)).theta


def main(sweep: str, out: Path | None = None) -> None:
    """Print, and write as CSV, distance and losses of every tuning task under every change.

    Args:
        sweep: Sweep file with a `hypernetwork` cell, whose collection, base model and network are used.
        out: File of the table; nothing is written if it is not given.
    """
    probe = load_probe(sweep)
    rows = load_rows(out, probe.network)
    finished = {(row["task"], row["change"]) for row in rows}
    for task, records in probe.records.items():
        x = probe.encode(records[: probe.n + LOSS_RECORDS])
        for name, change in CHANGES.items():
            if (task, name) in finished:
                continue
            torch.manual_seed(0)
            values = measure(probe.method, change(x), probe.n)
            rows.append({"network": probe.network, "task": task, "change": name, **values})
            save_rows(rows, out)
            print(pd.DataFrame(rows[-1:]).to_string(index=False, float_format="%.4f"), flush=True)


if __name__ == "__main__":
    run_command(main)
