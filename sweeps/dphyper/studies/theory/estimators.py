"""Every method of the linear setting, for many private data sets and noise draws at once.

The estimators are the harness's own mechanisms applied to batches: clip norms, noise standard deviations and
denominators come from `dphyper.privacy`, calibrated to the whole budget under its relation. What is batched
is the arithmetic; `tests/test_linear.py` holds it against `PrivateData`. Because thousands of runs share one
random stream that a seed fixes, the noise here protects nobody: the records are simulated, and code for real
records goes through `PrivateData`.

Everything public (subspace, clip norms, scale of the decoder, public gradient) is computed from the records of
public tasks alone.

Shapes: B data sets, n records of each, d features, p features in use (d, or k inside the subspace), k embedding
dimension, R columns: settings of the hyper-parameters or draws of the noise, side by side.
"""

import dataclasses
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import lightning
import torch
from torch import Tensor

from dphyper.bench.public import Episode
from dphyper.methods.hypernetwork import Hypernetwork, HypernetworkOptions
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import OneShotMean, PoissonGradientSteps
from dphyper.studies.theory.regression import LinearRegression

Kind = Literal["plain", "projected", "residual", "mirror", "centred"]
RESIDUAL_CLIP = 0.4  # of the clip norm inside the subspace: Yu et al. 2021 clip at 5 and 2
FAILURE = 0.05  # ρ of Wang 2018, the probability with which the ridge may be too small


@dataclass(frozen=True, kw_only=True, eq=False)
class Public:
    """All that the methods know before a private record is seen.

    Attributes:
        basis_dk: Û, orthonormal, the estimated subspace.
        mean_d: Mean of the public tasks' weights.
        label_rms: Root mean square of the public labels.
        embedding_scale: γ: mean clipped embedding over mean embedding, by least squares over public tasks.
        embedding_variance: Trace of the covariance of the clipped embedding within a task.
        label_bound: 99 % quantile of the public |y|.
        x_md: Some public records, pooled over tasks.
        y_m: Their labels.
    """

    basis_dk: Tensor
    mean_d: Tensor
    label_rms: float
    embedding_scale: float
    embedding_variance: float
    label_bound: float
    x_md: Tensor
    y_m: Tensor

    def embedding_clip(self) -> float:
        """C = √k · rms(y), the root mean square norm of an embedding."""
        return math.sqrt(self.basis_dk.shape[1]) * self.label_rms


