"""All weights of a diffusion U-Net as a target: what a LoRA's rank and frozen A cost shows beside it.

Attention and norms of the U-Net see one image at a time, so that a record's gradient is its own here too.

Shapes: b records, P weights of the U-Net (those of the LoRA, which stays at 0, are not among them).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from dphyper.core.errors import UserError
from dphyper.core.specs import content_hash
from dphyper.targets.target import Target

if TYPE_CHECKING:
    from dphyper.targets.lora import LoRADiffusion


class _Call(nn.Module):
    """Calls a function while `functional_call` has other weights in the U-Net."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)


class AllWeights(Target):
    """The U-Net of a `LoRADiffusion` with θ the difference of all its weights from the base model's.

    Everything but gradients is done by the code of the `LoRADiffusion`, at θ = 0 of its own.

    Args:
        lora: Lends its U-Net, which is the same after every call.

    Attributes:
        num_parameters: P.
        num_features: As that of ``lora``.
    """

    def __init__(self, lora: "LoRADiffusion") -> None:
        self._lora, self._call = lora, _Call(lora.unet)
        named = dict(self._call.named_parameters())
        self._base = {name: weight.detach() for name, weight in named.items() if ".lora_" not in name}
        self.num_parameters = sum(weight.numel() for weight in self._base.values())
        self.num_features = lora.num_features

    def initial(self) -> Tensor:
        """θ = 0, the base model; shape (P,)."""
        return torch.zeros(self.num_parameters, device=self._lora.device)

    @property
    def layout(self) -> str:
        """Hash of the names and shapes of all weights."""
        return content_hash([[name, list(weight.shape)] for name, weight in self._base.items()])

    def encode(self, records: NDArray[Any]) -> Tensor:
        """As `LoRADiffusion.encode`."""
        return self._lora.encode(records)

    def bound(self, x: Tensor) -> Tensor:
        """As `LoRADiffusion.bound`."""
        return self._lora.bound(x)

    def _weights(self, theta: Tensor) -> dict[str, Tensor]:
        if theta.dim() != 1:
            raise UserError(f"θ of shape {tuple(theta.shape)}: expected ({self.num_parameters},), one for all examples")
        parts = theta.split([weight.numel() for weight in self._base.values()])
        return {name: base + part.view_as(base) for (name, base), part in zip(self._base.items(), parts, strict=True)}

    def _at(self, theta: Tensor, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """``fn`` of the `LoRADiffusion` at the weights of ``theta``."""
        return functional_call(self._call, self._weights(theta), (fn, self._lora.initial(), *args), kwargs)

    def per_example_loss(
        self, theta: Tensor, x: Tensor, rng: torch.Generator | None, *, stratified: bool = False
    ) -> Tensor:
        """(b,) denoising losses as `LoRADiffusion`'s, differentiable in θ.

        Raises:
            UserError: ``theta`` is (b, P): that many copies of a whole U-Net are nobody's output.
        """
        loss: Tensor = self._at(theta, self._lora.per_example_loss, x, rng, stratified=stratified)
        return loss

    def per_example_gradients(self, theta: Tensor, x: Tensor, rng: torch.Generator, multiplicity: int) -> Tensor:
        """(b, P) gradients of the loss, one backward pass for each record.

        That is slow but needs no memory beyond the rows; opacus' hooks, which do it for all at once, lie on the LoRA's
        modules already, and `torch.func.vmap` cannot pass through them.
        """
        theta = theta.detach().requires_grad_()
        rows = x.new_zeros(len(x), self.num_parameters)
        for row, record in zip(rows, x, strict=True):
            repeated = record.expand(multiplicity, *record.shape)
            loss = self.per_example_loss(theta, repeated, rng).mean()
            row.copy_(torch.autograd.grad(loss, theta)[0])
        return rows

    def sample(self, theta: Tensor, num: int, rng: torch.Generator) -> NDArray[np.uint8]:
        """As `LoRADiffusion.sample`."""
        images: NDArray[np.uint8] = self._at(theta, self._lora.sample, num, rng)
        return images

    def vary(self, theta: Tensor, x: Tensor, strength: float, rng: torch.Generator) -> Tensor:
        """As `LoRADiffusion.vary`."""
        images: Tensor = self._at(theta, self._lora.vary, x, strength, rng)
        return images

    def features(self, x: Tensor) -> Tensor:
        """As `LoRADiffusion.features`: those of the base model."""
        return self._lora.features(x)
