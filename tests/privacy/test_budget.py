"""A budget says which of its values is wrong."""

import math

import pytest

from dphyper.core.errors import UserError
from dphyper.privacy.budget import Budget, Relation


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epsilon": 0.0}, "epsilon = 0.0"),
        ({"epsilon": math.nan}, "epsilon = nan"),
        ({"delta": 0.0}, "delta = 0.0"),
        ({"delta": 1.0}, "delta = 1.0"),
        ({"relation": "swap"}, "relation = 'swap'"),
    ],
)
def test_budget_names_the_wrong_value(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Budget(**({"epsilon": 1.0, "delta": 1e-5, "relation": Relation.ZERO_OUT} | wrong))


def test_a_relation_may_be_given_by_its_value() -> None:
    plain = Budget(epsilon=math.inf, delta=1e-5, relation="replace_one")  # type: ignore[arg-type]
    assert plain == Budget(epsilon=math.inf, delta=1e-5, relation=Relation.REPLACE_ONE)
    assert plain != Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ZERO_OUT)
