"""Adaptation is measured once for each method that spends a budget."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from dphyper.core.errors import UserError
from dphyper.studies import adaptation_cost


def test_adaptation_is_measured_once_for_each_method_that_spends(
    sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    path, table = sweep_file(grid=[{"method": ["public_only", "dp_sgd"], "epsilon": [2, 1]}]), tmp_path / "cost.csv"
    adaptation_cost.main(str(path), repetitions=2, out=table)
    cost = pd.read_csv(table)
    assert [*cost["method"]] == ["dp_sgd"]
    assert (cost[["seconds", "mib_before"]] > 0).all(axis=None)


def test_a_sweep_that_spends_nothing_is_refused(sweep_file: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="no cell with a finite epsilon"):
        adaptation_cost.main(str(sweep_file(grid=[{"method": ["public_only"]}])))
