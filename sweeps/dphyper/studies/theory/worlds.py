"""Synthetic linear worlds: many regression tasks whose weights share a subspace.

Public tasks are w = U a, with U orthonormal d×k and a uniform on the unit sphere. Private tasks are turned out of
that subspace by an angle θ: w = U a cos θ + U⊥ b sin θ, with b uniform on the unit sphere. Records have
x ~ N(0, I_d) and y = ⟨w, x⟩ + N(0, σ²). Every ‖w‖ is 1, so predicting 0 has an excess risk of 1. Equal seeds and
equal calls give equal data. A world says nothing about real data: it has no covariance, no outlier and no task
without signal.

Shapes: B tasks, n records of each, d features, k dimension of the shared subspace.
"""

import math

import torch
from torch import Tensor


class LinearWorld:
    """The shared subspace of one world, and draws of tasks and records from it.

    Args:
        d: Features.
        k: Dimension of the subspace, below d.
        noise_std: σ, standard deviation of the label noise.
        seed: Fixes the subspace and, with the calls in the same order, every draw.

    Attributes:
        basis_dk: U, orthonormal and uniformly random.
        rng: The stream of the draws.

    >>> world = LinearWorld(d=4, k=2, noise_std=0.0, seed=0)
    >>> w_Bd = world.draw_weights(3, angle=30.0)
    >>> [round(x, 3) for x in (w_Bd @ world.basis_dk).norm(dim=1).tolist()]  # cos 30°
    [0.866, 0.866, 0.866]
    """

    def __init__(self, *, d: int, k: int, noise_std: float, seed: int) -> None:
        self.noise_std = noise_std
        self.rng = torch.Generator().manual_seed(seed)
        self.basis_dk = torch.linalg.qr(torch.randn(d, k, generator=self.rng)).Q

    def draw_weights(self, num: int, *, angle: float = 0.0) -> Tensor:
        """(num, d) weights of norm 1, turned by ``angle`` degrees (0 to 90) out of the subspace."""
        d, k = self.basis_dk.shape
        inside_Bd = torch.randn(num, k, generator=self.rng) @ self.basis_dk.T
        outside_Bd = torch.randn(num, d, generator=self.rng)
        outside_Bd = outside_Bd - outside_Bd @ self.basis_dk @ self.basis_dk.T
        theta = math.radians(angle)
        unit = torch.nn.functional.normalize
        return unit(inside_Bd, dim=1) * math.cos(theta) + unit(outside_Bd, dim=1) * math.sin(theta)

    def draw_records(self, w_Bd: Tensor, n: int) -> Tensor:
        """(B, n, d + 1) records of these tasks, the label last."""
        x_Bnd = torch.randn(len(w_Bd), n, w_Bd.shape[1], generator=self.rng)
        noise_Bn = torch.randn(len(w_Bd), n, generator=self.rng) * self.noise_std
        y_Bn = (x_Bnd @ w_Bd[:, :, None])[..., 0] + noise_Bn
        return torch.cat([x_Bnd, y_Bn[..., None]], dim=2)


def excess_risk(weights_BRd: Tensor, w_Bd: Tensor) -> Tensor:
    """Exact excess risk E(⟨ŵ, x⟩ − ⟨w, x⟩)² = ‖ŵ − w‖² for x ~ N(0, I_d): no test set, no evaluation noise.

    Args:
        weights_BRd: ŵ, several columns R for each task.
        w_Bd: The true w.

    Returns:
        (B, R).

    >>> excess_risk(torch.tensor([[[3.0, 0.0]]]), torch.tensor([[0.0, 4.0]]))
    tensor([[25.]])
    """
    return (weights_BRd - w_Bd[:, None]).square().sum(2)
