"""``dphyper audit``: attack a registered method, and draw what the attacker saw.

Two attacks. `audit_method` takes the mechanism that the method itself builds for the budget, clip norm, sampling and
noise included, and attacks it white-box, by a canary at the clip norm, through the same `PrivateData` that runs use;
the method's networks take no part, since everything after the release is post-processing. Only methods with one
mechanism can be audited so. `audit_end_to_end` runs a whole trained method once and looks at the parameters that it
publishes alone. It sees mistakes outside the mechanism, such as a record that reaches the parameters by another way,
and is far weaker: a bound of 0 says that this attack found nothing.
"""

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import norm

from dphyper.bench.catalog import METHODS, canonical
from dphyper.bench.errors import UserError
from dphyper.bench.privacy.audit import Audit, Scores, audit_gradient_steps, audit_one_shot, one_run_audit
from dphyper.bench.privacy.budget import Budget, Relation
from dphyper.bench.privacy.ledger import Ledger
from dphyper.bench.privacy.mechanisms import OneShotMean, PoissonGradientSteps
from dphyper.bench.privacy.noise import NoiseSource
from dphyper.bench.privacy.private_data import PrivateData
from dphyper.bench.runner import Runner
from dphyper.bench.specs import Cell
from dphyper.bench.target import LoRADiffusion, Target, new_scheduler, new_unet, to_unit

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


@dataclass(frozen=True, kw_only=True)
class EndToEndAudit:
    """What an attack on the published parameters of one run showed.

    Attributes:
        claimed_epsilon: ε of the run's ledger; ``inf`` for a method without privacy.
        delta: δ of the claim and of the bound.
        epsilon: Lower bound on ε, at ``confidence``.
        confidence: Probability with which the bound holds.
        guesses: Canaries on which the attacker did not abstain.
        scores: The attacker's scores of the canaries that were left out, and of those that were in.
        seconds: Wall time of the run and the attack.
    """

    claimed_epsilon: float
    delta: float
    epsilon: float
    confidence: float
    guesses: int
    scores: tuple[Scores, Scores]
    seconds: float

    def __str__(self) -> str:
        return (
            f"claimed ε = {self.claimed_epsilon:.3f} at δ = {self.delta:g}; audited end to end ε ≥ {self.epsilon:.3f} "
            f"at {self.confidence:.0%} confidence from one run with {sum(map(len, self.scores))} canaries and "
            f"{self.guesses} guesses in {self.seconds:.0f} s"
        )


def audit_end_to_end(
    runner: Runner, cell: Cell, *, canaries: int, draws: int = 64, confidence: float = 0.95
) -> EndToEndAudit:
    """Audit a whole method, public phase included, by one run with many canaries.

    Canaries are records of the cell's task. Each is put into the private data by a fair coin; the method runs once;
    the attacker scores every canary by `membership_scores`, and guesses on the tenth with the highest scores and on
    the tenth with the lowest (Steinke, Nasr & Jagielski 2023, arXiv:2305.08846, Algorithm 1).

    Args:
        runner: Gives collection, base model and trained public phase, from its cache where they are there.
        cell: What is audited; its n is set to half the canaries, the expected number of records.
        canaries: Number of canaries, at least 20; 1,000 are not too many.
        draws: Draws of time and noise for each canary's gradient.
        confidence: Of the bound.

    Raises:
        UserError: A public task, too few canaries or records, or a relation under which no record can be left out.
    """
    if cell.relation != "add_or_remove_one":
        raise UserError(f"relation = {cell.relation}: the end-to-end audit leaves records out, add_or_remove_one only")
    pool = runner.collection(cell.data).held_out(cell.task).indices
    if not 20 <= canaries <= len(pool):
        raise UserError(f"canaries = {canaries}: expected between 20 and the {len(pool)} records of task '{cell.task}'")
    begin = time.perf_counter()
    cell = canonical(dataclasses.replace(cell, n=canaries // 2))
    method, _ = runner.method(cell)
    rng = np.random.default_rng(cell.seed)
    chosen = rng.permutation(pool)[:canaries]
    included = rng.random(canaries) < 0.5
    x = to_unit(np.asarray(runner.collection(cell.data).records[chosen], np.uint8)).to(runner.device)
    budget = Budget(epsilon=cell.epsilon, delta=cell.delta, relation=Relation.ADD_OR_REMOVE_ONE)
    noise = NoiseSource.os()
    private = PrivateData(x[torch.from_numpy(included)], n=cell.n, ledger=Ledger(budget), noise=noise)
    theta = method.adapt(private, budget, noise.generator())
    scores = membership_scores(method.target, theta, x, draws=draws, seed=cell.seed)
    guesses = canaries // 10 * 2
    return EndToEndAudit(
        claimed_epsilon=private.ledger.spent(),
        delta=cell.delta,
        epsilon=one_run_audit(scores, included, cell.delta, guesses=guesses, confidence=confidence),
        confidence=confidence,
        guesses=guesses,
        scores=(scores[~included], scores[included]),
        seconds=time.perf_counter() - begin,
    )


def membership_scores(
    target: Target, theta: torch.Tensor, x: torch.Tensor, *, draws: int, seed: int, ridge: float = 0.01
) -> Scores:
    """How much each candidate's own gradient explains of what was learned.

    The way from the public model to θ is regressed on the candidates' gradients at the public model, which takes out
    what they have in common; the coefficients are the scores. On our data it sees several times as much as the loss.

    Args:
        target: The model.
        theta: (P,) published parameters.
        x: (b, ...) candidates.
        draws: Draws of time and noise over which each gradient is averaged.
        seed: Of these draws.
        ridge: Penalty over the gradients' mean square.

    Returns:
        (b,) scores, higher for records that look included.
    """
    public = target.initial()
    gradients_bP = torch.zeros(len(x), len(public), dtype=torch.float64)
    for draw in range(draws):
        rng = torch.Generator().manual_seed(seed * draws + draw)
        parts = [target.per_example_gradients(public, part, rng, 1) for part in x.split(256)]
        gradients_bP -= torch.cat(parts).double().cpu() / draws
    gram_bb = gradients_bP @ gradients_bP.T
    gram_bb.diagonal().add_(ridge * gram_bb.diagonal().mean())
    return np.asarray(torch.linalg.solve(gram_bb, gradients_bP @ (theta - public).double().cpu()))


def plot_scores(title: str, scores: tuple[Scores, Scores], path: Path) -> None:
    """Draw the attacker's scores without and with the canary, each with the normal density of its moments.

    Args:
        title: Above the plot.
        scores: Without and with.
        path: Of a PNG or PDF; its folder is made when missing.
    """
    matplotlib.rcParams["pdf.fonttype"] = 42
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.subplots()
    low, high = np.quantile(np.concatenate(scores), [0.0005, 0.9995])
    grid = np.linspace(low, high, 300)
    bins = min(80, len(scores[0]) // 10 + 1)
    for part, label, colour in zip(scores, ("without the canary", "with it"), ("#0072B2", "#D55E00"), strict=True):
        axes.hist(part, bins=bins, range=(low, high), density=True, color=colour, alpha=0.35, label=label)
        axes.plot(grid, norm.pdf(grid, part.mean(), part.std()), color=colour)
    axes.set(xlabel="attacker's score", ylabel="density", yticks=[])
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
