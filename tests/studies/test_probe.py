"""`load_probe` takes the hypernetwork of a sweep file with its tuning tasks; rows belong to one network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dphyper.core.errors import UserError
from dphyper.methods.hypernetwork import Hypernetwork
from dphyper.studies.probe import load_probe, load_rows, mean_loss, save_rows


def test_a_probe_is_a_frozen_network_with_whole_tuning_tasks(sweep_file: Callable[..., Path]) -> None:
    path = str(sweep_file(grid=[{"method": ["dp_sgd", "hypernetwork"], "epsilon": [1]}]))
    probe, again = load_probe(path), load_probe(path)
    assert probe.network == again.network
    assert not any(parameter.requires_grad for parameter in probe.method.parameters())
    assert probe.records
    for task, records in probe.records.items():
        np.testing.assert_array_equal(records, again.records[task])
        assert len(records) > probe.n
    encoded = probe.encode(records[:2])
    assert encoded.shape == (2, 1, 8, 8)
    assert encoded.abs().max() <= 1


def test_a_sweep_without_a_hypernetwork_is_refused(sweep_file: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="has no cell of hypernetwork: expected one"):
        load_probe(str(sweep_file(grid=[{"method": ["public_only"]}])))


def test_losses_are_of_the_same_times_and_noises(network: Hypernetwork, draw_images: Callable[[int], Any]) -> None:
    x, theta = network.target.encode(draw_images(12)), network.target.initial()
    torch.manual_seed(1)
    loss = mean_loss(network, theta, x)
    torch.manual_seed(2)
    assert mean_loss(network, theta, x) == loss
    assert mean_loss(network, theta + 0.1, x) != loss


def test_rows_of_another_network_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.csv"
    assert load_rows(path, "007") == load_rows(None, "007") == []
    rows = [{"network": "007", "task": "5", "loss": 0.25}, {"network": "7", "task": "5", "loss": 0.5}]
    save_rows(rows, path)
    assert load_rows(path, "007") == rows[:1]
    save_rows(rows, None)
    assert [*tmp_path.iterdir()] == [path.parent]
