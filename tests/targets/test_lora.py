"""The diffusion target: gradients of convolutions, one path for sampling and varying, memory of many draws."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dphyper.core.errors import UserError
from dphyper.targets.diffusion import new_scheduler, new_unet, to_unit
from dphyper.targets.lora import GROUPS, LoRADiffusion


def target(layers: tuple[str, ...] = ("attention", "time"), rank: int = 2) -> LoRADiffusion:
    torch.manual_seed(0)
    unet = new_unet(image_size=8, channels=1, block_out_channels=(16, 32), layers_per_block=1)
    return LoRADiffusion(unet, new_scheduler(), rank=rank, layers=layers, sampling_steps=4, seed=0)


def images(n: int) -> Tensor:
    return torch.rand((n, 1, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "feed_forward"])  # which transformers have
def test_hooks_and_copies_of_the_parameters_agree_on_every_group_of_layers(group: str) -> None:
    model, x = target((group,), rank=12), images(5)  # conv_in has nine inputs
    assert model.num_parameters > 0
    theta = 0.1 * torch.randn(model.num_parameters, generator=torch.Generator().manual_seed(2))
    rows = model.per_example_gradients(theta, x, torch.Generator().manual_seed(3), 1)
    copies = theta.expand(5, -1).clone().requires_grad_()
    loss = model.per_example_loss(copies, x, torch.Generator().manual_seed(3)).sum()
    (expected,) = torch.autograd.grad(loss, copies)
    torch.testing.assert_close(rows, expected, rtol=1e-3, atol=1e-6)
    shared = model.per_example_loss(theta, x, torch.Generator().manual_seed(3)).sum()
    torch.testing.assert_close(shared, loss, rtol=1e-4, atol=1e-4)


def test_many_draws_hold_no_more_images_at_once_than_one_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = target(), []
    inner = model._hooked_gradients

    def watched(noisy: Tensor, t: Tensor, wanted: Tensor) -> Tensor:
        sizes.append(len(noisy))
        return inner(noisy, t, wanted)

    monkeypatch.setattr(model, "_hooked_gradients", watched)
    model.per_example_gradients(model.initial(), images(6), torch.Generator().manual_seed(0), 4)
    assert sizes == [6, 6, 6, 6]


def test_variations_keep_more_of_the_image_the_less_they_are_varied() -> None:
    model, x = target(), to_unit(np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), np.uint8))
    distance = []
    for strength in (0.25, 0.5, 1.0):
        varied = model.vary(model.initial(), x, strength, torch.Generator().manual_seed(1), batch_size=10)
        assert varied.shape == x.shape
        assert varied.abs().max() <= 1
        own = (varied - x).flatten(1).norm(dim=1)
        other = (varied - x.roll(1, 0)).flatten(1).norm(dim=1)
        distance.append(float(own.mean() / other.mean()))
    assert distance[0] < distance[1] < distance[2]
    assert distance[2] == pytest.approx(1.0, abs=0.15)  # all of it is redrawn: the image is forgotten


def test_opacus_gradients_equal_those_of_expanded_parameters() -> None:
    """Two independent ways to per-example gradients: opacus' hooks, and one copy of θ for each example."""
    model, x = target(), images(6)
    theta = 0.1 * torch.randn(model.num_parameters, generator=torch.Generator().manual_seed(2))
    by_hooks = model.per_example_gradients(theta, x, torch.Generator().manual_seed(3), 1)
    copies = theta.expand(6, -1).clone().requires_grad_()
    loss = model.per_example_loss(copies, x, torch.Generator().manual_seed(3)).sum()
    (by_copies,) = torch.autograd.grad(loss, copies)
    torch.testing.assert_close(by_hooks, by_copies, rtol=1e-3, atol=1e-7)


