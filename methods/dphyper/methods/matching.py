"""Fitting the LoRA to a released mean embedding: what DP-MERF and DP-MEPF share.

Two ways to bring the model near the released mean, in maximum mean discrepancy (MMD):

* ``weights`` gives weights to public images and fits the LoRA to the weighted images by its own loss. Of all weightings
  whose mean comes near the released one it takes the one nearest to equal weights in relative entropy. That is an
  exponential tilt, w ∝ exp⟨ν, φ⟩, and ν minimises a smooth convex function. ν is the witness function of an MMD with
  the kernel ⟨φ, φ'⟩. A ridge on ν grows with the noise.
* ``samples`` reduces the MMD over θ, through a few steps of a deterministic sampler, as the papers do with a generator.

Both are post-processing of the release. A mean embedding fixes no more than the moments that it holds, so two data sets
with one mean give one LoRA. At a small ε the noise of the release moves θ too.

Shapes: N public images, b images of a batch, F features of the embedding, P parameters of the target.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp
from torch import Tensor

from dphyper.bench.method import Adaptation, Method, Options, Role, Selection
from dphyper.core.errors import UserError
from dphyper.methods.fitting import FitOptions, fit
from dphyper.methods.optimisation import minimise
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import OneShotMean
from dphyper.privacy.private_data import PrivateData
from dphyper.targets.target import Target

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MatchingOptions(FitOptions):
    """How a released mean embedding becomes a LoRA.

    Attributes:
        fitting: ``weights`` to fit the LoRA to weighted public images, ``samples`` to fit its samples to the mean.
        ridge: Ridge on ν over the variance of a coordinate of the released mean, by noise and sampling; above 0.
        public_images: Public images that are weighted, at most.
        sampler_steps: Steps of the sampler, for ``samples``.
        count_weight: c/C, weight of the count that is released with the sum under add-or-remove-one.
    """

    fitting: str = "weights"
    ridge: float = 5.0
    public_images: int = 8192
    sampler_steps: int = 4
    count_weight: float = 1 / 3
    fit_learning_rate: float = 0.02

    def __post_init__(self) -> None:
        if self.fitting not in ("weights", "samples"):
            raise UserError(f"options.fitting = '{self.fitting}': expected 'weights' or 'samples'")
        if not self.ridge > 0:
            raise UserError(f"options.ridge = {self.ridge}: expected a number above 0")


def squared_mmd(features_bF: Tensor, mean_F: Tensor) -> Tensor:
    """Squared MMD between the distribution that a batch is drawn from and one whose mean embedding is known.

    It is unbiased, and can therefore be negative. Gretton et al. 2012 (JMLR 13), lemma 6, with the linear kernel on φ.

    Args:
        features_bF: φ of the batch, at least two rows.
        mean_F: The known mean embedding.

    Returns:
        Scalar: the mean of ⟨φ_i, φ_j⟩ over i ≠ j, less twice the mean of ⟨φ_i, mean⟩, plus ‖mean‖².

    >>> round(float(squared_mmd(torch.tensor([[1.0], [3.0]]), torch.tensor([2.0]))), 4)  # 1·3 − 2·2·2 + 2²
    -1.0
    """
    size = len(features_bF)
    total_F = features_bF.sum(0)
    pairs = (total_F.square().sum() - features_bF.square().sum()) / (size * (size - 1))
    return pairs - 2 * total_F @ mean_F / size + mean_F.square().sum()


def exponential_tilt(features_NF: Array, mean_F: Array, ridge_F: Array) -> Array:
    """Weights of images, as near to equal ones as they can be while their mean embedding comes near a given one.

    They minimise KL(w ‖ 1/N) + Σ_f (Σ_i w_i φ_if − mean_f)² / 2c_f over w of sum 1. The solution is w ∝ exp⟨ν, φ⟩ with
    Σ_i w_i φ_i + c ν = mean.

    Args:
        features_NF: φ of each image.
        mean_F: The mean embedding that is wanted.
        ridge_F: c, above 0; where it is large, the weights stay equal.

    Returns:
        (N,) weights w.

    >>> exponential_tilt(np.array([[0.0], [1.0]]), np.array([0.8]), np.array([1e-9])).round(3).tolist()
    [0.2, 0.8]
    """

    def dual(nu_F: Array) -> tuple[float, Array]:
        score_N = features_NF @ nu_F
        log_sum = logsumexp(score_N)
        value = log_sum - nu_F @ mean_F + 0.5 * ridge_F @ nu_F**2
        return float(value), np.exp(score_N - log_sum) @ features_NF - mean_F + ridge_F * nu_F

    solved = minimize(dual, np.zeros_like(mean_F), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    score_N = features_NF @ solved.x
    return np.asarray(np.exp(score_N - logsumexp(score_N)))


def match_weights(features_NF: Tensor, mean_F: Tensor, noise_std_F: Tensor, count: float, ridge: float) -> Tensor:
    """(N,) weights of public images whose mean comes near a noisy mean, as near as the noise lets it be known.

    Args:
        features_NF: φ of each public image.
        mean_F: Noisy mean embedding.
        noise_std_F: Standard deviation of its noise.
        count: Records over which it was taken. They are assumed to scatter as public ones do.
        ridge: Ridge of `exponential_tilt` over the variance of the mean by noise and sampling. As the noise grows, the
            weights become equal.
    """
    features_NF = features_NF.double().cpu()
    sampling = features_NF.var(0).mean() / count
    ridge_F = ridge * (noise_std_F.double().cpu().square() + sampling)
    return torch.from_numpy(exponential_tilt(features_NF.numpy(), mean_F.double().cpu().numpy(), ridge_F.numpy()))


def fit_samples(
    target: Target,
    embed: Callable[[Tensor], Tensor],
    mean_F: Tensor,
    options: MatchingOptions,
    rng: torch.Generator,
) -> Tensor:
    """Minimise the MMD between the sampler's images and the mean embedding by Adam, from the base model.

    Args:
        target: The model.
        embed: Images to (b, F), differentiable.
        mean_F: The mean embedding.
        options: As in `MatchingOptions`.
        rng: Source of the initial noises.

    Returns:
        (P,) the last iterate.
    """

    def loss(theta_P: Tensor) -> Tensor:
        samples = target.few_step_samples(theta_P, options.fit_batch_size, options.sampler_steps, rng)
        return squared_mmd(embed(samples), mean_F)

    return minimise(loss, target.initial(), steps=options.fit_steps, learning_rate=options.fit_learning_rate)


class Embedding(Protocol):
    """An embedding of norm at most 1 of each record by itself, with public images and their embeddings.

    Attributes:
        records: (N, ...) public images.
        features_NF: Their embeddings.
    """

    records: Tensor
    features_NF: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(b, F) rows, each a function of its own record."""
        ...

    def differentiable(self, x: Tensor) -> Tensor:
        """The same with gradients in ``x``."""
        ...


