"""Private Evolution: private records vote for the nearest images of the public model, and these are varied.

A population of images is sampled from the base model. Each record votes, by public features of its own, for the nearest
ones. The noisy votes are thresholded; the population is drawn anew in proportion to them and varied. Nothing is trained
meanwhile. Lin et al. 2024, arXiv:2305.15560, algorithms 1 and 2. It cannot make what the base model cannot.

Departures: the paper publishes the images. Here the result must be a LoRA, which is fitted to the last population in
proportion to its votes. A record may spread its vote over some images at the same l2 norm, because with a hundred
records and one vote each hardly any image stands out of the noise. Embeddings are the target's features, never the
evaluation's. There are no classes and no lookahead.

Shapes: S images of the population, b records of a chunk, F features.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dphyper.bench.method import About, Adaptation, Method, Role, Selection
from dphyper.core.errors import UserError
from dphyper.methods.fitting import FitOptions, PublicFeatures, fit, sample_records, vote_for_nearest
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import NoisyHistogram
from dphyper.privacy.private_data import PrivateData


@dataclass(frozen=True, kw_only=True)
class PrivateEvolutionOptions(FitOptions):
    """Hyper-parameters of `PrivateEvolution`.

    Attributes:
        population: S, images in a population.
        iterations: Rounds of votes, at least 1; the population is varied between two of them.
        votes: Number of nearest images that a record votes for, each with one over the root of that number.
        threshold: H, subtracted from the votes of each image, in standard deviations of their noise.
        first_strength: Strength of the first variation; see `Target.vary`.
        last_strength: Strength of the last variation; between the two it changes linearly.
        public_images: Public images whose statistics standardise the features.
    """

    population: int = 256
    iterations: int = 1
    votes: int = 8
    threshold: float = 1.0
    first_strength: float = 0.5
    last_strength: float = 0.25
    public_images: int = 2048
    # Fewer and shorter steps than for public images: a few dozen generated ones are soon memorised.
    fit_steps: int = 50
    fit_learning_rate: float = 0.003

    def __post_init__(self) -> None:
        if self.iterations < 1 or not 1 <= self.votes <= self.population:
            raise UserError(
                f"options.private_evolution: iterations = {self.iterations}, votes = {self.votes}, population = "
                f"{self.population}: expected at least 1 iteration and from 1 to as many votes as images"
            )


class PrivateEvolution(Method):
    """A LoRA fitted to images of the public model that noisy votes have selected and that were varied."""

    label = "Private Evolution"
    colour = "#117733"
    marker = "^"
    order = 220
    about = About(
        source="Lin et al. 2024 (ICLR, arXiv:2305.15560), algorithms 1 and 2.",
        public_data="Features are standardised by public records; the population comes from the base model.",
        private_release="In each iteration a histogram of votes for the nearest images of the population, of norm 1 "
        "each.",
        passes="`iterations` forward passes, no gradient.",
        departures="The result is a LoRA fitted to the last population, not the images. A record may spread its vote. "
        "Features are the base U-Net's. No classes, no lookahead.",
    )
    role: ClassVar[Role] = "method"
    selection: ClassVar[Selection] = "tuned_public"
    uses = frozenset({"task", "n", "epsilon", "seed"})
    reads_public = True
    options_type = PrivateEvolutionOptions
    quick_options = {"fit_steps": 2, "fit_batch_size": 8, "population": 8, "votes": 2}
    _options: PrivateEvolutionOptions

    @classmethod
    def asks(cls, options: PrivateEvolutionOptions) -> tuple[str, ...]:
        """Variations of the population."""
        return ("vary",)

    @classmethod
    def mechanisms(cls, budget: Budget, options: PrivateEvolutionOptions) -> tuple[NoisyHistogram, ...]:
        """One histogram for each iteration, with one noise multiplier, which together spend the whole budget."""
        return calibrate(budget, *(NoisyHistogram(),) * options.iterations)

    def evolve(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sample a population, and let the records vote and the population evolve.

        Returns:
            (S, ...) images of the last population and (S,) their thresholded votes; all 1 if no image stands out.
        """
        options, base = self._options, self.target.initial()
        features = PublicFeatures(self.target, sample_records(self.public, options.public_images, rng))
        images = self.target.encode(self.target.sample(base, options.population, rng))
        votes_S = torch.ones(options.population)
        for iteration, mechanism in enumerate(self.mechanisms(budget, options)):
            if iteration:
                rows = torch.multinomial(votes_S.to(rng.device), options.population, True, generator=rng)
                done = (iteration - 1) / max(options.iterations - 2, 1)
                strength = options.first_strength + done * (options.last_strength - options.first_strength)
                images = self.target.vary(base, images[rows.to(images.device)], strength, rng)
            candidates_SF = features(images)
            noisy_S = private.release_histogram(
                lambda x, rng, among_SF=candidates_SF: vote_for_nearest(features(x), among_SF, options.votes),  # type: ignore[misc]
                mechanism,
                role=f"votes {iteration + 1}",
            ).cpu()
            floor = options.threshold * mechanism.noise_std(budget.relation)
            votes_S = (noisy_S - floor).clamp(min=0.0)
            if not votes_S.any():
                votes_S = torch.ones_like(votes_S)
        return images, votes_S

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Evolve a population and fit the LoRA to it."""
        images, votes_S = self.evolve(private, budget, rng)
        return Adaptation(theta=fit(self.target, self.target.initial(), images, self._options, rng, weights=votes_S))
