"""The DP hypernetwork (DP-DeepSets, arXiv 2606.26772): one noisy dataset embedding in, LoRA weights out.

Each private record is embedded by itself into k dimensions and clipped; the mean is released once with Gaussian
noise; everything after that is post-processing. The network is trained on public tasks only, with the release
mechanism inside the training loop: the noise level and n vary and are inputs, so one trained network serves
every ε, δ, n and relation. The noisy embedding is first shrunk to its posterior mean under the public tasks'
distribution, so that at infinite noise the output is exactly the answer that uses no private record, which is
trained for. The paper's architecture is not public; this one is ours. Where most private records are unlike all
public ones, or their mean embedding is unlike that of public tasks, the output is that answer too. It gives no
guarantee that a private family which is neither is served well: the report shows where it is not.

Shapes: T tasks, S records of a task, b records of a chunk, F features, k embedding dimension, K the greatest one that
the network serves, R main components of the features, P parameters of the target.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from scipy.stats import chi2, norm
from torch import Tensor, nn

from dphyper.bench.method import About, Adaptation, Method, Options, Role, Selection
from dphyper.bench.public import Episode, PublicTasks
from dphyper.bench.tasks import Collection
from dphyper.core.errors import UserError
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import OneShotMean
from dphyper.privacy.private_data import PrivateData
from dphyper.targets.target import Target


@dataclass(frozen=True, kw_only=True)
class HypernetworkOptions(Options):
    """Hyper-parameters of `Hypernetwork`.

    Attributes:
        train_steps: Steps of the meta-training.
        tasks: Public tasks in each step.
        support: Most records embedded of each task in a step.
        query: Images of each task in a step on which the generated weights are judged.
        cluster_weight: How often a public cluster is met, relative to a public family.
        mixture: Share of the tasks in a step that are mixtures of public tasks.
        families: Public families that are met, and no cluster; 0 for all families and clusters.
        nested: Embedding dimensions that one network serves, separated by commas: the first k coordinates are the
            embedding of dimension k (Kusupati et al. 2022, arXiv:2205.13147). A k outside the list has a network of
            its own.
        width: Hidden width of encoder and decoder.
        learning_rate: Peak of the one-cycle schedule of AdamW.
        noise_min: Least standard deviation of the noise on the mean embedding met in training.
        noise_max: Greatest.
        prior_fraction: Share of the tasks in a step that see infinite noise.
        clean_fraction: Share of the tasks in a step that see no noise.
        count_weight: c/C, weight of the count that is released with the sum under add-or-remove-one.
        doubt: Probability that a public task, were their embeddings Gaussian, lies further out than where an embedding
            is no longer believed; beyond, the output is the prior. 0 for never. Also the probability that noise alone
            feigns novel records.
        novelty: How far outside the main components of public records a record must lie to be counted as unlike all of
            them, in root mean squares of public records; where most private ones are, the output is the prior. Infinite
            for never.
    """

    train_steps: int = 3000
    tasks: int = 16
    support: int = 128
    query: int = 4
    cluster_weight: float = 0.125
    mixture: float = 0.6
    families: int = 0
    nested: str = ""
    width: int = 256
    learning_rate: float = 7e-4
    noise_min: float = 1e-3
    noise_max: float = 0.5
    prior_fraction: float = 0.125
    clean_fraction: float = 0.125
    count_weight: float = 1 / 3
    doubt: float = 1e-4
    novelty: float = 4.0

    def dimensions(self, embedding_dim: int) -> tuple[int, ...]:
        """The embedding dimensions, in rising order, that the network of this one serves.

        Raises:
            UserError: `nested` is not a list of numbers above 0.

        >>> HypernetworkOptions(nested="4, 32, 8").dimensions(8), HypernetworkOptions(nested="4, 8").dimensions(5)
        ((4, 8, 32), (5,))
        """
        try:
            listed = sorted(int(k) for k in self.nested.split(",") if k.strip())
        except ValueError:
            listed = [0]
        if listed and listed[0] < 1:
            raise UserError(
                f"options.hypernetwork.nested = {self.nested!r}: expected whole numbers above 0 with commas between "
                "them, such as '4, 8, 16'"
            )
        return tuple(listed) if embedding_dim in listed else (embedding_dim,)


class Encoder(nn.Module):
    """Record-wise embedding: pixels and the base U-Net's own activations through a learned head.

    Neither batch statistics nor other records enter, and the features are never the evaluation's. The embedding of
    dimension k is the first k coordinates, clipped by their own norm.
    """

    mean_F: Tensor
    std_F: Tensor

    def __init__(self, num_features: int, width: int, embedding_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean_F", torch.zeros(num_features))
        self.register_buffer("std_F", torch.ones(num_features))
        self.head = nn.Sequential(nn.Linear(num_features, width), nn.SiLU(), nn.Linear(width, embedding_dim))

    def standardised(self, features_SF: Tensor) -> Tensor:
        """(..., F) features by public mean and deviation."""
        return (features_SF - self.mean_F) / self.std_F

    def forward(self, features_SF: Tensor) -> Tensor:
        """(..., F) public features to (..., K) coordinates, before clipping."""
        coordinates: Tensor = self.head(self.standardised(features_SF))
        return coordinates


class Novelty(nn.Module):
    """Which records are unlike all public ones, each judged by itself.

    Public records lie near a plane of few dimensions, their main components. What is left of a record outside of it,
    over the root mean square of what is left of public records, is about 1 for a new family of the same kind and many
    times that for another kind of image. The share of such records is one number, told in the release of the embedding:
    the noise that hides in k numbers how far these lie does not hide this one.

    Args:
        num_features: F.
        limit: Where a record begins to be unlike, in root mean squares.
        components: R, at most half of F.
    """

    axes_FR: Tensor
    unit: Tensor

    def __init__(self, num_features: int, limit: float, components: int = 64) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("axes_FR", torch.zeros(num_features, min(components, num_features // 2)))
        # Before it has seen public records it holds nothing to be novel.
        self.register_buffer("unit", torch.full((), torch.inf))

    def fit(self, features_NF: Tensor) -> None:
        """Take the main components of public records' standardised features, and how much they leave."""
        num = min(len(features_NF), self.axes_FR.shape[1])
        _, _, axes_FR = torch.pca_lowrank(features_NF, q=num, center=False, niter=4)
        self.axes_FR[:, :num] = axes_FR
        self.unit.copy_(self._left(features_NF).square().mean().sqrt())

    def forward(self, features_bF: Tensor) -> Tensor:
        """(b,) 1 for a record that is unlike all public ones, else 0."""
        return (self._left(features_bF) > self.limit * self.unit).to(features_bF)

    def _left(self, features_bF: Tensor) -> Tensor:
        outside = features_bF.square().sum(1) - (features_bF @ self.axes_FR).square().sum(1)
        return outside.clamp(min=0).sqrt()


