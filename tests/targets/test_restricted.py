"""A smaller LoRA inside a larger one: its numbers are the larger one's with the rest at 0."""

import pytest
import torch

from dphyper.core.errors import UserError
from dphyper.targets.diffusion import new_scheduler, new_unet
from dphyper.targets.lora import GROUPS, LoRADiffusion
from dphyper.targets.target import Target

LAYERS = ("attention", "convolutions", "ends", "norms")


def make_target(rank: int) -> LoRADiffusion:
    torch.manual_seed(0)
    unet = new_unet(image_size=8, channels=1, block_out_channels=(16, 32), layers_per_block=1)
    return LoRADiffusion(unet, new_scheduler(), rank=rank, layers=LAYERS, sampling_steps=2, seed=0)


@pytest.fixture(scope="module")
def whole() -> LoRADiffusion:
    return make_target(12)


def images() -> torch.Tensor:
    return torch.rand((5, 1, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize(("rank", "layers"), [(2, ()), (0, ("attention",)), (3, ("ends",)), (1, ("norms",))])
def test_gradients_are_those_of_autograd_at_the_free_parameters(
    whole: LoRADiffusion, rank: int, layers: tuple[str, ...]
) -> None:
    small = whole.restricted(rank, layers)
    assert 0 < small.num_parameters < whole.num_parameters
    assert small.num_parameters == sum(rows * columns for rows, columns in small.layer_shapes)
    theta = 0.1 * torch.randn(small.num_parameters, generator=seeded())
    rows = small.per_example_gradients(theta, images(), seeded(), 1)
    copies = theta.expand(5, -1).clone().requires_grad_()
    (expected,) = torch.autograd.grad(small.per_example_loss(copies, images(), seeded()).sum(), copies)
    torch.testing.assert_close(rows, expected, rtol=1e-3, atol=1e-6)


def test_what_is_not_free_stays_the_public_model(whole: LoRADiffusion) -> None:
    small: Target = whole.restricted(2, ("attention",))
    theta = torch.ones(small.num_parameters)
    extended = torch.zeros(whole.num_parameters)
    extended[small._free_D] = 1  # type: ignore[attr-defined]
    assert (small.sample(theta, 3, seeded()) == whole.sample(extended, 3, seeded())).all()
    assert (small.sample(small.initial(), 3, seeded()) == whole.sample(whole.initial(), 3, seeded())).all()
    assert (small.sample(theta, 3, seeded()) != small.sample(small.initial(), 3, seeded())).any()


def test_the_first_columns_are_a_lora_of_smaller_rank(whole: LoRADiffusion) -> None:
    """Each layer's free columns act through as many orthonormal rows of A."""
    small = whole.restricted(2, ())
    assert small.layer_shapes == [(rows, min(columns, 2)) for rows, columns in whole.layer_shapes]
    assert small.num_parameters == make_target(2).num_parameters
    norms = whole.restricted(1, ("norms",)).layer_shapes
    assert {columns for _, columns in norms} == {2}  # a scale and a shift, whatever the rank


@pytest.mark.parametrize(
    ("rank", "layers", "line"),
    [(13, (), "rank = 13: expected at most the target's"), (1, ("time",), "group of layers in options.layers 'time'")],
)
def test_what_the_target_does_not_have_is_refused(
    whole: LoRADiffusion, rank: int, layers: tuple[str, ...], line: str
) -> None:
    with pytest.raises(UserError, match=line):
        whole.restricted(rank, layers)


def test_a_layer_of_few_inputs_has_a_lora_of_their_number() -> None:
    assert make_target(12).layer_shapes[0] == (16, 9)  # conv_in sees one channel of 3×3
    assert {"attention", "feed_forward", "time", "convolutions", "resampling", "ends", "norms"} == set(GROUPS)
