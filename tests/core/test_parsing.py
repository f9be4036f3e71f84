"""Parsing: one schema for the command line and plain data, and one line for a mistake."""

from typing import Any

import pytest
from jsonargparse import ArgumentParser

from dphyper.core.errors import UserError
from dphyper.core.parsing import build, parse
from dphyper.core.specs import Cell


def parser() -> ArgumentParser:
    made = ArgumentParser(exit_on_error=False)
    made.add_class_arguments(Cell)
    return made


def test_the_command_line_and_plain_data_give_the_same_cell() -> None:
    by_line = parse(parser(), ["--task", "a", "--epsilon", "2", "--base.rank", "8"])
    by_data = parse(parser(), {"task": "a", "epsilon": 2.0, "base": {"rank": 8}})
    assert build(Cell, by_line) == build(Cell, by_data)
    assert build(Cell, by_line).base.rank == 8


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--epsilom", "1"], "unknown key 'epsilom': did you mean 'epsilon'"),
        (["--base.rnak", "1"], r"unknown key 'base.rnak': did you mean 'base.rank'"),
        ({"base": {"rnak": 1}}, "unknown key '(base.)?rnak'"),
        (["--n", "many"], "n"),
        ({"relation": "none"}, "relation"),
    ],
)
def test_a_mistake_is_one_line(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse(parser(), given)
    assert "\n" not in str(caught.value)
