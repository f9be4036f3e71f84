"""The regression target: gradients, features, and what it refuses."""

import pytest
import torch

from dphyper.core.errors import UserError
from dphyper.studies.theory.regression import LinearRegression


def test_gradients_and_features_of_the_target() -> None:
    target = LinearRegression(4)
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    theta = torch.full((target.num_parameters,), 0.3, requires_grad=True)
    wanted = [torch.autograd.grad(target.per_example_loss(theta, row[None], None).sum(), theta)[0] for row in x]
    found = target.per_example_gradients(theta.detach(), x, torch.Generator(), 1)
    torch.testing.assert_close(found, torch.stack(wanted))
    at_zero = target.per_example_gradients(target.initial(), x, torch.Generator(), 1)
    torch.testing.assert_close(target.features(x), -at_zero)


def test_each_record_may_have_parameters_of_its_own() -> None:
    target = LinearRegression(4)
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    theta_bP = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    alone = [target.per_example_loss(theta, row[None], None)[0] for theta, row in zip(theta_bP, x, strict=True)]
    torch.testing.assert_close(target.per_example_loss(theta_bP, x, None), torch.stack(alone))


def test_it_generates_no_record() -> None:
    with pytest.raises(UserError, match="LinearRegression cannot generate records"):
        LinearRegression(2).sample(torch.zeros(2), 1, torch.Generator())
