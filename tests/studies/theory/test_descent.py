"""Batched descent, against `PrivateData` and adversarial records."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats

from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData
from dphyper.studies.theory.descent import (
    RESIDUAL_CLIP,
    CentredGradients,
    Columns,
    MirroredGradients,
    PlainGradients,
    ProjectedGradients,
    ResidualGradients,
    descend,
)
from dphyper.studies.theory.regression import LinearRegression
from dphyper.studies.theory.releases import calibrate_steps

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
TIGHT = Budget(epsilon=1.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
D, CLIP = 20, 4.0
UNSPLIT = [PlainGradients, MirroredGradients, CentredGradients]  # whose one release is a sum in all of R^d


def columns(steps: int, rate: float, *, num: int = 1, noise: float = 1.0) -> Columns:
    return Columns(
        steps=steps,
        rates_R=torch.full((num,), rate),
        clips_R=torch.full((num,), CLIP),
        noise_R=torch.full((num,), noise),
    )


@pytest.mark.parametrize("kind", UNSPLIT)
def test_batched_steps_have_the_noise_of_private_data(
    kind: type[PlainGradients], small_world: Callable[..., Any]
) -> None:
    public = small_world().public
    x, y = torch.zeros(1, 50, D), torch.zeros(1, 50)
    settings = columns(steps=1, rate=1.0, num=500)
    theta = descend(kind(x, y, settings, TIGHT, torch.Generator().manual_seed(0), public))[0]
    (mechanism,) = calibrate_steps(TIGHT, 1)
    private = PrivateData(torch.zeros(50, D), n=50, ledger=Ledger(TIGHT), noise=NoiseSource.reproducible(0))
    draws = next(private.gradient_steps(lambda rows, rng: 0 * rows, mechanism, role="gradient"))
    assert float(draws.std()) == pytest.approx(mechanism.noise_std(TIGHT.relation) / 50, rel=0.5)
    expected = CLIP * mechanism.noise_std(TIGHT.relation) / 50
    values = (theta - theta.mean(1, keepdim=True)).flatten().numpy()
    accepted = [stats.kstest(values, "norm", (0, s * expected)).pvalue > 1e-3 for s in (1, 2 / 3, 3 / 2)]
    assert accepted == [True, False, False]


def test_batched_descent_equals_private_data_step_by_step(small_world: Callable[..., Any]) -> None:
    small = small_world()
    x_Bnd, y_Bn, _ = small.draw(1, 60)
    settings = columns(steps=3, rate=0.5)
    found = descend(PlainGradients(x_Bnd, y_Bn, settings, FREE, torch.Generator(), small.public))[0, :, 0]
    target, theta = LinearRegression(D), torch.zeros(D)
    records = torch.cat([x_Bnd, y_Bn[..., None]], dim=2)[0]
    private = PrivateData(records, n=60, ledger=Ledger(FREE), noise=NoiseSource.reproducible(0))
    (mechanism,) = calibrate_steps(FREE, 3)
    scaled = lambda x, rng: target.per_example_gradients(theta, x, torch.Generator(), 1) / CLIP  # noqa: E731
    for gradient in private.gradient_steps(scaled, mechanism, role="gradient"):
        theta = theta - 0.5 * CLIP * gradient.float()
    torch.testing.assert_close(found, theta, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [*UNSPLIT, ProjectedGradients, ResidualGradients])
def test_one_record_moves_a_step_by_at_most_its_clip(
    kind: type[PlainGradients], small_world: Callable[..., Any]
) -> None:
    """A record added to the data moves n·θ after one step of rate 1 by no more than the release's sensitivity."""
    small = small_world()
    x_Bnd, y_Bn, _ = small.draw(1, 30)
    # GEP's two parts are charged as two releases; together they move the sum by at most this.
    bound = CLIP * (math.hypot(1, RESIDUAL_CLIP) if kind is ResidualGradients else 1.0)
    # A null record contributes clip(0 − h) to centred gradients, a removed one nothing at all.
    h_d = (small.public.x_Md * small.public.y_M[:, None]).mean(0)
    null = float(h_d.norm()) if kind is CentredGradients else 0.0
    moved = 0.0
    for direction in torch.eye(D)[:5]:
        for scale, label in ((1e3, 1e3), (1.0, -1e4), (0.01, 5.0)):
            with_it, without = (x_Bnd.clone(), y_Bn.clone()), (x_Bnd.clone(), y_Bn.clone())
            with_it[0][0, -1], with_it[1][0, -1] = scale * direction, label
            without[0][0, -1], without[1][0, -1] = 0, 0
            settings = columns(steps=1, rate=1.0, noise=0.0)
            both = [
                descend(kind(*data, settings, TIGHT, torch.Generator(), small.public)) for data in (with_it, without)
            ]
            moved = max(moved, 30 * float((both[0] - both[1]).norm()) - null)
    assert moved <= bound * (1 + 1e-4)
    if kind in UNSPLIT:
        assert moved > 0.5 * bound, "the adversary is too weak to find a bound that is violated"
