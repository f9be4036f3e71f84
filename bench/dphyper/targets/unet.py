"""The target: the generative model whose parameters a method produces.

`LoRADiffusion` is a diffusers U-Net with a peft LoRA whose A is frozen and random; the parameter vector θ is
the concatenation of all B, so θ = 0 is the base model itself. Frozen A keeps the model linear in θ inside each
layer and removes the gauge freedom (A R, R⁻¹B). Losses, gradients and samples are functions of θ: no call
leaves a trace of one θ in the next. Nothing here knows about privacy; clipping and noise live in
`dphyper.privacy`.

Shapes: b examples, P parameters of θ, C H W image channels, height, width; images are float32 in [-1, 1] here
and uint8 everywhere outside.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, cast

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from numpy.typing import NDArray
from opacus import GradSampleModule
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

# Opacus' hooks make torch note at every backward pass that the frozen layers before the first B have no gradient, which
# is the point of them.
warnings.filterwarnings("ignore", "Full backward hook is firing")

LORA_MODULES = {
    "attention": ["to_q", "to_k", "to_v", "to_out.0", "linear_1", "linear_2", "time_emb_proj"],
    "convolutions": ["conv1", "conv2", "conv_shortcut"],
}
"""Attention projections, their output projection and the time embedding (with its projection into each block); and the
convolutions of the ResNet blocks."""


class Target(Protocol):
    """What a method may ask of the model it produces parameters for.

    Attributes:
        num_parameters: P, the length of θ.
        num_features: F, the features of a record.
    """

    num_parameters: int
    num_features: int

    def initial(self) -> Tensor:
        """The (P,) parameters of the public model: what is used when nothing private is known."""
        ...

    def per_example_loss(
        self, theta: Tensor, x: Tensor, rng: torch.Generator | None, *, stratified: bool = False
    ) -> Tensor:
        """The (b,) losses of ``x`` under one θ of shape (P,), or under one for each example, (b, P).

        ``stratified`` may tie the randomness of the examples together, to make their mean vary less. On private
        records it must be off: there each record's loss may depend on itself and its own randomness alone.
        """
        ...

    def per_example_gradients(self, theta: Tensor, x: Tensor, rng: torch.Generator, multiplicity: int) -> Tensor:
        """The (b, P) gradients of the loss, each averaged over ``multiplicity`` draws of its own randomness."""
        ...

    def sample(self, theta: Tensor, num: int, rng: torch.Generator) -> NDArray[np.uint8]:
        """``num`` generated records."""
        ...

    def vary(self, theta: Tensor, x: Tensor, strength: float, rng: torch.Generator) -> Tensor:
        """Records like each of ``x``, the less so the greater ``strength`` (0 to 1), under the model at θ."""
        ...

    def features(self, x: Tensor) -> Tensor:
        """(b, F) features of each record by itself, from its values and the public model; differentiable in ``x``."""
        ...


def to_unit(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (N, H, W, C) to float32 (N, C, H, W) in [-1, 1].

    >>> to_unit(np.array([[[[255], [0]]]], np.uint8)).flatten().tolist()
    [1.0, -1.0]
    """
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def to_uint8(x_BCHW: Tensor) -> NDArray[np.uint8]:
    """Inverse of `to_unit`, rounded and clipped."""
    return x_BCHW.add(1.0).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


