"""The two-step method: it descends where the decoder moves, and its first step is the hypernetwork's."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from dphyper.audits import contract
from dphyper.bench.catalog import METHODS
from dphyper.core.errors import UserError
from dphyper.methods.hypernetwork import Hypernetwork
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData

NAME = "hypernetwork_then_dp_sgd"
CODE = (torch.tensor([[0.3, -0.2, 0.1, 0.4]]), torch.tensor([0.05]), torch.tensor([24.0]))


def method(**options: Any) -> Any:
    return contract.tiny_method(NAME, options=options)


def share_outside(direction_P: torch.Tensor, span_PD: torch.Tensor) -> float:
    outside = direction_P - span_PD @ (span_PD.T @ direction_P)
    return float(outside.norm() / direction_P.norm())


@pytest.mark.parametrize(("space", "dimensions"), [("embedding", 4), ("hidden", 256)])
def test_the_answer_moves_in_the_span(space: str, dimensions: int) -> None:
    made = method(space=space)
    span_PD = made.span(*CODE)
    assert span_PD.shape == (made.target.num_parameters, dimensions)
    torch.testing.assert_close(span_PD.T @ span_PD, torch.eye(dimensions), rtol=0, atol=1e-4)
    with torch.no_grad():
        inputs = made.trunk_inputs(*CODE)
        step = torch.cat([torch.randn(1, 4), torch.zeros(1, 1)], 1) * 1e-3
        moved_P = (made.head(made.trunk(inputs + step)) - made.head(made.trunk(inputs)))[0]
    assert share_outside(moved_P, span_PD) < 0.02
    assert share_outside(torch.randn_like(moved_P), span_PD) > 0.5


def test_without_descent_the_answer_is_the_hypernetworks() -> None:
    def answer(rate: float) -> torch.Tensor:
        return contract.adapt(method(descent_rate=rate), contract.tiny_records())[0].theta

    made, ledger = method(), Ledger(contract.BUDGET)
    private = PrivateData(contract.tiny_records(), n=24, ledger=ledger, noise=NoiseSource.reproducible(0))
    code, _ = made.release_code(private, made.mechanisms(contract.BUDGET, made.options)[0])
    torch.testing.assert_close(answer(0.0), made.decode(*code)[0])
    assert not torch.allclose(answer(26.0), answer(0.0))


def test_the_release_takes_its_share() -> None:
    options = method().options
    (alone,) = Hypernetwork.mechanisms(contract.BUDGET, options)
    for share, factor in ((0.5, math.sqrt(2)), (0.8, math.sqrt(1.25))):
        given = dataclasses.replace(options, release_share=share)
        release, steps = METHODS[NAME].mechanisms(contract.BUDGET, given)
        assert release.noise_multiplier == pytest.approx(alone.noise_multiplier * factor)  # type: ignore[union-attr]
        assert steps.noise_multiplier > 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"release_share": 1.0}, "release_share = 1.0: expected above 0 and below 1"),
        ({"space": "span"}, "space = 'span'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        method(**options)
