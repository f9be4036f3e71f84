"""What the methods know before they see a private record: subspace, scales and clip norms of public tasks.

Everything here is computed from the records of public tasks alone, so it costs no privacy. How well the subspace is
known depends on the number of tasks and their size; nothing is assumed about it but its dimension.

Shapes: T public tasks of m records each, d features, k dimension of the subspace, M pooled records.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_VALUES = 8_000_000  # numbers of public records held at once: 32 MB
POOLED_RECORDS = 4096  # public records kept for scales, clip norms and public gradients: M at most


@dataclass(frozen=True, kw_only=True, eq=False)
class PublicKnowledge:
    """Statistics of the public tasks.

    Attributes:
        basis_dk: Û, orthonormal, the estimated subspace.
        mean_d: Mean of the public tasks' weights.
        label_rms: Root mean square of the public labels.
        embedding_scale: γ: mean clipped embedding over mean embedding, by least squares over public tasks.
        embedding_variance: Trace of the covariance of the clipped embedding within a task.
        label_bound: 99 % quantile of the public |y|.
        x_Md: Some public records, pooled over tasks.
        y_M: Their labels.
    """

    basis_dk: Tensor
    mean_d: Tensor
    label_rms: float
    embedding_scale: float
    embedding_variance: float
    label_bound: float
    x_Md: Tensor
    y_M: Tensor

    def embedding_clip(self) -> float:
        """C = √k · rms(y), the root mean square norm of an embedding."""
        return math.sqrt(self.basis_dk.shape[1]) * self.label_rms


def estimate_subspace(mean_Td: Tensor, square_T: Tensor, size: int, k: int) -> Tensor:
    """Top-k eigenvectors of the unbiased moment E w wᵀ, from pairs of public records of one task.

    With g_i = y_i x_i, whose mean is w, the average of g_i g_jᵀ over pairs i ≠ j of one task's m records is an
    unbiased estimate of w wᵀ. Its average over tasks gives the moment. After Kong et al. 2020 (arXiv:2002.08936),
    in the form with all pairs. The simpler moment of y² x xᵀ (Tripuraneni, Jin & Jordan 2021, arXiv:2002.11684)
    costs a factor k in the subspace error.

    Args:
        mean_Td: Mean of g over each task's records.
        square_T: Mean of ‖g‖² over each task's records; only the isotropic part of the self-pairs is removed.
        size: m.
        k: Directions wanted.

    Returns:
        (d, k) orthonormal.
    """
    tasks, d = mean_Td.shape
    # The self-pairs contribute E g gᵀ / m. Their part along w wᵀ only scales the moment, so removing a multiple of
    # the identity is enough, and that moves no eigenvector.
    moment_dd = mean_Td.T @ mean_Td / tasks - torch.eye(d) * (square_T.mean() / (size * d))
    vectors_dd: Tensor = torch.linalg.eigh(moment_dd).eigenvectors
    return vectors_dd[:, -k:]


def learn_from_public_tasks(draw: Callable[[int], Tensor], *, tasks: int, size: int, k: int, d: int) -> PublicKnowledge:
    """Learn from public tasks.

    Args:
        draw: Gives (B, m, d + 1) records of B new public tasks. It is called in chunks, and only one chunk is held.
        tasks: T.
        size: m.
        k: Dimension of the subspace.
        d: Features.
    """
    chunk = max(1, CHUNK_VALUES // (size * d))
    means: list[Tensor] = []
    squares: list[Tensor] = []
    pools: list[Tensor] = []
    for start in range(0, tasks, chunk):
        records_Tmd1 = draw(min(chunk, tasks - start))
        x_Tmd, y_Tm = records_Tmd1[..., :d], records_Tmd1[..., d]
        means.append((y_Tm[:, None] @ x_Tmd)[:, 0] / size)
        squares.append((y_Tm.square() * x_Tmd.square().sum(-1)).mean(1))
        if sum(map(len, pools)) < POOLED_RECORDS:
            pools.append(records_Tmd1.flatten(0, 1)[:POOLED_RECORDS])
    mean_Td, pool_Md1 = torch.cat(means), torch.cat(pools)[:POOLED_RECORDS]
    basis_dk = estimate_subspace(mean_Td, torch.cat(squares), size, k)
    x_Md, y_M = pool_Md1[:, :d], pool_Md1[:, d]
    rms = float(y_M.square().mean().sqrt())
    # Each pooled record is paired with its task's mean embedding, taken over all of that task's records.
    task_Mk = (mean_Td @ basis_dk).repeat_interleave(size, 0)[: len(x_Md)]
    scale, variance = _embedding_moments(y_M[:, None] * (x_Md @ basis_dk), task_Mk, size, math.sqrt(k) * rms)
    return PublicKnowledge(
        basis_dk=basis_dk,
        mean_d=mean_Td.mean(0),
        label_rms=rms,
        embedding_scale=scale,
        embedding_variance=variance,
        label_bound=float(y_M.abs().quantile(0.99)),
        x_Md=x_Md,
        y_M=y_M,
    )


def _embedding_moments(embedding_Mk: Tensor, task_Mk: Tensor, size: int, clip: float) -> tuple[float, float]:
    """γ and the trace of the covariance of embeddings clipped at ``clip``, given their tasks' mean embeddings."""
    factor_M1 = (clip / embedding_Mk.norm(dim=1)).clamp(max=1)[:, None]
    others_Mk = (task_Mk * size - embedding_Mk) / (size - 1)
    scale = float((factor_M1 * embedding_Mk * others_Mk).sum() / (embedding_Mk * others_Mk).sum())
    signal = float((embedding_Mk * others_Mk).sum(1).mean())
    return scale, float((factor_M1 * embedding_Mk).square().sum(1).mean()) - scale**2 * signal