class LoRADiffusion:
    """A frozen U-Net and the LoRA around it.

    Args:
        unet: The pre-trained model; LoRA layers are injected into it in place.
        scheduler: Its noise schedule and prediction type.
        rank: LoRA rank r.
        sampling_steps: Steps of DPM-Solver++ when images are drawn.
        seed: Seed of the frozen A (orthonormal rows).
        convolutions: Whether the convolutions of the ResNet blocks have a LoRA too.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: DDPMScheduler,
        *,
        rank: int,
        sampling_steps: int,
        seed: int,
        convolutions: bool = False,
    ) -> None:
        unet.requires_grad_(False)
        wanted = LORA_MODULES["attention"] + (LORA_MODULES["convolutions"] if convolutions else [])
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=wanted)
        self.unet = inject_adapter_in_model(config, unet).eval()
        self.scheduler = scheduler
        self.sampling_steps = sampling_steps
        self.image_shape = (unet.config["in_channels"], *_pair(unet.config["sample_size"]))
        rng = torch.Generator().manual_seed(seed)
        self._factors: list[nn.Linear | nn.Conv2d] = []
        self._slices: list[slice] = []
        self._theta: Tensor | None = None
        start = 0
        for name, module in self.unet.named_modules():
            if name.endswith("lora_A.default"):
                fan_in = module.weight[0].numel()
                weight = torch.linalg.qr(torch.randn(fan_in, rank, generator=rng)).Q.T
                module.weight = nn.Parameter(weight.to(module.weight).view_as(module.weight), requires_grad=False)
                # Opacus unfolds what enters B by strides that it takes to be contiguous; convolutions on small images
                # return channels last, and its gradients would be wrong without a word.
                module.register_forward_hook(lambda m, args, out: out.contiguous())
            elif name.endswith("lora_B.default"):
                index = len(self._factors)
                module.weight.requires_grad_(True)
                module.register_forward_hook(lambda m, args, out, i=index: self._generated(i, args[0], out))
                self._factors.append(module)
                self._slices.append(slice(start, start := start + module.weight.numel()))
        self.num_parameters = start
        widths = [*unet.config["block_out_channels"], unet.config["block_out_channels"][-1]]
        self.num_features = math.prod(self.image_shape) + sum(widths)
        self._grad_sample: Any = GradSampleModule(self.unet, loss_reduction="sum").eval()
        self._grad_sample.disable_hooks()

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self._factors[0].weight.device

    def initial(self) -> Tensor:
        """θ = 0, the base model; shape (P,)."""
        return torch.zeros(self.num_parameters, device=self.device)

    @property
    def layer_shapes(self) -> list[tuple[int, int]]:
        """(out_features, rank) of each B, in the order in which they lie in θ."""
        return [(factor.weight.shape[0], factor.weight.shape[1]) for factor in self._factors]

    def _generated(self, index: int, a_B_R: Tensor, out: Tensor) -> Tensor:
        """Output of one B when θ is bound, which may differ between the examples of a batch."""
        if self._theta is None:
            return out
        weight = self._theta[..., self._slices[index]].unflatten(-1, self.layer_shapes[index])
        if isinstance(self._factors[index], nn.Conv2d):  # B of a convolution is 1×1: channels times weight
            flat: Tensor = weight @ a_B_R.flatten(2)
            return flat.view(*flat.shape[:2], *a_B_R.shape[2:])
        if weight.dim() == 2:
            delta: Tensor = a_B_R @ weight.T
        else:
            flat = a_B_R.reshape(len(a_B_R), -1, a_B_R.shape[-1])
            delta = (flat @ weight.mT).reshape(*a_B_R.shape[:-1], -1)
        return delta

    def predict(self, theta: Tensor, x: Tensor, t: Tensor | int) -> Tensor:
        """What the adapted U-Net predicts of noisy images at time ``t``; differentiable in θ, (P,) or (b, P), and x."""
        with self._bound(theta):
            predicted: Tensor = self.unet(x, t, return_dict=False)[0]
        return predicted

    @contextmanager
    def _bound(self, theta: Tensor) -> Iterator[None]:
        self._theta = theta
        try:
            yield
        finally:
            self._theta = None

    def per_example_loss(
        self, theta: Tensor, x: Tensor, rng: torch.Generator | None, *, stratified: bool = False
    ) -> Tensor:
        """Denoising loss of each image at one random time and noise; differentiable in θ.

        Args:
            theta: (P,), or (b, P) for one θ for each image.
            x: (b, C, H, W) in [-1, 1].
            rng: Source of times and noises; None for torch's global one.
            stratified: As in `corrupt`; never for private images.

        Returns:
            (b,) mean squared errors.
        """
        noisy, t_B, wanted = corrupt(self.scheduler, x, rng, stratified=stratified)
        return (self.predict(theta, noisy, t_B) - wanted).square().flatten(1).mean(1)

    def per_example_gradients(self, theta: Tensor, x: Tensor, rng: torch.Generator, multiplicity: int) -> Tensor:
        """Gradients of the denoising loss by opacus' hooks on the B factors.

        Args:
            theta: (P,).
            x: (b, C, H, W) in [-1, 1]; b = 0 gives an empty result.
            rng: Source of times and noises.
            multiplicity: K draws of (time, noise) whose gradients are averaged for each image, before any
                clipping (Dockhorn et al. 2023, section 3.2).

        Returns:
            (b, P) float32.
        """
        if not len(x):
            return x.new_zeros(0, self.num_parameters)
        with torch.no_grad():
            for factor, part in zip(self._factors, self._slices, strict=True):
                factor.weight.copy_(theta[part].view_as(factor.weight))
        # Image-major order, so that the K draws of an image lie together.
        drawn = corrupt(self.scheduler, x.repeat_interleave(multiplicity, 0), rng, stratified=False)
        self._grad_sample.train()
        self._grad_sample.enable_hooks()
        # As many at once as there are images: K draws take K times as long, and no more memory than one.
        parts = zip(*(whole.split(len(x)) for whole in drawn), strict=True)
        rows = torch.cat([self._hooked_gradients(*part) for part in parts])
        self._grad_sample.disable_hooks()
        self._grad_sample.eval()
        for factor in self._factors:
            nn.init.zeros_(factor.weight)
        return rows.view(len(x), multiplicity, -1).mean(1)

    def _hooked_gradients(self, noisy: Tensor, t_B: Tensor, wanted: Tensor) -> Tensor:
        """(b, P) gradients at the weights that the factors hold, by opacus' hooks."""
        predicted = self._grad_sample(noisy, t_B, return_dict=False)[0]
        (predicted - wanted).square().flatten(1).mean(1).sum().backward()
        rows = torch.cat([cast(Any, factor.weight).grad_sample.flatten(1) for factor in self._factors], 1)
        self._grad_sample.zero_grad(set_to_none=True)
        return rows

    @torch.no_grad()
    def sample(self, theta: Tensor, num: int, rng: torch.Generator, batch_size: int = 100) -> NDArray[np.uint8]:
        """Draw images by the stochastic DPM-Solver++ (Lu et al. 2022, SDE-DPM-Solver++(2M)).

        At a dozen steps its fresh noise repairs what the deterministic solver leaves wrong.

        Args:
            theta: (P,).
            num: Number of images.
            rng: Source of the initial noise and of that of every step.
            batch_size: Images at once; with another one the draws fall to other images.

        Returns:
            (num, H, W, C) uint8.
        """

        images = []
        for begin in range(0, num, batch_size):
            x = self._noise(min(batch_size, num - begin), rng)
            images.append(to_uint8(self._denoise(theta, x, rng, begin_at=0)))
        return np.concatenate(images)

    @torch.no_grad()
    def vary(self, theta: Tensor, x: Tensor, strength: float, rng: torch.Generator, batch_size: int = 100) -> Tensor:
        """Images like the given ones: noise them part of the way and denoise them again (Meng et al. 2022, SDEdit).

        Args:
            theta: (P,).
            x: (b, C, H, W) in [-1, 1].
            strength: Share of the sampler's steps that are walked back, above 0 and at most 1.
            rng: Source of the noise.
            batch_size: As in `sample`.

        Returns:
            (b, C, H, W) in [-1, 1].
        """
        begin_at = self.sampling_steps - max(round(strength * self.sampling_steps), 1)
        t = self._solver().timesteps[begin_at]
        parts = []
        for part in x.split(batch_size):
            noisy = self.scheduler.add_noise(part, self._noise(len(part), rng), t.expand(len(part)))
            parts.append(self._denoise(theta, noisy, rng, begin_at=begin_at).clamp(-1, 1))
        return torch.cat(parts)

    def _noise(self, size: int, rng: torch.Generator) -> Tensor:
        return torch.randn((size, *self.image_shape), generator=rng, device=rng.device).to(self.device)

    def _solver(self) -> DPMSolverMultistepScheduler:
        solver = DPMSolverMultistepScheduler.from_config(
            self.scheduler.config, algorithm_type="sde-dpmsolver++", final_sigmas_type="zero"
        )
        solver.set_timesteps(self.sampling_steps)
        return solver

    def _denoise(self, theta: Tensor, x: Tensor, rng: torch.Generator, *, begin_at: int) -> Tensor:
        """Walk the sampler's steps from the given one to the end."""
        solver = self._solver()
        solver.set_begin_index(begin_at)
        for t in solver.timesteps[begin_at:]:
            predicted = self.predict(theta, x, t)
            x = solver.step(predicted, t, x, variance_noise=self._noise(len(x), rng), return_dict=False)[0]
        return x

    def features(self, x: Tensor, batch_size: int = 512) -> Tensor:
        """Pixels, and activations of the base U-Net on the clean image averaged over space; each image by itself.

        Args:
            x: (b, C, H, W) in [-1, 1].
            batch_size: Images at once; changes nothing but memory and speed.

        Returns:
            (b, F): C·H·W pixels, then spatial means of every down block's and of the middle block's output;
            differentiable in ``x``.
        """
        # A tenth of the schedule: little enough noise level for the image to be taken as it is.
        t = self.scheduler.config["num_train_timesteps"] // 10
        caught: list[Tensor] = []

        def catch(block: nn.Module, args: object, out: Any) -> None:
            caught.append(out[0] if isinstance(out, tuple) else out)
            if block is self.unet.mid_block:
                raise _SeenEnoughError

        handles = [block.register_forward_hook(catch) for block in (*self.unet.down_blocks, self.unet.mid_block)]
        try:
            rows = []
            for part in x.split(batch_size):
                caught.clear()
                with suppress(_SeenEnoughError):
                    self.unet(part, t)
                rows.append(torch.cat([part.flatten(1), *(activation.mean((2, 3)) for activation in caught)], 1))
        finally:
            for handle in handles:
                handle.remove()
        return torch.cat(rows)