def subspace(mean_Td: Tensor, square_T: Tensor, size: int, k: int) -> Tensor:
    """Top-k eigenvectors of the unbiased moment E w wᵀ from pairs of public records of one task.

    With g_i = y_i x_i, whose mean is w, the average of g_i g_jᵀ over pairs i ≠ j of one task's m records is an
    unbiased estimate of w wᵀ; averaged over tasks it gives the moment. After Kong et al. 2020 (arXiv:2002.08936),
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
    # The self-pairs contribute E g gᵀ / m; what of it lies along w wᵀ only scales the moment, so that a multiple of
    # the identity, which moves no eigenvector, is all that need go.
    moment_dd = mean_Td.T @ mean_Td / tasks - torch.eye(d) * (square_T.mean() / (size * d))
    vectors_dd: Tensor = torch.linalg.eigh(moment_dd).eigenvectors
    return vectors_dd[:, -k:]


def learn_public(draw: Callable[[int], Tensor], *, tasks: int, size: int, k: int, d: int) -> Public:
    """Learn from public tasks.

    Args:
        draw: Gives (B, size, d + 1) records of B new public tasks; called in chunks, so that no more than a chunk is
            held.
        tasks: Number of public tasks.
        size: Records of each.
        k: Embedding dimension.
        d: Features.
    """
    chunk = max(1, 8_000_000 // (size * d))
    means: list[Tensor] = []
    squares: list[Tensor] = []
    kept: list[Tensor] = []
    for start in range(0, tasks, chunk):
        records_Tmd1 = draw(min(chunk, tasks - start))
        x_Tmd, y_Tm = records_Tmd1[..., :d], records_Tmd1[..., d]
        means.append((y_Tm[:, None] @ x_Tmd)[:, 0] / size)
        squares.append((y_Tm.square() * x_Tmd.square().sum(-1)).mean(1))
        if sum(len(part) for part in kept) < 4096:
            kept.append(records_Tmd1.flatten(0, 1)[:4096])
    mean_Td = torch.cat(means)
    basis_dk = subspace(mean_Td, torch.cat(squares), size, k)
    pool = torch.cat(kept)[:4096]
    x_md, y_m = pool[:, :d], pool[:, d]
    rms = float(y_m.square().mean().sqrt())
    clip = math.sqrt(k) * rms
    embedding_mk = y_m[:, None] * (x_md @ basis_dk)
    factor_m = (clip / embedding_mk.norm(dim=1)).clamp(max=1)
    # Each kept record is paired with its task's mean embedding, taken over all of that task's records.
    task_mk = (mean_Td @ basis_dk).repeat_interleave(size, 0)[: len(pool)]
    others_mk = (task_mk * size - embedding_mk) / (size - 1)
    scale = float((factor_m[:, None] * embedding_mk * others_mk).sum() / (embedding_mk * others_mk).sum())
    signal = float((embedding_mk * others_mk).sum(1).mean())
    variance = float((factor_m[:, None] * embedding_mk).square().sum(1).mean()) - scale**2 * signal
    return Public(
        basis_dk=basis_dk,
        mean_d=mean_Td.mean(0),
        label_rms=rms,
        embedding_scale=scale,
        embedding_variance=variance,
        label_bound=float(y_m.abs().quantile(0.99)),
        x_md=x_md,
        y_m=y_m,
    )


@lru_cache(maxsize=1024)
def one_shot(budget: Budget, l2_clip_norm: float) -> OneShotMean:
    """The one release with its noise; the multiplier does not depend on the clip norm and is found once."""
    (unit,) = calibrate(budget, OneShotMean())
    return dataclasses.replace(unit, l2_clip_norm=l2_clip_norm)


@lru_cache(maxsize=1024)
def gradient_steps(budget: Budget, steps: int, releases: int = 1) -> tuple[PoissonGradientSteps, ...]:
    """Full-batch gradient steps of clip norm 1, ``releases`` different sums in each, which share the budget."""
    return calibrate(budget, *[PoissonGradientSteps(l2_clip_norm=1.0, sampling_prob=1.0, steps=steps)] * releases)


def released_means(
    rows_Bnk: Tensor, mechanism: OneShotMean, budget: Budget, *, draws: int, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """`PrivateData.release_mean` for B data sets and several draws of the noise.

    Args:
        rows_Bnk: One vector for each record.
        mechanism: Calibrated.
        budget: Its relation decides whether the count is released too.
        draws: R; one column more is drawn without noise.
        rng: Noise.

    Returns:
        (B, R + 1, k) means, the noiseless one last; (B, R + 1) standard deviations of their noise; (B, R + 1) counts.
    """
    clipped_Bnk = rows_Bnk * (mechanism.l2_clip_norm / rows_Bnk.norm(dim=2, keepdim=True)).clamp(max=1)
    on_R = torch.ones(draws + 1)
    on_R[-1] = 0
    std = mechanism.noise_std(budget.relation)
    sums_BRk = clipped_Bnk.sum(1)[:, None] + on_R[:, None] * std * torch.randn(
        len(rows_Bnk), draws + 1, rows_Bnk.shape[2], generator=rng
    )
    count_BR = torch.full(sums_BRk.shape[:2], float(rows_Bnk.shape[1]))
    weight = mechanism.count_coordinate(budget.relation)
    if weight:
        count_BR = (count_BR + on_R * std / weight * torch.randn(count_BR.shape, generator=rng)).clamp(min=1)
    return sums_BRk / count_BR[..., None], on_R * std / count_BR, count_BR


def hypernetwork(
    x_Bnd: Tensor, y_Bn: Tensor, public: Public, budget: Budget, *, draws: int, rng: torch.Generator
) -> dict[str, Tensor]:
    """The hypernetwork in its analytic form: embed y Ûᵀx, clip, release the mean once, decode linearly.

    Two decoders read the same release, so that the second is free. ``hypernetwork`` divides by γ; its risk is
    privacy + sampling + subspace error. ``hypernetwork_shrunk`` multiplies by the gain of the best linear decoder
    for public tasks of that noise level, γ/k over γ²/k + τ² + v/n, and goes to the public mean as the noise grows.

    Returns:
        (B, R + 1, d) weights, the noiseless one last.
    """
    embedding_Bnk = y_Bn[..., None] * (x_Bnd @ public.basis_dk)
    k = embedding_Bnk.shape[2]
    z_BRk, std_BR, count_BR = released_means(
        embedding_Bnk, one_shot(budget, public.embedding_clip()), budget, draws=draws, rng=rng
    )
    scale, signal = public.embedding_scale, 1 / k
    noise_BR = std_BR.square() + public.embedding_variance / (k * count_BR)
    gain_BR = scale * signal / (scale**2 * signal + noise_BR)
    return {
        "hypernetwork": z_BRk / scale @ public.basis_dk.T,
        "hypernetwork_shrunk": z_BRk * gain_BR[..., None] @ public.basis_dk.T,
    }


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Columns of hyper-parameters of the iterative methods, all of one number of steps.

    Attributes:
        steps: T.
        rates: (R,) learning rates.
        clips: (R,) clip norms C.
        noise: (R,) 1, or 0 for the column that runs without noise as a control.
    """

    steps: int
    rates: Tensor
    clips: Tensor
    noise: Tensor


