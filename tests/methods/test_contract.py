"""Every registered method passes every check of the contract suite, and the number of checks is asserted.

The checks call methods as the harness does, on a tiny U-Net. A method that joins the registry is checked without
a line here. What keeps records private is checked by `dphyper.audits.contract`, which an outside method goes
through as well.
"""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from dphyper.audits import contract, guards
from dphyper.bench.catalog import METHODS
from dphyper.bench.method import Adaptation, Method
from dphyper.core.errors import PrivacyError
from dphyper.methods.hypernetwork import Hypernetwork, HypernetworkSigma0
from dphyper.methods.public_only import PublicOnly
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import BestOfTrials
from dphyper.privacy.private_data import PrivateData

# Where a record's draws of time and noise come with its place in the batch.
DEALT_BY_POSITION = {
    *("dp_sgd", "dp_sgd_tuned", "pda_dpmd", "adadps", "dope_sgd", "dpagg", "privimage", "dp_feta", "nonprivate_lora"),
    *("pdp_sgd", "gep", "b_gep", "rgp", "pazo", "pe_sgd", "subspace_dp_sgd", "subspace_one_shot", "nonprivate_full"),
    "hypernetwork_then_dp_sgd",
}
method, images = contract.tiny_method, contract.tiny_records
subject = cache(contract.Subject)


@pytest.fixture(autouse=True)
def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three trials where a Poisson law of mean 2 asks for 21: what one trial may do is the same for all of them.

    The law itself is the business of ``tests/privacy/test_trials.py``.
    """
    monkeypatch.setattr(BestOfTrials, "most_trials", 3)


def adapt(name: str, records: Tensor, n: int = 0) -> Tensor:
    return contract.adapt(method(name, records.shape[1]), records, n=n or len(records))[0].theta


def check_result_is_a_parameter_vector(name: str) -> None:
    for records in (images(32), images(33, channels=3), images(300)):
        theta = adapt(name, records)
        assert theta.shape == (method(name, records.shape[1]).target.num_parameters,)
        assert theta.isfinite().all()
        assert not theta.requires_grad


def check_declares_itself(name: str) -> None:
    kind = METHODS[name]
    assert kind.role in ("method", "control", "floor", "ceiling")
    assert {"task", "seed"} <= kind.uses
    assert ("epsilon" in kind.uses) == (kind.role == "method")
    assert kind.__doc__
    for own in ("about", "label", "colour", "marker", "order"):
        assert own in vars(kind), f"a method says its {own} itself, its base class cannot"
    about = dataclasses.asdict(kind.about)
    about.pop("departures")
    assert all(text.endswith(".") for text in about.values()), "whole sentences"
    assert kind.selection in ("fixed", "tuned_public", "tuned_private", "non_private")
    assert kind.quick_options.keys() <= {field.name for field in dataclasses.fields(kind.options_type)}


def check_same_inputs_give_the_same_result(name: str) -> None:
    assert torch.equal(adapt(name, images()), subject(name).run()[0])


def check_parameters_move(name: str) -> None:
    theta, ledger = subject(name).run()
    if ledger.charges:
        assert not torch.equal(theta, method(name).target.initial())


def check_order_of_records_is_irrelevant(name: str) -> None:
    """Without sampling, the same records in another order give the same parameters."""
    records = images()
    if name in DEALT_BY_POSITION:
        return  # their sums are checked record by record in `contract.record_wise`
    torch.testing.assert_close(adapt(name, records.flip(0)), subject(name).run()[0], rtol=0, atol=0)


def check_save_and_load(name: str) -> None:
    saved, fresh = method(name).state_dict(), METHODS[name]
    made = fresh(contract.tiny_target(), fresh.options_type.parse(name, fresh.quick_options), embedding_dim=4)
    made.load_state_dict(saved)
    assert all(torch.equal(value, saved[key]) for key, value in made.state_dict().items())


def check_empty_data_set(name: str) -> None:
    """No record at all, as an empty Poisson batch at every step: noise, no error."""
    assert adapt(name, images(24)[:0], n=24).isfinite().all()


CHECKS: list[Callable[[str], None]] = [value for key, value in sorted(globals().items()) if key.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", sorted(METHODS))
def test_contract(name: str, check: Callable[[str], None]) -> None:
    check(name)


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", sorted(METHODS))
def test_privacy_contract(name: str, check: Callable[[contract.Subject], guards.Guard]) -> None:
    assert check(subject(name)) is None


def test_number_of_checks() -> None:
    assert (len(CHECKS), len(contract.CHECKS)) == (7, 6), "the contract suite lost checks"
    assert len(METHODS) >= 25, "the contract suite lost methods"


def test_contract_catches_a_method_that_reads_for_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite can fail: a method without noise, or one that never asks the door, is caught."""
    monkeypatch.setattr(Hypernetwork, "mechanisms", HypernetworkSigma0.mechanisms)
    with pytest.raises(PrivacyError, match="above its budget"):
        contract.charged(contract.Subject("hypernetwork"))

    def peek(self: Method, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        door: Any = private
        hidden = dict(zip(door._selected.__code__.co_freevars, door._selected.__closure__, strict=True))
        records = hidden["records"].cell_contents
        return Adaptation(theta=self.target.initial() + records.mean())

    monkeypatch.setattr(PublicOnly, "adapt", peek)
    found = contract.charged(contract.Subject("public_only"))
    assert found == "records change the result without a charge"


@pytest.mark.parametrize("own", ["about", "label"])
def test_contract_asks_every_method_for_its_own_words(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a base class says of itself does not count."""
    check_declares_itself("nonprivate_lora")
    monkeypatch.delattr(METHODS["nonprivate_lora"], own)
    assert getattr(METHODS["nonprivate_lora"], own) == getattr(METHODS["dp_sgd"], own)
    with pytest.raises(AssertionError, match="itself"):
        check_declares_itself("nonprivate_lora")
