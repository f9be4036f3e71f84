"""PDA-DPMD, AdaDPS and DOPE-SGD where they must equal DP-SGD or a published formula, and where they must not.

The target is the linear regression, whose loss draws nothing: two methods at one noise source differ only in what they
do with public gradients.
"""

import math
from collections.abc import Callable
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch import Tensor

from dphyper.bench.catalog import METHODS
from dphyper.bench.method import Method
from dphyper.bench.public import PublicRecords
from dphyper.core.errors import UserError
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData
from dphyper.studies.theory.regression import LinearRegression

TIGHT = Budget(epsilon=4.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
D, N = 5, 40
SMALL = {"steps": 4, "l2_clip_norm": 1.0, "learning_rate": 0.3, "average_last": 0.0}
WHOLE = {"public_tasks": 1, "public_images": 30}
"""The public gradient over all public records, which no draw can change."""


def records(size: int = N, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(size, D, generator=rng) * torch.tensor([3.0, 1.0, 1.0, 0.3, 0.1])
    return torch.cat([x, x.sum(1, keepdim=True) + 0.5 * torch.randn(size, 1, generator=rng)], 1)


def method(name: str, public: Tensor, **options: Any) -> Method:
    kind = METHODS[name]
    made: Method = kind(LinearRegression(D), kind.options_type.parse(name, {**SMALL, **options}), embedding_dim=0)
    if made.reads_public:
        made.public = PublicRecords(records=public, tasks=(np.arange(len(public)),), shares=np.ones(1))
    return made


def adapt(name: str, *, public: Tensor | None = None, budget: Budget = TIGHT, **options: Any) -> Tensor:
    public = records(30, seed=1) if public is None else public
    private = PrivateData(records(), n=N, ledger=Ledger(budget), noise=NoiseSource.reproducible(0))
    return method(name, public, **options).adapt(private, budget, torch.Generator().manual_seed(0)).theta


def guide(name: str, **options: Any) -> Any:
    made: Any = method(name, records(30, seed=1), **options)
    return made.guide_type(made.target, made._options, torch.Generator().manual_seed(0), made.public)


def assert_equal_only(found: Tensor, equal: Tensor, different: Tensor) -> None:
    torch.testing.assert_close(found, equal, rtol=1e-4, atol=1e-6)
    assert float((found - different).norm()) > 0.01 * float(found.norm())


@pytest.mark.parametrize("sampling_prob", [1.0, 0.4])
def test_dope_around_zero_is_dp_sgd(sampling_prob: float) -> None:
    found = adapt("dope_sgd", public=torch.zeros(30, D + 1), sampling_prob=sampling_prob)
    plain = adapt("dp_sgd", sampling_prob=sampling_prob)
    assert_equal_only(found, plain, adapt("dope_sgd", sampling_prob=sampling_prob))


def test_dope_without_clipping_is_gradient_descent_whatever_the_public_gradient() -> None:
    """What was subtracted is added back; clipped around h instead of around 0, the two differ."""
    wide, tight = {"l2_clip_norm": 1e6, "budget": FREE}, {"l2_clip_norm": 1.0, "budget": FREE}
    torch.testing.assert_close(adapt("dope_sgd", **wide), adapt("dp_sgd", **wide), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(adapt("dope_sgd", **tight), adapt("dp_sgd", **tight), rtol=0.01)


def test_dope_adds_back_what_no_record_can_change() -> None:
    """An empty batch leaves h itself; a coefficient |batch| / (q n) would leave nothing."""
    made, zero = guide("dope_sgd", **WHOLE), torch.zeros(D)
    made.prepare(zero, 0)
    public = records(30, seed=1)
    h = -(public[:, D:] * public[:, :D]).mean(0)
    assert_equal_only(made.gradient(zero), h, zero)


@pytest.mark.parametrize("damping", [10.0, 1e6])
def test_adadps_with_a_constant_scale_is_dp_sgd_rescaled(damping: float) -> None:
    """(g / s clipped at C) and a rate η are (g clipped at s C) and a rate η / s; with real public gradients not."""
    nothing = torch.zeros(30, D + 1)
    scaled = {"damping": damping, "l2_clip_norm": 1.0 / damping, "learning_rate": 0.3 * damping**2}
    plain = adapt("dp_sgd", learning_rate=0.3 * damping)
    assert_equal_only(adapt("adadps", public=nothing, **scaled), plain, adapt("adadps", **{**scaled, "damping": 0.1}))


def test_adadps_clips_in_the_scaled_space() -> None:
    """What is handed to the door is g / (√v + ε₀) with v the public second moment; g itself has another norm."""
    made, theta, x = guide("adadps", **WHOLE, damping=0.5), torch.full((D,), 0.2), records(6, seed=2)
    public = records(30, seed=1)
    target = LinearRegression(D)
    h = target.per_example_gradients(theta, public, torch.Generator(), 1).mean(0)
    g = target.per_example_gradients(theta, x, torch.Generator(), 1)
    made.prepare(theta, 0)
    assert_equal_only(made.contribution(theta, x, torch.Generator()), g / (h.abs() + 0.5), g)
    # The same gradient at every step has the same second moment: the start at 0 does not show.
    made.prepare(theta, 1)
    assert_equal_only(
        made.contribution(theta, x, torch.Generator()), g / (h.abs() + 0.5), g / (0.19**0.5 * h.abs() + 0.5)
    )


def test_pda_begins_as_dp_sgd_and_ends_with_the_public_gradient() -> None:
    assert_equal_only(adapt("pda_dpmd", steps=1), adapt("dp_sgd", steps=1), adapt("dp_sgd", steps=2))
    assert not torch.allclose(adapt("pda_dpmd"), adapt("dp_sgd"), rtol=0.01)
    made = guide("pda_dpmd", **WHOLE, steps=100_000, rescale=False)
    noisy, theta = torch.arange(1.0, D + 1), torch.zeros(D)
    public = records(30, seed=1)
    h = -(public[:, D:] * public[:, :D]).mean(0)
    made.prepare(theta, 0)
    assert_equal_only(made.gradient(noisy), noisy, h)
    made.prepare(theta, 99_999)
    torch.testing.assert_close(made.gradient(noisy), h, rtol=0, atol=1e-3)


def test_pda_rescaled_blends_vectors_of_one_length() -> None:
    noisy, theta = 100 * torch.arange(1.0, D + 1), torch.zeros(D)
    norms = []
    for rescale in (True, False):
        made = guide("pda_dpmd", **WHOLE, steps=3, rescale=rescale)
        made.prepare(theta, 2)
        norms.append(float((made.gradient(noisy) - 0.5 * noisy).norm()) / float(noisy.norm()))
    assert norms[0] == pytest.approx(0.5, rel=1e-3)
    assert norms[1] < 0.1
    # A public gradient of exactly 0 has no direction and gives none.
    empty = adapt("pda_dpmd", public=torch.zeros(30, D + 1), rescale=True)
    assert empty.isfinite().all()


def published(step: Callable[[Tensor, Tensor, int], Tensor], steps: int) -> Tensor:
    """Parameters after ``steps`` steps of momentum 0.9 and linear decay along a published formula's direction.

    Args:
        step: From the (N, D) private gradients, the (D,) public one and the step's number to the direction.
        steps: T.
    """
    target, public = LinearRegression(D), records(30, seed=1)
    theta, momentum = torch.zeros(D), torch.zeros(D)
    for t in range(steps):
        g = target.per_example_gradients(theta, records(), torch.Generator(), 1)
        h = target.per_example_gradients(theta, public, torch.Generator(), 1).mean(0)
        momentum = 0.9 * momentum + step(g, h, t)
        theta = theta - 0.3 * (1 - 0.9 * t / steps) * momentum
    return theta


def clip(g: Tensor) -> Tensor:
    """`global_l2_clip` of jax_utils.py in kenziyuliu/DP2, at C = 1."""
    return g * (1 / (g.norm(dim=1, keepdim=True) + 1e-15)).clamp(max=1)


def test_pda_is_that_of_dp2() -> None:
    """trainers/dp_sgd_mirror.py of kenziyuliu/DP2 (55afcaf), without noise; litian96/AdaDPS has the same formula.

    A third implementation has cos(π t / 20 T).
    """

    def along(divisor: float) -> Tensor:
        def step(g: Tensor, h: Tensor, t: int) -> Tensor:
            alpha = math.cos(math.pi / divisor * t / 4)
            return alpha * clip(g).mean(0) + (1 - alpha) * h

        return published(step, 4)

    assert_equal_only(adapt("pda_dpmd", budget=FREE, rescale=False, **WHOLE), along(2.0), along(20.0))


def test_adadps_is_that_of_dp2_up_to_the_start_of_v() -> None:
    """trainers/dp_rmsprop_adadps.py of kenziyuliu/DP2 (55afcaf), without noise, v corrected for its start at 0."""

    def along(*, corrected: bool) -> Tensor:
        v = torch.zeros(D)

        def step(g: Tensor, h: Tensor, t: int) -> Tensor:
            nonlocal v
            v = v * 0.9 + h.square() * (1.0 - 0.9)
            start = 1 - 0.9 ** (t + 1) if corrected else 1.0
            return clip(g / ((v / start).sqrt() + 0.5)).mean(0)

        return published(step, 4)

    found = adapt("adadps", budget=FREE, **WHOLE, damping=0.5)
    assert_equal_only(found, along(corrected=True), along(corrected=False))


def test_adadps_averages_squares_over_public_batches_as_its_authors_do() -> None:
    """`estimate_preconditioner` in stackoverflow_centralized/trainers/model_base.py of litian96/AdaDPS (befda34).

    The mean over public batches of the squares of their gradients, not the square of the mean gradient.
    """
    made, theta = guide("adadps", public_tasks=3, public_images=4, damping=0.5), torch.full((D,), 0.2)
    x_TQ = made._public.draw(3, 4, torch.Generator().manual_seed(0))  # as the guide will draw it
    rows = torch.stack([LinearRegression(D).per_example_gradients(theta, x, made.rng, 1).mean(0) for x in x_TQ])
    made.prepare(theta, 0)
    assert_equal_only(made._scale_P, rows.square().mean(0).sqrt() + 0.5, rows.mean(0).abs() + 0.5)


def test_options_that_make_no_sense_are_refused() -> None:
    for options in ({"decay": 1.0}, {"damping": 0.0}):
        with pytest.raises(UserError, match="expected a decay"):
            METHODS["adadps"].options_type(**options)


class Regression(lightning.LightningModule):
    """The linear regression as Lightning would train it."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.target, self.steps = LinearRegression(D), steps
        self.theta = torch.nn.Parameter(torch.zeros(D))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.target.per_example_loss(self.theta, batch, None).mean()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}


@pytest.mark.filterwarnings("ignore")  # Lightning's remarks on loader workers and on the absent logger
def test_dp_sgd_without_noise_and_clipping_is_lightnings_own_training() -> None:
    module = Regression(steps=6)
    trainer = lightning.Trainer(
        max_epochs=6,  # of one full batch
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(records(), batch_size=N))
    free = {"budget": FREE, "steps": 6, "learning_rate": 0.02}
    unclipped = adapt("dp_sgd", **free, l2_clip_norm=math.inf)
    assert_equal_only(module.theta.detach(), unclipped, adapt("dp_sgd", **free, l2_clip_norm=1.0))
    averaged = adapt("dp_sgd", **free, l2_clip_norm=math.inf, average_last=0.5)
    assert not torch.allclose(module.theta.detach(), averaged, rtol=0.01)
