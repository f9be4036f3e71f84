"""Private Evolution keeps the images that the records vote for."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from dphyper.privacy.accounting import epsilon_of
from dphyper.privacy.budget import Budget, Relation

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def releases(method: Any, budget: Budget) -> Any:
    return method.mechanisms(budget, method.options)


def test_private_evolution_without_noise_keeps_the_nearest_images(
    monkeypatch: pytest.MonkeyPatch, door: Any, greys: Any
) -> None:
    """The base model of this test draws one image of each public task; records of one task keep that image alone."""
    drawn = greys.public.records[::16]
    monkeypatch.setattr(
        greys.target,
        "sample",
        lambda theta, num, rng: drawn.add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy(),
    )
    monkeypatch.setattr(greys.target, "vary", lambda theta, x, strength, rng: x)
    for task in (0, 5):
        records = greys.images(greys.levels[task], 24, seed=30)
        one = greys.method("private_evolution", population=6, votes=1, iterations=1)
        images, votes = one.evolve(door(records), FREE, seeded())
        assert int(votes.argmax()) == task
        assert float(votes.sum()) == pytest.approx(24.0)
        torch.testing.assert_close(images, drawn, atol=0.01, rtol=0)
        # After one round of breeding the whole population is that image.
        two = greys.method("private_evolution", population=6, votes=1, iterations=2)
        images, _ = two.evolve(door(records), FREE, seeded())
        torch.testing.assert_close(images, drawn[task].expand_as(images), atol=0.01, rtol=0)
    # At a tiny budget it is noise: other images are kept too.
    tiny = dataclasses.replace(FREE, epsilon=0.01)
    images, _ = two.evolve(door(records, tiny), tiny, seeded())
    assert float((images - drawn[task]).abs().max()) > 0.5


@pytest.mark.parametrize("relation", list(Relation))
def test_votes_of_all_iterations_spend_the_budget_exactly(relation: Relation, greys: Any) -> None:
    budget = Budget(epsilon=2.0, delta=1e-5, relation=relation)
    votes = releases(greys.method("private_evolution", iterations=3), budget)
    (once,) = releases(greys.method("private_evolution", iterations=1), budget)
    assert votes[0].noise_multiplier == pytest.approx(once.noise_multiplier * math.sqrt(3), rel=1e-4)
    for mechanisms in (votes, (once,)):
        assert epsilon_of([m.event() for m in mechanisms], 1e-5, relation) == pytest.approx(2.0, rel=1e-5)
