"""A denoising network whose condition is fixed, so that it takes noisy records and times alone.

Classes and prompts are public and the same for every record. So a class- or text-conditional network looks like an
unconditional one to all that adapts it. Of a network that predicts a variance too, the mean is kept.

Shapes: b records, C H W channels, height, width of what the network sees (pixels or latents).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Conditioned(nn.Module):
    """A network with a fixed condition.

    Args:
        net: Takes records, times and the condition by name, as diffusers' networks do.
        condition: Name to value, (1, ...), the same for every record.
        absent: What stands for no condition, under the same names; None where the network knows no such thing.
    """

    def __init__(
        self, net: nn.Module, condition: Mapping[str, Tensor], absent: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.net = net
        self._condition, self._absent = nn.Module(), nn.Module()
        for name, value in condition.items():
            self._condition.register_buffer(name, value, persistent=False)
        for name, value in (absent or {}).items():
            self._absent.register_buffer(name, value, persistent=False)
        self._conditional = True

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return next(self.parameters()).device

    @contextmanager
    def unconditional(self) -> Iterator[None]:
        """Leave the condition out for a while."""
        self._conditional = False
        try:
            yield
        finally:
            self._conditional = True

    def forward(self, x: Tensor, t: Tensor | int, return_dict: bool = False) -> tuple[Tensor]:
        """(b, C, H, W) predictions for noisy records at times ``t``, in a tuple, as diffusers' networks give them."""
        fixed = self._condition if self._conditional else self._absent
        given = {name: value.expand(len(x), *value.shape[1:]) for name, value in fixed.named_buffers()}
        times_b = torch.as_tensor(t, device=x.device).expand(len(x))
        predicted: Tensor = self.net(x, times_b, **given, return_dict=False)[0]
        return (predicted[:, : x.shape[1]],)