def clipped(coordinates_SK: Tensor, k: int) -> Tensor:
    """(..., K) coordinates to (..., k) embeddings of norm at most 1."""
    embedding_Sk = coordinates_SK[..., :k]
    norm: Tensor = embedding_Sk.norm(dim=-1, keepdim=True)
    return embedding_Sk / norm.clamp(min=1.0)


class Shrinkage(nn.Module):
    """Posterior mean of a task's embedding given its noisy one, whitened.

    Task embeddings are taken as N(m, S) with m and S from the public tasks, the noise as N(0, τ²I) and the
    sampling error of n records as N(0, v/n I). The output V √Λ (Λ + τ² + v/n)⁻¹ Vᵀ (z − m), with S = V Λ Vᵀ, has
    unit variance where the release is informative and goes to 0 as the noise grows. It goes to 0 too where z lies
    outside of the ball of the public tasks: there the decoder has never been, and the prior does no harm. What is
    believed of z is the posterior probability that it belongs to such a task and not to anything else, taken to be as
    likely on the edge of the ball: 1 / (1 + exp(k/2 · (d² − r²))), with d the distance and r the radius. All of this
    is post-processing.

    Args:
        embedding_dim: K.
        doubt: Probability that a Gaussian task lies outside of the ball.
        decay: Of the exponential averages.
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
        """Follow the public tasks' embeddings by exponential averages."""
        self.updates += 1
        rate = max(1 - self.decay, 1 / float(self.updates))
        self.mean_K.lerp_(clean_TK.mean(0), rate)
        centred = clean_TK - self.mean_K
        self.cov_KK.lerp_(centred.T @ centred / len(centred), rate)
        spread = ((embedding_TSK - clean_TK[:, None]).square().mean(-1) * weight_TS).sum(-1)
        self.within.lerp_(spread.mean(), rate)

    def _axes(self, z_TK: Tensor, noise_std_T: Tensor, n_T: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Offsets from m along the axes, Λ, Λ + τ² + v/n, and V."""
        values_K, vectors_KK = torch.linalg.eigh(self.cov_KK)
        values_K = values_K.clamp(min=1e-8)
        noise_T1 = (noise_std_T.square() + self.within / n_T)[:, None]
        return (z_TK - self.mean_K) @ vectors_KK, values_K, values_K + noise_T1, vectors_KK

    def distance(self, z_TK: Tensor, noise_std_T: Tensor, n_T: Tensor) -> Tensor:
        """(T,) distances of noisy means from the public tasks: about 1 for such a task, 0 at infinite noise."""
        offset_TK, _, variance_TK, _ = self._axes(z_TK, noise_std_T, n_T)
        return (offset_TK.square() / variance_TK).mean(1).sqrt()

    def forward(self, z_TK: Tensor, noise_std_T: Tensor, n_T: Tensor) -> tuple[Tensor, Tensor]:
        """What the release tells.

        Args:
            z_TK: Noisy means.
            noise_std_T: Standard deviations of their noise; may be infinite.
            n_T: Numbers of records.

        Returns:
            (T, K) posterior means, whitened, and (T,) the share of the spread between tasks that the release
            resolves. Both are 0 at infinite noise and where z is not believed.
        """
        offset_TK, values_K, variance_TK, vectors_KK = self._axes(z_TK, noise_std_T, n_T)
        shrunk_TK = (offset_TK * values_K.sqrt() / variance_TK) @ vectors_KK.T
        signal = values_K.mean()
        resolved_T = signal / (signal + noise_std_T.square() + self.within / n_T)
        # Squares throughout: the root of the distance has no gradient at infinite noise, where it is 0.
        square_T = (offset_TK.square() / variance_TK).mean(1)
        belief_T = torch.sigmoid(z_TK.shape[1] / 2 * (self.reach**2 - square_T))
        return belief_T[:, None] * shrunk_TK, belief_T * resolved_T


class Hypernetwork(Method):
    """One release of a k-dimensional mean embedding, decoded to LoRA weights."""

    label = "Hypernetwork"
    colour = "#0072B2"
    marker = "o"
    order = 0
    role: ClassVar[Role] = "method"
    about: ClassVar[About] = About(
        source="DP-DeepSets (Nishikawa, Takakura & Hasegawa 2026, arXiv:2606.26772).",
        public_data="Embedding, shrinkage and decoder are trained on public tasks, once for every ε, δ, n and "
        "relation.",
        private_release="The sum of the records' embeddings of k numbers and a mark of those unlike all public ones, "
        "each of norm at most 1 together, once; under add-or-remove-one their count with it.",
        passes="1 forward pass, no gradient.",
        departures="Architecture, features, training and the shrinkage to a posterior mean are ours: neither the "
        "paper's full text nor its code could be found.",
    )
    uses = frozenset({"task", "n", "epsilon", "embedding_dim", "seed"})
    selection: ClassVar[Selection] = "tuned_public"
    public_phase = "hypernetwork"
    options_type = HypernetworkOptions
    _options: HypernetworkOptions

    def __init__(self, target: Target, options: Options, *, embedding_dim: int) -> None:
        super().__init__(target, options, embedding_dim=embedding_dim)
        width = self._options.width
        self.dimensions = self._options.dimensions(embedding_dim)
        self.public_dim = self.dimensions[-1]
        if self.public_dim > target.num_features:
            raise UserError(
                f"embedding_dim = {self.public_dim} is larger than the {target.num_features} features of a record: "
                "choose a smaller one"
            )
        self.encoder = Encoder(target.num_features, width, self.public_dim)
        self.novelty = Novelty(target.num_features, self._options.novelty)
        self.shrinkage = nn.ModuleDict({str(k): Shrinkage(k, self._options.doubt) for k in self.dimensions})
        self.trunk = nn.Sequential(nn.Linear(self.public_dim + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        # A zero head starts at the base model, whatever the embedding.
        self.head = nn.Linear(width, target.num_parameters)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def public_data(self, collection: Collection) -> PublicTasks:
        """Episodes of `tasks` public tasks."""
        options = self._options
        return PublicTasks(
            collection,
            self.target.encode,
            seed=0,
            tasks=options.tasks,
            support=options.support,
            query=options.query,
            cluster_weight=options.cluster_weight,
            mixture=options.mixture,
            families=options.families,
            steps=options.train_steps,
            validation_steps=8,
        )

    def embed(self, x: Tensor) -> Tensor:
        """(b, k) embeddings of (b, ...) records, each of norm at most 1 and a function of its own record."""
        return clipped(self.encoder(self.target.features(x)), self.embedding_dim)

    def contribution(self, x: Tensor) -> Tensor:
        """(b, k + 1) what each record adds to the release, of norm at most 1: its embedding, and whether it is novel.

        A record that is not novel adds its embedding as it is: the mark costs it nothing.
        """
        features_bF = self.target.features(x)
        novel_b1 = self.novelty(self.encoder.standardised(features_bF))[:, None]
        marked_bk = torch.cat([clipped(self.encoder(features_bF), self.embedding_dim), novel_b1], 1)
        added: Tensor = marked_bk / (1 + novel_b1).sqrt()
        return added

    def decode(self, z_Tk: Tensor, noise_std_T: Tensor, n_T: Tensor) -> Tensor:
        """Parameters for noisy mean embeddings.

        Args:
            z_Tk: Noisy means of embeddings of one of the network's dimensions.
            noise_std_T: Standard deviation of the noise on each coordinate; infinite for no information.
            n_T: Number of records, or its noisy estimate.

        Returns:
            (T, P).
        """
        theta_TP: Tensor = self.head(self.hidden(z_Tk, noise_std_T, n_T))
        return theta_TP

    def hidden(self, z_Tk: Tensor, noise_std_T: Tensor, n_T: Tensor) -> Tensor:
        """(T, width) what the linear head makes parameters of; arguments as for `decode`."""
        k = z_Tk.shape[1]
        shrunk_Tk, resolved_T = self._shrinkage(k)(z_Tk, noise_std_T, n_T)
        shrunk_TK = nn.functional.pad(shrunk_Tk, (0, self.public_dim - k))
        hidden_TW: Tensor = self.trunk(torch.cat([shrunk_TK, resolved_T[:, None]], 1))
        return hidden_TW

    def _shrinkage(self, k: int) -> Shrinkage:
        shrinkage = self.shrinkage[str(k)]
        assert isinstance(shrinkage, Shrinkage)
        return shrinkage

    @torch.no_grad()
    def on_fit_start(self) -> None:
        """Compute the public records' features once, and standardise them by public statistics."""
        data: PublicTasks = self.trainer.datamodule  # type: ignore[attr-defined]
        self._features = self.target.features(data.records.to(self.device))
        self.encoder.mean_F.copy_(self._features.mean(0))
        # What public images hardly vary in, such as an empty frame, would be blown up: a private image with a grain of
        # grey there would have an embedding of nothing else.
        std_F = self._features.std(0)
        self.encoder.std_F.copy_(std_F.clamp(min=std_F.median() / 4))
        self.novelty.fit(self.encoder.standardised(self._features))
        if self.logger and data.validation_steps:
            self._optima_TP = self._tuning_optima(data)

    def _tuning_optima(self, data: PublicTasks, steps: int = 80, each: int = 16, rate: float = 0.01) -> Tensor:
        """(T, P) a LoRA fitted to each tuning task without privacy: what progress is measured against, no more."""
        rng = torch.Generator(self.device).manual_seed(0)
        tasks = [torch.from_numpy(rows).to(self.device) for rows in data.rows["tuning"]]
        theta_TP = self.target.initial().repeat(len(tasks), 1).requires_grad_()
        optimizer = torch.optim.Adam([theta_TP], lr=rate)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=steps)
        with torch.enable_grad():
            for _ in range(steps):
                drawn = [rows[torch.randint(len(rows), (each,), generator=rng, device=self.device)] for rows in tasks]
                x = data.records.to(self.device)[torch.cat(drawn)]
                loss = self.target.per_example_loss(theta_TP.repeat_interleave(each, 0), x, rng, stratified=True)
                optimizer.zero_grad()
                # Each task's LoRA by its own mean loss.
                (loss.sum() / each).backward()
                optimizer.step()
                decay.step()
        return theta_TP.detach()

    def _means(self, batch: Episode) -> dict[int, tuple[Tensor, Tensor]]:
        """For each dimension k the (T, k) mean embeddings of the support and the (T, S, k) embeddings themselves."""
        coordinates_TSK = self.encoder(self._features[batch.support_TS])
        embedded = {k: clipped(coordinates_TSK, k) for k in self.dimensions}
        return {k: ((rows * batch.weight_TS[..., None]).sum(1), rows) for k, rows in embedded.items()}

    def training_step(self, batch: Episode, batch_idx: int) -> Tensor:
        """Task loss through the generated weights, with the release mechanism inside."""
        options = self._options
        num = len(batch.query_TQ)
        means = self._means(batch)
        for k, (clean_Tk, embedding_TSk) in means.items():
            self._shrinkage(k).update(clean_Tk, embedding_TSk, batch.weight_TS)
        clean_Tk, _ = means[self.dimensions[int(torch.randint(len(self.dimensions), ()))]]
        low, high = math.log(options.noise_min), math.log(options.noise_max)
        noise_T = torch.exp(torch.empty(num, device=self.device).uniform_(low, high))
        kind_T = torch.rand(num, device=self.device)
        noise_T[kind_T < options.clean_fraction] = 0
        noise_T[kind_T > 1 - options.prior_fraction] = torch.inf
        finite_T1 = torch.where(noise_T.isinf(), 0, noise_T)[:, None]
        n_T = batch.weight_TS.count_nonzero(1).float()
        theta_TP = self.decode(clean_Tk + finite_T1 * torch.randn_like(clean_Tk), noise_T, n_T)
        loss = self._query_loss(theta_TP, batch)
        self.log("hypernetwork/loss", loss)
        return loss

    def validation_step(self, batch: Episode, batch_idx: int) -> None:
        """Loss on tuning tasks, same draws for all: base, prior, the network by noise level, and the optimum."""
        clean_Tk, _ = self._means(batch)[self.embedding_dim]
        n_T = batch.weight_TS.count_nonzero(1).float()
        thetas = {"base": self.target.initial().expand(len(n_T), -1)}
        for name, std in (("clean", 0.0), ("noise_0.03", 0.03), ("noise_0.1", 0.1), ("prior", math.inf)):
            noisy_Tk = clean_Tk + (std * torch.randn_like(clean_Tk) if math.isfinite(std) else 0)
            thetas[name] = self.decode(noisy_Tk, torch.full_like(n_T, std), n_T)
        if self.logger:
            thetas["optimum"] = self._optima_TP[batch.task_T]
        for name, theta_TP in thetas.items():
            rng = torch.Generator(self.device).manual_seed(batch_idx)
            self.log(f"hypernetwork/tuning_{name}", self._query_loss(theta_TP, batch, rng))

    def _query_loss(self, theta_TP: Tensor, batch: Episode, rng: torch.Generator | None = None) -> Tensor:
        data: PublicTasks = self.trainer.datamodule  # type: ignore[attr-defined]
        x = data.records.to(self.device)[batch.query_TQ.flatten()]
        theta = theta_TP.repeat_interleave(batch.query_TQ.shape[1], 0)
        return self.target.per_example_loss(theta, x, rng, stratified=True).mean()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a one-cycle learning rate."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self._options.learning_rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self._options.learning_rate, total_steps=self._options.train_steps, pct_start=0.1
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @classmethod
    def mechanisms(cls, budget: Budget, options: HypernetworkOptions) -> tuple[OneShotMean, ...]:
        """The one release, with the noise multiplier that spends the whole budget."""
        return calibrate(budget, OneShotMean(l2_clip_norm=1.0, count_weight=options.count_weight))

    @torch.no_grad()
    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Release the mean embedding and the share of novel records once, and decode the embedding."""
        (mechanism,) = self.mechanisms(budget, self._options)
        release = private.release_mean(lambda x, rng: self.contribution(x), mechanism, role="mean embedding")
        z_Tk, novel = release.mean.float()[None, :-1], release.mean[-1] * 2**0.5
        noise_T, n_T = z_Tk.new_tensor([release.noise_std]), z_Tk.new_tensor([release.count])
        shift = float(self._shrinkage(self.embedding_dim).distance(z_Tk, noise_T, n_T))
        # Most of them, and more than the noise feigns: nothing is known of such a task.
        if novel > max(0.5, norm.isf(self._options.doubt) * release.noise_std * 2**0.5):
            noise_T = torch.full_like(noise_T, torch.inf)
        return Adaptation(theta=self.decode(z_Tk, noise_T, n_T)[0], diagnostics={"embedding_shift": shift})


class HypernetworkSigma0(Hypernetwork):
    """The hypernetwork without noise: what the release costs is the distance to this control."""

    label = "Hypernetwork at σ = 0"
    colour = "#56B4E9"
    marker = "v"
    order = 40
    role = "control"
    about = About(
        source="`hypernetwork` at σ = 0.",
        public_data="As `hypernetwork`, whose network it is.",
        private_release="The mean embedding, clipped but not noised: no privacy.",
        passes="As `hypernetwork`.",
    )
    uses = frozenset({"task", "n", "embedding_dim", "seed"})
    private = False
    selection = "non_private"

    @classmethod
    def mechanisms(cls, budget: Budget, options: HypernetworkOptions) -> tuple[OneShotMean, ...]:
        """The release at σ = 0."""
        return (OneShotMean(l2_clip_norm=1.0, count_weight=options.count_weight, noise_multiplier=0.0),)


class PublicMean(Hypernetwork):
    """The hypernetwork at infinite noise: its best answer that uses no private record."""

    label = "Public mean"
    colour = "#009E73"
    marker = "^"
    order = 30
    role = "control"
    about = About(
        source="`hypernetwork` at σ = ∞.",
        public_data="As `hypernetwork`, whose network it is.",
        private_release="Nothing.",
        passes="None.",
    )
    uses = frozenset({"task", "n", "embedding_dim", "seed"})

    @classmethod
    def mechanisms(cls, budget: Budget, options: HypernetworkOptions) -> tuple[OneShotMean, ...]:
        """No release."""
        return ()

    @torch.no_grad()
    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Decode no information at all."""
        mean_TK = self._shrinkage(self.embedding_dim).mean_K[None]
        return Adaptation(
            theta=self.decode(mean_TK, mean_TK.new_tensor([torch.inf]), mean_TK.new_tensor([private.n]))[0]
        )
