"""The parts of the hypernetwork that stand before its decoder: embedding, novelty mark and shrinkage.

`Encoder` and `Novelty` treat each record by itself, so a record changes nothing but its own row of the release.
`Shrinkage` sees only what was released. All three learn from public tasks alone.

Shapes: T tasks, S records of a task, b records of a chunk, N public records, F features, k embedding dimension, K the
greatest one that the network serves, R main components of the features.
"""

import math

import torch
from scipy.stats import chi2
from torch import Tensor, nn


class Encoder(nn.Module):
    """A record's features to the coordinates of its embedding, by a learned head of two layers.

    No batch statistic and no other record enters. The features are never those that the evaluation judges by. The
    embedding of dimension k is the first k coordinates, clipped by their own norm.
    """

    mean_F: Tensor
    std_F: Tensor

    def __init__(self, num_features: int, width: int, embedding_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean_F", torch.zeros(num_features))
        self.register_buffer("std_F", torch.ones(num_features))
        self.head = nn.Sequential(nn.Linear(num_features, width), nn.SiLU(), nn.Linear(width, embedding_dim))

    def standardise(self, features_SF: Tensor) -> Tensor:
        """(..., F) features less their public mean, over their public standard deviation."""
        return (features_SF - self.mean_F) / self.std_F

    def forward(self, features_SF: Tensor) -> Tensor:
        """(..., F) features to (..., K) coordinates, before clipping."""
        coordinates: Tensor = self.head(self.standardise(features_SF))
        return coordinates


def clip_embedding(coordinates_SK: Tensor, k: int) -> Tensor:
    """(..., K) coordinates to (..., k) embeddings of norm at most 1: the first k coordinates, clipped.

    >>> clip_embedding(torch.tensor([[3.0, 4.0, 9.0], [0.3, 0.4, 9.0]]), 2)
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    """
    embedding_Sk = coordinates_SK[..., :k]
    norm: Tensor = embedding_Sk.norm(dim=-1, keepdim=True)
    return embedding_Sk / norm.clamp(min=1.0)


class Novelty(nn.Module):
    """Marks the records that are unlike all public ones, each by itself.

    Public records lie near a plane of few dimensions, spanned by their main components. A record's residual is its
    distance from that plane. Over the root mean square of public residuals it is about 1 for a new family of the same
    kind of image, and many times 1 for another kind. The share of marked records is one number and is released with
    the embedding. Its noise is that of one coordinate, so it can be told where noise hides the embedding itself.

    Args:
        num_features: F.
        limit: The least residual of a marked record, in root mean squares of public residuals.
        components: R, at most half of F.
    """

    axes_FR: Tensor
    unit: Tensor

    def __init__(self, num_features: int, limit: float, components: int = 64) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("axes_FR", torch.zeros(num_features, min(components, num_features // 2)))
        # Infinite until it is fitted, so that nothing is marked before.
        self.register_buffer("unit", torch.full((), torch.inf))

    def fit(self, features_NF: Tensor) -> None:
        """Take the main components of public records, and the root mean square of their residuals.

        Args:
            features_NF: Standardised features of public records.
        """
        num = min(len(features_NF), self.axes_FR.shape[1])
        _, _, axes_FR = torch.pca_lowrank(features_NF, q=num, center=False, niter=4)
        self.axes_FR[:, :num] = axes_FR
        self.unit.copy_(self._residual(features_NF).square().mean().sqrt())

    def forward(self, features_bF: Tensor) -> Tensor:
        """(b,) 1 for a record that is unlike all public ones, else 0; features are standardised."""
        return (self._residual(features_bF) > self.limit * self.unit).to(features_bF)

    def _residual(self, features_bF: Tensor) -> Tensor:
        """(b,) distances from the plane of the main components."""
        outside = features_bF.square().sum(1) - (features_bF @ self.axes_FR).square().sum(1)
        return outside.clamp(min=0).sqrt()


class Shrinkage(nn.Module):
    """The posterior mean of a task's embedding given its noisy release, whitened.

    The model is Gaussian. A task's embedding is N(m, S), with m and S from the public tasks. The noise is N(0, τ²I),
    and the mean over n records errs by N(0, v/n I). With S = V Λ Vᵀ the output is V √Λ (Λ + τ² + v/n)⁻¹ Vᵀ (z − m):
    of unit variance where the release is informative, and 0 at infinite noise.

    The output is 0 as well where z lies far outside the ball that holds the public tasks, because the decoder was
    never trained there and the prior does no harm. The output is therefore multiplied by the posterior probability
    that z belongs to such a task, 1 / (1 + exp(k/2 · (d² − r²))), where d is the distance of z and r the radius of
    the ball. The alternative is taken to be as likely as a public task on the edge of the ball. All of this is
    post-processing.

    Args:
        embedding_dim: K.
        doubt: Probability that a Gaussian task lies outside the ball; it sets the radius. 0 for an infinite one.
        decay: Of the exponential averages of m, S and v.

    Attributes:
        reach: r, the radius of the ball, in the units of `distance`.
    """

    mean_K: Tensor
    cov_KK: Tensor
    within: Tensor
    updates: Tensor

    def __init__(self, embedding_dim: int, doubt: float = 0.0, decay: float = 0.98) -> None:
        super().__init__()
        self.decay = decay
        self.reach = math.sqrt(chi2.isf(doubt, embedding_dim) / embedding_dim)
        self.register_buffer("mean_K", torch.zeros(embedding_dim))
        self.register_buffer("cov_KK", torch.eye(embedding_dim))
        self.register_buffer("within", torch.ones(()))
        self.register_buffer("updates", torch.zeros(()))

    @torch.no_grad()
    def update(self, clean_TK: Tensor, embedding_TSK: Tensor, weight_TS: Tensor) -> None:
        """Move m, S and v towards those of an episode's public tasks.

        Args:
            clean_TK: Mean embeddings of the tasks, without noise.
            embedding_TSK: Embeddings of their records.
            weight_TS: Weight of each record in its task's mean; of sum 1 for each task.
        """
        self.updates += 1
        rate = max(1 - self.decay, 1 / float(self.updates))
        self.mean_K.lerp_(clean_TK.mean(0), rate)
        centred = clean_TK - self.mean_K
        self.cov_KK.lerp_(centred.T @ centred / len(centred), rate)
        spread = ((embedding_TSK - clean_TK[:, None]).square().mean(-1) * weight_TS).sum(-1)
        self.within.lerp_(spread.mean(), rate)

    def _axes(self, z_TK: Tensor, noise_std_T: Tensor, n_T: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Vᵀ (z − m), Λ, Λ + τ² + v/n, and V."""
        values_K, vectors_KK = torch.linalg.eigh(self.cov_KK)
        values_K = values_K.clamp(min=1e-8)
        noise_T1 = (noise_std_T.square() + self.within / n_T)[:, None]
        return (z_TK - self.mean_K) @ vectors_KK, values_K, values_K + noise_T1, vectors_KK

    def distance(self, z_TK: Tensor, noise_std_T: Tensor, n_T: Tensor) -> Tensor:
        """(T,) Mahalanobis distances of noisy means from m, over √K; arguments as in `forward`.

        About 1 for a public task, and 0 at infinite noise.
        """
        offset_TK, _, variance_TK, _ = self._axes(z_TK, noise_std_T, n_T)
        return (offset_TK.square() / variance_TK).mean(1).sqrt()

    def forward(self, z_TK: Tensor, noise_std_T: Tensor, n_T: Tensor) -> tuple[Tensor, Tensor]:
        """The whitened posterior means, and how much of them comes from the releases.

        Args:
            z_TK: Noisy means.
            noise_std_T: Standard deviations of their noise; may be infinite.
            n_T: Numbers of records.

        Returns:
            (T, K) whitened posterior means, and (T,) the share of the spread between tasks that the release resolves.
            Both are 0 at infinite noise and far outside the ball.
        """
        offset_TK, values_K, variance_TK, vectors_KK = self._axes(z_TK, noise_std_T, n_T)
        shrunk_TK = (offset_TK * values_K.sqrt() / variance_TK) @ vectors_KK.T
        signal = values_K.mean()
        resolved_T = signal / (signal + noise_std_T.square() + self.within / n_T)
        # Squares throughout: the root of the distance has no gradient at infinite noise, where it is 0.
        square_T = (offset_TK.square() / variance_TK).mean(1)
        belief_T = torch.sigmoid(z_TK.shape[1] / 2 * (self.reach**2 - square_T))
        return belief_T[:, None] * shrunk_TK, belief_T * resolved_T
