"""The contract of every registered kind of target, on a tiny model of it."""

import math
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dphyper.core.errors import UserError
from dphyper.core.specs import BaseSpec
from dphyper.targets.lora import LoRADiffusion
from dphyper.targets.registry import TARGETS
from dphyper.targets.target import BaseModel, Target

SHAPE = {"image_size": 8, "channels": 1}
RECORDS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)


def spec(kind: str) -> BaseSpec:
    return BaseSpec(kind=kind, **TARGETS[kind].quick_spec)


@cache
def base(kind: str) -> BaseModel:
    """An untrained model that no check changes."""
    return TARGETS[kind].untrained(spec(kind), **SHAPE)


@cache
def target(kind: str) -> Target:
    """The target around a model of its own."""
    return TARGETS[kind].untrained(spec(kind), **SHAPE).target(spec(kind))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_theta(kind: str, seed: int = 1) -> Tensor:
    """Parameters that are not the public ones."""
    made = target(kind)
    return made.initial() + 0.1 * torch.randn(made.num_parameters, generator=rng(seed))


def the_seed_fixes_the_untrained_model(kind: str, folder: Path) -> None:
    again = TARGETS[kind].untrained(spec(kind), **SHAPE)
    for (_, first), (_, second) in zip(base(kind).named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(first, second)


def a_saved_model_is_read_back(kind: str, folder: Path) -> None:
    base(kind).save(folder)
    found = TARGETS[kind].load(folder, **SHAPE)
    theta = some_theta(kind)
    expected = target(kind).sample(theta, 2, rng())
    # A model may be saved in half precision: some levels of grey.
    np.testing.assert_allclose(found.target(spec(kind)).sample(theta, 2, rng()), expected, rtol=0, atol=4)
    assert not np.array_equal(target(kind).sample(target(kind).initial(), 2, rng()), expected)


def a_model_of_another_size_is_refused(kind: str, folder: Path) -> None:
    base(kind).save(folder)
    with pytest.raises(UserError, match="image_size"):
        TARGETS[kind].load(folder, image_size=16, channels=1)
    with pytest.raises(UserError, match=r"base\.pretrained"):
        TARGETS[kind].load(folder / "nowhere", **SHAPE)


def base_and_target_encode_alike(kind: str, folder: Path) -> None:
    x = target(kind).encode(RECORDS)
    assert len(x) == len(RECORDS)
    assert torch.equal(base(kind).encode(RECORDS), x)
    assert torch.isfinite(base(kind).loss(x))


def theta_has_the_declared_shape(kind: str, folder: Path) -> None:
    made = target(kind)
    assert made.initial().shape == (made.num_parameters,)
    assert sum(math.prod(shape) for shape in made.layer_shapes) == made.num_parameters


def losses_are_of_each_record_alone(kind: str, folder: Path) -> None:
    made, theta, x = target(kind), some_theta(kind), target(kind).encode(RECORDS)
    losses = made.per_example_loss(theta, x, rng())
    changed = made.per_example_loss(theta, torch.cat([x[:-1], -x[-1:]]), rng())
    assert losses.shape == (len(x),)
    torch.testing.assert_close(changed[:-1], losses[:-1])
    assert not torch.allclose(changed[-1], losses[-1])


def gradients_are_those_of_the_loss(kind: str, folder: Path) -> None:
    made, x = target(kind), target(kind).encode(RECORDS)
    theta = some_theta(kind).requires_grad_()
    rows = made.per_example_gradients(theta.detach(), x, rng(3), 1)
    (mean,) = torch.autograd.grad(made.per_example_loss(theta, x, rng(3)).sum(), theta)
    torch.testing.assert_close(rows.sum(0), mean, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(1.1 * rows.sum(0), mean, rtol=1e-3, atol=1e-5)


def no_call_leaves_a_trace_of_its_theta(kind: str, folder: Path) -> None:
    made, x = target(kind), target(kind).encode(RECORDS)
    before = made.sample(made.initial(), 2, rng())
    made.per_example_gradients(some_theta(kind), x, rng(), 2)
    made.sample(some_theta(kind), 2, rng())
    np.testing.assert_array_equal(made.sample(made.initial(), 2, rng()), before)


def samples_are_records(kind: str, folder: Path) -> None:
    samples = target(kind).sample(some_theta(kind), 3, rng())
    assert (samples.dtype, samples.shape) == (RECORDS.dtype, (3, *RECORDS.shape[1:]))
    assert not np.array_equal(target(kind).sample(some_theta(kind), 3, rng(1)), samples)


def features_are_of_each_record_alone(kind: str, folder: Path) -> None:
    made, x = target(kind), target(kind).encode(RECORDS)
    features = made.features(x)
    assert features.shape == (len(x), made.num_features)
    torch.testing.assert_close(made.features(x[2:3]), features[2:3], rtol=1e-4, atol=1e-5)
    x.requires_grad_()
    assert torch.autograd.grad(made.features(x)[0].sum(), x)[0][1:].abs().max() == 0


def what_it_can_do_besides_it_does_or_refuses_in_one_line(kind: str, folder: Path) -> None:
    made, x = target(kind), target(kind).encode(RECORDS)
    theta = some_theta(kind).requires_grad_()

    def samples_with_a_gradient() -> None:
        assert torch.autograd.grad(made.few_step_samples(theta, 2, 2, rng()).sum(), theta)[0].abs().max() > 0

    def varies() -> None:
        assert made.vary(theta.detach(), x, 0.5, rng()).shape == x.shape

    def all_weights() -> None:
        whole = made.all_weights()
        expected = made.per_example_loss(made.initial(), x, rng())
        torch.testing.assert_close(whole.per_example_loss(whole.initial(), x, rng()), expected)

    for attempt in (samples_with_a_gradient, varies, all_weights):
        with suppress(UserError):
            attempt()


CHECKS: tuple[Callable[[str, Path], None], ...] = (
    the_seed_fixes_the_untrained_model,
    a_saved_model_is_read_back,
    a_model_of_another_size_is_refused,
    base_and_target_encode_alike,
    theta_has_the_declared_shape,
    losses_are_of_each_record_alone,
    gradients_are_those_of_the_loss,
    no_call_leaves_a_trace_of_its_theta,
    samples_are_records,
    features_are_of_each_record_alone,
    what_it_can_do_besides_it_does_or_refuses_in_one_line,
)


@pytest.mark.parametrize("kind", sorted(TARGETS))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(kind: str, check: Callable[[str, Path], None], tmp_path: Path) -> None:
    check(kind, tmp_path)


def test_number_of_checks() -> None:
    assert len(CHECKS) * len(TARGETS) >= 11, "the contract suite lost checks or kinds of target"


def test_the_contract_catches_wrong_gradients(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = LoRADiffusion.per_example_gradients
    monkeypatch.setattr(LoRADiffusion, "per_example_gradients", lambda *given: 1.1 * real(*given))
    with pytest.raises(AssertionError):
        gradients_are_those_of_the_loss("unet", tmp_path)


def test_a_target_refuses_what_it_cannot_do() -> None:
    class Bare(Target):
        def _unused(self, *given: Any) -> Any: ...

        initial = encode = per_example_loss = per_example_gradients = sample = features = _unused
        num_parameters, num_features = 3, 1

    bare: Target = Bare()
    assert bare.layer_shapes == [(3, 1)]
    for call in (
        lambda: bare.vary(torch.zeros(3), torch.zeros(1), 0.5, rng()),
        lambda: bare.few_step_samples(torch.zeros(3), 1, 1, rng()),
        bare.all_weights,
    ):
        with pytest.raises(UserError, match=r"target Bare cannot .*: choose a method that does not ask for it"):
            call()
