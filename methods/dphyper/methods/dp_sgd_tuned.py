"""DP-SGD that chooses its learning rate on the private records and pays for it.

It runs a random number of trials. Each trial draws a learning rate from a list, trains as `dp_sgd` does and gives
itself a noisy score: the sum over the private records of how far their loss improves on the public model's, each
clipped. Only the parameters of the best trial are released; its learning rate and all other trials stay secret.
Papernot & Steinke 2022, arXiv:2110.03620.

It shows the price of an honest search on the private records. `dp_sgd`, tuned on public tasks, pays nothing for its
learning rate. The list and the clip of the score were chosen on tuning tasks.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dphyper.bench.method import About, Adaptation, Method, Role, Selection
from dphyper.core.errors import UserError
from dphyper.methods.descent import DescentOptions, Guide, descend
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import BestOfTrials, NoisyHistogram, PoissonGradientSteps
from dphyper.privacy.private_data import PrivateData


@dataclass(frozen=True, kw_only=True)
class DPSGDTunedOptions(DescentOptions):
    """Hyper-parameters of `DPSGDTuned`.

    Attributes:
        learning_rates: The candidates, separated by commas; each as `learning_rate` of `dp_sgd`.
        mean_trials: Mean of the number of trials that count, above 1.
        shape: Law of that number: 0 logarithmic, 1 geometric, ``inf`` Poisson, between them negative binomial. All
            trials that could count are run (32 for a Poisson law of mean 5), or the running time would tell the number.
        score_share: Share of a trial's 1/σ² that the score takes, above 0 and below 1; the training has the rest.
        score_clip: Improvement of a record's loss, relative to its loss under the public model, that is a whole vote.
        score_draws: Draws of time and noise over which a record's losses are averaged for the score.
    """

    learning_rates: str = "6, 18, 54"
    mean_trials: float = 5.0
    shape: float = math.inf
    score_share: float = 0.2
    score_clip: float = 0.01
    score_draws: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.score_share < 1:
            raise UserError(f"options.dp_sgd_tuned.score_share = {self.score_share}: expected between 0 and 1")
        if not self.score_clip > 0 or self.score_draws < 1:
            raise UserError(
                f"options.dp_sgd_tuned: score_clip = {self.score_clip}, score_draws = {self.score_draws}: expected "
                "a number above 0 and at least 1 draw"
            )
        self.candidates()

    def candidates(self) -> list[float]:
        """The learning rates.

        Raises:
            UserError: One of them is not a number above 0.

        >>> DPSGDTunedOptions(learning_rates="1, 10").candidates()
        [1.0, 10.0]
        """
        try:
            rates = [float(rate) for rate in self.learning_rates.split(",")]
        except ValueError:
            rates = []
        if not rates or not all(0 < rate < math.inf for rate in rates):
            raise UserError(
                f"options.dp_sgd_tuned.learning_rates = {self.learning_rates!r}: expected numbers above 0 with commas "
                "between them, such as '6, 18, 54'"
            )
        return rates


class DPSGDTuned(Method):
    """DP-SGD whose learning rate is chosen on the private records, at a cost that is charged."""

    label = "DP-SGD, tuned privately"
    colour = "#E69F00"
    marker = "d"
    order = 20
    role: ClassVar[Role] = "method"
    about = About(
        source="Papernot & Steinke 2022 (ICLR, arXiv:2110.03620), theorems 2 and 6.",
        public_data="None.",
        private_release="In each of a random, secret number of trials the gradients of `dp_sgd`, and a score: the sum "
        "of the records' relative improvements over the public model, each clipped to 1.",
        passes="In each trial q T K gradients and 2 `score_draws` forward passes; 32 trials by default.",
        departures="The score and its share of the budget are ours; the paper leaves them open.",
    )
    selection: ClassVar[Selection] = "tuned_private"
    uses = frozenset({"task", "n", "epsilon", "seed"})
    options_type = DPSGDTunedOptions
    quick_options = {"steps": 2, "multiplicity": 1, "mean_trials": 2.0, "score_draws": 1}
    _options: DPSGDTunedOptions

    @classmethod
    def mechanisms(cls, budget: Budget, options: DPSGDTunedOptions) -> tuple[BestOfTrials, ...]:
        """All trials together, with the noise multipliers that spend the whole budget."""
        training = options.unscaled()
        # At one multiplier a sum over Poisson samples of rate q costs about q² of what a sum over all records costs.
        weight = training.steps * training.sampling_prob**2
        ratio = math.sqrt((1 - options.score_share) / (options.score_share * weight))
        unscaled = BestOfTrials(
            trial=(training, NoisyHistogram()),
            mean_trials=options.mean_trials,
            shape=options.shape,
            noise_ratios=(1.0, ratio),
        )
        return calibrate(budget, unscaled)

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Return the parameters of the best trial, or those of the public model if no trial counts.

        ``rng`` is not used, because trials must share no randomness and theirs must stay secret.
        """
        options = self._options
        (mechanism,) = self.mechanisms(budget, options)
        training, scoring = mechanism.trial
        assert isinstance(training, PoissonGradientSteps)
        assert isinstance(scoring, NoisyHistogram)
        rates = torch.tensor(options.candidates())

        def trial(private: PrivateData, rng: torch.Generator) -> tuple[Tensor, float]:
            rate = float(rates[torch.randint(len(rates), (1,), generator=rng)])
            guide = Guide(self.target, options, rng)
            theta = descend(self.target, private, training, options, guide, learning_rate=rate)
            votes = private.release_histogram(lambda x, rng: self._vote(theta, x, rng), scoring, role="score")
            return theta, float(votes)

        best = private.best_of(trial, mechanism, role="learning rate")
        return Adaptation(theta=self.target.initial() if best is None else best)

    @torch.no_grad()
    def _vote(self, theta: Tensor, x: Tensor, rng: torch.Generator) -> Tensor:
        """(b, 1) improvement of each record's loss on the public model's, in [-1, 1]; both at the same draws."""
        draws = self._options.score_draws
        repeated, state = x.repeat_interleave(draws, 0), rng.get_state()
        new = self.target.per_example_loss(theta, repeated, rng).view(-1, draws).mean(1)
        rng.set_state(state)
        old = self.target.per_example_loss(self.target.initial(), repeated, rng).view(-1, draws).mean(1)
        # A loss that is not finite is the worst possible vote, not a vote for no change.
        vote = ((old - new) / (self._options.score_clip * old)).nan_to_num(nan=-1.0)
        return vote.clamp(-1.0, 1.0)[:, None]