def descend(
    x_Bnp: Tensor,
    y_Bn: Tensor,
    settings: Settings,
    budget: Budget,
    rng: torch.Generator,
    *,
    kind: Kind = "plain",
    public: Public | None = None,
) -> Tensor:
    """Full-batch DP-SGD and its public-guided relatives, from 0, on half the squared error.

    Every kind adds noise of standard deviation σC to a sum of vectors of norm at most C and divides by n.

    * ``plain``: DP-SGD (Abadi et al. 2016, algorithm 1, at q = 1). On features inside the subspace it is B-GEP too.
    * ``projected``: PDP-SGD (Zhou, Wu & Banerjee 2021): the noisy gradient is projected on Û. It is clipped before,
      so that its norm bound grows with √d still.
    * ``residual``: GEP (Yu et al. 2021): the gradient's coordinates in Û and its residual are clipped apart and
      released together; the two releases share the budget.
    * ``mirror``: PDA-DPMD (Amid et al. 2022), its practical form: α_t ĝ + (1 − α_t) h with the public gradient h
      and α_t = cos(π t / 2T).
    * ``centred``: DOPE-SGD (Nasr et al. 2023): g_i − h is clipped and h, which depends on no private record, is
      added back once.

    A per-example gradient is −r x with r the residual, so that it is clipped by its norm |r| ‖x‖ without being
    formed.

    Returns:
        (B, p, R) parameters.
    """
    n, p = x_Bnp.shape[1:]
    clip_R = settings.clips
    multiplier = [m.noise_multiplier or 0.0 for m in gradient_steps(budget, settings.steps, 1 + (kind == "residual"))]
    theta_BpR = torch.zeros(len(x_Bnp), p, len(clip_R))
    norm_Bn1 = x_Bnp.norm(dim=2, keepdim=True)
    basis = None if public is None else public.basis_dk
    if kind == "residual":
        assert basis is not None
        coordinates_Bnk = x_Bnp @ basis
        inside_Bn1 = coordinates_Bnk.norm(dim=2, keepdim=True)
        outside_Bn1 = (norm_Bn1.square() - inside_Bn1.square()).clamp(min=0).sqrt()

    def noise(dimension: int, sigma: float) -> Tensor:
        draw_BpR = torch.randn(len(x_Bnp), dimension, len(clip_R), generator=rng)
        return draw_BpR * (sigma * clip_R * settings.noise)

    def clipped(residual_BnR: Tensor, norm_Bn1: Tensor, bound_R: Tensor) -> Tensor:
        """Residuals shrunk so that |r| ‖x‖ is at most the bound."""
        limit_BnR = bound_R / norm_Bn1.clamp(min=1e-12)
        return torch.minimum(torch.maximum(residual_BnR, -limit_BnR), limit_BnR)

    for step in range(settings.steps):
        residual_BnR = y_Bn[..., None] - x_Bnp @ theta_BpR
        if kind == "residual":
            assert basis is not None
            inner_BkR = -coordinates_Bnk.mT @ clipped(residual_BnR, inside_Bn1, clip_R)
            inner_BkR = inner_BkR + noise(basis.shape[1], multiplier[0])
            outer_BpR = -x_Bnp.mT @ clipped(residual_BnR, outside_Bn1, RESIDUAL_CLIP * clip_R)
            outer_BpR = outer_BpR - basis @ (basis.T @ outer_BpR) + RESIDUAL_CLIP * noise(p, multiplier[1])
            gradient_BpR = (basis @ inner_BkR + outer_BpR) / n
        elif kind == "centred":
            assert public is not None
            h_BpR = _public_gradient(public, theta_BpR)
            # ‖g − h‖² = r²‖x‖² + 2 r ⟨x, h⟩ + ‖h‖²
            square_BnR = residual_BnR.square() * norm_Bn1.square() + 2 * residual_BnR * (x_Bnp @ h_BpR)
            square_BnR = (square_BnR + h_BpR.square().sum(1, keepdim=True)).clamp(min=1e-12)
            factor_BnR = (clip_R / square_BnR.sqrt()).clamp(max=1)
            total_BpR = -x_Bnp.mT @ (factor_BnR * residual_BnR) - h_BpR * factor_BnR.sum(1, keepdim=True)
            gradient_BpR = h_BpR + (total_BpR + noise(p, multiplier[0])) / n
        else:
            total_BpR = -x_Bnp.mT @ clipped(residual_BnR, norm_Bn1, clip_R)
            gradient_BpR = (total_BpR + noise(p, multiplier[0])) / n
            if kind == "projected":
                assert basis is not None
                gradient_BpR = basis @ (basis.T @ gradient_BpR)
            elif kind == "mirror":
                assert public is not None
                alpha = math.cos(math.pi * step / (2 * settings.steps))
                gradient_BpR = alpha * gradient_BpR + (1 - alpha) * _public_gradient(public, theta_BpR)
        theta_BpR = theta_BpR - settings.rates * gradient_BpR
    return theta_BpR


