"""Released mean embeddings and the two ways to match them, against closed forms in numpy."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dphyper.core.errors import UserError
from dphyper.methods.dp_merf import FourierFeatures
from dphyper.methods.matching import MatchingOptions, exponential_tilt, fit_samples, squared_mmd
from dphyper.privacy.budget import Budget, Relation

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["dp_merf", "dp_mepf"])
def test_released_mean_is_the_mean_without_noise_and_noisy_with_it(name: str, door: Any, greys: Any) -> None:
    method = greys.method(name)
    embedding, records = method.embedding(seeded()), greys.images(0.5, 20)
    mean, std, count = method.release(door(records), embedding, FREE)
    np.testing.assert_allclose(mean.numpy(), embedding(records).double().numpy().mean(0), atol=1e-6)
    assert float(std.max()) == 0.0
    assert count == pytest.approx(20.0)
    budget = dataclasses.replace(FREE, epsilon=1.0, relation=Relation.ZERO_OUT)
    noisy, std, _ = method.release(door(records, budget), embedding, budget)
    np.testing.assert_allclose(std.numpy(), 3.7306 / 20, rtol=1e-4)  # METHODS: multiplier at ε = 1, δ = 1e-5
    assert 0.5 < float((noisy - mean).square().mean().sqrt() / std[0]) < 1.5


def test_squared_mmd_equals_the_sum_over_pairs_in_numpy() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(9, 3))
    gram = x @ x.T
    expected = (gram.sum() - np.trace(gram)) / 42 - 2 * (x @ y.T).mean() + (y @ y.T).mean()
    mean = torch.from_numpy(y.mean(0))
    got = float(squared_mmd(torch.from_numpy(x), mean))
    assert got == pytest.approx(expected)
    biased = float((torch.from_numpy(x).mean(0) - mean).square().sum())
    assert abs(biased - expected) > 0.05  # with i = j it would grow with the spread of a batch


def test_tilt_solves_its_optimality_conditions_and_lowers_the_mmd() -> None:
    rng = np.random.default_rng(1)
    phi = rng.normal(size=(200, 5))
    mean, ridge = phi[:40].mean(0) + 0.2, np.full(5, 0.05)
    weights = exponential_tilt(phi, mean, ridge)
    nu = (mean - weights @ phi) / ridge
    expected = np.exp(phi @ nu)
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-3)

    def exact(w: Any) -> float:
        return float(((w @ phi - mean) ** 2).sum())

    equal = np.full(200, 1 / 200)
    loose = exponential_tilt(phi, mean, np.full(5, 1e3))
    assert exact(weights) < 0.1 * exact(equal)
    np.testing.assert_allclose(loose, equal, rtol=0.01)  # all is noise: the public images as they are
    tight = exponential_tilt(phi, mean, np.full(5, 1e-6))
    assert exact(tight) < 1e-4 * exact(weights)


def test_mean_embedding_draws_the_weights_to_the_task_of_the_records(door: Any, greys: Any) -> None:
    for name in ("dp_merf", "dp_mepf"):
        method = greys.method(name)
        embedding = method.embedding(seeded())
        for task in (0, 5):
            mean, _, _ = method.release(door(greys.images(greys.levels[task], 32, seed=20)), embedding, FREE)
            ridge = np.full(len(mean), 1e-3)
            weights = exponential_tilt(embedding.features_NF.double().numpy(), mean.numpy(), ridge)
            # Which task an image of the embedding's own order belongs to.
            level = embedding.records.flatten(1).mean(1)
            near = (level - greys.levels[task]).abs() < 0.18
            assert weights[near.numpy()].sum() > 0.6
            assert weights[~near.numpy()].max() < weights[near.numpy()].max()


def test_fit_by_samples_lowers_the_mmd(greys: Any) -> None:
    embedding = FourierFeatures(greys.public.records, 50, 1.0, seeded())
    mean = embedding(greys.images(0.8, 64)).mean(0)
    options = MatchingOptions(fit_steps=20, fit_batch_size=32, fit_learning_rate=0.05, sampler_steps=2)
    fitted = fit_samples(greys.target, embedding.differentiable, mean, options, seeded())

    def exact(theta: Tensor) -> float:
        with torch.no_grad():
            return float(squared_mmd(embedding(greys.target.few_step_samples(theta, 256, 2, seeded(8))), mean))

    assert exact(fitted) < exact(greys.target.initial()) - 0.01


def test_unknown_fitting_is_refused() -> None:
    with pytest.raises(UserError, match="expected 'weights' or 'samples'"):
        MatchingOptions(fitting="kernel")
