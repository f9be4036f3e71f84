"""DP-MEPF's moments, and what its mechanisms state of them."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from dphyper.methods.dp_mepf import Moments, squares
from dphyper.privacy.accounting import epsilon_of
from dphyper.privacy.budget import Budget, Relation

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def releases(method: Any, budget: Budget) -> Any:
    return method.mechanisms(budget, method.options)


@pytest.mark.parametrize("relation", list(Relation))
def test_second_moments_are_bounded_by_what_their_mechanism_states(relation: Relation, greys: Any) -> None:
    """Squares of vectors of norm 1 are √2 apart at most, and at unit norm bound that is reached."""
    budget = dataclasses.replace(FREE, epsilon=2.0, relation=relation)
    mechanisms = releases(greys.method("dp_mepf", moments=2), budget)
    spent = epsilon_of([m.event() for m in mechanisms], 1e-5, relation)
    assert spent == pytest.approx(2.0, rel=1e-5)
    rows = squares(torch.eye(12)) / squares(torch.eye(12)).norm(dim=1, keepdim=True)
    apart = float((rows[0] - rows[1]).norm())
    assert apart == pytest.approx(math.sqrt(2))
    assert mechanisms[1].sensitivity(Relation.REPLACE_ONE) >= apart
    assert apart > 1.0  # what published code takes, half of the bound 2
    # One moment alone has the whole budget, with less noise.
    (alone,) = releases(greys.method("dp_mepf"), budget)
    assert mechanisms[0].noise_std(relation) == pytest.approx(alone.noise_std(relation) * math.sqrt(2), rel=1e-4)


def test_moments_of_the_release_equal_those_of_the_embedding(door: Any, greys: Any) -> None:
    method, records = greys.method("dp_mepf", moments=2), greys.images(0.5, 20)
    embedding = method.embedding(seeded())
    assert isinstance(embedding, Moments)
    mean, _, _ = method.release(door(records), embedding, FREE)
    phi = embedding.features(records).double().numpy()
    squared = phi**2 * math.sqrt(phi.shape[1] / 3)
    squared /= np.maximum(np.linalg.norm(squared, axis=1, keepdims=True), 1)
    np.testing.assert_allclose(mean.numpy(), np.concatenate([phi, squared], 1).mean(0), atol=1e-6)
    assert not np.allclose(mean.numpy()[: phi.shape[1]], mean.numpy()[phi.shape[1] :], atol=1e-3)
