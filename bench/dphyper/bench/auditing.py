"""``dphyper audit``: attack the mechanism of a registered method, and draw what the attacker saw.

The mechanism is the one that the method itself builds for the budget, clip norm, sampling and noise included; it is
attacked white-box, by a canary at the clip norm, through the same `PrivateData` that runs use. The method's networks
take no part, since everything after the release is post-processing. Only methods with one mechanism can be audited.
"""

import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm

from dphyper.bench.catalog import METHODS
from dphyper.bench.errors import UserError
from dphyper.bench.privacy.audit import Audit, audit_gradient_steps, audit_one_shot
from dphyper.bench.privacy.budget import Budget
from dphyper.bench.privacy.mechanisms import OneShotMean, PoissonGradientSteps
from dphyper.bench.privacy.noise import NoiseSource
from dphyper.bench.target import LoRADiffusion, new_scheduler, new_unet

# The canary moves one coordinate of a gradient; the others hold noise alone and tell the attacker nothing.
GRADIENT_DIMENSION = 8


def audit_method(name: str, budget: Budget, *, embedding_dim: int, draws: int) -> Audit:
    """Audit the mechanism that a method would use under a budget.

    Args:
        name: A registered method.
        budget: With a finite ε.
        embedding_dim: k, for methods with an embedding.
        draws: Releases from each of the two neighbouring data sets; 0 for the audit's own number.

    Raises:
        UserError: The method has no privacy, or releases nothing.
    """
    kind = METHODS[name]
    if not kind.private or "epsilon" not in kind.uses or math.isinf(budget.epsilon):
        raise UserError(f"method '{name}' at epsilon = {budget.epsilon} claims no ε to audit: choose a private method")
    unet = new_unet(image_size=8, channels=1, block_out_channels=(16, 32), layers_per_block=1)
    target = LoRADiffusion(unet, new_scheduler(), rank=2, sampling_steps=1, seed=0)
    mechanism = kind(target, kind.options_type(), embedding_dim=embedding_dim).mechanism(budget)
    chosen = {"draws": draws} if draws else {}
    match mechanism:
        case OneShotMean():
            return audit_one_shot(mechanism, budget, dimension=embedding_dim, noise=NoiseSource.os(), **chosen)
        case PoissonGradientSteps():
            return audit_gradient_steps(
                mechanism, budget, dimension=GRADIENT_DIMENSION, noise=NoiseSource.os(), **chosen
            )
        case _:
            raise UserError(f"method '{name}' uses {type(mechanism).__name__}, which has no audit: audit its parts")


def plot_audit(name: str, audit: Audit, path: Path) -> None:
    """Draw the attacker's scores on both data sets, each with the normal density of its moments.

    Args:
        name: The method.
        audit: Its audit.
        path: Of a PNG or PDF; its folder is made when missing.
    """
    matplotlib.rcParams["pdf.fonttype"] = 42
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.subplots()
    low, high = np.quantile(np.concatenate(audit.scores), [0.0005, 0.9995])
    grid = np.linspace(low, high, 300)
    for scores, label, colour in zip(
        audit.scores, ("without the canary", "with it"), ("#0072B2", "#D55E00"), strict=True
    ):
        axes.hist(scores, bins=80, range=(low, high), density=True, color=colour, alpha=0.35, label=label)
        axes.plot(grid, norm.pdf(grid, scores.mean(), scores.std()), color=colour)
    axes.set(xlabel="attacker's score", ylabel="density", yticks=[])
    axes.set_title(
        f"{name}: claimed ε = {audit.claimed_epsilon:.2f}, audited ε ≥ {audit.gdp_epsilon:.2f} at δ = {audit.delta:g}",
        fontsize=10,
    )
    axes.legend(frameon=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
