"""`edge` measures distance and losses under every change, and goes on where it stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dphyper.methods.hypernetwork import Hypernetwork
from dphyper.privacy.budget import Budget, Relation
from dphyper.studies import edge
from dphyper.studies.edge import CHANGES, measure
from dphyper.studies.probe import load_probe


def test_distance_and_losses_are_measured_under_every_change(
    network: Hypernetwork, draw_images: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "BUDGET", Budget(epsilon=20.0, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE))
    x = network.target.encode(draw_images(60))
    found = {name: measure(network, change(x), n=16) for name, change in CHANGES.items()}
    assert len(found) == 17
    assert len({row["embedding_shift"] for row in found.values()}) == 17  # each is another task
    assert all(row["hypernetwork"] != row["prior"] for row in found.values())  # and none is given up
    assert all(row["noisy_hypernetwork"] != row["hypernetwork"] for row in found.values())
    assert all(
        row["noisy_with_retreat"] == pytest.approx(row["noisy_hypernetwork"], rel=1e-5) for row in found.values()
    )
    assert all(row["novel"] == 0 for row in found.values())
    network.novelty.unit.fill_(1e-6)
    timid = measure(network, x, n=16)
    assert timid["noisy_with_retreat"] == timid["prior"] != timid["noisy_hypernetwork"]
    assert timid | {"novel": 0.0, "noisy_with_retreat": 0.0} == found["none"] | {"noisy_with_retreat": 0.0}
    assert timid["novel"] == 1
    assert network.novelty.limit == 4  # the network keeps it
    network.head.weight.zero_()
    mute = measure(network, x, n=16)
    assert mute["hypernetwork"] == mute["prior"]


def test_the_network_keeps_its_retreat_when_a_measurement_fails(
    network: Hypernetwork, draw_images: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reach = network._shrinkage(network.embedding_dim).reach
    monkeypatch.setattr(edge, "_release", lambda method, x, seed: method.target.initial())
    monkeypatch.setattr(network, "decode", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure(network, network.target.encode(draw_images(20)), n=16)
    assert (network._shrinkage(network.embedding_dim).reach, network.novelty.limit) == (reach, 4)


def test_the_network_of_a_sweep_file_is_measured_and_its_table_resumed(
    sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the file names the control without noise first, whose releases no budget allows."""
    few = dict(list(CHANGES.items())[:2])
    monkeypatch.setattr(edge, "LOSS_RECORDS", 20)
    monkeypatch.setattr(edge, "CHANGES", few)
    path = str(sweep_file(grid=[{"method": ["hypernetwork_sigma0", "hypernetwork"], "epsilon": [1]}]))
    out = tmp_path / "edge.csv"
    edge.main(path, out)
    whole = pd.read_csv(out, dtype={"task": str})
    tasks = [*load_probe(path).records]
    assert [*zip(whole["task"], whole["change"], strict=True)] == [(task, change) for task in tasks for change in few]
    assert np.isfinite(whole["noisy_hypernetwork"]).all()

    # A run that was stopped, whose table also has a row of a network that is no more.
    former = whole.tail(1).assign(network="another")
    pd.concat([former, whole.head(1)]).to_csv(out, index=False)
    calls: list[int] = []
    monkeypatch.setattr(edge, "measure", lambda *given: calls.append(1) or measure(*given))
    edge.main(path, out)
    assert len(calls) == len(whole) - 1
    pd.testing.assert_frame_equal(pd.read_csv(out, dtype={"task": str}), whole)