def test_noise_multiplicity_averages_before_clipping() -> None:
    """K draws of one image give one gradient row, the mean over the draws."""
    model, x = target(), images(3)
    theta = 0.1 * torch.randn(model.num_parameters, generator=torch.Generator().manual_seed(2))
    rows = model.per_example_gradients(theta, x, torch.Generator().manual_seed(3), 4)
    copies = theta.expand(12, -1).clone().requires_grad_()
    loss = model.per_example_loss(copies, x.repeat_interleave(4, 0), torch.Generator().manual_seed(3)).sum()
    (each,) = torch.autograd.grad(loss, copies)
    torch.testing.assert_close(rows, each.view(3, 4, -1).mean(1), rtol=1e-3, atol=1e-7)


def test_few_step_samples_are_those_of_a_deterministic_sampler() -> None:
    """Against diffusers' DDIM at the same times; and they have a gradient in θ."""
    from diffusers import DDIMScheduler

    model = target()
    theta = 0.1 * torch.randn(model.num_parameters, generator=torch.Generator().manual_seed(1))
    theta.requires_grad_()
    images = model.few_step_samples(theta, 3, 3, torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad(images.sum(), theta)
    assert gradient.isfinite().all()
    assert float(gradient.abs().max()) > 0

    solver = DDIMScheduler.from_config(model.scheduler.config, clip_sample=True)
    solver.set_timesteps(3)
    x = torch.randn((3, *model.image_shape), generator=torch.Generator().manual_seed(2))
    solver.timesteps = torch.tensor([999, 666, 333])
    alpha = model.scheduler.alphas_cumprod
    with torch.no_grad():
        for t, after in ((999, 666), (666, 333), (333, None)):
            with model._bound(theta.detach()):
                v = model.unet(x, t, return_dict=False)[0]
            step = solver.step(v, t, x)
            clean = step.pred_original_sample
            if after is not None:
                noise = (x - alpha[t].sqrt() * clean) / (1 - alpha[t]).sqrt()
                x = alpha[after].sqrt() * clean + (1 - alpha[after]).sqrt() * noise
    torch.testing.assert_close(images.detach(), clean, rtol=1e-3, atol=1e-3)


def test_layers_are_chosen_by_groups_and_by_patterns_of_their_names() -> None:
    by_pattern, by_group = target(("*.to_?", "*.to_out.0")), target(("attention",))
    assert by_pattern.layer_shapes == by_group.layer_shapes
    assert by_pattern.layout == by_group.layout
    middle = target(("mid_block.*",))
    assert {name.partition(".")[0] for name in middle._layers} == {"mid_block"}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            ("*.to_x",),
            r"the pattern '\*\.to_x' matches none of the \d+ linear and convolutional layers, such as conv_in",
        ),
        (("atention",), r"unknown group of layers in base\.layers 'atention': did you mean 'attention'\?"),
        (("feed_forward",), r"the model has no such layer"),
        ((), r"base\.layers is empty"),
    ],
)
def test_layers_that_the_model_does_not_have_are_refused(layers: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        target(layers)


def test_the_account_counts_the_layers_of_each_entry() -> None:
    model = target(("attention", "mid_block.*", "norms"))
    (line,) = model.account
    counted = {name: sum(name in layer for layer in model._layers) for name in ("to_", "mid_block")}
    norms = sum(isinstance(module, torch.nn.GroupNorm) for module in model.unet.modules())
    assert f"(attention {counted['to_']}, mid_block.* {counted['mid_block']}, norms {norms})" in line
    assert f"{model.num_parameters:,} parameters" in line


def test_the_layout_tells_adapters_of_equal_length_apart() -> None:
    """Two layers at rank 1, or one at rank 2, may have as many parameters."""
    ones = target(("*.to_q",), rank=2), target(("*.to_k",), rank=2)
    assert ones[0].num_parameters == ones[1].num_parameters
    assert ones[0].layout != ones[1].layout
    assert ones[0].layout == target(("*.to_q",), rank=2).layout
    assert ones[0].restricted(1, ()).layout not in (ones[0].layout, ones[1].restricted(1, ()).layout)
    assert ones[0].all_weights().layout != ones[0].layout
