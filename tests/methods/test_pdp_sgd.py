"""PDP-SGD is DP-SGD on the whole space, and stays in the public space."""

import math
from typing import Any

import pytest
import torch

from dphyper.privacy.budget import Budget, Relation

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
TIGHT = Budget(epsilon=1.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


@pytest.mark.parametrize("budget", [FREE, TIGHT], ids=["free", "noisy"])
def test_pdp_sgd_on_the_whole_space_is_dp_sgd(budget: Budget, regression: Any) -> None:
    wanted = regression.adapt("dp_sgd", budget)
    torch.testing.assert_close(regression.adapt("pdp_sgd", budget, basis_size=6), wanted, rtol=1e-4, atol=1e-5)
    assert (regression.adapt("pdp_sgd", budget, basis_size=1) - wanted).norm() > 0.1 * wanted.norm()


def test_pdp_sgd_steps_stay_in_the_public_space(regression: Any, door: Any) -> None:
    """θ of a run whose basis is never taken anew lies in the span of its k directions, noise and all."""
    records = regression.public * torch.tensor([1.0, 1.0, 0, 0, 0, 0, 1.0])
    private = door(regression.private, TIGHT)
    method = regression.method("pdp_sgd", public=records, basis_size=8, steps=4, public_every=4)
    theta = method.adapt(private, TIGHT, torch.Generator().manual_seed(0)).theta
    assert theta[:2].abs().min() > 1e-3
    assert theta[2:].abs().max() < 1e-6 * theta.norm()
