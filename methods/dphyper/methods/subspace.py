"""The two controls of the DP hypernetwork: DP-SGD, and one linear release, inside a public subspace of k dimensions.

A release in k dimensions has less noise than DP-SGD in P, by √(P/k), and the dimension alone does that. These controls
have the hypernetwork's public data and its k. `subspace_dp_sgd` takes many steps, so it tests whether a single release
helps; `subspace_one_shot` decodes linearly, so it tests whether the learned decoder helps.

Both share one public phase: θ_t = b + V c_t for every public task t, with b, V and all codes c_t trained together by
the denoising loss that also judges the methods. That is a principal component analysis of the LoRAs of all public
tasks, in the loss's own metric instead of the Euclidean one. No LoRA is fitted to the end, because the noise of such
fits in P dimensions would enter the axes. Afterwards V is orthonormal and sorted by the variance of the codes.
Nothing is promised for a private task outside the subspace: b is the best that remains there.

That private learning pays only for the dimension of the public subspace is the idea of Zhou, Wu and Banerjee 2021
(arXiv:2007.03813) and of Thaker et al. 2023 (arXiv:2312.15551), there for subspaces of gradients and for regression.

Shapes: T tasks, S records of a task, b records of a chunk, P parameters of the target, k dimensions.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from dphyper.bench.method import About, Adaptation, Options, Role, Selection
from dphyper.bench.public import Episode
from dphyper.core.errors import UserError
from dphyper.methods.descent import Guide, RateOptions, descend
from dphyper.methods.episodes import EpisodeMethod, EpisodeOptions
from dphyper.methods.linear_decoder import LinearDecoder
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import OneShotMean, PoissonGradientSteps
from dphyper.privacy.private_data import PrivateData
from dphyper.targets.target import Target

QUICK_PHASE = {"train_steps": 4, "tasks": 4, "query": 2, "probe_tasks": 4, "probe_records": 4}


@dataclass(frozen=True, kw_only=True)
class SubspaceOptions(EpisodeOptions):
    """Hyper-parameters of the public phase.

    Attributes:
        basis_rate: Peak learning rate of b and V.
        code_rate: Peak learning rate of the codes.
        code_decay: Weight decay of the codes; it keeps those of rarely drawn tasks small.
        probe_tasks: Public tasks whose records' gradients are taken once the subspace is known.
        probe_records: Records of each of these, at least 2.
        probe_multiplicity: Draws of time and noise over which a record's gradient is averaged, there and by
            `subspace_one_shot`.
        unit_quantile: Quantile of the norms of these gradients that is the unit of clip norms, from 0 to 1.
    """

    basis_rate: float = 1e-3
    code_rate: float = 3e-2
    code_decay: float = 1e-2
    probe_tasks: int = 128
    probe_records: int = 16
    probe_multiplicity: int = 8
    unit_quantile: float = 0.5


class Subspace(EpisodeMethod):
    """What both controls share: the public phase, and the whitened coefficients a of θ = b + V diag(s) a.

    Attributes:
        mean_P: b, the public mean.
        basis_Pk: V.
        scale_k: s, root mean square of the public tasks' codes along each axis, so that their a have unit variance.
        unit: Typical norm of a single public record's gradient in a, taken at b; clip norms are in this unit.
        decoder: Linear guess of a from records' gradients, fitted to public tasks.
    """

    role: ClassVar[Role] = "method"
    selection: ClassVar[Selection] = "tuned_public"
    uses = frozenset({"task", "n", "epsilon", "embedding_dim", "seed"})
    public_phase = "subspace"
    options_type: ClassVar[type[Options]] = SubspaceOptions
    phase_options = SubspaceOptions
    scale_k: Tensor
    unit: Tensor
    _options: SubspaceOptions

    def __init__(self, target: Target, options: Options, *, embedding_dim: int) -> None:
        super().__init__(target, options, embedding_dim=embedding_dim)
        num = self.target.num_parameters
        if not 1 <= embedding_dim <= num:
            raise UserError(
                f"embedding_dim = {embedding_dim}: expected a subspace of at least 1 and at most {num} dimensions, the "
                "number of parameters"
            )
        self.mean_P = nn.Parameter(torch.zeros(num))
        self.basis_Pk = nn.Parameter(torch.linalg.qr(torch.randn(num, embedding_dim)).Q)
        self.register_buffer("scale_k", torch.ones(embedding_dim))
        self.register_buffer("unit", torch.ones(()))
        self.decoder = LinearDecoder(embedding_dim)

    def parameters_at(self, a_k: Tensor) -> Tensor:
        """(P,) parameters at whitened coefficients (k,); a = 0 is the public mean."""
        return (self.mean_P + self.basis_Pk @ (self.scale_k * a_k)).detach()

    def gradients(self, a_k: Tensor, x: Tensor, rng: torch.Generator, multiplicity: int) -> Tensor:
        """(b, k) gradients in a of each record by itself, in units of `unit`.

        Args:
            a_k: The coefficients at which they are taken.
            x: (b, ...) records.
            rng: Source of their times and noises; secret for private records.
            multiplicity: Draws of time and noise over which each gradient is averaged.
        """
        rows_bP = self.target.per_example_gradients(self.parameters_at(a_k), x, rng, multiplicity)
        return (rows_bP @ (self.basis_Pk * self.scale_k) / self.unit).detach()

    def configure_model(self) -> None:
        """Make one code for each public task; the codes are dropped after the training."""
        # At c = 0 all tasks begin at b. V is not 0, so the codes have a gradient.
        codes = torch.zeros(len(self.public_tasks.rows["public"]), self.embedding_dim)
        self._codes = nn.Embedding.from_pretrained(codes, freeze=False)

    def training_step(self, batch: Episode, batch_idx: int) -> Tensor:
        """Denoising loss of each task at its own point of the subspace."""
        theta_TP = self.mean_P + self._codes(batch.task_T) @ self.basis_Pk.T
        loss = self.query_loss(theta_TP, batch)
        self.log("subspace/loss", loss)
        return loss

    def validation_step(self, batch: Episode, batch_idx: int) -> None:
        """Loss on tuning tasks of the base and of the public mean, on the same draws."""
        for name, theta_P in (("base", self.target.initial()), ("mean", self.mean_P)):
            rng = torch.Generator(self.device).manual_seed(batch_idx)
            loss = self.query_loss(theta_P.expand(len(batch.query_TQ), -1), batch, rng)
            self.log(f"subspace/tuning_{name}", loss)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a one-cycle learning rate; only the codes have weight decay."""
        options = self._options
        optimizer = torch.optim.AdamW(
            [
                {"params": [self.mean_P, self.basis_Pk], "weight_decay": 0.0},
                {"params": [self._codes.weight], "weight_decay": options.code_decay},
            ]
        )
        return self.one_cycle(optimizer, [options.basis_rate, options.code_rate])

    @torch.no_grad()
    def on_train_end(self) -> None:
        """Rotate the subspace to its principal axes, and fit unit and decoder to public records' gradients there."""
        data = self.public_tasks
        share_T = torch.as_tensor(data.shares["public"], dtype=torch.float32, device=self.device)
        a_Tk = self._standardise(self._codes.weight.detach(), share_T)
        del self._codes

        options, numpy_rng = self._options, np.random.default_rng(0)
        chosen = numpy_rng.choice(len(a_Tk), options.probe_tasks, p=data.shares["public"])
        codes, rng = [], torch.Generator(self.device).manual_seed(0)
        for task in chosen:
            rows = np.resize(numpy_rng.permutation(data.rows["public"][task]), options.probe_records)
            codes.append(self._codes_at_mean(data.records[torch.from_numpy(rows)].to(self.device), rng))
        code_TSk = torch.stack(codes)
        norm_TS1 = code_TSk.norm(dim=2, keepdim=True)
        self.unit.copy_(norm_TS1.quantile(options.unit_quantile).clamp(min=1e-12))
        # Clipped to norm 1 in these units, as the release clips.
        self.decoder.fit(code_TSk / torch.maximum(norm_TS1, self.unit), a_Tk[torch.from_numpy(chosen).to(self.device)])

    def _standardise(self, c_Tk: Tensor, share_T: Tensor) -> Tensor:
        """Centre the codes, make V orthonormal and sort both by variance, without a change of any θ_t.

        Args:
            c_Tk: Codes of the public tasks.
            share_T: Weight of each task, of sum 1.

        Returns:
            (T, k) whitened codes a.
        """
        mean_k = share_T @ c_Tk
        self.mean_P.add_(self.basis_Pk @ mean_k)
        q_Pk, r_kk = torch.linalg.qr(self.basis_Pk)
        straight_Tk = (c_Tk - mean_k) @ r_kk.T
        axes_kk, variance_k, _ = torch.linalg.svd(straight_Tk.T * share_T @ straight_Tk)
        self.basis_Pk.copy_(q_Pk @ axes_kk)
        self.scale_k.copy_(variance_k.sqrt())
        a_Tk: Tensor = straight_Tk @ axes_kk / self.scale_k.clamp(min=1e-12)
        return a_Tk

    def _codes_at_mean(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """(b, k) each record's code: minus its gradient in a at the public mean b."""
        with torch.enable_grad():
            return -self.gradients(torch.zeros_like(self.scale_k), x, rng, self._options.probe_multiplicity)


@dataclass(frozen=True, kw_only=True)
class SubspaceDPSGDOptions(SubspaceOptions, RateOptions):
    """The public phase's options, and those of `RateOptions` for the descent in whitened coefficients.

    Attributes:
        l2_clip_norm: C, bound on a record's gradient, in units of the typical norm of a single public record's.
    """

    steps: int = 15
    l2_clip_norm: float = 1.0
    learning_rate: float = 3.0


class _WhitenedGuide(Guide):
    """The guide of a descent in a: its parameters are (k,) coefficients, and it clips gradients in these."""

    def __init__(self, method: Subspace, rng: torch.Generator) -> None:
        super().__init__(method.target, method._options, rng)
        self._method = method

    def contribution(self, theta: Tensor, x: Tensor, rng: torch.Generator) -> Tensor:
        return self._method.gradients(theta, x, rng, self.options.multiplicity)


class SubspaceDPSGD(Subspace):
    """DP-SGD on the k coefficients of a public subspace, from the public mean: the noise has k dimensions too."""

    label = "DP-SGD in a public subspace"
    colour = "#999933"
    marker = "<"
    order = 80
    about = About(
        source="A control of ours; the idea is that of Zhou, Wu & Banerjee 2021 (arXiv:2007.03813) and Thaker et al. "
        "2023 (arXiv:2312.15551).",
        public_data="A k-dimensional subspace of LoRA parameters is fitted to all public tasks, once for every ε, δ, "
        "n and relation.",
        private_release="As `dp_sgd`, of gradients in the k coefficients.",
        passes="q T K gradients.",
    )
    options_type = SubspaceDPSGDOptions
    quick_options = {**QUICK_PHASE, "probe_multiplicity": 1, "steps": 2, "multiplicity": 1}
    _options: SubspaceDPSGDOptions

    @classmethod
    def mechanisms(cls, budget: Budget, options: SubspaceDPSGDOptions) -> tuple[PoissonGradientSteps, ...]:
        """The gradient steps, with the noise multiplier that spends the whole budget."""
        return calibrate(budget, options.unscaled())

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Descend the noisy gradients in the coefficients."""
        (mechanism,) = self.mechanisms(budget, self._options)
        a_k = descend(
            self.target,
            private,
            mechanism,
            self._options,
            _WhitenedGuide(self, rng),
            learning_rate=self._options.learning_rate,
            theta=torch.zeros_like(self.scale_k),
            role="subspace gradient",
        )
        return Adaptation(theta=self.parameters_at(a_k))


@dataclass(frozen=True, kw_only=True)
class SubspaceOneShotOptions(SubspaceOptions):
    """The public phase's options, and one of the release.

    Attributes:
        count_weight: c/C, weight of the count that is released with the sum under add-or-remove-one.
    """

    count_weight: float = 1 / 3


class SubspaceOneShot(Subspace):
    """One release of the mean of records' own codes in the public subspace, decoded linearly."""

    label = "One linear release in a public subspace"
    colour = "#332288"
    marker = ">"
    order = 90
    about = About(
        source="A control of ours.",
        public_data="The subspace of `subspace_dp_sgd`, and the best linear guess of a task's coefficients from its "
        "mean code.",
        private_release="The mean of the records' codes, minus their gradients in the k coefficients at the public "
        "mean, clipped to norm 1, once, with the count under add-or-remove-one.",
        passes="`probe_multiplicity` gradients.",
    )
    selection = "fixed"
    options_type = SubspaceOneShotOptions
    quick_options = {**QUICK_PHASE, "probe_multiplicity": 2}
    _options: SubspaceOneShotOptions

    @classmethod
    def mechanisms(cls, budget: Budget, options: SubspaceOneShotOptions) -> tuple[OneShotMean, ...]:
        """The one release, with the noise multiplier that spends the whole budget."""
        return calibrate(budget, OneShotMean(l2_clip_norm=1.0, count_weight=options.count_weight))

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Release the mean code once and guess the coefficients from it."""
        (mechanism,) = self.mechanisms(budget, self._options)
        release = private.release_mean(self._codes_at_mean, mechanism, role="mean code")
        a_k = self.decoder(release.mean.to(self.scale_k), release.noise_std, release.count)
        return Adaptation(theta=self.parameters_at(a_k))
