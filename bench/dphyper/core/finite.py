"""Where numbers have diverged, the cell fails; nothing that is NaN or infinite becomes an image, a number or a row.

Every stage of a cell asks this of what it hands on: trained weights, θ, samples before they are rounded to pixels,
features, losses and metrics. Importing it loads torch.
"""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def require_finite(what: str, value: "Tensor | NDArray[Any] | float") -> None:
    """Stop where numbers have diverged.

    Args:
        what: Of which numbers, for people.
        value: Any shape.

    Raises:
        FloatingPointError: Some number is NaN or infinite.

    >>> require_finite("loss", 0.5)
    >>> require_finite("loss", float("nan"))
    Traceback (most recent call last):
        ...
    FloatingPointError: loss: 1 of 1 numbers is NaN or infinite, it has diverged
    """
    finite = torch.as_tensor(value).isfinite()
    if not finite.all():
        bad = int((~finite).sum())
        verb = "is" if bad == 1 else "are"
        raise FloatingPointError(f"{what}: {bad} of {finite.numel()} numbers {verb} NaN or infinite, it has diverged")


def require_finite_weights(what: str, module: nn.Module) -> None:
    """As `require_finite`, of every parameter and buffer."""
    for name, value in module.state_dict().items():
        require_finite(f"{what}, {name}", value)
