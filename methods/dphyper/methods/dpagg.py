"""DPAgg: each record's own LoRA code, averaged and noised once.

Each record by itself takes some gradient steps in a frozen random subspace of the LoRA; its code is where it ends.
Codes are clipped, and their mean is released once and decoded by the same subspace. Peetathawatchai et al. 2024,
arXiv:2411.14639, do this with textual inversion, whose code is a token of a text encoder. Here the code is k
coordinates of the LoRA, as in HyperDreamBooth's frozen bases.

Departures: no subsampling, which does not help a single mean. Codes are scaled by their median norm on public records
and clipped. They are not normalised one by one, which would blow up the codes of records that learn nothing. The mean
is multiplied by a scale chosen on public tasks at the noise of the release. What lies outside the k random directions
is out of reach.

Shapes: b records of a chunk, K draws, k code dimensions, P parameters, T public tasks, Q images of each.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dphyper.bench.method import About, Adaptation, AdapterOptions, Method, Options, Role, Selection
from dphyper.core.errors import UserError
from dphyper.methods.embedding import clip_embedding
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import OneShotMean
from dphyper.privacy.private_data import PrivateData
from dphyper.targets.target import Target

# Lengths of θ for a mean code of norm 1, to choose from; the least is practically the base model.
SCALES = tuple(2.0**power for power in range(-6, 8))


@dataclass(frozen=True, kw_only=True)
class DPAggOptions(AdapterOptions):
    """Hyper-parameters of `DPAgg`.

    Attributes:
        code_steps: Gradient steps of each record.
        code_draws: K, draws of time and noise over which the gradient of each such step is averaged.
        code_rate: Learning rate of these steps.
        public_tasks: T, public tasks on which the scale is chosen.
        public_images: Images of each task whose codes are averaged, as those of private records are.
        query_images: Q, other images of each task, whose loss decides on the scale.
        count_weight: c/C, weight of the count that is released with the sum under add-or-remove-one.
    """

    code_steps: int = 2
    code_draws: int = 4
    code_rate: float = 20.0
    public_tasks: int = 4
    public_images: int = 128
    query_images: int = 32
    count_weight: float = 1 / 3

    def __post_init__(self) -> None:
        if min(self.code_steps, self.code_draws, self.public_tasks, self.public_images, self.query_images) < 1:
            raise UserError(f"options.dpagg: {self}: expected numbers of steps, draws, tasks and images of at least 1")


class DPAgg(Method):
    """Each record's own LoRA code in a random subspace, averaged and noised once."""

    label = "DPAgg"
    colour = "#AA4499"
    marker = "D"
    order = 210
    about = About(
        source="DPAgg-TI, Peetathawatchai et al. 2024 (arXiv:2411.14639), carried from textual inversion to LoRA.",
        public_data="The unit of clipping and the scale of the decoded mean are chosen on `public_tasks` public "
        "tasks, at the noise of the release.",
        private_release="The mean of the records' own LoRA codes, k numbers clipped to norm 1, once, with the count "
        "under add-or-remove-one.",
        passes="`code_steps` times `code_draws` gradients of k numbers.",
        departures="Codes lie in k frozen random directions of the LoRA. They are clipped, not normalised. No "
        "subsampling, which does not help a single mean. No official code was found.",
    )
    role: ClassVar[Role] = "method"
    selection: ClassVar[Selection] = "tuned_public"
    uses = frozenset({"task", "n", "epsilon", "embedding_dim", "seed"})
    reads_public = True
    options_type = DPAggOptions
    quick_options = {"code_steps": 2, "code_draws": 1, "public_tasks": 2, "public_images": 4, "query_images": 4}
    _options: DPAggOptions
    basis_kP: Tensor

    def __init__(self, target: Target, options: Options, *, embedding_dim: int) -> None:
        super().__init__(target, options, embedding_dim=embedding_dim)
        if not 1 <= embedding_dim <= self.target.num_parameters:
            raise UserError(
                f"embedding_dim = {embedding_dim}: expected from 1 to {self.target.num_parameters}, the LoRA's "
                "parameters"
            )
        normal_Pk = torch.randn(self.target.num_parameters, embedding_dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("basis_kP", torch.linalg.qr(normal_Pk).Q.T.to(self.target.initial().device))

    def codes(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """(b, k) the code of each record: where it ends that descends its own loss, at times and noises of its own."""
        options = self._options
        code_bk = x.new_zeros(len(x), self.embedding_dim)
        for _ in range(options.code_steps if len(x) else 0):
            gradient_bk = torch.zeros_like(code_bk)
            for _ in range(options.code_draws):
                start_bk = code_bk.detach().requires_grad_()
                loss = self.target.per_example_loss(start_bk @ self.basis_kP, x, rng).sum()
                gradient_bk += torch.autograd.grad(loss, start_bk)[0] / options.code_draws
            code_bk = code_bk - options.code_rate * gradient_bk
        return code_bk

    @classmethod
    def mechanisms(cls, budget: Budget, options: DPAggOptions) -> tuple[OneShotMean, ...]:
        """The one release, with the noise multiplier that spends the whole budget."""
        return calibrate(budget, OneShotMean(l2_clip_norm=1.0, count_weight=options.count_weight))

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        """Release the mean code and decode it."""
        options = self._options
        x_TQ = self.public.draw(options.public_tasks, options.public_images + options.query_images, rng)
        support, query = x_TQ.split([options.public_images, options.query_images], 1)
        public_TQk = torch.stack([self.codes(x, rng) for x in support])
        unit = public_TQk.norm(dim=-1).median().clamp(min=1e-12)
        (mechanism,) = self.mechanisms(budget, options)
        release = private.release_mean(lambda x, secret: self.codes(x, secret) / unit, mechanism, role="mean code")
        clipped_TQk = clip_embedding(public_TQk / unit, self.embedding_dim)
        scale = self.choose_scale(clipped_TQk.mean(1), query, release.noise_std, rng)
        return Adaptation(theta=scale * release.mean.to(self.basis_kP) @ self.basis_kP)

    @torch.no_grad()
    def choose_scale(self, mean_Tk: Tensor, query: Tensor, noise_std: float, rng: torch.Generator) -> float:
        """Choose the scale of `SCALES` that has the least loss on public tasks at the noise of the release.

        Args:
            mean_Tk: Mean codes of the tasks, without noise.
            query: (T, Q, ...) other records of these tasks, as far as a task has so many.
            noise_std: Standard deviation of the noise that is added to each coordinate of a mean code.
            rng: Source of that noise and of times and noises; all scales meet the same draws.
        """
        noise_Tk = torch.randn(mean_Tk.shape, generator=rng, device=rng.device).to(mean_Tk)
        theta_TP = (mean_Tk + noise_std * noise_Tk) @ self.basis_kP
        theta = theta_TP.repeat_interleave(query.shape[1], 0)
        seed = int(torch.randint(2**62, (1,), generator=rng, device=rng.device))

        def loss(scale: float) -> float:
            draws = torch.Generator(rng.device).manual_seed(seed)
            return float(
                self.target.per_example_loss(scale * theta, query.flatten(0, 1), draws, stratified=True).mean()
            )

        return min(SCALES, key=loss)
