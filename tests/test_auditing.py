"""The end-to-end audit: it sees that a method has no privacy, and accuses none that has it."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from dphyper.bench.auditing import audit_end_to_end, membership_scores
from dphyper.bench.catalog import METHODS
from dphyper.bench.errors import UserError
from dphyper.bench.method import Method
from dphyper.bench.runner import Runner
from dphyper.bench.specs import BaseSpec, Cell, DataSpec, Performance, Protocol
from dphyper.bench.store import Store
from dphyper.bench.target import to_unit
from dphyper.bench.tracking import Tracking

STEPS = {"steps": 30, "optimizer": "sgd", "sampling_prob": 1.0, "multiplicity": 16}
CELL = Cell(
    data=DataSpec(source="digits8", image_size=8, cluster_sizes=(60,)),
    base=BaseSpec(block_out_channels=(16, 32), train_steps=150, batch_size=32, sampling_steps=3),
    task="8",
    method="nonprivate_lora",
    # Near the public model, where the attack takes its gradients: of longer ways it sees too little to rely upon.
    options={**STEPS, "learning_rate": 0.03},
)


@pytest.fixture
def runner(tmp_path: Path, cache: Path) -> Runner:
    store = Store(tmp_path / "store")
    return Runner(store, Performance(cache=str(cache), threads=1), Tracking("off", store.root, "t"), "t")


def test_end_to_end_audit_sees_a_lack_of_privacy_and_none_where_there_is_privacy(runner: Runner) -> None:
    exposed = audit_end_to_end(runner, CELL, canaries=160, draws=128)
    # One run of a method that claimed this ε would be convicted at 95 % confidence.
    assert exposed.epsilon > 0.3
    assert exposed.claimed_epsilon == float("inf")
    assert exposed.scores[1].mean() - exposed.scores[0].mean() > 0.5 * exposed.scores[0].std()
    private = dataclasses.replace(CELL, method="dp_sgd", options=STEPS, epsilon=1.0)
    audited = audit_end_to_end(runner, private, canaries=160, draws=4)
    assert audited.epsilon <= audited.claimed_epsilon == pytest.approx(1.0, abs=1e-3)
    assert sum(map(len, audited.scores)) == 160
    assert "160 canaries and 32 guesses" in str(audited)


def test_membership_scores_are_the_weights_of_the_gradients(runner: Runner) -> None:
    target = runner.method(CELL)[0].target
    collection = runner.collection(CELL.data)
    x = to_unit(collection.records[collection.task("8").indices[:6]])
    rng = torch.Generator().manual_seed(0)
    weights = torch.tensor([0.0, 1.0, 0.0, 2.0, 0.0, 0.5])
    theta = -0.01 * weights @ target.per_example_gradients(target.initial(), x, rng, 1)
    scores = membership_scores(target, theta, x, draws=1, seed=0, ridge=1e-9)
    assert scores == pytest.approx(0.01 * weights.numpy(), abs=1e-5)


def test_randomness_of_private_losses_is_secret_and_that_of_others_is_the_seed_s(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[float]] = []

    def adapt(self: Method, private: object, budget: object, rng: torch.Generator) -> torch.Tensor:
        drawn.append(torch.rand(3, generator=rng).tolist())
        return self.target.initial()

    monkeypatch.setattr(METHODS["dp_sgd"], "adapt", adapt)  # nonprivate_lora inherits it
    cell = dataclasses.replace(CELL, n=64, protocol=Protocol(num_images=8))
    for method, reproducible in [("dp_sgd", False), ("dp_sgd", True), ("nonprivate_lora", False)]:
        for _ in range(2):
            chosen = dataclasses.replace(cell, method=method, reproducible_noise=reproducible)
            shutil.rmtree(runner.store.root, ignore_errors=True)
            assert runner.run(chosen)["status"] == "done"
    assert drawn[0] != drawn[1]
    assert drawn[2] == drawn[3]
    assert drawn[4] == drawn[5]


def test_end_to_end_audit_refuses_what_it_cannot_do(runner: Runner) -> None:
    with pytest.raises(UserError, match=r"canaries = 1000: expected between 20 and the 174 records"):
        audit_end_to_end(runner, CELL, canaries=1000)
    with pytest.raises(UserError, match=r"relation = zero_out: .* add_or_remove_one only"):
        audit_end_to_end(runner, dataclasses.replace(CELL, relation="zero_out"), canaries=100)
