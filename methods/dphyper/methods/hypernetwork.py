"""The DP hypernetwork (DP-DeepSets, arXiv:2606.26772): one noisy dataset embedding in, LoRA weights out.

Each private record is embedded by itself into k dimensions and clipped. The mean embedding is released once with
Gaussian noise, and everything after that is post-processing: the release is shrunk to its posterior mean under the
public tasks' distribution, and a decoder maps that to the weights. The network is trained on public tasks only, with
the release inside the training loop. The noise level and n vary there and are inputs, so one network serves every ε, δ,
n and relation. The paper's architecture is not public; this one is ours.

At infinite noise the output is the prior, the best answer that uses no private record. It is the prior, too, where most
private records are unlike all public ones, or where their mean embedding is unlike that of every public task. There is
no guarantee that a private family is served well merely because neither is the case: the report shows where it is not.

Shapes: T tasks, S records of a task, b records of a chunk, F features, k embedding dimension, K the greatest one that
the network serves, W hidden width, P parameters of the target.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from scipy.stats import norm
from torch import Tensor, nn

from dphyper.bench.method import About, Adaptation, Options, Role, Selection
from dphyper.bench.public import Episode, PublicTasks
from dphyper.bench.tasks import Collection
from dphyper.core.errors import UserError
from dphyper.methods.embedding import Encoder, Novelty, Shrinkage, clip_embedding
from dphyper.methods.episodes import EpisodeMethod, EpisodeOptions
from dphyper.methods.heads import new_head
from dphyper.methods.optimisation import minimise
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import OneShotMean
from dphyper.privacy.private_data import PrivateData
from dphyper.targets.target import Target

# Noise levels at which the log shows the loss on tuning tasks; infinite noise is the prior.
LOGGED_NOISE = {"clean": 0.0, "noise_0.03": 0.03, "noise_0.1": 0.1, "prior": math.inf}


@dataclass(frozen=True, kw_only=True)
class HypernetworkOptions(EpisodeOptions):
    """Hyper-parameters of `Hypernetwork`.

    Attributes:
        support: S, most records of a task that are embedded in a step.
        mixture: Share of the tasks in a step that are mixtures of public tasks.
        appearances: Altered copies of public tasks (`dphyper.bench.appearance`) that are met beside them.
        altered: Share of the tasks in a step that are altered copies.
        families: Train on so many public families and on no cluster; 0 for all families and clusters.
        nested: Embedding dimensions that one network serves, separated by commas: the first k coordinates are the
            embedding of dimension k (Kusupati et al. 2022, arXiv:2205.13147). A k outside the list has a network of
            its own.
        width: W, hidden width of encoder and decoder.
        head: How parameters are made of the decoder's hidden vector: one of `dphyper.methods.heads.HEADS`.
        code: Length of the head's own vector, where it has one.
        learning_rate: Peak of the one-cycle schedule of AdamW.
        noise_min: Least standard deviation of the noise on the mean embedding in training, above 0.
        noise_max: Greatest such standard deviation.
        prior_fraction: Share of the tasks in a step whose embedding has infinite noise.
        clean_fraction: Share of the tasks in a step whose embedding has no noise.
        count_weight: c/C, weight of the count that is released with the sum under add-or-remove-one.
        doubt: Tail probability that sets the trust radius: that of a Gaussian public task to lie outside it. A release
            outside falls back to the prior; 0 for an infinite radius. It is also the probability that noise alone
            passes for novel records.
        novelty: Distance from the plane of public records beyond which a record counts as novel, in root mean squares
            of the distances of public records; infinite for never. Where most private records are novel, the output is
            the prior.
    """

    train_steps: int = 3000
    support: int = 128
    mixture: float = 0.6
    appearances: int = 0
    altered: float = 0.5
    families: int = 0
    nested: str = ""
    width: int = 256
    head: str = "linear"
    code: int = 64
    learning_rate: float = 7e-4
    noise_min: float = 1e-3
    noise_max: float = 0.5
    prior_fraction: float = 0.125
    clean_fraction: float = 0.125
    count_weight: float = 1 / 3
    doubt: float = 1e-4
    novelty: float = 4.0

    def dimensions(self, embedding_dim: int) -> tuple[int, ...]:
        """The embedding dimensions, in rising order, of the network that serves ``embedding_dim``.

        Raises:
            UserError: `nested` is not a list of whole numbers above 0.

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


