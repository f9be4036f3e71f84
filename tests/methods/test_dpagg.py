"""DPAgg's codes are those of each record alone, and its scale is chosen on public tasks."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dphyper.privacy.accounting import epsilon_of
from dphyper.privacy.budget import Budget, Relation

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_codes_are_those_of_each_record_alone(greys: Any) -> None:
    """A record's code is what plain gradient steps on its own loss give, with the others in the batch or without."""
    method = greys.method("dpagg", code_steps=3, code_draws=1, code_rate=5.0)
    records = greys.images(0.4, 4)
    codes = method.codes(records, seeded(3))
    # The same draws of time and noise, dealt by position, with the other records replaced.
    others = torch.cat([records[:1], greys.images(-0.8, 3, seed=9)])
    torch.testing.assert_close(method.codes(others, seeded(3))[0], codes[0], rtol=1e-3, atol=1e-6)
    assert not torch.allclose(method.codes(others, seeded(3))[1], codes[1], rtol=1e-2)

    alone = method.codes(records[:1], seeded(4))[0]
    code, rng = torch.zeros(4), seeded(4)
    for _ in range(3):
        code.requires_grad_()
        (gradient,) = torch.autograd.grad(
            greys.target.per_example_loss(code @ method.basis_kP, records[:1], rng).sum(), code
        )
        code = code.detach() - 5.0 * gradient
    torch.testing.assert_close(alone, code, rtol=1e-3, atol=1e-6)


def test_basis_is_orthonormal_and_frozen(greys: Any) -> None:
    basis = greys.method("dpagg").basis_kP
    torch.testing.assert_close(basis @ basis.T, torch.eye(4), atol=1e-5, rtol=0)
    assert torch.equal(basis, greys.method("dpagg").basis_kP)


def test_dpagg_without_noise_decodes_the_clipped_mean_code(
    monkeypatch: pytest.MonkeyPatch, door: Any, greys: Any
) -> None:
    method = greys.method("dpagg", public_tasks=2, public_images=8, query_images=4)
    lengths = torch.tensor([0.5, 1.0, 4.0])
    fixed = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0.6, 0.8]])

    def codes(x: Tensor, rng: torch.Generator) -> Tensor:
        """Known codes of norms 0.5, 1 and 4 for the private records, of norm 2 for public ones."""
        if len(x) == 3:
            return lengths[:, None] * fixed
        return 2.0 * fixed[torch.zeros(len(x), dtype=torch.int64)]

    monkeypatch.setattr(method, "codes", codes)
    monkeypatch.setattr(method, "choose_scale", lambda mean_Tk, query, noise_std, rng: 3.0)
    theta = method.adapt(door(greys.images(0.1, 3)), FREE, seeded()).theta
    relative = lengths.numpy() / 2.0
    clipped = np.minimum(relative, 1.0)[:, None] * fixed.numpy()
    expected = 3.0 * clipped.mean(0) @ method.basis_kP.numpy()
    np.testing.assert_allclose(theta.numpy(), expected, atol=1e-5)
    unclipped = 3.0 * (relative[:, None] * fixed.numpy()).mean(0) @ method.basis_kP.numpy()
    assert np.abs(theta.numpy() - unclipped).max() > 1e-3


def test_scale_is_chosen_by_the_loss_at_the_noise_of_the_release(monkeypatch: pytest.MonkeyPatch, greys: Any) -> None:
    """A bowl with its minimum at scale 4: found without noise; with much noise a smaller scale is better."""
    method = greys.method("dpagg")
    centre = method.basis_kP[0]
    monkeypatch.setattr(
        greys.target,
        "per_example_loss",
        lambda theta, x, rng, stratified: (theta - 4.0 * centre).square().sum(1),
    )
    mean = torch.tensor([[1.0, 0, 0, 0]] * 2)
    query = torch.zeros(2, 3, 1, 8, 8)
    assert method.choose_scale(mean, query, 0.0, seeded()) == 4.0
    assert method.choose_scale(mean, query, 3.0, seeded()) < 4.0


@pytest.mark.parametrize("relation", list(Relation))
def test_the_one_release_spends_the_budget_exactly(relation: Relation, greys: Any) -> None:
    budget = Budget(epsilon=2.0, delta=1e-5, relation=relation)
    method = greys.method("dpagg")
    (mechanism,) = method.mechanisms(budget, method.options)
    assert epsilon_of([mechanism.event()], 1e-5, relation) == pytest.approx(2.0, rel=1e-5)
    (louder,) = method.mechanisms(dataclasses.replace(budget, epsilon=1.0), method.options)
    assert epsilon_of([louder.event()], 1e-5, relation) == pytest.approx(1.0, rel=1e-5)
