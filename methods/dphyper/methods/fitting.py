"""Non-private fits of a LoRA to public or released images, with the features and votes by which images are chosen.

The one-shot methods release a little about the private records, choose or weight images by it, and fit the LoRA to
these images by the model's own loss. All of that is post-processing. Only `PublicFeatures` and `vote_for_nearest` are
applied to private records, and they treat each record by itself. A fit does not hold a record out or stop early.

Shapes: N images, b records of a chunk, F features, S candidates, P parameters of the target.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dphyper.bench.method import AdapterOptions
from dphyper.bench.public import PublicRecords
from dphyper.methods.optimisation import minimise
from dphyper.targets.target import Target


@dataclass(frozen=True, kw_only=True)
class FitOptions(AdapterOptions):
    """How the LoRA is fitted to images.

    Attributes:
        fit_steps: Steps of Adam.
        fit_batch_size: Images in each step, drawn with replacement.
        fit_learning_rate: Of the first step; decays linearly to a tenth.
    """

    fit_steps: int = 150
    fit_batch_size: int = 64
    fit_learning_rate: float = 0.01


def fit(
    target: Target,
    theta: Tensor,
    images: Tensor,
    options: FitOptions,
    rng: torch.Generator,
    *,
    weights: Tensor | None = None,
) -> Tensor:
    """Minimise the mean loss of the images by Adam.

    Args:
        target: The model.
        theta: Where to begin, (P,).
        images: (N, ...) public or released images. Never private ones: the times and noises of a batch are
            stratified, which ties its images together.
        options: Steps, batch size and step size.
        rng: Source of batches, times and noises.
        weights: (N,) weights with which images are drawn, at least 0, of any sum above 0; equal if not given.

    Returns:
        (P,) the last iterate.
    """
    shares_N = (torch.ones(len(images)) if weights is None else weights).float().to(rng.device)

    def loss(theta_P: Tensor) -> Tensor:
        rows = torch.multinomial(shares_N, options.fit_batch_size, True, generator=rng)
        return target.per_example_loss(theta_P, images[rows.to(images.device)], rng, stratified=True).mean()

    return minimise(loss, theta, steps=options.fit_steps, learning_rate=options.fit_learning_rate)


def sample_records(public: PublicRecords, num: int, rng: torch.Generator) -> Tensor:
    """(N, ...) ``num`` public records, drawn without replacement; all, if there are fewer."""
    rows = torch.randperm(len(public.records), generator=rng, device=rng.device)[:num]
    return public.records[rows.to(public.records.device)]


class PublicFeatures:
    """The target's features of a record, standardised by public statistics and scaled to norm 1.

    Args:
        target: The model whose features are taken.
        records: (N, ...) public records, which give the statistics.

    Attributes:
        records: These records.
        features_NF: Their features, standardised and of norm 1.
    """

    @torch.no_grad()
    def __init__(self, target: Target, records: Tensor) -> None:
        self._target, self.records = target, records
        raw_NF = target.features(records)
        self._mean_F, self._std_F = raw_NF.mean(0), raw_NF.std(0).clamp(min=1e-3)
        self.features_NF = self._normed(raw_NF)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """(b, F) rows of norm 1, each a function of its own record."""
        return self._normed(self._target.features(x))

    def differentiable(self, x: Tensor) -> Tensor:
        """The same with gradients in ``x``, for images that are generated."""
        return self._normed(self._target.features(x))

    def _normed(self, raw_bF: Tensor) -> Tensor:
        return torch.nn.functional.normalize((raw_bF - self._mean_F) / self._std_F, dim=1)


def vote_for_nearest(features_bF: Tensor, candidates_SF: Tensor, votes: int) -> Tensor:
    """The votes of each record, of l2 norm 1, for the candidates that are nearest to it.

    Args:
        features_bF: Features of the records.
        candidates_SF: Features of the candidates.
        votes: w, candidates that a record votes for, each with 1/√w; from 1 to S.

    Returns:
        (b, S), each row a function of its own record.

    >>> vote_for_nearest(torch.tensor([[0.9]]), torch.tensor([[0.0], [1.0], [3.0]]), 1).tolist()
    [[0.0, 1.0, 0.0]]
    """
    nearest = torch.cdist(features_bF, candidates_SF).topk(votes, largest=False).indices
    return features_bF.new_zeros(len(features_bF), len(candidates_SF)).scatter(1, nearest, votes**-0.5)
