"""PAZO's loss differences are derivatives, and with a probe for every direction it is DP-SGD."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dphyper.audits import contract
from dphyper.bench.catalog import METHODS
from dphyper.core.errors import UserError


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("smoothing", [0.01, 1.0])
def test_pazo_differences_are_the_derivatives_of_a_quadratic(smoothing: float, regression: Any) -> None:
    guide = regression.prepared("pazo", probes=3, basis_size=4, smoothing=smoothing, multiplicity=2)
    theta, x = normal(6, seed=8).requires_grad_(), regression.private[:5]
    found = guide.contribution(theta.detach(), x, guide.rng)
    for row, wanted in zip(x, found, strict=True):
        (gradient,) = torch.autograd.grad(guide.target.per_example_loss(theta, row[None], None).sum(), theta)
        torch.testing.assert_close(guide.probes_qP @ gradient, wanted, rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(guide.probes_qP @ guide.probes_qP.T, torch.eye(3), atol=1e-5, rtol=0)


def test_pazo_takes_both_losses_at_the_same_times_and_noises(regression: Any) -> None:
    """On a diffusion loss, whose value is mostly noise: derivatives by autograd, one evaluation's randomness."""
    target, images = contract.tiny_target(), normal(32, 1, 8, 8).clamp(-1, 1)
    guide = regression.prepared(
        "pazo", public=images, target=target, probes=3, basis_size=4, public_tasks=4, public_images=2, multiplicity=2
    )
    theta = 0.1 * normal(target.num_parameters, seed=4)
    begin = guide.rng.get_state()
    found = guide.contribution(theta, images[:5], guide.rng)
    end = guide.rng.get_state()
    guide.rng.set_state(begin)
    gradient = target.per_example_gradients(theta, images[:5], guide.rng, 2)
    torch.testing.assert_close(found, gradient @ guide.probes_qP.T, rtol=0.02, atol=1e-5)
    assert torch.equal(guide.rng.get_state(), end)

    # What a difference of two losses at times of their own would say.
    def loss(reach: float) -> Tensor:
        with torch.no_grad():
            return target.per_example_loss(theta + reach * guide.probes_qP[0], images[:5], guide.rng)

    careless = (loss(0.1) - loss(-0.1)) / 0.2
    assert (careless - found[:, 0]).norm() > 10 * found[:, 0].norm()


def test_pazo_with_a_probe_for_every_direction_is_dp_sgd(regression: Any) -> None:
    wanted = regression.adapt("dp_sgd")
    torch.testing.assert_close(regression.adapt("pazo", basis_size=6, probes=6), wanted, rtol=1e-3, atol=1e-3)
    assert (regression.adapt("pazo", basis_size=6, probes=1) - wanted).norm() > 0.1 * wanted.norm()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pazo", {"probes": 9, "basis_size": 8}, "at most options.basis_size = 8"),
        ("pazo", {"smoothing": 0.0}, "smoothing"),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    METHODS[name].options_type.parse(name, {})
    with pytest.raises(UserError, match=message):
        METHODS[name].options_type.parse(name, options)