def _public_gradient(public: Public, theta_BpR: Tensor) -> Tensor:
    """Mean gradient of the pooled public records at each θ."""
    residual_BmR = public.y_m[:, None] - public.x_md @ theta_BpR
    return -public.x_md.T @ residual_BmR / len(public.y_m)


def adassp(
    x_Bnp: Tensor,
    y_Bn: Tensor,
    budget: Budget,
    *,
    x_bound: float,
    y_bound: float,
    draws: int,
    rng: torch.Generator,
) -> Tensor:
    """AdaSSP: noisy XᵀX and Xᵀy with a ridge that adapts to a noisy smallest eigenvalue (Wang 2018, algorithm 2).

    A record that is added or removed moves the three releases by at most 𝒳² (an eigenvalue), 𝒳² (in Frobenius
    norm) and 𝒳𝒴; ‖x‖ ≤ 𝒳 and |y| ≤ 𝒴 are enforced by clipping. They are calibrated together, by one Gaussian
    multiplier in place of the paper's √log(6/δ)/(ε/3) for each. Without noise there is nothing to guard against and
    no ridge: the control is least squares on the clipped records, of least norm where these are too few.

    Args:
        x_Bnp: Features.
        y_Bn: Labels.
        budget: Shared by the three releases.
        x_bound: 𝒳, from public data.
        y_bound: 𝒴, from public data.
        draws: R; one column more is without noise.
        rng: Noise.

    Returns:
        (B, R + 1, p) parameters, the noiseless ones last.
    """
    x_Bnp, y_Bn = clip_records(x_Bnp, y_Bn, x_bound, y_bound)
    sigma = gradient_steps(budget, 1, releases=3)[0].noise_std(budget.relation)
    control_B1p = least_squares(x_Bnp, y_Bn)[:, None]
    if sigma == 0:  # XᵀX may be singular
        return control_B1p.repeat(1, draws + 1, 1)
    gram_Bpp, moment_Bp = x_Bnp.mT @ x_Bnp, (x_Bnp.mT @ y_Bn[..., None])[..., 0]
    batch, p = moment_Bp.shape
    smallest_B1 = torch.linalg.eigvalsh(gram_Bpp)[:, :1]
    shift = math.sqrt(math.log(6 / budget.delta))
    std = sigma * x_bound**2
    safe_BR = (smallest_B1 + std * (torch.randn(batch, draws, generator=rng) - shift)).clamp(min=0)
    wanted = std * math.sqrt(p * math.log(2 * p**2 / FAILURE))
    ridge_BR = (wanted - safe_BR).clamp(min=0)
    eye_pp = torch.eye(p, dtype=torch.float64)
    out = []
    for draw in range(draws):
        upper_Bpp = torch.randn(batch, p, p, generator=rng).double().triu()
        noise_Bpp = upper_Bpp + upper_Bpp.triu(1).mT
        noisy_Bp = moment_Bp + sigma * x_bound * y_bound * torch.randn(batch, p, generator=rng)
        system_Bpp = gram_Bpp + std * noise_Bpp + ridge_BR[:, draw, None, None] * eye_pp
        out.append(torch.linalg.solve(system_Bpp, noisy_Bp))
    return torch.cat([torch.stack(out, dim=1).float(), control_B1p], dim=1)


