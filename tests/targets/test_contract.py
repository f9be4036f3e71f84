"""The contract of every registered kind of target, on tiny models of it.

A pretrained model is built from its configuration, saved as a diffusers pipeline and read by the code that reads real
ones. One kind may serve several sorts of models, each of which goes through all checks.
"""

import atexit
import math
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from dphyper.core.errors import UserError
from dphyper.core.specs import BaseSpec
from dphyper.targets import tiny
from dphyper.targets.lora import LoRADiffusion
from dphyper.targets.registry import TARGETS
from dphyper.targets.spaces import Latents
from dphyper.targets.target import BaseModel, Target

SHAPE: dict[str, int] = {"image_size": 8, "channels": 1}
RECORDS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)


def saved_unet(scheduler: Any, **changes: Any) -> Callable[[Path], None]:
    """Writes a tiny ``DDPMPipeline`` with that schedule."""

    def write(folder: Path) -> None:
        tiny.save_unet(folder, **SHAPE, **changes)
        scheduler.save_pretrained(folder / "scheduler")

    return write


def saved(kind: str) -> Callable[[Path], None]:
    return lambda folder: tiny.save_tiny(kind, folder, **SHAPE)


# Sorts of models: kind, what writes it (None for one that is trained here), fields of the spec beside the quick ones.
SORTS: dict[str, tuple[str, Callable[[Path], None] | None, dict[str, Any]]] = {
    "unet": ("unet", None, {}),
    "unet-epsilon": ("unet", saved_unet(DDPMScheduler()), {"layers": ("attention", "norms")}),
    "unet-sample": ("unet", saved_unet(DDIMScheduler(prediction_type="sample")), {"layers": ("*",)}),
    "unet-velocity-dropout": ("unet", saved_unet(DDPMScheduler(prediction_type="v_prediction"), dropout=0.5), {}),
    "unet-classes": ("unet", saved_unet(DDPMScheduler(), num_class_embeds=3), {"class_label": 2}),
    "unet-learned-variance": (
        "unet",
        saved_unet(DDPMScheduler(variance_type="learned_range"), out_channels=2),
        {"layers": ("mid_block.*",)},
    ),
    "dit": ("dit", saved("dit"), {}),
    "dit-every-layer": ("dit", saved("dit"), {"layers": ("*",), "guidance_scale": 2.0}),
    "latent": ("latent", saved("latent"), {}),
    "latent-every-layer": ("latent", saved("latent"), {"layers": ("*",), "guidance_scale": 2.0}),
}


def spec(sort: str) -> BaseSpec:
    kind, write, changes = SORTS[sort]
    pretrained = str(folder_of(sort)) if write else ""
    return BaseSpec(kind=kind, pretrained=pretrained, **{**TARGETS[kind].quick_spec, **changes})


