"""GEP against the published update and the published accounting."""

import math
from typing import Any

import dp_accounting
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dphyper.bench.catalog import METHODS
from dphyper.core.errors import UserError
from dphyper.privacy.budget import Budget, Relation
from dphyper.studies.theory.regression import LinearRegression

TIGHT = Budget(epsilon=1.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Echo(LinearRegression):
    """A target whose gradients are the records themselves, so that any gradient can be put in."""

    def per_example_gradients(self, theta: Tensor, x: Tensor, rng: torch.Generator, multiplicity: int) -> Tensor:
        return x


def clipped(rows: NDArray[np.float64], clip: float) -> NDArray[np.float64]:
    return rows * np.minimum(1, clip / np.linalg.norm(rows, axis=1, keepdims=True))


def gep_in_numpy(
    gradients: NDArray[np.float64], anchors: NDArray[np.float64], k: int, clips: tuple[float, float], residual: bool
) -> NDArray[np.float64]:
    """models/basis_matching.py (GEP.forward) and main.py of dayu11/Gradient-Embedding-Perturbation, without noise.

    With exact directions in place of a power iteration.
    """
    bases = np.linalg.eigh(anchors.T @ anchors)[1][:, -k:]
    embedding = gradients @ bases
    update = clipped(embedding, clips[0]).mean(0) @ bases.T
    return update + clipped(gradients - embedding @ bases.T, clips[1]).mean(0) if residual else update


@pytest.mark.parametrize("name", ["gep", "b_gep"])
def test_gep_is_the_published_update(name: str, regression: Any) -> None:
    anchors, gradients = normal(8, 6, seed=5), normal(30, 6, seed=6)
    clips = {"embedding_clip_norm": 1.1} | ({"residual_clip_norm": 0.7} if name == "gep" else {})
    guide = regression.prepared(
        name, public=anchors, target=Echo(6), basis_size=2, public_images=1, public_tasks=64, **clips
    )
    drawn = guide._public.draw(64, 1, torch.Generator().manual_seed(3)).flatten(0, 1)
    found = guide.gradient(guide.contribution(torch.zeros(6), gradients, guide.rng).mean(0).float()).numpy()

    def wanted(c0: float, c1: float) -> NDArray[np.float64]:
        return gep_in_numpy(gradients.double().numpy(), drawn.double().numpy(), 2, (c0, c1), name == "gep")

    np.testing.assert_allclose(found, wanted(1.1, 0.7), atol=1e-5)
    assert np.abs(found - wanted(9.0, 0.7)).max() > 0.01
    if name == "gep":
        assert np.abs(found - wanted(1.1, 9.0)).max() > 0.01


def test_gep_rows_are_jointly_bounded(regression: Any) -> None:
    """Whatever the gradient, each part has norm 1 at most and both √2; and it takes √2: norm 1 would not do."""
    guide = regression.prepared("gep", public=normal(8, 6, seed=5), target=Echo(6), basis_size=2, public_tasks=64)
    inside, outside = guide.basis_kP[0], torch.linalg.qr(torch.cat([guide.basis_kP, normal(1, 6)]).T).Q[:, 2]
    bad = [torch.full((6,), value) for value in (math.nan, math.inf, 3e38, 1e-40, 0.0)]
    x = torch.stack([a * inside + b * outside for a in (0, 1e-9, 1, 1e9) for b in (0, 1e-9, 1, 1e9)] + bad)
    rows = guide.contribution(torch.zeros(6), x, guide.rng)
    assert rows.shape == (len(x), 2 + 6)
    assert rows.isfinite().all()
    assert rows[:, :2].norm(dim=1).max() <= 1
    assert rows[:, 2:].norm(dim=1).max() <= 1
    assert math.sqrt(2) - 1e-6 < rows.norm(dim=1).max() <= math.sqrt(2)


def test_gep_noise_pays_for_two_releases(regression: Any) -> None:
    """Against the published accounting, two Gaussians of sensitivity 1 in each step, by dp_accounting."""
    method = regression.method("gep", public=normal(8, 6), steps=7)
    std = method.mechanisms(TIGHT, method.options)[0].noise_std(TIGHT.relation)

    def epsilon(releases: int) -> float:
        accountant = dp_accounting.pld.PLDAccountant()
        accountant.compose(dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(std), releases))
        return float(accountant.get_epsilon(TIGHT.delta))

    assert epsilon(2 * 7) == pytest.approx(1.0, abs=0.01)
    assert epsilon(7) < 0.75
    method = regression.method("b_gep", public=normal(8, 6), steps=7)
    (biased,) = method.mechanisms(TIGHT, method.options)
    assert std == pytest.approx(math.sqrt(2) * biased.noise_std(TIGHT.relation), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gep", {"residual_clip_norm": 0.0}, "residual_clip_norm"),
        ("b_gep", {"embedding_clip_norm": math.inf}, "embedding_clip_norm = inf"),
        ("gep", {"l2_clip_norm": 1.0}, "leave it and set embedding_clip_norm"),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    METHODS[name].options_type.parse(name, {})
    with pytest.raises(UserError, match=message):
        METHODS[name].options_type.parse(name, options)
