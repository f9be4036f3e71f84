"""Linear regression as a target: the model that the theory's learned hypernetwork adapts.

A record is P features followed by one label. The loss is half the squared error, so with isotropic features its
mean has curvature I. A record's features are its label times its inputs, whose mean is the true θ. It generates
nothing, and its excess risk is computed elsewhere, by `dphyper.studies.theory.worlds.excess_risk`.

Shapes: b records, P features and parameters.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dphyper.targets.target import Target


class LinearRegression(Target):
    """y = ⟨θ, x⟩ + noise, judged by half the squared error.

    Args:
        dimension: P.

    >>> target = LinearRegression(2)
    >>> record = torch.tensor([[1.0, 2.0, 3.0]])  # x = (1, 2), y = 3
    >>> target.per_example_loss(torch.tensor([1.0, 0.5]), record, None)
    tensor([0.5000])
    """

    def __init__(self, dimension: int) -> None:
        self.num_parameters = self.num_features = dimension

    def initial(self) -> Tensor:
        """θ = 0, shape (P,): the prediction without any knowledge."""
        return torch.zeros(self.num_parameters)

    def encode(self, records: NDArray[Any]) -> Tensor:
        """(b, P + 1) records as they are."""
        return torch.from_numpy(records)

    def per_example_loss(
        self, theta: Tensor, x: Tensor, rng: torch.Generator | None, *, stratified: bool = False
    ) -> Tensor:
        """(b,) half squared errors of (b, P + 1) records under one θ of shape (P,), or under one for each, (b, P).

        The loss has no randomness; ``rng`` and ``stratified`` are there for the contract.
        """
        return 0.5 * (x[:, -1] - (x[:, :-1] * theta).sum(-1)).square()

    def per_example_gradients(self, theta: Tensor, x: Tensor, rng: torch.Generator, multiplicity: int) -> Tensor:
        """(b, P) gradients of the loss, −(y − ⟨θ, x⟩) x."""
        return -(x[:, -1] - x[:, :-1] @ theta)[:, None] * x[:, :-1]

    def sample(self, theta: Tensor, num: int, rng: torch.Generator) -> NDArray[np.uint8]:
        """Refuse: a regression generates no record.

        Raises:
            UserError: Always.
        """
        raise self._cannot("generate records")

    def features(self, x: Tensor) -> Tensor:
        """(b, P) label times inputs: each record's own estimate of θ, of mean θ where inputs are isotropic."""
        return x[:, -1:] * x[:, :-1]