@cache
def folder_of(sort: str) -> Path:
    """Where a pretrained model lies."""
    folder = Path(tempfile.mkdtemp(prefix="dphyper-targets-"))
    _, write, _ = SORTS[sort]
    assert write
    torch.manual_seed(0)
    write(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def new_base(sort: str, folder: Path | None = None) -> BaseModel:
    """A model as the harness makes it; from a folder, where one is given."""
    described = spec(sort)
    kind, where = TARGETS[described.kind], folder or described.pretrained
    made = kind.load(Path(where), **SHAPE) if where else kind.untrained(described, **SHAPE)
    made.condition(described)
    return made


@cache
def base(sort: str) -> BaseModel:
    """A model that no check changes."""
    return new_base(sort)


@cache
def target(sort: str) -> Target:
    """The target around a model of its own."""
    return new_base(sort).target(spec(sort))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_theta(kind: str, seed: int = 1) -> Tensor:
    """Parameters that are not the public ones."""
    made = target(kind)
    return made.initial() + 0.1 * torch.randn(made.num_parameters, generator=rng(seed))


def a_model_is_made_alike_every_time(kind: str, folder: Path) -> None:
    again = new_base(kind)
    for (_, first), (_, second) in zip(base(kind).named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(first, second)


def a_saved_model_is_read_back(kind: str, folder: Path) -> None:
    base(kind).save(folder)
    found = new_base(kind, folder)
    theta = some_theta(kind)
    expected = target(kind).sample(theta, 2, rng())
    # A model may be saved in half precision: some levels of grey.
    np.testing.assert_allclose(found.target(spec(kind)).sample(theta, 2, rng()), expected, rtol=0, atol=4)
    assert not np.array_equal(target(kind).sample(target(kind).initial(), 2, rng()), expected)


def a_model_of_another_size_is_refused(kind: str, folder: Path) -> None:
    base(kind).save(folder)
    loads = TARGETS[spec(kind).kind].load
    with pytest.raises(UserError, match="image_size"):
        loads(folder, image_size=16, channels=1)
    with pytest.raises(UserError, match="channels"):
        loads(folder, image_size=8, channels=3)
    with pytest.raises(UserError, match=r"base\.pretrained"):
        loads(folder / "nowhere", **SHAPE)


def base_and_target_encode_alike(kind: str, folder: Path) -> None:
    x = target(kind).encode(RECORDS)
    assert len(x) == len(RECORDS)
    assert torch.equal(base(kind).encode(RECORDS), x)
    assert torch.isfinite(base(kind).loss(x))


def records_are_encoded_each_by_itself(kind: str, folder: Path) -> None:
    """To the last bit, or what a private record becomes would tell of the others."""
    assert torch.equal(target(kind).encode(RECORDS[2:3]), target(kind).encode(RECORDS)[2:3])
    assert not torch.equal(target(kind).encode(RECORDS[2:3]), target(kind).encode(RECORDS)[1:2])
    assert len(target(kind).encode(RECORDS[:0])) == 0


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
    """Of each record, against autograd with a copy of θ for each."""
    made, x = target(kind), target(kind).encode(RECORDS)
    theta = some_theta(kind)
    rows = made.per_example_gradients(theta, x, rng(3), 1)
    copies = theta.expand(len(x), -1).clone().requires_grad_()
    (expected,) = torch.autograd.grad(made.per_example_loss(copies, x, rng(3)).sum(), copies)
    torch.testing.assert_close(rows, expected, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(1.1 * rows, expected, rtol=1e-3, atol=1e-6)
    shared = theta.clone().requires_grad_()
    (mean,) = torch.autograd.grad(made.per_example_loss(shared, x, rng(3)).sum(), shared)
    torch.testing.assert_close(rows.sum(0), mean, rtol=1e-3, atol=1e-5)


def every_adapted_matrix_has_a_gradient(kind: str, folder: Path) -> None:
    """A LoRA on a layer that does not matter would be noise without a signal."""
    made, x = target(kind), target(kind).encode(RECORDS)
    rows = made.per_example_gradients(some_theta(kind), x, rng(3), 1)
    for part in rows.split([math.prod(shape) for shape in made.layer_shapes], 1):
        assert (part != 0).any()


def gradients_draw_from_their_own_generator_alone(kind: str, folder: Path) -> None:
    """Not from the global one, which is neither secret nor fixed: dropout does, and dropped classes."""
    before = torch.get_rng_state()
    made, x = target(kind), target(kind).encode(RECORDS)
    rows = made.per_example_gradients(some_theta(kind), x, rng(3), 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(made.per_example_gradients(some_theta(kind), x, rng(4), 1), rows)


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
    a_model_is_made_alike_every_time,
    a_saved_model_is_read_back,
    a_model_of_another_size_is_refused,
    base_and_target_encode_alike,
    records_are_encoded_each_by_itself,
    theta_has_the_declared_shape,
    losses_are_of_each_record_alone,
    gradients_are_those_of_the_loss,
    every_adapted_matrix_has_a_gradient,
    gradients_draw_from_their_own_generator_alone,
    no_call_leaves_a_trace_of_its_theta,
    samples_are_records,
    features_are_of_each_record_alone,
    what_it_can_do_besides_it_does_or_refuses_in_one_line,
)


@pytest.mark.parametrize("kind", sorted(SORTS))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(kind: str, check: Callable[[str, Path], None], tmp_path: Path) -> None:
    check(kind, tmp_path)


def test_number_of_checks() -> None:
    assert {kind for kind, _, _ in SORTS.values()} == {*TARGETS}, "a kind of target has no model in the contract suite"
    assert len(CHECKS) * len(SORTS) >= 140, "the contract suite lost checks or models"


def test_the_contract_catches_wrong_gradients(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = LoRADiffusion.per_example_gradients
    monkeypatch.setattr(LoRADiffusion, "per_example_gradients", lambda *given: 1.1 * real(*given))
    with pytest.raises(AssertionError):
        gradients_are_those_of_the_loss("unet", tmp_path)


@pytest.mark.parametrize("kind", ["unet-velocity-dropout", "dit"])
def test_the_contract_catches_global_randomness(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = LoRADiffusion._listen

    def whole(self: LoRADiffusion, on: bool) -> None:
        real(self, on)
        self.unet.train(on)

    monkeypatch.setattr(LoRADiffusion, "_listen", whole)
    with pytest.raises(AssertionError):
        gradients_draw_from_their_own_generator_alone(kind, tmp_path)


def test_the_contract_catches_encodings_that_hang_on_the_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = Latents.encode
    centred = lambda self, records, device: real(self, records, device) - real(self, records, device).mean()  # noqa: E731
    monkeypatch.setattr(Latents, "encode", centred)
    with pytest.raises(AssertionError):
        records_are_encoded_each_by_itself("latent", tmp_path)


@pytest.mark.parametrize("kind", ["dit", "latent"])
def test_a_model_on_latents_is_never_trained_from_nothing(kind: str) -> None:
    with pytest.raises(UserError, match=rf"base\.kind = '{kind}' is a pretrained model, and base\.pretrained is empty"):
        TARGETS[kind].untrained(replace(BaseSpec(), kind=kind), **SHAPE)


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
