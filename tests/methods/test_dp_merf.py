"""DP-MERF's features have norm 1 and the kernel that they stand for."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from dphyper.methods.dp_merf import FourierFeatures
from dphyper.privacy.accounting import epsilon_of
from dphyper.privacy.budget import Budget, Relation

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_fourier_features_have_norm_one_and_the_gaussian_kernel(greys: Any) -> None:
    features = FourierFeatures(greys.public.records, 20_000, 0.5, seeded())
    x, y = greys.images(0.1, 5, 1), greys.images(-0.1, 5, 2)
    pixels = greys.public.records.flatten(1).double().numpy()
    distances = np.sqrt(((pixels[:, None] - pixels[None]) ** 2).sum(-1))[np.triu_indices(96, 1)]
    bandwidth = 0.5 * np.median(distances)
    gap = (x.flatten(1)[:, None] - y.flatten(1)[None]).square().sum(-1).numpy()
    expected = np.exp(-gap / (2 * bandwidth**2))
    np.testing.assert_allclose((features(x) @ features(y).T).numpy(), expected, atol=0.03)
    assert np.abs(np.exp(-gap / bandwidth**2) - expected).max() > 0.05  # another bandwidth is another kernel
    torch.testing.assert_close(features(x).norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("relation", list(Relation))
def test_the_one_release_spends_the_budget_exactly(relation: Relation, greys: Any) -> None:
    budget = Budget(epsilon=2.0, delta=1e-5, relation=relation)
    method = greys.method("dp_merf")
    (mechanism,) = method.mechanisms(budget, method.options)
    assert epsilon_of([mechanism.event()], 1e-5, relation) == pytest.approx(2.0, rel=1e-5)
    (louder,) = method.mechanisms(dataclasses.replace(budget, epsilon=1.0), method.options)
    assert epsilon_of([louder.event()], 1e-5, relation) == pytest.approx(1.0, rel=1e-5)