class Hypernetwork(EpisodeMethod):
    """One release of a k-dimensional mean embedding, decoded to LoRA weights."""

    label = "Hypernetwork"
    colour = "#0072B2"
    marker = "o"
    order = 1
    role: ClassVar[Role] = "method"
    about: ClassVar[About] = About(
        source="DP-DeepSets (Nishikawa, Takakura & Hasegawa 2026, arXiv:2606.26772).",
        public_data="Embedding, shrinkage and decoder are trained on public tasks, once for every ε, δ, n and "
        "relation.",
        private_release="The sum of the records' contributions, once. A contribution is an embedding of k numbers and "
        "a mark of novelty, together of norm at most 1. Under add-or-remove-one their count is released too.",
        passes="1 forward pass, no gradient.",
        departures="Architecture, features, training and the shrinkage to a posterior mean are ours: neither the "
        "paper's full text nor its code could be found.",
    )
    uses = frozenset({"task", "n", "epsilon", "embedding_dim", "seed"})
    selection: ClassVar[Selection] = "tuned_public"
    public_phase = "hypernetwork"
    options_type = HypernetworkOptions
    quick_options = {"train_steps": 4, "tasks": 4, "support": 32, "query": 2}
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
        self.head = new_head(self._options.head, width, self.target.layer_shapes, self._options.code)

    def public_data(self, collection: Collection) -> PublicTasks:
        """Episodes of public tasks and of their mixtures, with a support that is embedded."""
        options = self._options
        return self.deal(
            collection,
            support=options.support,
            mixture=options.mixture,
            appearances=options.appearances,
            altered=options.altered,
            families=options.families,
        )

    def embed(self, x: Tensor) -> Tensor:
        """(b, k) embeddings of (b, ...) records, each of norm at most 1 and a function of its own record."""
        return clip_embedding(self.encoder(self.target.features(x)), self.embedding_dim)

    def contribution(self, x: Tensor) -> Tensor:
        """(b, k + 1) what each record adds to the release: its embedding and its mark of novelty, of norm at most 1.

        A record that is not novel adds its embedding unchanged, so the mark costs it nothing. A novel one adds both
        over √2.
        """
        features_bF = self.target.features(x)
        novel_b1 = self.novelty(self.encoder.standardise(features_bF))[:, None]
        marked_bk = torch.cat([clip_embedding(self.encoder(features_bF), self.embedding_dim), novel_b1], 1)
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
        """(T, W) inputs of the decoder's head; arguments as for `decode`."""
        hidden_TW: Tensor = self.trunk(self.trunk_inputs(z_Tk, noise_std_T, n_T))
        return hidden_TW

    def trunk_inputs(self, z_Tk: Tensor, noise_std_T: Tensor, n_T: Tensor) -> Tensor:
        """(T, K + 1) shrunk releases, and how much each resolves; arguments as for `decode`."""
        k = z_Tk.shape[1]
        shrunk_Tk, resolved_T = self._shrinkage(k)(z_Tk, noise_std_T, n_T)
        shrunk_TK = nn.functional.pad(shrunk_Tk, (0, self.public_dim - k))
        return torch.cat([shrunk_TK, resolved_T[:, None]], 1)

    def _shrinkage(self, k: int) -> Shrinkage:
        shrinkage = self.shrinkage[str(k)]
        assert isinstance(shrinkage, Shrinkage)
        return shrinkage

    @torch.no_grad()
    def on_fit_start(self) -> None:
        """Compute the public records' features once, and take their statistics and main components."""
        data = self.public_tasks
        self._features = self.target.features(data.records.to(self.device))
        self.encoder.mean_F.copy_(self._features.mean(0))
        # Some features hardly vary among public records, such as the pixels of an empty frame. Divided by their own
        # deviation they would drown all others where a private record has a little grey there, so no deviation counts
        # as less than a quarter of the median one. A quarter is our choice.
        std_F = self._features.std(0)
        self.encoder.std_F.copy_(std_F.clamp(min=std_F.median() / 4))
        self.novelty.fit(self.encoder.standardise(self._features))
        if self.logger and data.validation_steps:
            self._optima_TP = self._tuning_optima(data)

    def _tuning_optima(self, data: PublicTasks, steps: int = 80, each: int = 16, rate: float = 0.01) -> Tensor:
        """(T, P) a LoRA fitted to each tuning task without privacy: the mark that the log compares progress with."""
        rng = torch.Generator(self.device).manual_seed(0)
        tasks = [torch.from_numpy(rows).to(self.device) for rows in data.rows["tuning"]]
        records = data.records.to(self.device)

        def loss(theta_TP: Tensor) -> Tensor:
            drawn = [rows[torch.randint(len(rows), (each,), generator=rng, device=self.device)] for rows in tasks]
            x = records[torch.cat(drawn)]
            losses = self.target.per_example_loss(theta_TP.repeat_interleave(each, 0), x, rng, stratified=True)
            # The sum over tasks of their mean losses: each task's LoRA has a gradient of its own task alone.
            return losses.sum() / each

        return minimise(loss, self.target.initial().repeat(len(tasks), 1), steps=steps, learning_rate=rate)

    def _means(self, batch: Episode) -> dict[int, tuple[Tensor, Tensor]]:
        """For each dimension k the (T, k) mean embeddings of the support and the (T, S, k) embeddings themselves."""
        coordinates_TSK = self.encoder(self._features[batch.support_TS])
        embedded = {k: clip_embedding(coordinates_TSK, k) for k in self.dimensions}
        return {k: ((rows * batch.weight_TS[..., None]).sum(1), rows) for k, rows in embedded.items()}

    def training_step(self, batch: Episode, batch_idx: int) -> Tensor:
        """Query loss of the generated weights, with the release inside."""
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
        loss = self.query_loss(theta_TP, batch)
        self.log("hypernetwork/loss", loss)
        return loss

    def validation_step(self, batch: Episode, batch_idx: int) -> None:
        """Loss on tuning tasks, on the same draws for all: base, prior, the network by noise level, and the optimum."""
        clean_Tk, _ = self._means(batch)[self.embedding_dim]
        n_T = batch.weight_TS.count_nonzero(1).float()
        thetas = {"base": self.target.initial().expand(len(n_T), -1)}
        for name, std in LOGGED_NOISE.items():
            noisy_Tk = clean_Tk + (std * torch.randn_like(clean_Tk) if math.isfinite(std) else 0)
            thetas[name] = self.decode(noisy_Tk, torch.full_like(n_T, std), n_T)
        if self.logger:
            thetas["optimum"] = self._optima_TP[batch.task_T]
        for name, theta_TP in thetas.items():
            rng = torch.Generator(self.device).manual_seed(batch_idx)
            self.log(f"hypernetwork/tuning_{name}", self.query_loss(theta_TP, batch, rng))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a one-cycle learning rate."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self._options.learning_rate, weight_decay=1e-4, fused=True)
        return self.one_cycle(optimizer, self._options.learning_rate)

    @classmethod
    def mechanisms(cls, budget: Budget, options: HypernetworkOptions) -> tuple[OneShotMean, ...]:
        """The one release, with the noise multiplier that spends the whole budget."""
        return calibrate(budget, OneShotMean(l2_clip_norm=1.0, count_weight=options.count_weight))

    @torch.no_grad()
    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Release the mean embedding and the share of novel records once, and decode the embedding."""
        (mechanism,) = self.mechanisms(budget, self._options)
        code, diagnostics = self.release_code(private, mechanism)
        return Adaptation(theta=self.decode(*code)[0], diagnostics=diagnostics)

    @torch.no_grad()
    def release_code(
        self, private: PrivateData, mechanism: OneShotMean
    ) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, float]]:
        """Release once; the arguments of `decode` for one task, and diagnostics."""
        release = private.release_mean(lambda x, rng: self.contribution(x), mechanism, role="mean embedding")
        z_Tk, novel = release.mean.float()[None, :-1], release.mean[-1] * 2**0.5
        noise_T, n_T = z_Tk.new_tensor([release.noise_std]), z_Tk.new_tensor([release.count])
        shift = float(self._shrinkage(self.embedding_dim).distance(z_Tk, noise_T, n_T))
        # Most records are novel, beyond what noise alone would make of none: the network knows nothing of such a task.
        if novel > max(0.5, norm.isf(self._options.doubt) * release.noise_std * 2**0.5):
            noise_T = torch.full_like(noise_T, torch.inf)
        return (z_Tk, noise_T, n_T), {"embedding_shift": shift}


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