def clip_records(x_Bnp: Tensor, y_Bn: Tensor, x_bound: float, y_bound: float) -> tuple[Tensor, Tensor]:
    """Float64 features with ‖x‖ ≤ ``x_bound`` and labels with |y| ≤ ``y_bound``."""
    x_Bnp = x_Bnp.double()
    return (
        x_Bnp * (x_bound / x_Bnp.norm(dim=2, keepdim=True)).clamp(max=1),
        y_Bn.double().clamp(-y_bound, y_bound),
    )


def least_squares(x_Bnp: Tensor, y_Bn: Tensor) -> Tensor:
    """Non-private least squares of least norm, (B, p)."""
    n, p = x_Bnp.shape[1:]
    x_Bnp, y_Bn1 = x_Bnp.double(), y_Bn.double()[..., None]
    if n > p:
        theta_Bp1: Tensor = torch.linalg.solve(x_Bnp.mT @ x_Bnp, x_Bnp.mT @ y_Bn1)
    else:
        theta_Bp1 = x_Bnp.mT @ torch.linalg.solve(x_Bnp @ x_Bnp.mT, y_Bn1)
    return theta_Bp1[..., 0].float()


class LinearTasks(lightning.LightningDataModule):
    """Episodes of linear public tasks, with what `Hypernetwork` reads of them: its batches and ``images``.

    As in `dphyper.bench.public`, a task's support holds between 16 and S of its records, log-uniformly, and its
    query set none of these. Tasks are never joined: the union of two linear tasks is none. What varies them instead
    are rotations: a task whose features are all turned by one rotation is a task again, because features are
    isotropic. They play the part that flips play for images, and reveal no more than the same public records.

    Args:
        records_TSk1: (T, m, k + 1) records of the public tasks in the coordinates of Û.
        options: Sizes of the episodes and their number.
        seed: Fixes the rotations and the episodes.
        rotations: Turned copies of each task, at least 1.

    Attributes:
        images: (rotations · T · m, k + 1) the records, under the name that the network knows.
    """

    def __init__(self, records_TSk1: Tensor, options: HypernetworkOptions, seed: int, rotations: int) -> None:
        super().__init__()
        num, self._size, width = records_TSk1.shape
        self._num_tasks = num * rotations
        self._options, self._rng = options, torch.Generator().manual_seed(seed)
        turned = []
        for _ in range(rotations):
            turn_Tkk = torch.linalg.qr(torch.randn(num, width - 1, width - 1, generator=self._rng)).Q
            turned.append(torch.cat([records_TSk1[..., :-1] @ turn_Tkk, records_TSk1[..., -1:]], dim=2))
        self.images = torch.cat(turned).flatten(0, 1)

    def train_dataloader(self) -> Iterator[Episode]:
        """The episodes, one after the other, once."""
        options, rng = self._options, self._rng
        support = min(options.support, self._size - options.query)
        for _ in range(options.train_steps):
            chosen_T1 = torch.randint(self._num_tasks, (options.tasks, 1), generator=rng)
            order_TS = torch.rand(options.tasks, self._size, generator=rng).argsort(dim=1) + chosen_T1 * self._size
            count_T1 = 16 * (support / 16) ** torch.rand(options.tasks, 1, generator=rng)
            used_TS = torch.arange(support) < count_T1
            yield Episode(
                support_TS=order_TS[:, :support],
                weight_TS=used_TS / used_TS.sum(1, keepdim=True),
                query_TQ=order_TS[:, -options.query :],
                task_T=chosen_T1[:, 0],
            )


