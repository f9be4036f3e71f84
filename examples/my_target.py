"""A target of your own: the smallest generative model there is, a mean image with noise around it.

A target is what the methods adapt. It takes two classes: the public model, which the harness trains on public records
and saves, and the target around it, whose parameters θ the methods produce. Here θ is added to the mean image. Yours
would wrap a real model in the same way; `dphyper run --base.kind mean_image ...` then runs every method on it.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dphyper.core.errors import UserError
from dphyper.core.specs import BaseSpec
from dphyper.targets.target import BaseModel, Target

NOISE = 0.3  # standard deviation of a pixel around the mean image, of 2 between black and white


class MeanImage(Target):
    """Images are mean + θ + noise.

    Args:
        mean: (C, H, W) of the public model.
    """

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean.detach()
        self.num_parameters = self.num_features = mean.numel()

    def initial(self) -> Tensor:
        """θ = 0 is the public model."""
        return torch.zeros(self.num_parameters)

    def encode(self, records: np.ndarray) -> Tensor:
        """(b, H, W, C) uint8 to (b, C, H, W) in [-1, 1]."""
        return torch.from_numpy(np.ascontiguousarray(records)).permute(0, 3, 1, 2).float() / 127.5 - 1

    def per_example_loss(self, theta, x, rng, *, stratified=False):
        """(b,) half squared distances from the adapted mean; θ is (P,), or (b, P) with one for each example."""
        return 0.5 * (x.flatten(1) - self.mean.flatten() - theta).square().sum(1)

    def per_example_gradients(self, theta, x, rng, multiplicity):
        """(b, P); the loss has no randomness, so that one draw is as good as many."""
        return self.mean.flatten() + theta - x.flatten(1)

    def sample(self, theta, num, rng):
        """(num, H, W, C) uint8."""
        noise = NOISE * torch.randn((num, *self.mean.shape), generator=rng)
        images = self.mean + theta.view_as(self.mean) + noise
        return ((images + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()

    def features(self, x):
        """(b, F) pixels, for methods that embed records."""
        return x.flatten(1)


class MeanImageBase(BaseModel):
    """The public mean image."""

    version = 1  # raise it when training or encoding change their meaning: what was trained before is then trained anew

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.mean = nn.Parameter(mean)

    @classmethod
    def untrained(cls, spec: BaseSpec, *, image_size: int, channels: int):
        """A grey image."""
        return cls(torch.zeros(channels, image_size, image_size))

    @classmethod
    def load(cls, folder: Path, *, image_size: int, channels: int):
        """Read what `save` wrote."""
        path = folder / "mean.safetensors"
        if not path.exists():
            raise UserError(f"base.pretrained = '{folder}' has no mean.safetensors: name a folder that `save` wrote")
        mean = load_file(path)["mean"]
        if mean.shape != (channels, image_size, image_size):
            raise UserError(f"base.pretrained = '{folder}' is of another size: set data.image_size and data.channels")
        return cls(mean)

    def save(self, folder: Path) -> None:
        """Write the mean image."""
        save_file({"mean": self.mean.detach().contiguous()}, folder / "mean.safetensors")

    def encode(self, records):
        """As the target does."""
        return MeanImage(self.mean).encode(records)

    def loss(self, x: Tensor) -> Tensor:
        """Mean squared error."""
        return (x - self.mean).square().mean()

    def target(self, spec: BaseSpec) -> MeanImage:
        """The target around it."""
        return MeanImage(self.mean)
