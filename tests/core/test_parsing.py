"""Parsing: one schema for the command line and plain data, and one line for a mistake."""

import re
from pathlib import Path
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epsilon: 1:30", "epsilon: Expected a float. Got value: 1:30"),
        ("reproducible_noise: off", "reproducible_noise: Expected a bool. Got value: off"),
        ("n: 3\nn: 4", "key 'n' stands twice, again in line 2"),
        ("task: a\nn:", "n is null: expected a value, or leave the key out"),
        ("- n", "a file that holds no mapping of keys"),
    ],
)
def test_yaml_means_what_it_looks_like(tmp_path: Path, text: str, message: str) -> None:
    made = parser()
    made.add_argument("--config", action="config")
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(UserError, match=re.escape(message)):
        parse(made, ["--config", str(tmp_path / "wrong.yaml")])
    (tmp_path / "right.yaml").write_text("{task: 007, epsilon: 1e-2, n: 30, method: off, <<: {seed: 3}}")
    cell = build(Cell, parse(made, ["--config", str(tmp_path / "right.yaml")]))
    assert (cell.task, cell.epsilon, cell.n, cell.method, cell.seed) == ("007", 0.01, 30, "off", 3)


def test_the_command_line_reads_numbers_as_files_do() -> None:
    with pytest.raises(UserError, match=r"epsilon: Expected a float\. Got value: 1:30"):
        parse(parser(), ["--epsilon", "1:30"])
