"""Faulty methods, planted on purpose, that the contract suite must reject, and the sound one that they are made of.

Each subclass of `MeanPicture` has one fault; `FAULTY` names the check that has to find it. None is registered:
`dphyper audit guards` puts them to the suite as an outside package would.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from dphyper.bench.method import About, Adaptation, Method, Role
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import BestOfTrials, Mechanism, NoisyHistogram, OneShotMean
from dphyper.privacy.private_data import PrivateData

SOUND = "MeanPicture"
FAULTY = {
    "MixesTheExactMean": "released_alone",
    "DecidesWithoutNoise": "released_alone",
    "CountsRecords": "released_alone",
    "ReadsPastTheDoor": "released_alone",
    "NormalisesByTheBatch": "record_wise",
    "RoundsByTheBatch": "record_wise",
    "DrawsFromTheSeed": "record_wise",
    "DrawsGlobally": "record_wise",
    "SharesAGenerator": "record_wise",
    "ReleasesTwice": "declared",
    "SpendsHalf": "declared",
}


class MeanPicture(Method):
    """The mean of the records' pixels, released once, as parameters."""

    role: ClassVar[Role] = "method"
    about: ClassVar[About] = About(
        source="Ours, for tests.", public_data="None.", private_release="The mean picture, once.", passes="None."
    )
    uses = frozenset({"task", "n", "epsilon", "seed"})

    @classmethod
    def mechanisms(cls, budget: Budget, options: Any) -> tuple[Mechanism, ...]:
        """The one release."""
        return calibrate(budget, OneShotMean(l2_clip_norm=8.0))

    def embed(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """(b, k) pixels."""
        return x.flatten(1)

    def decode(self, mean_k: Tensor) -> Tensor:
        """(P,) parameters whose first ones are the mean picture."""
        theta = self.target.initial().clone()
        size = min(len(theta), len(mean_k))
        theta[:size] = mean_k[:size].to(theta)
        return theta

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Release the mean picture."""
        (mechanism,) = self.mechanisms(budget, self.options)
        assert isinstance(mechanism, OneShotMean)
        return Adaptation(theta=self.decode(private.release_mean(self.embed, mechanism, role="mean picture").mean))


class MixesTheExactMean(MeanPicture):
    """A fifth of the exact mean in the answer."""

    def embed(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Store the mean, which must not be stored."""
        self._exact = x.flatten(1).mean(0)
        return super().embed(x, rng)

    def decode(self, mean_k: Tensor) -> Tensor:
        """Mix it in."""
        return super().decode(0.8 * mean_k + 0.2 * self._exact.to(mean_k))


class DecidesWithoutNoise(MeanPicture):
    """A mark that is decided by the records and not by their release."""

    def embed(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Look whether most records have a bright corner."""
        self._bright = bool((x.flatten(1)[:, 0] > 0).float().mean() > 0.5)
        return super().embed(x, rng)

    def decode(self, mean_k: Tensor) -> Tensor:
        """Give up where they have none."""
        return super().decode(mean_k if self._bright else torch.zeros_like(mean_k))


class CountsRecords(MeanPicture):
    """The exact number of records, which is secret, in the answer."""

    def embed(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Count what is not filled up."""
        self._count = int((x.flatten(1).abs().sum(1) > 0).sum())
        return super().embed(x, rng)

    def decode(self, mean_k: Tensor) -> Tensor:
        """Write it down."""
        theta = super().decode(mean_k)
        theta[-1] = self._count
        return theta


class ReadsPastTheDoor(MeanPicture):
    """Records read from the closure of `PrivateData`, beside an honest release."""

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Take them by force."""
        door: Any = private
        cells = [cell.cell_contents for cell in door._noisy_sums.__closure__]
        draw = next(value for value in cells if callable(value))
        inner = [cell.cell_contents for cell in draw.__closure__]
        (records,) = (value for value in inner if isinstance(value, Tensor))
        return Adaptation(theta=super().adapt(private, budget, rng).theta + 0.1 * records.mean())


class NormalisesByTheBatch(MeanPicture):
    """Records normalised by the mean of their batch."""

    def embed(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Centre the batch."""
        rows = super().embed(x, rng)
        return rows - rows.mean(0)


class RoundsByTheBatch(MeanPicture):
    """A row whose last bits depend on the other records."""

    def embed(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Shift by the size of the batch and back."""
        rows = super().embed(x, rng)
        size = rows.abs().nan_to_num(nan=0.0).amax()
        return (rows + size) - size


class DrawsFromTheSeed(MeanPicture):
    """Randomness of a record's row from the run's generator, which everybody can compute."""

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Remember the generator."""
        self._public = rng
        return super().adapt(private, budget, rng)

    def embed(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Draw from the wrong one."""
        return super().embed(x + 0.1 * torch.randn(x.shape, generator=self._public), rng)


class DrawsGlobally(MeanPicture):
    """Randomness of a record's row from torch's global generator."""

    def embed(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Draw from nobody's generator."""
        return super().embed(x + 0.1 * torch.randn_like(x), rng)


class SharesAGenerator(MeanPicture):
    """Trials of a selection that draw their candidates from one generator."""

    @classmethod
    def mechanisms(cls, budget: Budget, options: Any) -> tuple[Mechanism, ...]:
        """One selection."""
        trial = (OneShotMean(l2_clip_norm=8.0), NoisyHistogram())
        return calibrate(budget, BestOfTrials(trial=trial, mean_trials=2.0, shape=float("inf")))

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Choose a weight by a noisy vote, badly."""
        (mechanism,) = self.mechanisms(budget, self.options)
        assert isinstance(mechanism, BestOfTrials)
        mean, vote = mechanism.trial
        assert isinstance(mean, OneShotMean)
        assert isinstance(vote, NoisyHistogram)

        def trial(door: PrivateData, secret: torch.Generator) -> tuple[Tensor, float]:
            weight = float(torch.rand(1, generator=rng))
            theta = weight * self.decode(door.release_mean(self.embed, mean, role="mean").mean)
            return theta, float(door.release_histogram(lambda x, _: x.flatten(1)[:, :1], vote, role="vote"))

        best = private.best_of(trial, mechanism, role="weight")
        return Adaptation(theta=self.target.initial() if best is None else best)


class ReleasesTwice(MeanPicture):
    """Two releases where one is declared."""

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Share the budget between two."""
        first, second = calibrate(budget, *(OneShotMean(l2_clip_norm=8.0),) * 2)
        means = [
            private.release_mean(self.embed, mechanism, role=role).mean
            for mechanism, role in ((first, "first"), (second, "second"))
        ]
        return Adaptation(theta=self.decode((means[0] + means[1]) / 2))


class SpendsHalf(MeanPicture):
    """Half of the budget left unspent, which something else may spend unseen."""

    @classmethod
    def mechanisms(cls, budget: Budget, options: Any) -> tuple[Mechanism, ...]:
        """A release at half of ε."""
        half = Budget(epsilon=budget.epsilon / 2, delta=budget.delta, relation=budget.relation)
        return calibrate(half, OneShotMean(l2_clip_norm=8.0))
