"""What pixel-space diffusion models share: images as tensors, the corruption of training, a small U-Net, its schedule.

Shapes: C H W image channels, height, width; images are float32 in [-1, 1] here and uint8 everywhere outside.
"""

import math
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from numpy.typing import NDArray
from torch import Tensor

from dphyper.core.finite import require_finite


def to_unit(images: NDArray[Any]) -> Tensor:
    """uint8 (N, H, W, C) to float32 (N, C, H, W) in [-1, 1].

    >>> to_unit(np.array([[[[255], [0]]]], np.uint8)).flatten().tolist()
    [1.0, -1.0]
    """
    return torch.from_numpy(np.ascontiguousarray(images, np.uint8)).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def to_uint8(x_BCHW: Tensor) -> NDArray[np.uint8]:
    """Inverse of `to_unit`, rounded and clipped.

    Raises:
        FloatingPointError: A number is NaN, which would be a black pixel, or infinite.
    """
    require_finite("samples", x_BCHW)
    return x_BCHW.add(1.0).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def corrupt(
    scheduler: DDPMScheduler, x_BCHW: Tensor, rng: torch.Generator | None, *, stratified: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Add noise at random times.

    Args:
        scheduler: Noise schedule and prediction type.
        x_BCHW: Images in [-1, 1].
        rng: Source of times and noises; None for torch's global one.
        stratified: Spread the times of the batch evenly. Each is uniform still and the mean loss varies less, but a
            record that joins or leaves the batch changes the times of all others: for public images only.

    Returns:
        The noisy images, their (B,) times and what the U-Net should predict of them.
    """
    steps, size = scheduler.config["num_train_timesteps"], len(x_BCHW)
    device = rng.device if rng else x_BCHW.device
    if stratified:
        order = torch.randperm(size, generator=rng, device=device)
        time_B = (order + torch.rand(1, generator=rng, device=device)) / max(size, 1)
    else:
        time_B = torch.rand(size, generator=rng, device=device)
    t_B = (time_B * steps).long().clamp(max=steps - 1).to(x_BCHW.device)
    noise = torch.randn(x_BCHW.shape, generator=rng, device=device).to(x_BCHW)
    kind = scheduler.config["prediction_type"]
    if kind == "v_prediction":
        wanted = scheduler.get_velocity(x_BCHW, noise, t_B)
    else:
        wanted = noise if kind == "epsilon" else x_BCHW
    return scheduler.add_noise(x_BCHW, noise, t_B), t_B, wanted


def new_unet(
    *, image_size: int, channels: int, block_out_channels: tuple[int, ...], layers_per_block: int
) -> UNet2DModel:
    """An untrained U-Net with attention at every level but the first (at the only one, if there is one)."""
    levels = len(block_out_channels)
    attention = [level > 0 or levels == 1 for level in range(levels)]
    return UNet2DModel(
        sample_size=image_size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=layers_per_block,
        block_out_channels=block_out_channels,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        norm_num_groups=8,
        attention_head_dim=math.gcd(*block_out_channels, 16),
    )


def new_scheduler() -> DDPMScheduler:
    """Cosine schedule with velocity prediction (Salimans and Ho 2022), which trains well on small images."""
    return DDPMScheduler(
        num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=True
    )
