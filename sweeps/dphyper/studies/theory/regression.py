"""The second target: linear regression, where the excess risk is known exactly and theory can be checked.

A record is d features followed by one label. With features from N(0, I_d) the excess risk of weights ŵ over the
true w is ‖ŵ − w‖², so that no test set is needed and no evaluation noise enters. With a basis the weights are
w = V θ, V frozen and public: the linear counterpart of a LoRA whose A is frozen. Not guaranteed for features that
are not isotropic, where ‖ŵ − w‖² is a distance of weights and no risk.

Shapes: b records, d features, P parameters (d, or the columns of the basis).
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dphyper.targets.target import Target


class LinearRegression(Target):
    """y = ⟨w, x⟩ + noise with half the squared error as its loss, so that the mean gradient at θ has curvature I.

    Args:
        dimension: d.
        basis_dP: Orthonormal public directions that the weights are confined to; None for all of R^d.

    Attributes:
        num_parameters: P.
        num_features: P as well, see `features`.

    >>> target = LinearRegression(2)
    >>> record = torch.tensor([[1.0, 2.0, 3.0]])  # x = (1, 2), y = 3
    >>> target.per_example_loss(torch.tensor([1.0, 0.5]), record, None)
    tensor([0.5000])
    """

    def __init__(self, dimension: int, *, basis_dP: Tensor | None = None) -> None:
        self.dimension = dimension
        self.basis_dP = basis_dP
        self.num_parameters = dimension if basis_dP is None else basis_dP.shape[1]
        self.num_features = self.num_parameters

    def initial(self) -> Tensor:
        """θ = 0, shape (P,): the prediction without any knowledge, of excess risk ‖w‖²."""
        return torch.zeros(self.num_parameters)

    def _seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(b, P) features in the coordinates of θ and (b,) labels of (b, d + 1) records."""
        x_bd = x[:, : self.dimension]
        return (x_bd if self.basis_dP is None else x_bd @ self.basis_dP), x[:, self.dimension]

    def weights(self, theta: Tensor) -> Tensor:
        """(..., P) parameters to (..., d) weights."""
        return theta if self.basis_dP is None else theta @ self.basis_dP.T

    def per_example_loss(
        self, theta: Tensor, x: Tensor, rng: torch.Generator | None, *, stratified: bool = False
    ) -> Tensor:
        """(b,) half squared errors of (b, d + 1) records under one θ of shape (P,), or under one for each, (b, P).

        The loss has no randomness; ``rng`` and ``stratified`` are there for the contract.
        """
        u_bP, y_b = self._seen(x)
        return 0.5 * (y_b - (u_bP * theta).sum(-1)).square()

    def per_example_gradients(self, theta: Tensor, x: Tensor, rng: torch.Generator, multiplicity: int) -> Tensor:
        """(b, P) gradients of the loss, −(y − ⟨θ, u⟩) u with u the features in the coordinates of θ."""
        u_bP, y_b = self._seen(x)
        return -(y_b - u_bP @ theta)[:, None] * u_bP

    def encode(self, records: NDArray[Any]) -> Tensor:
        """Records as they are."""
        return torch.from_numpy(records)

    def sample(self, theta: Tensor, num: int, rng: torch.Generator) -> NDArray[np.uint8]:
        """A regression generates no record.

        Raises:
            UserError: Always.
        """
        raise self._cannot("generate records")

    def features(self, x: Tensor) -> Tensor:
        """(b, P) label times features in the coordinates of θ: each record's own estimate of θ, of mean θ."""
        u_bP, y_b = self._seen(x)
        return y_b[:, None] * u_bP

    def evaluate(self, theta: Tensor, w_d: Tensor) -> Tensor:
        """Exact excess risk E(⟨ŵ, x⟩ − ⟨w, x⟩)² = ‖ŵ − w‖² for x ~ N(0, I_d), of (..., P) parameters.

        >>> LinearRegression(2).evaluate(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0]))
        tensor(25.)
        """
        return (self.weights(theta) - w_d).square().sum(-1)
