"""A query and the descent behind it spend the budget exactly."""

import math
from typing import Any

import pytest
import torch

from dphyper.core.errors import UserError
from dphyper.privacy.accounting import calibrate, epsilon_of
from dphyper.privacy.budget import Budget, Relation

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def releases(method: Any, budget: Budget) -> Any:
    return method.mechanisms(budget, method.options)


@pytest.mark.parametrize("relation", list(Relation))
@pytest.mark.parametrize("name", ["privimage", "dp_feta"])
def test_query_and_steps_spend_the_budget_exactly(name: str, relation: Relation, greys: Any) -> None:
    budget = Budget(epsilon=2.0, delta=1e-5, relation=relation)
    for share in (0.1, 0.5):
        method = greys.method(name, query_share=share, steps=5)
        query, steps = releases(method, budget)
        assert epsilon_of([query.event(), steps.event()], 1e-5, relation) == pytest.approx(2.0, rel=1e-5)
        # The query has its share of 1/σ², here without subsampling, and the steps have the rest.
        (alone,) = calibrate(budget, method.unscaled_query(method.options))
        assert query.noise_multiplier == pytest.approx(alone.noise_multiplier / math.sqrt(share))
        (only_steps,) = calibrate(budget, method._options.unscaled())
        assert steps.noise_multiplier == pytest.approx(only_steps.noise_multiplier / math.sqrt(1 - share), rel=1e-4)
    (query,) = releases(greys.method(name, query_share=1.0), budget)
    assert epsilon_of([query.event()], 1e-5, relation) == pytest.approx(2.0, rel=1e-5)


def test_share_that_no_query_can_have_is_refused(greys: Any) -> None:
    for share in (0.0, 1.5):
        with pytest.raises(UserError, match="query_share"):
            greys.method("privimage", query_share=share)
