"""What diffusion models share: images to tensors and back, and the corruption of training."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from dphyper.targets.diffusion import corrupt, new_scheduler, to_uint8, to_unit


def test_images_come_back_from_tensors() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    assert to_unit(images).shape == (3, 3, 4, 5)
    np.testing.assert_array_equal(to_uint8(to_unit(images)), images)
    assert to_uint8(torch.tensor([[[[-2.0, 2.0]]]])).ravel().tolist() == [0, 255]


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_what_is_wanted_of_a_noisy_image(kind: str) -> None:
    """The clean image is √ᾱ x_t − √(1 − ᾱ) v, (x_t − √(1 − ᾱ) ε) / √ᾱ, or what is wanted itself."""
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type=kind)
    x = torch.rand(6, 1, 4, 4) * 2 - 1
    noisy, t, wanted = corrupt(scheduler, x, torch.Generator().manual_seed(0), stratified=False)
    kept = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1).sqrt()
    lost = (1 - kept**2).sqrt()
    clean = {"epsilon": (noisy - lost * wanted) / kept, "sample": wanted, "v_prediction": kept * noisy - lost * wanted}
    torch.testing.assert_close(clean[kind], x, rtol=1e-3, atol=1e-2)
    others = [value for name, value in clean.items() if name != kind]
    assert not any(torch.allclose(other, x, rtol=1e-3, atol=1e-2) for other in others)


def test_stratified_times_are_spread_evenly_and_others_are_independent() -> None:
    x = torch.zeros(100, 1, 2, 2)
    _, even, _ = corrupt(new_scheduler(), x, torch.Generator().manual_seed(0), stratified=True)
    _, free, _ = corrupt(new_scheduler(), x, torch.Generator().manual_seed(0), stratified=False)
    assert sorted((even // 10).tolist()) == [*range(100)]
    assert len({*(free // 10).tolist()}) < 80
    _, fewer, _ = corrupt(new_scheduler(), x[:-1], torch.Generator().manual_seed(0), stratified=False)
    assert torch.equal(fewer, free[:-1])  # a record that leaves changes no other record's time
