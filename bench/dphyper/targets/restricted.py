"""A target of which only some parameters are free: a LoRA of smaller rank, or of fewer layers, inside a larger one.

The frozen A of a LoRA has orthonormal rows, so its first r rows are a LoRA of rank r, and θ of that is the matching
columns of B. A method that pays for every dimension may so take a smaller adapter than its neighbours in a table, on
the same public model, and what it releases is shorter. The other parameters stay at 0, the public model.

Shapes: b examples, P parameters of the whole target, D free ones.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Generator, Tensor

from dphyper.core.errors import UserError
from dphyper.core.specs import content_hash
from dphyper.targets.target import Target


class Restricted(Target):
    """Some coordinates of another target's θ.

    Args:
        whole: The other target.
        free_D: Its free coordinates, rising.
        layer_shapes: (outputs, inputs) of each matrix that the free coordinates form.

    Attributes:
        num_parameters: D.
    """

    def __init__(self, whole: Target, free_D: Tensor, layer_shapes: list[tuple[int, int]]) -> None:
        self._whole, self._free_D, self._layer_shapes = whole, free_D, layer_shapes
        self.num_parameters, self.num_features = len(free_D), whole.num_features

    @property
    def layer_shapes(self) -> list[tuple[int, int]]:
        """As given."""
        return self._layer_shapes

    @property
    def layout(self) -> str:
        """Hash of the whole target's and of what is free."""
        return content_hash([self._whole.layout, self._free_D.tolist()])

    def bound(self, x: Tensor) -> Tensor:
        """As the whole target's."""
        return self._whole.bound(x)

    def require(self, ability: str) -> None:
        """As the whole target does."""
        self._whole.require(ability)

    def _extend(self, theta: Tensor) -> Tensor:
        """(..., D) to (..., P)."""
        if theta.shape[-1] != self.num_parameters:
            raise UserError(f"θ of {theta.shape[-1]} numbers: expected the {self.num_parameters} free ones")
        zeros = theta.new_zeros(*theta.shape[:-1], self._whole.num_parameters)
        return zeros.index_copy(-1, self._free_D.to(theta.device), theta)

    def initial(self) -> Tensor:
        """(D,)."""
        return self._whole.initial()[self._free_D]

    def encode(self, records: NDArray[Any]) -> Tensor:
        """As the whole target's."""
        return self._whole.encode(records)

    def per_example_loss(self, theta: Tensor, x: Tensor, rng: Generator | None, *, stratified: bool = False) -> Tensor:
        """(b,) losses, differentiable in θ, (D,) or (b, D)."""
        return self._whole.per_example_loss(self._extend(theta), x, rng, stratified=stratified)

    def per_example_gradients(self, theta: Tensor, x: Tensor, rng: Generator, multiplicity: int) -> Tensor:
        """(b, D)."""
        return self._whole.per_example_gradients(self._extend(theta), x, rng, multiplicity)[:, self._free_D]

    def sample(self, theta: Tensor, num: int, rng: Generator) -> NDArray[np.uint8]:
        """As the whole target's."""
        return self._whole.sample(self._extend(theta), num, rng)

    def vary(self, theta: Tensor, x: Tensor, strength: float, rng: Generator) -> Tensor:
        """As the whole target's."""
        return self._whole.vary(self._extend(theta), x, strength, rng)

    def few_step_samples(self, theta: Tensor, num: int, steps: int, rng: Generator) -> Tensor:
        """As the whole target's."""
        return self._whole.few_step_samples(self._extend(theta), num, steps, rng)

    def features(self, x: Tensor) -> Tensor:
        """As the whole target's."""
        return self._whole.features(x)

    def all_weights(self) -> Target:
        """As the whole target's: no LoRA, and nothing to restrict."""
        return self._whole.all_weights()
