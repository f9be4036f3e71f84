"""The audit of whole runs: it convicts what has no privacy or a planted fault, and accuses nothing that has it."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dphyper.audits.whole_run import (
    WholeRunBound,
    WholeRuns,
    audit_whole_runs,
    discriminant_scores,
    whole_run_bounds,
)
from dphyper.audits.whole_run_faults import FAULTS, SOUND, Fault
from dphyper.bench.runner import Runner
from dphyper.bench.store import Store
from dphyper.bench.tracking import Tracking
from dphyper.core.specs import BaseSpec, Cell, DataSpec, Performance, Protocol
from dphyper.methods.descent import Guide
from dphyper.privacy.budget import Relation
from dphyper.privacy.noise import NoiseSource

CELL = Cell(
    data=DataSpec(source="digits8", image_size=8, cluster_sizes=(60,)),
    base=BaseSpec(
        block_out_channels=(16, 32),
        train_steps=120,
        batch_size=32,
        sampling_steps=3,
        rank=4,
        layers=("attention", "time"),
    ),
    task="8",
    n=4,
    embedding_dim=4,
    method="hypernetwork",
    options={"train_steps": 15, "tasks": 4, "support": 32, "query": 4, "width": 32},
)
GRADIENTS = dataclasses.replace(CELL, method="dp_sgd", options={"steps": 2, "multiplicity": 1})
PLANTED = {fault.name: fault for fault in FAULTS}


@pytest.fixture
def runner(tmp_path: Path, cache: Path) -> Runner:
    store = Store(tmp_path / "store")
    return Runner(store, Performance(cache=str(cache), threads=1), Tracking("off", store.root, "t"), "t")


def bounds(runner: Runner, cell: Cell, pairs: int, fault: Fault = SOUND) -> dict[str, WholeRunBound]:
    runs = WholeRuns(runner, cell, noise=NoiseSource.reproducible(0), fault=fault)
    seen = audit_whole_runs(runs, pairs=pairs, folder=runner.store.root / "whole_runs")
    return {bound.score: bound for bound in whole_run_bounds(runs, seen)}


def test_whole_runs_without_noise_are_convicted_and_those_with_it_are_not(runner: Runner) -> None:
    exposed = bounds(runner, dataclasses.replace(CELL, method="hypernetwork_sigma0"), 20)
    assert exposed["releases"].gdp_epsilon > 3.0
    assert exposed["releases"].claimed_epsilon == float("inf")
    sound = bounds(runner, CELL, 20)
    assert not any(bound.convicted for bound in sound.values())
    assert sound["releases"].claimed_epsilon == pytest.approx(1.0)
    fixed = bounds(runner, CELL, 20, PLANTED["the same noise in every run"])
    assert fixed["releases"].convicted
    assert fixed["releases"].claimed_epsilon == pytest.approx(1.0)


def test_a_leak_beside_the_release_shows_in_the_parameters_alone(runner: Runner) -> None:
    leaking = bounds(runner, CELL, 40, PLANTED["a fifth of the answer without noise"])
    assert leaking["lda"].convicted
    assert not leaking["releases"].convicted


def test_runs_that_were_done_are_not_done_again(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bounds(runner, CELL, 10)
    monkeypatch.setattr(WholeRuns, "run", lambda self, with_canary: pytest.fail("was run again"))
    assert bounds(runner, CELL, 10) == first
    with pytest.raises(pytest.fail.Exception, match="was run again"):
        bounds(runner, CELL, 20)


@pytest.mark.parametrize(("relation", "sizes"), zip(Relation, [(3, 4), (4, 4), (4, 4)], strict=True))
def test_the_sets_are_neighbours_under_each_relation(
    runner: Runner, relation: Relation, sizes: tuple[int, int]
) -> None:
    cell = dataclasses.replace(GRADIENTS, relation=str(relation))  # type: ignore[arg-type]
    runs = WholeRuns(runner, cell, noise=NoiseSource.reproducible(0))
    assert tuple(map(len, runs.pair)) == sizes
    assert torch.equal(runs.pair[0][:3], runs.pair[1][:3])
    theta, loss, log_ratio = runs.run(True)
    assert len(theta) == runs.method.target.num_parameters
    assert loss
    assert log_ratio


def test_the_likelihood_ratio_of_steps_grows_as_their_noise_shrinks(runner: Runner) -> None:
    gaps = []
    for epsilon in (1.0, 1000.0):
        runs = WholeRuns(runner, dataclasses.replace(GRADIENTS, epsilon=epsilon), noise=NoiseSource.reproducible(0))
        ratios = np.array([[runs.run(with_canary)[2] for with_canary in (False, True)] for _ in range(3)])
        gaps.append(ratios[:, 1].mean() - ratios[:, 0].mean())
    assert gaps[1] > 5 * abs(gaps[0])  # whose sign three runs cannot tell


def test_the_discriminant_sees_a_shift_and_nothing_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    out, canary = rng.normal(0, 1, (2, 200, 30)).astype(np.float32)
    shift = np.zeros(30, np.float32)
    shift[3] = 3.0
    separations = []
    for moved in (canary, canary + shift):
        low, high = discriminant_scores(out, moved)
        separations.append((high.mean() - low.mean()) / low.std())
        assert len(low) == 100
    assert abs(separations[0]) < 0.5
    assert separations[1] > 2.0


def test_randomness_of_private_losses_is_secret_and_that_of_others_is_the_seed_s(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[tuple[bytes, bytes]] = []
    real = Guide.contribution

    def contribution(self: Guide, theta: torch.Tensor, x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        states.append(tuple(g.get_state().numpy().tobytes() for g in (rng, self.rng)))  # type: ignore[arg-type]
        return real(self, theta, x, rng)

    monkeypatch.setattr(Guide, "contribution", contribution)
    cell = dataclasses.replace(GRADIENTS, n=64, protocol=Protocol(num_images=8))

    def last_batch(method: str, reproducible: bool) -> tuple[bytes, bytes]:
        chosen = dataclasses.replace(cell, method=method, reproducible_noise=reproducible)
        shutil.rmtree(runner.store.root, ignore_errors=True)
        assert runner.run(chosen)["status"] == "done"
        return states[-1]

    secret, public = zip(*(last_batch("dp_sgd", False) for _ in range(2)), strict=True)
    assert secret[0] != secret[1]
    assert public[0] == public[1]
    for method, reproducible in (("dp_sgd", True), ("nonprivate_lora", False)):
        assert last_batch(method, reproducible) == last_batch(method, reproducible)
