"""The last part of a hypernetwork: from a hidden vector to the parameters of a target.

Every head starts at 0, the public model, whatever the hidden vector is.

Shapes: T tasks, W hidden width, V width of a layer's own hidden vector, R length of the code, L layers of the target,
P its parameters.
"""

import math

import torch
from torch import Tensor, nn

from dphyper.core.errors import UserError

HEADS = ("linear", "basis", "layers")


def new_head(kind: str, width: int, layer_shapes: list[tuple[int, int]], code: int) -> nn.Module:
    """A head.

    Args:
        kind: ``linear``; ``basis``, a code of ``code`` numbers on as many learned directions of θ; or ``layers``, a
            hidden vector of ``code`` numbers for each layer, from which its matrix is read.
        width: W.
        layer_shapes: Of the target.
        code: R or V.

    Raises:
        UserError: An unknown kind.
    """
    num = sum(math.prod(shape) for shape in layer_shapes)
    if kind == "linear":
        return _from_zero(nn.Linear(width, num))
    if kind == "basis":
        return nn.Sequential(nn.Linear(width, code), _from_zero(nn.Linear(code, num)))
    if kind == "layers":
        return LayerHead(width, layer_shapes, code)
    raise UserError(f"options.head = '{kind}': expected one of {', '.join(HEADS)}")


def _from_zero(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


class LayerHead(nn.Module):
    """Each layer's matrix from a hidden vector of its own, which the layer's embedding shifts.

    Args:
        width: W.
        layer_shapes: (outputs, inputs) of each matrix.
        code: V.
    """

    def __init__(self, width: int, layer_shapes: list[tuple[int, int]], code: int) -> None:
        super().__init__()
        self.shared = nn.Linear(width, code)
        self.layers_LV = nn.Parameter(torch.randn(len(layer_shapes), code))
        self.outputs = nn.ModuleList(_from_zero(nn.Linear(code, math.prod(shape))) for shape in layer_shapes)

    def forward(self, hidden_TW: Tensor) -> Tensor:
        """(T, W) to (T, P)."""
        own_TLV = nn.functional.silu(self.shared(hidden_TW)[:, None] + self.layers_LV)
        return torch.cat([output(own_TLV[:, layer]) for layer, output in enumerate(self.outputs)], 1)
