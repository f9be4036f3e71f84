"""The directions of public gradients, against a dense eigendecomposition."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dphyper.bench.catalog import METHODS
from dphyper.core.errors import UserError
from dphyper.methods.public_space import principal_directions


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_directions_are_those_of_a_dense_eigendecomposition() -> None:
    rows = normal(12, 20) * torch.linspace(5, 0.5, 20)
    found = principal_directions(rows, 4).numpy()
    dense = np.linalg.eigh(rows.double().numpy().T @ rows.double().numpy())[1]  # in rising order
    np.testing.assert_allclose(found.T @ found, dense[:, -4:] @ dense[:, -4:].T, atol=1e-5)
    # DP2's trainers/dp_adagrad_grad_projection.py takes the first k of them, which are the smallest.
    assert np.abs(found.T @ found - dense[:, :4] @ dense[:, :4].T).max() > 0.1


def test_directions_that_are_not_there_are_zero() -> None:
    rows = normal(7, 3) @ normal(3, 20)
    found = principal_directions(rows, 9)
    assert found.shape == (9, 20)
    torch.testing.assert_close(found[:3] @ found[:3].T, torch.eye(3), atol=1e-5, rtol=0)
    assert not found[3:].any()
    assert principal_directions(torch.full((4, 5), math.nan), 2).eq(0).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gep", {"public_every": 0}, "at least 1 step"),
        ("pdp_sgd", {"basis_size": 20, "public_tasks": 10}, "at most options.public_tasks = 10"),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    METHODS[name].options_type.parse(name, {})
    with pytest.raises(UserError, match=message):
        METHODS[name].options_type.parse(name, options)
