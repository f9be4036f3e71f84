"""RGP against the published update; of full rank it is exact."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dphyper.bench.catalog import METHODS
from dphyper.core.errors import UserError
from dphyper.privacy.budget import Budget, Relation
from dphyper.studies.theory.regression import LinearRegression

TIGHT = Budget(epsilon=1.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Layered(LinearRegression):
    """A target whose gradients, of a 3×2 and of a 2×2 matrix, are the records themselves."""

    layer_shapes = ((3, 2), (2, 2))

    def per_example_gradients(self, theta: Tensor, x: Tensor, rng: torch.Generator, multiplicity: int) -> Tensor:
        return x


def test_rgp_of_full_rank_is_exact(regression: Any) -> None:
    gradient = normal(1, 10, seed=7)
    for rank, exact in ((2, True), (1, False)):
        guide = regression.prepared("rgp", public=normal(16, 10), target=Layered(10), carrier_rank=rank)
        found = guide.gradient(guide.contribution(torch.zeros(10), gradient, guide.rng)[0])
        assert torch.allclose(found, gradient[0], atol=1e-5) == exact


def test_rgp_is_the_published_update(regression: Any) -> None:
    """Both carriers as in the paper, and the left one as in get_full_grad of vision/RGP/models/resnet_cifar.py.

    (dayu11/Differentially-Private-Deep-Learning.) In numpy the former is G − (I − L Lᵀ) G (I − Rᵀ R).
    """
    gradient = normal(1, 10, seed=7)
    for carriers in ("both", "left"):
        guide = regression.prepared(
            "rgp", public=normal(16, 10), target=Layered(10), carriers=carriers, public_images=1
        )
        drawn = guide._public.draw(64, 1, torch.Generator().manual_seed(3)).flatten(0, 1).double().numpy()
        found = guide.gradient(guide.contribution(torch.zeros(10), gradient, guide.rng)[0]).numpy()
        for part, (o, i) in ((slice(0, 6), (3, 2)), (slice(6, 10), (2, 2))):
            seen = drawn[:, part].reshape(-1, o, i)
            left = np.linalg.eigh(sum(g @ g.T for g in seen))[1][:, -1:]
            right = np.linalg.eigh(sum(g.T @ g for g in seen))[1][:, -1:].T
            whole = gradient[0, part].double().numpy().reshape(o, i)
            left_grad = whole @ right.T
            wanted = left_grad @ right
            if carriers == "both":
                wanted = whole - (np.eye(o) - left @ left.T) @ whole @ (np.eye(i) - right.T @ right)
            np.testing.assert_allclose(found[part], wanted.ravel(), atol=1e-5)


def test_rgp_without_matrices_is_dp_sgd(regression: Any) -> None:
    torch.testing.assert_close(
        regression.adapt("rgp", carriers="left"), regression.adapt("dp_sgd"), rtol=1e-4, atol=1e-5
    )
    noisy = [regression.adapt("rgp", TIGHT, carriers="left", public_every=every) for every in (1, 5)]
    assert all((theta - regression.adapt("dp_sgd")).norm() > 0.1 for theta in noisy)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rgp", {"carriers": "right"}, "'both' or 'left'"),
        ("rgp", {"carrier_rank": 0}, "at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    METHODS[name].options_type.parse(name, {})
    with pytest.raises(UserError, match=message):
        METHODS[name].options_type.parse(name, options)
