"""Where the hypernetwork would begin to do harm: ``python -m dphyper.studies.edge sweeps/gap.yaml``.

The tuning families, whose images cost no privacy, are moved away from the public tasks step by step: blurred,
flattened, sheared, made noisy, thicker, thinner, inverted, enlarged. For each stand the distance of the mean embedding
from the public tasks, the share of records that are unlike all public ones, and two denoising losses on images that
were not embedded: that of the network's answer without its retreat to the prior, and that of the prior. A good edge
lies where the first gets worse than the second. The same is measured of releases at the smallest ε of the sweeps, where
noise may hide how far a family lies, with the retreat and without. It is a matter of losses only: whether the images
look better is not asked. A table that exists already is gone on with if it is of the same network, and begun anew if it
is not.
"""

import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jsonargparse import auto_cli
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as change

from dphyper.core.errors import UserError
from dphyper.methods.embedding import Shrinkage
from dphyper.methods.hypernetwork import Hypernetwork
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData
from dphyper.studies.limits import JUDGED, judged, keep, kept, looked_at

Change = Callable[[Tensor], Tensor]
BUDGET, RELEASES = Budget(epsilon=0.5, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE), 2


def changes() -> dict[str, Change]:
    """The changes of images in [-1, 1], white on black, by name; the first leaves them as they are."""
    found: dict[str, Change] = {"none": nn.Identity()}
    for sigma in (0.5, 1.0, 1.5):
        found[f"blur {sigma}"] = partial(change.gaussian_blur, kernel_size=[7, 7], sigma=[sigma, sigma])
    for factor in (0.9, 0.65, 0.4):
        found[f"contrast {factor}"] = partial(torch.mul, factor)
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "interpolation": InterpolationMode.BILINEAR}
    for degrees in (6.0, 20.0):
        found[f"shear {degrees:g}°"] = partial(change.affine, shear=[degrees, 0.0], fill=[-1.0], **still)
    for std in (0.1, 0.3):
        found[f"noise {std}"] = partial(_noisy, std=std)
    for share in (0.2, 0.6):
        found[f"thicker {share}"] = partial(_thicker, share=share)
    for share in (0.5, 1.0):
        found[f"thinner {share}"] = partial(_thinner, share=share)
    found["inverted"] = torch.neg
    found["enlarged"] = _enlarged
    return found


def _noisy(x: Tensor, std: float) -> Tensor:
    return (x + std * torch.randn_like(x)).clamp(-1, 1)


def _thicker(x: Tensor, share: float) -> Tensor:
    return x.lerp(nn.functional.max_pool2d(x, 3, 1, 1), share)


def _thinner(x: Tensor, share: float) -> Tensor:
    return -_thicker(-x, share)


def _enlarged(x: Tensor) -> Tensor:
    size = [*x.shape[-2:]]
    enlarged: Tensor = change.resize(change.center_crop(x, [side * 5 // 8 for side in size]), size)
    return enlarged


@torch.no_grad()
def measured(method: Hypernetwork, images: Tensor, n: int) -> dict[str, float]:
    """Distance and losses of one task, of which the first ``n`` images are embedded and others judged.

    Those named ``noisy`` are means over `RELEASES` releases at `BUDGET`; ``novel`` is the share of records that the
    network holds to be unlike all public ones.
    """
    z_1k = method.embed(images[:n]).mean(0, keepdim=True)
    novel = method.contribution(images[:n])[:, -1].count_nonzero() / n
    zero, infinite, n_1 = z_1k.new_zeros(1), z_1k.new_full((1,), math.inf), z_1k.new_full((1,), float(n))
    shrinkage = method.shrinkage[str(method.embedding_dim)]
    assert isinstance(shrinkage, Shrinkage)

    def noisy() -> float:
        answers = [_released(method, images[:n], seed) for seed in range(RELEASES)]
        return float(np.mean([judged(method, theta_P, images[n:]) for theta_P in answers]))

    with_retreat, reach, limit = noisy(), shrinkage.reach, method.novelty.limit
    shrinkage.reach = method.novelty.limit = math.inf
    found = {
        "embedding_shift": float(shrinkage.distance(z_1k, zero, n_1)),
        "novel": float(novel),
        "prior": judged(method, method.decode(z_1k, infinite, n_1)[0], images[n:]),
        "hypernetwork": judged(method, method.decode(z_1k, zero, n_1)[0], images[n:]),
        "noisy_hypernetwork": noisy(),
        "noisy_with_retreat": with_retreat,
    }
    shrinkage.reach, method.novelty.limit = reach, limit
    return found


def _released(method: Hypernetwork, records: Tensor, seed: int) -> Tensor:
    private = PrivateData(records, n=len(records), ledger=Ledger(BUDGET), noise=NoiseSource.reproducible(seed))
    return method.adapt(private, BUDGET, torch.Generator().manual_seed(seed)).theta


def main(sweep: str, out: Path | None = None) -> None:
    """Print, and write as CSV, distance and losses of every tuning task under every change.

    Args:
        sweep: Sweep file with a `hypernetwork` cell, whose collection, base model and network are used.
        out: File of the table, if it is to be kept.
    """
    at = looked_at(sweep)
    rows = kept(out, at.name)
    done = {(row["task"], row["change"]) for row in rows}
    for task, images in at.images.items():
        for name, apply in changes().items():
            if (task, name) in done:
                continue
            torch.manual_seed(0)
            found = measured(at.method, apply(images[: at.n + JUDGED]), at.n)
            rows.append({"network": at.name, "task": task, "change": name, **found})
            keep(rows, out)
            print(pd.DataFrame(rows[-1:]).to_string(index=False, float_format="%.4f"), flush=True)


if __name__ == "__main__":
    try:
        auto_cli(main)
    except UserError as error:
        sys.exit(f"edge: {error}")
