"""AdaDPS clips in the scaled space, by the formula of two published codes."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dphyper.bench.catalog import METHODS
from dphyper.core.errors import UserError
from dphyper.privacy.budget import Budget, Relation
from dphyper.studies.theory.regression import LinearRegression

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
TIGHT = Budget(epsilon=4.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
WHOLE = {"public_tasks": 1, "public_images": 30}
"""The public gradient over all public records, which no draw can change."""


def clip(g: Tensor) -> Tensor:
    """`global_l2_clip` of jax_utils.py in kenziyuliu/DP2, at C = 1."""
    return g * (1 / (g.norm(dim=1, keepdim=True) + 1e-15)).clamp(max=1)


@pytest.mark.parametrize("damping", [10.0, 1e6])
def test_adadps_with_a_constant_scale_is_dp_sgd_rescaled(damping: float, stretched: Any, equal_only: Any) -> None:
    """(g / s clipped at C) and a rate η are (g clipped at s C) and a rate η / s; with real public gradients not."""
    nothing = torch.zeros(30, 6)
    scaled = {"damping": damping, "l2_clip_norm": 1.0 / damping, "learning_rate": 0.3 * damping**2}
    plain = stretched.adapt("dp_sgd", TIGHT, learning_rate=0.3 * damping)
    equal_only(
        stretched.adapt("adadps", TIGHT, public=nothing, **scaled),
        plain,
        stretched.adapt("adadps", TIGHT, **{**scaled, "damping": 0.1}),
    )


def test_adadps_clips_in_the_scaled_space(door: Any, stretched: Any, equal_only: Any) -> None:
    """What is handed to the door is g / (√v + ε₀) with v the public second moment; g itself has another norm."""
    made, theta, x = stretched.guide("adadps", **WHOLE, damping=0.5), torch.full((5,), 0.2), stretched.private[:6]
    public = stretched.public
    target = LinearRegression(5)
    h = target.per_example_gradients(theta, public, torch.Generator(), 1).mean(0)
    g = target.per_example_gradients(theta, x, torch.Generator(), 1)
    made.prepare(theta, 0)
    equal_only(made.contribution(theta, x, torch.Generator()), g / (h.abs() + 0.5), g)
    # The same gradient at every step has the same second moment: the start at 0 does not show.
    made.prepare(theta, 1)
    equal_only(made.contribution(theta, x, torch.Generator()), g / (h.abs() + 0.5), g / (0.19**0.5 * h.abs() + 0.5))


def test_adadps_is_that_of_dp2_up_to_the_start_of_v(stretched: Any, equal_only: Any) -> None:
    """trainers/dp_rmsprop_adadps.py of kenziyuliu/DP2 (55afcaf), without noise, v corrected for its start at 0."""

    def along(*, corrected: bool) -> Tensor:
        v = torch.zeros(5)

        def step(g: Tensor, h: Tensor, t: int) -> Tensor:
            nonlocal v
            v = v * 0.9 + h.square() * (1.0 - 0.9)
            start = 1 - 0.9 ** (t + 1) if corrected else 1.0
            return clip(g / ((v / start).sqrt() + 0.5)).mean(0)

        return stretched.published(step, 4)

    found = stretched.adapt("adadps", FREE, **WHOLE, damping=0.5)
    equal_only(found, along(corrected=True), along(corrected=False))


def test_adadps_averages_squares_over_public_batches_as_its_authors_do(stretched: Any, equal_only: Any) -> None:
    """`estimate_preconditioner` in stackoverflow_centralized/trainers/model_base.py of litian96/AdaDPS (befda34).

    The mean over public batches of the squares of their gradients, not the square of the mean gradient.
    """
    made, theta = stretched.guide("adadps", public_tasks=3, public_images=4, damping=0.5), torch.full((5,), 0.2)
    x_TQ = made._public.draw(3, 4, torch.Generator().manual_seed(3))  # as the guide will draw it
    rows = torch.stack([LinearRegression(5).per_example_gradients(theta, x, made.rng, 1).mean(0) for x in x_TQ])
    made.prepare(theta, 0)
    equal_only(made._scale_P, rows.square().mean(0).sqrt() + 0.5, rows.mean(0).abs() + 0.5)


def test_options_that_make_no_sense_are_refused() -> None:
    for options in ({"decay": 1.0}, {"damping": 0.0}):
        with pytest.raises(UserError, match="expected a decay"):
            METHODS["adadps"].options_type(**options)
