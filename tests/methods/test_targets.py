"""Every method on every kind of target, read by the code that reads real pipelines; the number of runs is asserted."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dphyper.audits import contract
from dphyper.bench.catalog import METHODS
from dphyper.bench.method import Method
from dphyper.bench.public import PublicRecords
from dphyper.core.errors import UserError
from dphyper.core.specs import BaseSpec
from dphyper.privacy.mechanisms import BestOfTrials
from dphyper.studies.theory.regression import LinearRegression
from dphyper.targets.lora import LoRADiffusion
from dphyper.targets.registry import TARGETS
from dphyper.targets.target import Target
from dphyper.targets.tiny import TINY, save_tiny

SHAPE: dict[str, int] = {"image_size": 8, "channels": 1}
IMAGES = np.random.default_rng(0).integers(0, 256, (96 + contract.NUM_RECORDS, 8, 8, 1), np.uint8)


@pytest.fixture(autouse=True)
def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the contract suite of methods."""
    monkeypatch.setattr(BestOfTrials, "most_trials", 3)


@cache
def target(kind: str) -> Target:
    """A tiny pretrained model of a kind, with its LoRA."""
    with tempfile.TemporaryDirectory() as folder:
        save_tiny(kind, Path(folder), **SHAPE)
        spec = BaseSpec(kind=kind, pretrained=folder, **{**TARGETS[kind].quick_spec, "sampling_steps": 2})
        base = TARGETS[kind].load(Path(folder), **SHAPE)
        base.condition(spec)
        return base.target(spec)


def method(name: str, kind: str) -> Method:
    """A method with its quick options, around random networks, as in the contract suite of methods."""
    made = METHODS[name]
    torch.manual_seed(1)
    found: Method = made(target(kind), made.options_type.parse(name, made.quick_options), embedding_dim=4)
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    if found.reads_public:
        records = target(kind).encode(IMAGES[:96])
        rows = tuple(np.arange(96).reshape(6, 16))
        found.public = PublicRecords(records=records, tasks=rows, shares=np.full(6, 1 / 6))
    return found.eval()


RUNS = [(name, kind) for kind in sorted(TARGETS) for name in sorted(METHODS)]


@pytest.mark.parametrize(("name", "kind"), RUNS)
def test_a_method_adapts_a_target(name: str, kind: str) -> None:
    made = method(name, kind)
    private = target(kind).encode(IMAGES[96:])
    adaptation, ledger = contract.adapt(made, private)
    theta = adaptation.theta
    assert theta.shape == (made.target.num_parameters,)
    assert theta.isfinite().all()
    assert bool(ledger.charges) <= (not torch.equal(theta, made.target.initial()))
    assert ledger.spent() <= ledger.budget.epsilon * (1 + 1e-6)
    images = made.target.sample(theta, 2, torch.Generator().manual_seed(0))
    assert (images.shape, images.dtype) == ((2, 8, 8, 1), np.uint8)


# A method of each sort of release: gradients, a mean of embeddings, a mean of features, a histogram.
RELEASES = ("dp_sgd", "hypernetwork", "dp_merf", "private_evolution")


@pytest.mark.parametrize("kind", sorted(TARGETS))
@pytest.mark.parametrize("name", RELEASES)
def test_records_are_treated_one_by_one(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, whatever the target: the check of the privacy contract, on this target's records."""
    monkeypatch.setattr(contract, "tiny_method", lambda name: method(name, kind))
    monkeypatch.setattr(contract, "tiny_records", lambda: target(kind).encode(IMAGES[96:]))
    assert contract.record_wise(contract.Subject(name)) is None


def test_records_that_are_not_treated_one_by_one_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = LoRADiffusion.per_example_gradients

    def mixed(self: LoRADiffusion, *given: Any) -> torch.Tensor:
        rows = real(self, *given)
        return rows + 1e-3 * rows.mean(0)

    monkeypatch.setattr(LoRADiffusion, "per_example_gradients", mixed)
    monkeypatch.setattr(contract, "tiny_method", lambda name: method(name, "dit"))
    monkeypatch.setattr(contract, "tiny_records", lambda: target("dit").encode(IMAGES[96:]))
    assert contract.record_wise(contract.Subject("dp_sgd"))


class Least(LinearRegression):
    """A target that does nothing but what every target must."""


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [
        ("private_evolution", {}, "vary records"),
        ("pe_sgd", {"evolve_every": 2}, "vary records"),
        ("dp_feta", {"warm_up": "images"}, "vary records"),
        ("dp_merf", {"fitting": "samples"}, "draw samples with a gradient"),
        ("nonprivate_full", {}, "be trained in all its weights"),
    ],
)
def test_a_method_that_cannot_serve_a_target_says_so_before_anything_runs(
    name: str, options: dict[str, Any], what: str
) -> None:
    kind = METHODS[name]
    with pytest.raises(UserError, match=rf"^target Least cannot {what}: choose a method that does not ask for it$"):
        kind(Least(3), kind.options_type.parse(name, options), embedding_dim=4)


def test_a_method_that_does_not_ask_is_served() -> None:
    for name, options in (("pe_sgd", {"evolve_every": 0}), ("dp_merf", {"fitting": "weights"}), ("dp_sgd", {})):
        METHODS[name](Least(3), METHODS[name].options_type.parse(name, options), embedding_dim=4)


def test_number_of_runs() -> None:
    assert {*TINY} == {*TARGETS}, "a kind of target has no tiny model"
    assert len(RUNS) >= 75, "methods or kinds of target were lost"
