"""DP-FETA's central images, and the weights that bring public images near them."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dphyper.core.errors import UserError
from dphyper.privacy.accounting import epsilon_of
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.private_data import PrivateData

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def releases(method: Any, budget: Budget) -> Any:
    return method.mechanisms(budget, method.options)


def test_central_image_is_the_clipped_mean(door: Any, greys: Any) -> None:
    method = greys.method("dp_feta", image_clip_norm=2.0, warm_up="images", vary_strength=0.0, query_share=1.0)
    records = greys.images(0.8, 20)
    images, weights = method.ask(door(records), releases(method, FREE)[0], seeded())
    assert weights.tolist() == [1.0]
    centre = greys.public.records.mean(0).numpy()
    offsets = (records.numpy() - centre).reshape(20, -1).astype(np.float64)
    norms = np.linalg.norm(offsets, axis=1, keepdims=True)
    assert norms.min() > 2.0
    expected = centre + (offsets * np.minimum(1, 2.0 / norms)).mean(0).reshape(centre.shape)
    np.testing.assert_allclose(images[0].numpy(), expected, atol=1e-5)
    assert np.abs(expected - records.numpy().mean(0)).max() > 0.1  # the plain mean is another image


def test_central_image_is_divided_by_the_expected_count(greys: Any) -> None:
    """A record more moves the image by its own clipped offset over n; a mean over the realised count would not move."""
    method = greys.method("dp_feta", image_clip_norm=2.0, query_share=1.0)
    (query,) = releases(method, FREE)
    records = greys.images(0.8, 1).expand(20, -1, -1, -1)

    def offset(num: int) -> Tensor:
        private = PrivateData(records[:num], n=20, ledger=Ledger(FREE), noise=NoiseSource.reproducible(0))
        central: Tensor = method.central_offsets(private, query)[0]
        return central

    assert float((offset(20) - offset(19)).norm()) == pytest.approx(2.0 / 20, rel=1e-3)


def test_central_images_of_poisson_samples_differ(door: Any, greys: Any) -> None:
    method = greys.method("dp_feta", queries=3, query_prob=0.5, query_share=1.0)
    offsets = method.central_offsets(door(greys.images(0.3, 24)), releases(method, FREE)[0])
    assert offsets.shape == (3, 64)
    assert not torch.allclose(offsets[0], offsets[1], atol=1e-3)


@pytest.mark.parametrize(("queries", "query_prob"), [(1, 1.0), (8, 0.5)])
def test_weights_bring_the_mean_of_public_images_near_the_central_ones(
    queries: int, query_prob: float, door: Any, greys: Any
) -> None:
    method = greys.method("dp_feta", image_clip_norm=20.0, ridge=0.1, queries=queries, query_prob=query_prob,
        query_share=1.0,
    )  # fmt: skip
    records = greys.images(0.5, 24)
    images, weights = method.ask(door(records), releases(method, FREE)[0], seeded())
    weighted = float((weights * images.double().flatten(1).mean(1)).sum() / weights.sum())
    assert weighted == pytest.approx(float(records.mean()), abs=0.1)
    assert abs(float(greys.public.records.mean()) - float(records.mean())) > 0.3
    # At a tiny budget the noise says nothing, and the ridge keeps the public images as they are.
    tiny = dataclasses.replace(FREE, epsilon=1e-3)
    _, kept = method.ask(door(records, tiny), releases(method, tiny)[0], seeded())
    np.testing.assert_allclose(kept.numpy(), 1 / 96, rtol=0.2)
    assert float(weights.max()) > 2 / 96


def test_warm_up_that_nobody_knows_is_refused(greys: Any) -> None:
    with pytest.raises(UserError, match="expected 'weights' or 'images'"):
        greys.method("dp_feta", warm_up="blur")


def test_poisson_queries_and_steps_spend_the_budget_exactly(greys: Any) -> None:
    budget = Budget(epsilon=2.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
    method = greys.method("dp_feta", queries=3, query_prob=0.5, sampling_prob=0.25, steps=5)
    query, steps = releases(method, budget)
    spent = epsilon_of([query.event(), steps.event()], 1e-5, budget.relation)
    assert spent == pytest.approx(2.0, rel=1e-4)
    assert epsilon_of([query.event()], 1e-5, budget.relation) < 0.9 * spent
