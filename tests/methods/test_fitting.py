"""The fit to images, the public features of images, and votes for the nearest."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dphyper.audits import guards
from dphyper.methods.dp_merf import FourierFeatures
from dphyper.methods.fitting import FitOptions, PublicFeatures, fit, vote_for_nearest
from dphyper.privacy.budget import Budget, Relation

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_fit_is_adam_on_the_weighted_loss_and_lowers_it(greys: Any) -> None:
    bright = greys.public.records[80:]

    def loss(theta: Tensor) -> float:
        with torch.no_grad():
            return float(greys.target.per_example_loss(theta, bright, seeded(9), stratified=True).mean())

    options = FitOptions(fit_steps=15, fit_batch_size=16, fit_learning_rate=0.02)
    weights = torch.cat([torch.zeros(80), torch.ones(16)])
    fitted = fit(greys.target, greys.target.initial(), greys.public.records, options, seeded(), weights=weights)
    elsewhere = fit(
        greys.target, greys.target.initial(), greys.public.records, options, seeded(), weights=weights.flip(0)
    )
    assert loss(fitted) < loss(greys.target.initial())
    assert loss(fitted) < loss(elsewhere)
    # Only the images of weight above 0 enter.
    poisoned = torch.where(weights[:, None, None, None] > 0, greys.public.records, torch.nan)
    assert torch.equal(fit(greys.target, greys.target.initial(), poisoned, options, seeded(), weights=weights), fitted)
    assert (
        not fit(greys.target, greys.target.initial(), poisoned, options, seeded(), weights=weights.flip(0))
        .isfinite()
        .all()
    )


def test_public_features_are_record_wise_of_norm_one(greys: Any) -> None:
    features = PublicFeatures(greys.target, greys.public.records)
    assert guards.record_wise(features, greys.images(0.3, 6)) is None
    assert guards.record_wise(lambda x: features(x) - features(x).mean(0), greys.images(0.3, 6)) is not None
    torch.testing.assert_close(features(100 * greys.images(0.3, 6)).norm(dim=1), torch.ones(6))
    raw = greys.target.features(greys.public.records).detach().double().numpy()
    scaled = (raw - raw.mean(0)) / np.maximum(raw.std(0, ddof=1), 1e-3)
    expected = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    np.testing.assert_allclose(features.features_NF.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_differentiable_features_are_the_same_with_a_gradient(greys: Any) -> None:
    x = greys.images(0.2, 3).requires_grad_()
    for embedding in (
        PublicFeatures(greys.target, greys.public.records),
        FourierFeatures(greys.public.records, 8, 1.0, seeded()),
    ):
        rows = embedding.differentiable(x)
        torch.testing.assert_close(rows, embedding(x))
        (gradient,) = torch.autograd.grad(rows[:, 0].sum(), x)
        assert float(gradient.abs().max()) > 0


def test_votes_are_for_the_nearest_and_have_norm_one() -> None:
    rng = np.random.default_rng(2)
    x, candidates = rng.normal(size=(11, 4)), rng.normal(size=(9, 4))
    votes = vote_for_nearest(torch.from_numpy(x), torch.from_numpy(candidates), 3).numpy()
    order = np.argsort(((x[:, None] - candidates[None]) ** 2).sum(-1), axis=1)[:, :3]
    expected = np.zeros((11, 9))
    np.put_along_axis(expected, order, 1 / math.sqrt(3), axis=1)
    np.testing.assert_allclose(votes, expected)
    np.testing.assert_allclose(np.linalg.norm(votes, axis=1), 1)
    assert not np.allclose(
        vote_for_nearest(torch.from_numpy(x), torch.from_numpy(candidates[::-1].copy()), 3), expected
    )
