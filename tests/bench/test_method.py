"""Options of a method: values of the right kind under known names."""

from dataclasses import dataclass
from typing import Any

import pytest

from dphyper.audits import contract
from dphyper.bench.method import Options
from dphyper.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Some(Options):
    """For the tests."""

    steps: int = 30
    rate: float = 0.5
    nested: str = ""
    wide: bool = False


def test_what_is_not_given_keeps_its_default_and_a_whole_number_may_be_a_float() -> None:
    assert Some.parse("m", {"rate": 2, "wide": True}) == Some(rate=2.0, wide=True)
    assert type(Some.parse("m", {"rate": 2}).rate) is float


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"step": 3}, "unknown option of method m 'step': did you mean 'steps'"),
        ({"steps": 3.0}, r"options.m.steps = 3.0: expected int, such as 30"),
        ({"steps": True}, r"options.m.steps = True: expected int"),
        ({"rate": "0.5"}, r"options.m.rate = '0.5': expected float"),
        ({"rate": True}, r"options.m.rate = True: expected float"),
        ({"wide": 1}, r"options.m.wide = 1: expected bool"),
    ],
)
def test_a_wrong_option_is_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Some.parse("m", given)


def test_a_public_phase_without_episodes_is_one_line() -> None:
    made = contract.tiny_method("public_only")
    with pytest.raises(UserError, match=r"PublicOnly names the public phase .* write its `public_data`"):
        made.public_data(None)  # type: ignore[arg-type]
