"""A sweep file names its cells: each once, in order, and nothing that a cell may not be."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from dphyper.core.errors import UserError
from dphyper.core.specs import Cell
from dphyper.sweeps.plan import Sweep, parse_cell, read_sweep


def test_a_file_names_each_cell_once_and_in_order(sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    grid = [{"method": ["public_only", "dp_sgd"], "epsilon": [1, 8]}, {"method": ["dp_sgd"], "epsilon": [8, 2]}]
    sweep, cells = read_sweep(str(sweep_file(grid=grid)))
    assert sweep.store_path == str(tmp_path / "store")
    assert [(cell.method, cell.epsilon) for cell in cells] == [
        ("public_only", math.inf),
        ("dp_sgd", 1.0),
        ("dp_sgd", 8.0),
        ("dp_sgd", 2.0),
    ]
    assert cells == sweep.cells()
    assert all(cell.n == 64 for cell in cells)
    assert cells[1].options["steps"] == 3  # of the file, and not the default


def test_an_axis_wins_over_the_options_of_a_method() -> None:
    options = {"dp_sgd": {"steps": 3, "multiplicity": 1}}
    sweep = Sweep(name="s", options=options, grid=[{"method": ["dp_sgd"], "task": [8], "options.steps": [4, 5]}])
    assert [(cell.options["steps"], cell.options["multiplicity"]) for cell in sweep.cells()] == [(4, 1), (5, 1)]
    assert sweep.store_path == "runs/s"
    with pytest.raises(UserError, match="unknown method in options 'dp_sgd': expected one of public_only"):
        Sweep(name="s", options=options, grid=[{"method": ["public_only"], "task": ["8"]}]).cells()


def test_plain_data_are_a_cell_as_on_the_command_line() -> None:
    plain = {"task": 8, "epsilon": "inf", "data": {"source": "digits8", "cluster_sizes": [60]}}
    cell = parse_cell(plain)
    assert (cell.task, cell.epsilon, cell.data.cluster_sizes) == ("8", math.inf, (60,))
    assert parse_cell(Cell(task="8", epsilon=math.inf).to_dict()) == Cell(task="8", epsilon=math.inf)
    assert parse_cell(plain).id == cell.id
    for wrong, said in (
        ({"data": {"sorce": "digits8"}}, "unknown key 'data.sorce': did you mean 'data.source'?"),
        ({"epsilonn": 1}, "unknown key 'epsilonn': did you mean 'epsilon'?"),
        ({"n": "many"}, "n: Expected a int"),
        ({"epsilon": 0}, "epsilon = 0.0: expected a number above 0"),
    ):
        with pytest.raises(UserError) as refused:
            parse_cell({"task": "8", **wrong})
        assert said in str(refused.value)


def test_what_is_no_sweep_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="File does not exist"):
        read_sweep(str(tmp_path / "nowhere.yaml"))
    (tmp_path / "a.yaml").write_text("name: a/b\ngrid: [{method: [dp_sgd]}]")
    with pytest.raises(UserError, match="expected a name without a slash"):
        read_sweep(str(tmp_path / "a.yaml"))


def test_quoted_names_stay_text_in_a_sweep_file(tmp_path: Path) -> None:
    """Folders called 01 and 1.10 can be swept; what YAML reads as no name is refused."""
    path = tmp_path / "names.yaml"
    path.write_text('name: x\ncell: {method: dp_sgd}\ngrid: [{task: ["01", "on", "1.10", "0x1f", 8, "été"]}]')
    assert [cell.task for cell in read_sweep(str(path))[1]] == ["01", "on", "1.10", "0x1f", "8", "été"]
    path.write_text("name: x\ncell: {method: dp_sgd}\ngrid: [{task: [true]}]")
    with pytest.raises(UserError, match="YAML reads a name as True: expected text, put the name in quotes"):
        read_sweep(str(path))
