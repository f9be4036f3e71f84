"""All weights as a target: that of a network written over in place, which leaves no trace."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from dphyper.core.errors import UserError
from dphyper.targets.all_weights import AllWeights
from dphyper.targets.diffusion import corrupt, new_scheduler, new_unet
from dphyper.targets.lora import LoRADiffusion


def target() -> LoRADiffusion:
    torch.manual_seed(0)
    unet = new_unet(image_size=8, channels=1, block_out_channels=(16, 32), layers_per_block=1)
    return LoRADiffusion(unet, new_scheduler(), rank=2, layers=("attention",), sampling_steps=2, seed=0)


def images() -> Tensor:
    return torch.rand((6, 1, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1


def moved(theta: Tensor) -> torch.nn.Module:
    """A copy of the U-Net, written over in place."""
    unet = copy.deepcopy(target().unet)
    start = 0
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if "lora_" not in name:
                weight.add_(theta[start : start + weight.numel()].view_as(weight))
                start += weight.numel()
    assert start == len(theta)
    return unet


def test_full_target_has_all_weights_and_leaves_no_trace() -> None:
    lora, full = target(), AllWeights(target())
    plain = new_unet(image_size=8, channels=1, block_out_channels=(16, 32), layers_per_block=1)
    assert full.num_parameters == sum(weight.numel() for weight in plain.parameters())
    theta = 0.02 * torch.randn(full.num_parameters, generator=torch.Generator().manual_seed(0))
    before = lora.sample(lora.initial(), 4, torch.Generator().manual_seed(1))
    changed = full.sample(theta, 4, torch.Generator().manual_seed(1))
    np.testing.assert_array_equal(full.sample(full.initial(), 4, torch.Generator().manual_seed(1)), before)
    np.testing.assert_array_equal(lora.sample(lora.initial(), 4, torch.Generator().manual_seed(1)), before)
    assert (changed != before).mean() > 0.1
    varied = full.vary(theta, images(), 0.5, torch.Generator().manual_seed(1))
    assert not torch.allclose(varied, lora.vary(lora.initial(), images(), 0.5, torch.Generator().manual_seed(1)))


def test_full_loss_is_that_of_a_moved_network() -> None:
    full, x = AllWeights(target()), images()
    theta = 0.02 * torch.randn(full.num_parameters, generator=torch.Generator().manual_seed(0))
    noisy, t, wanted = corrupt(target().scheduler, x, torch.Generator().manual_seed(2), stratified=False)
    with torch.no_grad():
        reference = (moved(theta)(noisy, t, return_dict=False)[0] - wanted).square().flatten(1).mean(1)
        found = full.per_example_loss(theta, x, torch.Generator().manual_seed(2))
        torch.testing.assert_close(found, reference)
        assert not torch.allclose(full.per_example_loss(full.initial(), x, torch.Generator().manual_seed(2)), reference)
    with pytest.raises(UserError, match="one for all examples"):
        full.per_example_loss(theta.expand(6, -1), x, None)
