"""Attack whole runs of a method: hundreds with one record that stands out, and hundreds without it.

Two neighbouring data sets of a few records differ in one canary, an image of noise. A method runs on each of them many
times, from the records to the parameters, by the code that the benchmark runs. An attacker who knows everything but
which of the two sets it was scores each run in three ways, and the error rates bound ε from below. Every fault counts:
a record that reaches the parameters past the noisy release shows like too little noise.

* ``loss``: by how much the published parameters lower the canary's denoising loss.
* ``lda``: a linear discriminant on the parameters, fitted to one half of the runs and used on the other.
* ``releases``: the log-likelihood ratio of all noisy sums that the method was given, at what the attacker expects the
  canary to add to each. It sees what the ledger's outputs and the parameters of every step would show, which is what
  the accountant lets an attacker see. Releases inside a private selection are not seen.

The noise and the randomness of private losses are new in every run; everything that a seed fixes is fixed and known to
the attacker, as it is to whoever reads a row. An audit can show that a claim is false; it cannot show that it is true.

Shapes: m pairs of runs, P parameters, k released numbers.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dphyper.audits.bounds import Scores, clopper_pearson_lower_bound, gdp_lower_bound
from dphyper.audits.whole_run_faults import SOUND, Fault
from dphyper.bench.catalog import canonical
from dphyper.bench.method import Method
from dphyper.bench.runner import Runner
from dphyper.core.errors import UserError
from dphyper.core.files import whole_file
from dphyper.core.specs import Cell, content_hash
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.mechanisms import GaussianMechanism
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.noisy_sum import noisy_sum
from dphyper.privacy.private_data import PrivateData
from dphyper.privacy.record_rows import PerRecord

SCORES = ("loss", "lda", "releases")
LOSS_DRAWS = 128  # of time and noise for the canary's loss; the same in every run, so that few suffice
ROW_DRAWS = 8  # over which the attacker averages what each record adds to a release
PAIRS_A_FILE = 10
# Largest evidence of one release, in nats. Where no noise hides the canary but the randomness of a loss does, the model
# of that randomness is rough, and one release of many must not decide.
MOST_EVIDENCE = 20.0
RIDGE = 1e-3  # of the discriminant, over the mean variance along the directions that the runs span

SILENT = NoiseSource.reproducible(0)  # where no noise is drawn

Sums = Callable[[PerRecord, GaussianMechanism, str], Iterator[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Observations:
    """What the attacker saw of m runs on each of the two sets.

    Attributes:
        theta: (m, 2, P) parameters; without and with the canary.
        loss: (m, 2) gain of the canary's loss.
        releases: (m, 2) log-likelihood ratios.
        seconds: Of all runs.
    """

    theta: NDArray[np.float32]
    loss: Scores
    releases: Scores
    seconds: float

    def scores(self, name: str) -> tuple[Scores, Scores]:
        """The scores of one kind, without and with the canary; for ``lda`` of runs that the fit did not see."""
        if name == "lda":
            return discriminant_scores(self.theta[:, 0], self.theta[:, 1])
        values: Scores = {"loss": self.loss, "releases": self.releases}[name]
        return values[:, 0], values[:, 1]


@dataclass(frozen=True, kw_only=True)
class WholeRunBound:
    """One line of the table.

    Attributes:
        method: That ran.
        fault: Planted in it; empty for none.
        claimed_epsilon: ε of its ledger, or the claim that a fault breaks; ``inf`` where none is claimed.
        delta: δ of claim and bounds.
        n: Nominal number of records.
        score: How the attacker scored.
        separation: Difference of the mean scores over the root of their mean variance; ``inf`` where none varies.
        gdp_epsilon: Lower bound on ε if the trade-off curve is Gaussian.
        clopper_pearson_epsilon: Lower bound that assumes nothing.
        runs: From each of the two sets, those of a fit included.
        seconds: Of all runs.
    """

    method: str
    fault: str
    claimed_epsilon: float
    delta: float
    n: int
    score: str
    separation: float
    gdp_epsilon: float
    clopper_pearson_epsilon: float
    runs: int
    seconds: float

    @property
    def convicted(self) -> bool:
        """Whether a bound lies above the claim."""
        return max(self.gdp_epsilon, self.clopper_pearson_epsilon) > self.claimed_epsilon


class WholeRuns:
    """Runs of one cell on two neighbouring sets, with everything that the attacker knows.

    Args:
        runner: Gives collection, base model and trained public phase, from its cache where they are there.
        cell: What is attacked; n counts the canary.
        noise: As in the runs that are attacked: the operating system's.
        fault: Planted in every run.
    """

    def __init__(self, runner: Runner, cell: Cell, *, noise: NoiseSource, fault: Fault = SOUND) -> None:
        self.cell, self._fault = canonical(cell), fault
        self.method: Method = runner.public.method(self.cell)[0]
        self._budget = Budget(epsilon=self.cell.epsilon, delta=cell.delta, relation=Relation(cell.relation))
        self._noise = fault.source(noise)
        drawn = runner.public.collection(cell.data).draw(cell.task, cell.n, cell.seed).records
        rest = self.method.target.encode(drawn)[:-1]
        canary = torch.rand(rest[:1].shape, generator=torch.Generator().manual_seed(cell.seed)).to(rest) * 2 - 1
        null = {
            Relation.ADD_OR_REMOVE_ONE: rest[:0],
            Relation.ZERO_OUT: torch.zeros_like(canary),
            Relation.REPLACE_ONE: -canary,
        }[self._budget.relation]
        self.pair = torch.cat([rest, null]), torch.cat([rest, canary])
        self._canary = canary
        self._public_loss = self._loss(self.method.target.initial())

    def run(self, with_canary: bool) -> tuple[NDArray[np.float32], float, float]:
        """One whole run: its (P,) parameters, and the scores ``loss`` and ``releases``."""
        attacker = _LikelihoodRatio(self.pair, self._budget.relation)
        with ExitStack() as stack:
            for patch in self._fault.patches():
                stack.enter_context(patch)
            theta = self._adapted(self.pair[with_canary], self._budget, attacker)
            if self._fault.leak:
                exact = dataclasses.replace(self._budget, epsilon=math.inf)
                share = self._fault.leak
                theta = (1 - share) * theta + share * self._adapted(self.pair[with_canary], exact)
        return theta.cpu().numpy(), self._public_loss - self._loss(theta), attacker.log_ratio

    def claimed(self) -> float:
        """ε of the ledger of one run; without a fault this is also what the run claims."""
        if not self.method.private:
            return math.inf
        ledger = Ledger(self._budget)
        for number, mechanism in enumerate(self.method.mechanisms(self._budget, self.method._options)):
            ledger.charge(mechanism, role=str(number))
        return ledger.spent()

    def _adapted(self, records: Tensor, budget: Budget, attacker: "_LikelihoodRatio | None" = None) -> Tensor:
        private = PrivateData(records, n=self.cell.n, ledger=Ledger(budget), noise=self._noise)
        if attacker is not None:
            private._noisy_sums = attacker.watching(private._noisy_sums)
        return self.method.adapt(private, budget, torch.Generator().manual_seed(self.cell.seed)).theta.detach()

    @torch.no_grad()
    def _loss(self, theta: Tensor) -> float:
        x = self._canary.expand(LOSS_DRAWS, *self._canary.shape[1:])
        rng = torch.Generator(x.device).manual_seed(0)
        return float(self.method.target.per_example_loss(theta, x, rng, stratified=True).mean())


class _LikelihoodRatio:
    """Log-likelihood ratio of the canary, summed over the noisy sums of one run as they come.

    Args:
        pair: The sets without and with the canary, which stands last.
        relation: Of the guarantee.
    """

    def __init__(self, pair: tuple[Tensor, Tensor], relation: Relation) -> None:
        self._pair, self._relation = pair, relation
        self._rng = torch.Generator(pair[1].device).manual_seed(0)
        self.log_ratio = 0.0

    def watching(self, sums: Sums) -> Sums:
        """The same sums, each weighed before the method gets it and may change what its function does."""

        def watched(fn: PerRecord, mechanism: GaussianMechanism, role: str) -> Iterator[Tensor]:
            return (self._weigh(total, fn, mechanism) for total in sums(fn, mechanism, role))

        return watched

    def _weigh(self, total: Tensor, fn: PerRecord, mechanism: GaussianMechanism) -> Tensor:
        out_dk, canary_dk = self._exact_sums(fn, mechanism)
        shift_k = (canary_dk - out_dk).mean(0)
        size = float(shift_k.norm())
        if size:
            q, along_k = mechanism.sampling_prob, shift_k / size
            out_d, canary_d = out_dk @ along_k, canary_dk @ along_k
            # What varies: the mechanism's noise, the times and noises of the losses, and who else is in the sample.
            losses = float(out_d.var() + canary_d.var()) / 2
            sampling = q * (1 - q) * float(out_d.mean()) ** 2 / len(self._pair[0])
            variance = mechanism.noise_std(self._relation) ** 2 + losses + sampling + 1e-12 * size**2
            x = float(total.cpu().double() @ along_k - q * out_d.mean())
            ratio = np.clip((x * size - size**2 / 2) / variance, -MOST_EVIDENCE, MOST_EVIDENCE)
            self.log_ratio += float(np.logaddexp(math.log1p(-q) if q < 1 else -math.inf, math.log(q) + ratio))
        return total

    def _exact_sums(self, fn: PerRecord, mechanism: GaussianMechanism) -> tuple[Tensor, Tensor]:
        """(ROW_DRAWS, k) sums of both sets without noise, by the code that the run uses."""
        together = torch.cat(self._pair)
        many = together.repeat(ROW_DRAWS, *[1] * (together.dim() - 1))
        quiet = dataclasses.replace(mechanism, noise_multiplier=0.0)  # type: ignore[type-var]
        sums: tuple[list[Tensor], list[Tensor]] = ([], [])
        for rows in fn(many, self._rng).detach().split(len(together)):
            for part, rows_of_set in zip(sums, rows.split([len(records) for records in self._pair]), strict=True):
                part.append(
                    noisy_sum([rows_of_set], rows.shape[1], mechanism=quiet, relation=self._relation, noise=SILENT)
                )
        return torch.stack(sums[0]), torch.stack(sums[1])


def audit_whole_runs(runs: WholeRuns, *, pairs: int, folder: Path) -> Observations:
    """Run until there are ``pairs`` pairs in ``folder``, and load them; what is there already is not run again.

    Args:
        runs: What is attacked.
        pairs: Runs on each of the two sets; rounded up to whole files of 10.
        folder: Of this store's audits; a folder below it, named by the hash of cell and fault, holds the runs.

    Raises:
        UserError: ``pairs`` is below 1.
    """
    if pairs < 1:
        raise UserError(f"runs = {pairs}: expected at least 1 on each of the two data sets")
    own = folder / content_hash([runs.cell.to_dict(), runs._fault.name])
    own.mkdir(parents=True, exist_ok=True)
    paths = [own / f"{index:04d}.npz" for index in range(math.ceil(pairs / PAIRS_A_FILE))]
    for path in paths:
        if not path.exists():
            begin = time.perf_counter()
            pairs_of_runs = [[runs.run(with_canary) for with_canary in (False, True)] for _ in range(PAIRS_A_FILE)]
            theta, loss, releases = (np.array([[run[i] for run in pair] for pair in pairs_of_runs]) for i in range(3))
            with whole_file(path) as temporary, temporary.open("wb") as file:
                np.savez(file, theta=theta, loss=loss, releases=releases, seconds=time.perf_counter() - begin)
    parts = [np.load(path) for path in paths]
    theta, loss, releases = (np.concatenate([part[key] for part in parts]) for key in ("theta", "loss", "releases"))
    return Observations(theta=theta, loss=loss, releases=releases, seconds=sum(float(p["seconds"]) for p in parts))


def whole_run_bounds(runs: WholeRuns, observations: Observations, *, confidence: float = 0.95) -> list[WholeRunBound]:
    """What each score shows; all bounds of one kind hold together at ``confidence``.

    Args:
        runs: What was attacked.
        observations: From `audit_whole_runs`.
        confidence: Shared out among the scores (Bonferroni).
    """
    each = 1 - (1 - confidence) / len(SCORES)
    delta = runs.cell.delta
    lines = []
    for name in SCORES:
        out, canary = observations.scores(name)
        # A canary may also lower the scores. Its direction is taken from the scores that choose the threshold, too.
        first = len(out) // 4
        if out[:first].mean() > canary[:first].mean():
            out, canary = -out, -canary
        spread = math.sqrt((out.var() + canary.var()) / 2)
        gap = float(canary.mean() - out.mean())
        lines.append(
            WholeRunBound(
                method=runs.cell.method,
                fault=runs._fault.name,
                claimed_epsilon=runs.claimed(),
                delta=delta,
                n=runs.cell.n,
                score=name,
                separation=gap / spread if spread > 1e-9 * abs(gap) else math.copysign(math.inf, gap) if gap else 0.0,
                gdp_epsilon=gdp_lower_bound(out, canary, delta, confidence=each),
                clopper_pearson_epsilon=clopper_pearson_lower_bound(out, canary, delta, confidence=each),
                runs=len(observations.loss),
                seconds=observations.seconds,
            )
        )
    return lines


def discriminant_scores(out: NDArray[np.float32], canary: NDArray[np.float32]) -> tuple[Scores, Scores]:
    """Scores of the second halves along the direction that tells the first halves apart best.

    Fisher's discriminant with a ridge, solved in the space of the samples, of which there are fewer than parameters.

    Args:
        out: (m, P) parameters without the canary.
        canary: (m, P) with it.

    Returns:
        (m - m // 2,) scores of each.

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(0, 1, (2, 400, 50))
    >>> low, high = discriminant_scores(x, y + np.eye(50)[7] * 4)
    >>> bool(high.mean() - low.mean() > 3 * low.std())
    True
    """
    half = len(out) // 2
    first = [part[:half].astype(np.float64) for part in (out, canary)]
    centred = np.concatenate([part - part.mean(0) for part in first])
    gap = first[1].mean(0) - first[0].mean(0)
    gram = centred @ centred.T
    # Runs without any noise do not vary at all; then every direction along the gap will do.
    ridge = RIDGE * np.trace(gram) / len(gram) + 1e-12 * (gap @ gap + 1)
    gram.flat[:: len(gram) + 1] += ridge
    direction = gap - centred.T @ np.linalg.solve(gram, centred @ gap)
    return out[half:].astype(np.float64) @ direction, canary[half:].astype(np.float64) @ direction