def project(records_Bnd1: Tensor, basis_dk: Tensor) -> Tensor:
    """(B, n, k + 1) records in the coordinates of Û."""
    return torch.cat([records_Bnd1[..., :-1] @ basis_dk, records_Bnd1[..., -1:]], dim=2)


def meta_train(
    records_TSd1: Tensor, public: Public, options: HypernetworkOptions, seed: int, *, rotations: int = 32
) -> Hypernetwork:
    """Train the hypernetwork that serves images on public linear tasks, code and training loop unchanged.

    Its target is the regression inside Û, as its target for images is the LoRA of a model pre-trained on public
    images: a record's features are y Ûᵀx, and what it emits are the k coordinates of w in Û. What it must learn is
    the embedding, its clipping and a decoder that knows the noise level.

    Args:
        records_TSd1: (T, m, d + 1) records of the public tasks.
        public: Gives Û.
        options: Of `Hypernetwork`.
        seed: Of the initialisation, the rotations and the training noise.
        rotations: Turned copies of each task. With few of them the decoder learns the T public tasks by heart.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's remarks on loader workers and on the absent logger
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        lightning.seed_everything(seed, verbose=False)
        k = public.basis_dk.shape[1]
        network = Hypernetwork(LinearRegression(k), options, embedding_dim=k)
        trainer = lightning.Trainer(
            max_steps=options.train_steps,
            accelerator="cpu",
            devices=1,
            logger=False,
            gradient_clip_val=1.0,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            limit_val_batches=0,
        )
        trainer.fit(network, datamodule=LinearTasks(project(records_TSd1, public.basis_dk), options, seed, rotations))
    return network.eval()


@torch.no_grad()
def learned(
    network: Hypernetwork, records_Bnd1: Tensor, public: Public, budget: Budget, *, draws: int, rng: torch.Generator
) -> Tensor:
    """`Hypernetwork.adapt` for B data sets and several draws of the noise.

    Returns:
        (B, R + 1, d) weights, the noiseless one last.
    """
    batch, n = records_Bnd1.shape[:2]
    inner_Nk1 = project(records_Bnd1, public.basis_dk).flatten(0, 1)
    rows_Bnk = network.embed(inner_Nk1).unflatten(0, (batch, n))
    (mechanism,) = network.mechanisms(budget, network._options)
    z_BRk, std_BR, count_BR = released_means(rows_Bnk, mechanism, budget, draws=draws, rng=rng)
    theta_Nk = network.decode(z_BRk.flatten(0, 1), std_BR.flatten(), count_BR.flatten())
    weights: Tensor = theta_Nk.unflatten(0, (batch, draws + 1)) @ public.basis_dk.T
    return weights