class Matching(Method):
    """A method that releases a mean embedding and fits the LoRA to it; a subclass gives the embedding."""

    role: ClassVar[Role] = "method"
    selection: ClassVar[Selection] = "tuned_public"
    uses = frozenset({"task", "n", "epsilon", "seed"})
    reads_public = True
    options_type: ClassVar[type[Options]] = MatchingOptions
    _options: MatchingOptions

    @abstractmethod
    def embedding(self, rng: torch.Generator) -> Embedding:
        """The embedding; it may depend on public records and on ``rng``."""

    @classmethod
    def asks(cls, options: Any) -> tuple[str, ...]:
        """Samples with a gradient, where the sampler is fitted."""
        return ("few_step_samples",) if options.fitting == "samples" else ()

    @classmethod
    def mechanisms(cls, budget: Budget, options: Any) -> tuple[OneShotMean, ...]:
        """The one release, with the noise multiplier that spends the whole budget."""
        return calibrate(budget, OneShotMean(l2_clip_norm=1.0, count_weight=options.count_weight))

    def release(self, private: PrivateData, embedding: Embedding, budget: Budget) -> tuple[Tensor, Tensor, float]:
        """Release the mean embedding.

        Returns:
            (F,) noisy mean, (F,) standard deviation of its noise, and the number of records or its noisy estimate.
        """
        (mechanism,) = self.mechanisms(budget, self._options)
        released = private.release_mean(lambda x, rng: embedding(x), mechanism, role="mean embedding")
        return released.mean, torch.full_like(released.mean, released.noise_std), released.count

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Release the mean embedding and fit the LoRA to it."""
        options, target = self._options, self.target
        embedding = self.embedding(rng)
        mean_F, noise_std_F, count = self.release(private, embedding, budget)
        if options.fitting == "samples":
            return Adaptation(
                theta=fit_samples(target, embedding.differentiable, mean_F.to(embedding.records), options, rng)
            )
        weights_N = match_weights(embedding.features_NF, mean_F, noise_std_F, count, options.ridge)
        return Adaptation(theta=fit(target, target.initial(), embedding.records, options, rng, weights=weights_N))
