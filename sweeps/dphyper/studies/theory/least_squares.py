"""Least squares in one go: AdaSSP with noise, and the non-private solution.

AdaSSP's noise is calibrated by `dphyper.privacy` and drawn from a seed, as in `dphyper.studies.theory.releases`. Sums
and solutions are in float64, since XᵀX of few records is nearly singular.

Shapes: B data sets, n records of each, p features in use, R draws of the noise.
"""

import math

import torch
from torch import Tensor

from dphyper.privacy.budget import Budget
from dphyper.studies.theory.releases import calibrate_steps

FAILURE = 0.05  # ρ of Wang 2018, the probability with which the ridge may be too small


def fit_adassp(
    x_Bnp: Tensor,
    y_Bn: Tensor,
    budget: Budget,
    *,
    x_bound: float,
    y_bound: float,
    draws: int,
    rng: torch.Generator,
) -> Tensor:
    """AdaSSP: noisy XᵀX and Xᵀy, with a ridge that adapts to a noisy smallest eigenvalue.

    Source: Wang 2018 (arXiv:1803.02596), algorithm 2. A record that is added or removed moves the three releases by
    at most 𝒳² (an eigenvalue), 𝒳² (in Frobenius norm) and 𝒳𝒴; clipping enforces ‖x‖ ≤ 𝒳 and |y| ≤ 𝒴. One Gaussian
    multiplier serves all three in place of the paper's √log(6/δ)/(ε/3) for each. The control without noise needs no
    ridge: it is least squares on the clipped records, of least norm where these are too few.

    Args:
        x_Bnp: Features.
        y_Bn: Labels.
        budget: Shared by the three releases.
        x_bound: 𝒳, from public data.
        y_bound: 𝒴, from public data.
        draws: R; one column more is without noise.
        rng: Noise.

    Returns:
        (B, R + 1, p) parameters, the noiseless ones last.
    """
    x_Bnp, y_Bn = clip_records(x_Bnp, y_Bn, x_bound, y_bound)
    sigma = calibrate_steps(budget, 1, releases=3)[0].noise_std(budget.relation)
    control_B1p = fit_least_squares(x_Bnp, y_Bn)[:, None]
    if sigma == 0:  # XᵀX may be singular
        return control_B1p.repeat(1, draws + 1, 1)
    gram_Bpp, moment_Bp = x_Bnp.mT @ x_Bnp, (x_Bnp.mT @ y_Bn[..., None])[..., 0]
    batch, p = moment_Bp.shape
    std = sigma * x_bound**2
    shift = math.sqrt(math.log(6 / budget.delta))
    smallest_B1 = torch.linalg.eigvalsh(gram_Bpp)[:, :1]
    safe_BR = (smallest_B1 + std * (torch.randn(batch, draws, generator=rng) - shift)).clamp(min=0)
    ridge_BR = (std * math.sqrt(p * math.log(2 * p**2 / FAILURE)) - safe_BR).clamp(min=0)
    solutions = []
    for ridge_B in ridge_BR.T:
        upper_Bpp = torch.randn(batch, p, p, generator=rng).double().triu()
        noise_Bpp = upper_Bpp + upper_Bpp.triu(1).mT
        noisy_Bp = moment_Bp + sigma * x_bound * y_bound * torch.randn(batch, p, generator=rng)
        system_Bpp = gram_Bpp + std * noise_Bpp + ridge_B[:, None, None] * torch.eye(p, dtype=torch.float64)
        solutions.append(torch.linalg.solve(system_Bpp, noisy_Bp))
    return torch.cat([torch.stack(solutions, dim=1).float(), control_B1p], dim=1)


def clip_records(x_Bnp: Tensor, y_Bn: Tensor, x_bound: float, y_bound: float) -> tuple[Tensor, Tensor]:
    """Float64 features with ‖x‖ ≤ ``x_bound`` and labels with |y| ≤ ``y_bound``."""
    x_Bnp = x_Bnp.double()
    return (
        x_Bnp * (x_bound / x_Bnp.norm(dim=2, keepdim=True)).clamp(max=1),
        y_Bn.double().clamp(-y_bound, y_bound),
    )


def fit_least_squares(x_Bnp: Tensor, y_Bn: Tensor) -> Tensor:
    """(B, p) non-private least squares, of least norm where there are too few records."""
    n, p = x_Bnp.shape[1:]
    x_Bnp, y_Bn1 = x_Bnp.double(), y_Bn.double()[..., None]
    if n > p:
        theta_Bp1: Tensor = torch.linalg.solve(x_Bnp.mT @ x_Bnp, x_Bnp.mT @ y_Bn1)
    else:
        theta_Bp1 = x_Bnp.mT @ torch.linalg.solve(x_Bnp @ x_Bnp.mT, y_Bn1)
    return theta_Bp1[..., 0].float()
