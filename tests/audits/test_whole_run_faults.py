"""Faults in whole runs: what they change, and in which cells of a sweep they are planted."""

import dataclasses

import pytest
import torch

from dphyper.audits.whole_run_faults import FAULTS, SOUND, plan_whole_runs
from dphyper.core.errors import UserError
from dphyper.core.specs import Cell
from dphyper.privacy.budget import Relation
from dphyper.privacy.mechanisms import OneShotMean
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.noisy_sum import noisy_sum

(UNCLIPPED,) = (fault for fault in FAULTS if not fault.clips)


def test_without_clipping_a_row_keeps_its_norm() -> None:
    mechanism, sums = OneShotMean(noise_multiplier=1e-2), []
    for fault in (SOUND, UNCLIPPED):
        patches = list(fault.patches())
        for patch in patches:
            patch.__enter__()
        row = torch.tensor([[30.0, 40.0]])
        noise = NoiseSource.reproducible(0)
        total = noisy_sum([row], 2, mechanism=mechanism, relation=Relation.ZERO_OUT, noise=noise)
        sums.append(float(total.norm()))
        for patch in patches:
            patch.__exit__(None, None, None)
    assert sums == pytest.approx([1.0, 50.0], abs=0.1)


def test_cells_are_planned_by_method_and_faults_in_the_cell_of_least_epsilon() -> None:
    cells = [Cell(task="8", method=m, epsilon=e) for m in ("dp_sgd", "hypernetwork") for e in (8.0, 1.0)]
    everything = plan_whole_runs("all", cells, "s")
    assert [(cell.epsilon, fault) for cell, fault in everything] == [(e, SOUND) for e in (1.0, 1.0, 8.0, 8.0)]
    assert plan_whole_runs("dp_sgd", cells, "s") == [(cells[1], SOUND), (cells[0], SOUND)]
    for cell, fault in plan_whole_runs("faults", cells, "s"):
        assert cell == dataclasses.replace(cell, method=fault.method, epsilon=1.0, options=dict(fault.options))
    assert [fault for _, fault in plan_whole_runs("faults", cells, "s")] == [*FAULTS]
    with pytest.raises(UserError, match="unknown method in sweep 's' 'public_mean': expected one of dp_sgd, hyper"):
        plan_whole_runs("public_mean", cells, "s")
    with pytest.raises(UserError, match="unknown method in sweep 's' 'hypernetwork'"):
        plan_whole_runs("faults", cells[:2], "s")
