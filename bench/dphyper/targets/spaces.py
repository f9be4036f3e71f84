"""Where a diffusion model works: on pixels, or on the latents of a frozen autoencoder.

A record is encoded by itself, from its own values and public weights, and always in the same way: what a private record
becomes depends on no other record, to the last bit. Nothing that is encoded is kept, but for public records that are
given to `Latents.remember`.

Shapes: b records, C H W channels, height, width of an image, c h w those of its latents.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dphyper.targets.diffusion import to_uint8, to_unit


class Space(Protocol):
    """What a model of diffusion is told of the records that it sees.

    Attributes:
        shape: (C, H, W) or (c, h, w).
    """

    shape: tuple[int, int, int]

    def encode(self, records: NDArray[Any], device: torch.device) -> Tensor:
        """(b, H, W, C) uint8 images to (b, *shape)."""

    def decode(self, x: Tensor) -> NDArray[np.uint8]:
        """The way back."""

    def bound(self, x: Tensor) -> Tensor:
        """``x`` within the values that records have."""


class Pixels:
    """Images in [-1, 1].

    Args:
        shape: (C, H, W).
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape

    def encode(self, records: NDArray[Any], device: torch.device) -> Tensor:
        """As `to_unit`."""
        return to_unit(records).to(device)

    def decode(self, x: Tensor) -> NDArray[np.uint8]:
        """As `to_uint8`."""
        return to_uint8(x)

    def bound(self, x: Tensor) -> Tensor:
        """Values in [-1, 1]."""
        return x.clamp(-1, 1)


class Latents(nn.Module):
    """Means of the latents of a diffusers autoencoder, at the scale that its model was trained on.

    Args:
        vae: An ``AutoencoderKL``; frozen here.
        size: Pixels of an image's side.
    """

    def __init__(self, vae: Any, size: int) -> None:
        super().__init__()
        self.vae: Any = vae.requires_grad_(False).eval()
        self.side = size // downsampling(self.vae.config)
        self.shape: tuple[int, int, int] = (self.vae.config["latent_channels"], self.side, self.side)
        self._known: dict[bytes, Tensor] = {}

    def train(self, mode: bool = True) -> "Latents":
        """Stay as it is: a frozen autoencoder is never trained."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, records: NDArray[Any], device: torch.device) -> Tensor:
        """(b, H, W, C) uint8 images to (b, c, h, w), one at a time: in a batch the last bits hang on the others."""
        if not len(records):
            return torch.zeros(0, *self.shape, device=device)
        return torch.cat([self._encoded(records[i : i + 1], device) for i in range(len(records))])

    def _encoded(self, record: NDArray[Any], device: torch.device) -> Tensor:
        known = self._known.get(_digest(record)) if self._known else None
        if known is not None:
            return known.to(device)
        mean: Tensor = self.vae.encode(to_unit(record).to(device)).latent_dist.mean
        return ((mean - self._shift) * self._scale).contiguous()

    @torch.no_grad()
    def decode(self, x: Tensor) -> NDArray[np.uint8]:
        """(b, c, h, w) to (b, H, W, C) uint8, one at a time, which bounds the memory."""
        return np.concatenate([to_uint8(self.vae.decode(one / self._scale + self._shift).sample) for one in x.split(1)])

    def bound(self, x: Tensor) -> Tensor:
        """As it is: latents have no bounds."""
        return x

    def remember(self, records: NDArray[Any], x: Tensor) -> None:
        """Take the encodings of public records from here on; ``x`` is what `encode` made of ``records``."""
        self._known = {_digest(record): row for record, row in zip(records, x.split(1), strict=True)}

    @property
    def _scale(self) -> float:
        return float(self.vae.config["scaling_factor"])

    @property
    def _shift(self) -> float:
        return float(self.vae.config.get("shift_factor") or 0.0)


def _digest(record: NDArray[Any]) -> bytes:
    return hashlib.sha256(record.tobytes()).digest()


def downsampling(config: Mapping[str, Any]) -> int:
    """Pixels of an image's side for each of its latents', by the configuration of an autoencoder.

    >>> downsampling({"block_out_channels": [128, 256, 512, 512]})
    8
    """
    return int(2 ** (len(config["block_out_channels"]) - 1))
