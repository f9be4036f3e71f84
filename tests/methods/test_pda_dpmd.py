"""PDA-DPMD begins as DP-SGD, ends with the public gradient, and blends by the published formula."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dphyper.privacy.budget import Budget, Relation

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
TIGHT = Budget(epsilon=4.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
WHOLE = {"public_tasks": 1, "public_images": 30}
"""The public gradient over all public records, which no draw can change."""


def clip(g: Tensor) -> Tensor:
    """`global_l2_clip` of jax_utils.py in kenziyuliu/DP2, at C = 1."""
    return g * (1 / (g.norm(dim=1, keepdim=True) + 1e-15)).clamp(max=1)


def test_pda_begins_as_dp_sgd_and_ends_with_the_public_gradient(stretched: Any, equal_only: Any) -> None:
    equal_only(
        stretched.adapt("pda_dpmd", TIGHT, steps=1),
        stretched.adapt("dp_sgd", TIGHT, steps=1),
        stretched.adapt("dp_sgd", TIGHT, steps=2),
    )
    assert not torch.allclose(stretched.adapt("pda_dpmd", TIGHT), stretched.adapt("dp_sgd", TIGHT), rtol=0.01)
    made = stretched.guide("pda_dpmd", **WHOLE, steps=100_000, rescale=False)
    noisy, theta = torch.arange(1.0, 6), torch.zeros(5)
    public = stretched.public
    h = -(public[:, 5:] * public[:, :5]).mean(0)
    made.prepare(theta, 0)
    equal_only(made.gradient(noisy), noisy, h)
    made.prepare(theta, 99_999)
    torch.testing.assert_close(made.gradient(noisy), h, rtol=0, atol=1e-3)


def test_pda_rescaled_blends_vectors_of_one_length(stretched: Any) -> None:
    noisy, theta = 100 * torch.arange(1.0, 6), torch.zeros(5)
    norms = []
    for rescale in (True, False):
        made = stretched.guide("pda_dpmd", **WHOLE, steps=3, rescale=rescale)
        made.prepare(theta, 2)
        norms.append(float((made.gradient(noisy) - 0.5 * noisy).norm()) / float(noisy.norm()))
    assert norms[0] == pytest.approx(0.5, rel=1e-3)
    assert norms[1] < 0.1
    # A public gradient of exactly 0 has no direction and gives none.
    empty = stretched.adapt("pda_dpmd", TIGHT, public=torch.zeros(30, 6), rescale=True)
    assert empty.isfinite().all()


def test_pda_is_that_of_dp2(stretched: Any, equal_only: Any) -> None:
    """trainers/dp_sgd_mirror.py of kenziyuliu/DP2 (55afcaf), without noise; litian96/AdaDPS has the same formula.

    A third implementation has cos(π t / 20 T).
    """

    def along(divisor: float) -> Tensor:
        def step(g: Tensor, h: Tensor, t: int) -> Tensor:
            alpha = math.cos(math.pi / divisor * t / 4)
            return alpha * clip(g).mean(0) + (1 - alpha) * h

        return stretched.published(step, 4)

    equal_only(stretched.adapt("pda_dpmd", FREE, rescale=False, **WHOLE), along(2.0), along(20.0))
