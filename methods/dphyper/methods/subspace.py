"""The two controls of the DP hypernetwork: DP-SGD, and one linear release, inside a public subspace of k dimensions.

The gain of a release in k dimensions over DP-SGD in P is √(P/k) and comes from the dimension. Whoever says that the
hypernetwork wins because it releases once, or because its decoder is learned, must beat these two, which have its
public data and its k, but `subspace_dp_sgd` takes many steps and `subspace_one_shot` decodes linearly. Both share one
public phase: θ_t = b + V c_t for every public task t, with b, V and all codes c_t trained together by the denoising
loss that also judges the methods. That is the principal component analysis of "the LoRAs fitted to each public
task", in the loss's own metric instead of the Euclidean one, and without fitting each task to the end, which would
put the noise of P-dimensional fits into the axes. Afterwards V is orthonormal, sorted by the variance of the codes.
It promises nothing for a private task outside the subspace: b is the best that remains there.

The idea that private learning pays for the public subspace's dimension alone is that of Zhou, Wu and Banerjee 2021
(arXiv:2007.03813) and of Thaker et al. 2023 (arXiv:2312.15551), there for subspaces of gradients and for regression.

Shapes: T tasks, S records of a task, Q query records, b records of a chunk, P parameters of the target, k dimensions.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from dphyper.bench.method import About, Adaptation, Method, Options, Role, Selection
from dphyper.bench.public import Episode, PublicTasks
from dphyper.bench.tasks import Collection
from dphyper.core.errors import UserError
from dphyper.methods.descent import Guide, RateOptions, descend
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import OneShotMean, PoissonGradientSteps
from dphyper.privacy.private_data import PrivateData
from dphyper.targets.target import Target


@dataclass(frozen=True, kw_only=True)
class SubspaceOptions(Options):
    """Hyper-parameters of the public phase.

    Attributes:
        train_steps: Steps of the joint factorisation.
        tasks: Public tasks in each step.
        query: Images of each task in a step.
        cluster_weight: How often a public cluster is met, relative to a public family.
        basis_rate: Peak learning rate of b and V.
        code_rate: Peak learning rate of the codes.
        code_decay: Weight decay of the codes, which are small for tasks that are seldom met.
        probe_tasks: Public tasks on which records' gradients are looked at when the subspace is known.
        probe_records: Records of each of these.
        probe_multiplicity: Draws of time and noise over which a record's gradient is averaged there and in
            `SubspaceOneShot`.
        unit_quantile: Which quantile of the norms of these gradients is the unit of clip norms.
    """

    train_steps: int = 1500
    tasks: int = 16
    query: int = 4
    cluster_weight: float = 0.125
    basis_rate: float = 1e-3
    code_rate: float = 3e-2
    code_decay: float = 1e-2
    probe_tasks: int = 128
    probe_records: int = 16
    probe_multiplicity: int = 8
    unit_quantile: float = 0.5


class LinearDecoder(nn.Module):
    """Best linear guess of a task's coefficients from the noisy mean of its records' codes.

    Over the public tasks, coefficients a (of mean 0) and mean codes z have moments E(z) = m, Cov(z) = S and
    Cov(a, z) = R, and records of one task scatter around it with covariance W. From n records and with noise of
    standard deviation τ on each coordinate the guess is R (S + W/n + τ² I)⁻¹ (z − m): the posterior mean of Gaussian
    tasks, as the hypernetwork's `Shrinkage`, with a regression behind it. At infinite noise it is 0.
    """

    mean_k: Tensor
    between_kk: Tensor
    within_kk: Tensor
    cross_kk: Tensor

    def __init__(self, num: int) -> None:
        super().__init__()
        self.register_buffer("mean_k", torch.zeros(num))
        for name in ("between_kk", "within_kk", "cross_kk"):
            self.register_buffer(name, torch.eye(num))

    def fit(self, code_TSk: Tensor, coefficient_Tk: Tensor) -> None:
        """Take the moments of public tasks.

        Args:
            code_TSk: Codes of the same number of records of each task, at least 2 tasks of at least 2 records.
            coefficient_Tk: The tasks' coefficients, of mean 0 over all public tasks.
        """
        num, size = code_TSk.shape[:2]
        mean_Tk = code_TSk.mean(1)
        inner_Nk = (code_TSk - mean_Tk[:, None]).flatten(0, 1)
        outer_Tk = mean_Tk - mean_Tk.mean(0)
        centred_Tk = coefficient_Tk - coefficient_Tk.mean(0)
        # These tasks are a sample, whose mean coefficients are not quite 0: m is the mean code where they are.
        slope_kk = torch.linalg.pinv(centred_Tk) @ outer_Tk
        self.mean_k.copy_(mean_Tk.mean(0) - coefficient_Tk.mean(0) @ slope_kk)
        self.within_kk.copy_(inner_Nk.T @ inner_Nk / (num * (size - 1)))
        self.cross_kk.copy_(centred_Tk.T @ outer_Tk / num)
        # The means of S records scatter by W/S even where all tasks are equal.
        values, vectors = torch.linalg.eigh(outer_Tk.T @ outer_Tk / num - self.within_kk / size)
        self.between_kk.copy_(vectors * values.clamp(min=0) @ vectors.T)

    def forward(self, z_k: Tensor, noise_std: float, n: float) -> Tensor:
        """(k,) coefficients for a noisy mean code of ``n`` records; ``noise_std`` may be infinite."""
        values, vectors = torch.linalg.eigh(self.between_kk + self.within_kk / n)
        gain_k = 1 / (values.clamp(min=1e-8) + noise_std**2)
        guess_k: Tensor = self.cross_kk @ (vectors * gain_k) @ vectors.T @ (z_k - self.mean_k)
        return guess_k


class Subspace(Method):
    """What both methods share: the public phase and the whitened coefficients, θ = b + V diag(s) a.

    Attributes:
        mean_P: b.
        basis_Pk: V.
        scale_k: s, root mean square of the public tasks' codes along each axis; public tasks have a of unit variance.
        unit: Typical norm of the gradients in a of single public records at b, in which clip norms are given.
        decoder: Fitted to the public records' gradients.
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
        num = target.num_parameters
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
        """(b, k) gradients in a of each record by itself, over `unit`."""
        rows_bP = self.target.per_example_gradients(self.parameters_at(a_k), x, rng, multiplicity)
        return (rows_bP @ (self.basis_Pk * self.scale_k) / self.unit).detach()

    def public_data(self, collection: Collection) -> PublicTasks:
        """Episodes of `tasks` public tasks, never mixed: each has a code of its own."""
        options = self._options
        return PublicTasks(
            collection,
            self.target.encode,
            seed=0,
            tasks=options.tasks,
            query=options.query,
            cluster_weight=options.cluster_weight,
            steps=options.train_steps,
            validation_steps=8,
        )

    def configure_model(self) -> None:
        """Lay out one code for each public task, which lives as long as the training does."""
        data: PublicTasks = self.trainer.datamodule  # type: ignore[attr-defined]
        # At c = 0 all tasks begin at b; V is not 0, so that the codes have a gradient.
        self._codes = nn.Embedding.from_pretrained(
            torch.zeros(len(data.rows["public"]), self.embedding_dim), freeze=False
        )

    def training_step(self, batch: Episode, batch_idx: int) -> Tensor:
        """Denoising loss of each task at its own point of the subspace."""
        theta_TP = self.mean_P + self._codes(batch.task_T) @ self.basis_Pk.T
        loss = self._query_loss(theta_TP, batch)
        self.log("subspace/loss", loss)
        return loss

    def validation_step(self, batch: Episode, batch_idx: int) -> None:
        """Loss on tuning tasks of the base and of the public mean, on the same draws."""
        for name, theta_P in (("base", self.target.initial()), ("mean", self.mean_P)):
            rng = torch.Generator(self.device).manual_seed(batch_idx)
            loss = self._query_loss(theta_P.expand(len(batch.query_TQ), -1), batch, rng)
            self.log(f"subspace/tuning_{name}", loss)

    def _query_loss(self, theta_TP: Tensor, batch: Episode, rng: torch.Generator | None = None) -> Tensor:
        data: PublicTasks = self.trainer.datamodule  # type: ignore[attr-defined]
        x = data.records.to(self.device)[batch.query_TQ.flatten()]
        theta_bP = theta_TP.repeat_interleave(batch.query_TQ.shape[1], 0)
        return self.target.per_example_loss(theta_bP, x, rng, stratified=True).mean()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a one-cycle learning rate; the decay is that of the codes."""
        options = self._options
        rates = [options.basis_rate, options.code_rate]
        optimizer = torch.optim.AdamW(
            [
                {"params": [self.mean_P, self.basis_Pk], "weight_decay": 0.0},
                {"params": [self._codes.weight], "weight_decay": options.code_decay},
            ]
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=options.train_steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.no_grad()
    def on_train_end(self) -> None:
        """Rotate the subspace to its principal axes and fit what is read from records' gradients in them."""
        data: PublicTasks = self.trainer.datamodule  # type: ignore[attr-defined]
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
        # As the release does: in these units, clipped to 1.
        self.decoder.fit(code_TSk / torch.maximum(norm_TS1, self.unit), a_Tk[torch.from_numpy(chosen).to(self.device)])

    def _standardise(self, c_Tk: Tensor, share_T: Tensor) -> Tensor:
        """Centre the codes, make V orthonormal, sort both by variance and leave θ_t; returns whitened codes (T, k)."""
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
        """(b, k) each record's code: minus its gradient at b."""
        with torch.enable_grad():
            return -self.gradients(torch.zeros_like(self.scale_k), x, rng, self._options.probe_multiplicity)


@dataclass(frozen=True, kw_only=True)
class SubspaceDPSGDOptions(SubspaceOptions, RateOptions):
    """As `RateOptions` in whitened coefficients, and the public phase's.

    Attributes:
        l2_clip_norm: In units of the typical norm of single public records' gradients.
    """

    steps: int = 15
    l2_clip_norm: float = 1.0
    learning_rate: float = 3.0


class _WhitenedGuide(Guide):
    """The descent walks in a: its point is (k,) coefficients and what it clips are gradients in these."""

    def __init__(self, method: Subspace, rng: torch.Generator) -> None:
        super().__init__(method.target, method._options, rng)
        self._method = method

    def contribution(self, theta: Tensor, x: Tensor, rng: torch.Generator) -> Tensor:
        return self._method.gradients(theta, x, rng, self.options.multiplicity)


class SubspaceDPSGD(Subspace):
    """DP-SGD on k coefficients in the public subspace, from the public mean: the noise has k dimensions too."""

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
    quick_options = {"steps": 2, "multiplicity": 1}
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
    quick_options = {"probe_multiplicity": 2}
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