class _SeenEnoughError(Exception):
    """Ends a forward pass behind the last activation that is wanted; the rest would be most of the work."""


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def corrupt(
    scheduler: DDPMScheduler, x_BCHW: Tensor, rng: torch.Generator | None, *, stratified: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Add noise at random times.

    Args:
        scheduler: Noise schedule and prediction type.
        x_BCHW: Images in [-1, 1].
        rng: Source of times and noises; None for torch's global one.
        stratified: Spread the times of the batch evenly. Each is uniform still and the mean loss varies less, but a
            record that joins or leaves the batch changes the times of all others: for public images only.

    Returns:
        The noisy images, their (B,) times and what the U-Net should predict of them.
    """
    steps, size = scheduler.config["num_train_timesteps"], len(x_BCHW)
    device = rng.device if rng else x_BCHW.device
    if stratified:
        order = torch.randperm(size, generator=rng, device=device)
        time_B = (order + torch.rand(1, generator=rng, device=device)) / max(size, 1)
    else:
        time_B = torch.rand(size, generator=rng, device=device)
    t_B = (time_B * steps).long().clamp(max=steps - 1).to(x_BCHW.device)
    noise = torch.randn(x_BCHW.shape, generator=rng, device=device).to(x_BCHW)
    kind = scheduler.config["prediction_type"]
    if kind == "v_prediction":
        wanted = scheduler.get_velocity(x_BCHW, noise, t_B)
    else:
        wanted = noise if kind == "epsilon" else x_BCHW
    return scheduler.add_noise(x_BCHW, noise, t_B), t_B, wanted


def new_unet(
    *, image_size: int, channels: int, block_out_channels: tuple[int, ...], layers_per_block: int
) -> UNet2DModel:
    """An untrained U-Net with attention at every level but the first (at the only one, if there is one)."""
    levels = len(block_out_channels)
    attention = [level > 0 or levels == 1 for level in range(levels)]
    return UNet2DModel(
        sample_size=image_size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=layers_per_block,
        block_out_channels=block_out_channels,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        norm_num_groups=8,
        attention_head_dim=math.gcd(*block_out_channels, 16),
    )


def new_scheduler() -> DDPMScheduler:
    """Cosine schedule with velocity prediction (Salimans and Ho 2022), which trains well on small images."""
    return DDPMScheduler(
        num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=True
    )
