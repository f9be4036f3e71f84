"""A LoRA around a diffusion network as a target: a U-Net or a transformer, on pixels or on latents.

A is frozen and random, the parameter vector θ is the concatenation of all B, so θ = 0 is the base model itself. Frozen
A keeps the model linear in θ inside each layer and removes the gauge freedom (A R, R⁻¹B). Where norms are adapted too,
θ ends with what is added to the scale and the shift of each of their channels. Losses, gradients and samples
are functions of θ: no call leaves a trace of one θ in the next.

Shapes: b examples, P parameters of θ, C H W channels, height, width of what the network sees: images in [-1, 1], or
latents.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from typing import Any, cast

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from numpy.typing import NDArray
from opacus import GradSampleModule
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.func import functional_call

from dphyper.core.errors import UserError, unknown_name
from dphyper.core.specs import content_hash
from dphyper.targets.all_weights import AllWeights
from dphyper.targets.conditioned import Conditioned
from dphyper.targets.diffusion import corrupt
from dphyper.targets.restricted import Restricted
from dphyper.targets.spaces import Pixels, Space
from dphyper.targets.target import Target

# Opacus' hooks make torch note at every backward pass that the frozen layers before the first B have no gradient, which
# is the point of them.
warnings.filterwarnings("ignore", "Full backward hook is firing")

LORA_MODULES = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "feed_forward": ("ff.net.0.proj", "ff.net.2"),
    "time": ("linear_1", "linear_2", "time_emb_proj", "norm1.linear"),
    "convolutions": ("conv1", "conv2", "conv_shortcut"),
    "resampling": ("downsamplers.0.conv", "upsamplers.0.conv"),
    "ends": ("conv_in", "conv_out"),
}
"""Groups of layers that a LoRA may change, by the ends of their modules' names: attention projections with their output
projection, the linear layers of transformer blocks, the time embedding with its projection into each block, the
convolutions of the ResNet blocks, those between the levels, and the first and the last one."""

NORMS = "norms"
"""The group of all group norms, which have no LoRA: their scales and shifts are free themselves."""

GROUPS = (*LORA_MODULES, NORMS)


def inject_lora(net: nn.Module, *, rank: int, layers: Sequence[str]) -> nn.Module:
    """Put LoRA layers of scale 1 into a network.

    Args:
        net: Changed in place.
        rank: At most that of the layer's inputs is used.
        layers: Some of `GROUPS`, or patterns of layers' names.

    Raises:
        UserError: An unknown group, a pattern that no layer matches, or none.
    """
    if not layers:
        raise UserError(f"base.layers is empty: expected some of {', '.join(GROUPS)}, or patterns of layers' names")
    able = _able(net)
    for entry in layers:
        if entry in GROUPS:
            continue
        if not _is_pattern(entry):
            raise unknown_name("group of layers in base.layers", entry, GROUPS)
        if not any(_belongs(name, entry) for name in able):
            some = ", ".join(map(_own_name, list(able)[:: max(len(able) // 4, 1)]))
            raise UserError(
                f"base.layers: the pattern '{entry}' matches none of the {len(able)} linear and convolutional layers, "
                f"such as {some}"
            )
    ranks = {
        name: min(rank, module.weight[0].numel())
        for name, module in able.items()
        if any(_belongs(name, entry) for entry in layers)
    }
    if not ranks:
        if NORMS in layers and any(isinstance(module, nn.GroupNorm) for module in net.modules()):
            return net
        raise UserError(f"base.layers = {list(layers)}: the model has no such layer, choose others")
    # The scale is alpha over the rank; it is kept at 1 where the layer has a smaller rank.
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(ranks), rank_pattern=ranks, alpha_pattern=ranks)
    injected: nn.Module = inject_adapter_in_model(config, net)
    return injected


def _able(net: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers that can have a LoRA, by name."""
    return {name: module for name, module in net.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}


def _is_pattern(entry: str) -> bool:
    return any(sign in entry for sign in "*?.")


def _own_name(name: str) -> str:
    """The name of a layer in the network itself, without what fixes its condition."""
    return name.removeprefix("net.")


def _belongs(name: str, entry: str) -> bool:
    """Whether a layer is of a group, or matches a pattern.

    >>> _belongs("down_blocks.0.attentions.1.to_q", "attention"), _belongs("net.mid_block.conv1", "mid_block.*")
    (True, True)
    >>> _belongs("mid_block.conv1", "attention"), _belongs("mid_block.conv1", "mid")
    (False, False)
    """
    if entry in GROUPS:
        return f".{name}".endswith(tuple(f".{end}" for end in LORA_MODULES.get(entry, ())))
    return fnmatchcase(_own_name(name), entry)


class LoRADiffusion(Target):
    """A frozen network and the LoRA around it.

    Args:
        unet: The pre-trained model, a ``UNet2DModel`` or another network whose condition is fixed; LoRA layers are
            injected into it in place.
        scheduler: Its noise schedule and prediction type.
        rank: LoRA rank r; in a layer of fewer inputs, as many as these.
        layers: The parts that are adapted, some of `GROUPS` or patterns of layers' names.
        sampling_steps: Steps of DPM-Solver++ when images are drawn.
        seed: Seed of the frozen A (orthonormal rows).
        space: Pixels or latents; the pixels of a ``UNet2DModel`` if not given.
        guidance_scale: Of classifier-free guidance when images are drawn; 1 for none.

    Raises:
        UserError: An unknown group, a pattern that no layer matches, or none.
    """

    def __init__(
        self,
        unet: UNet2DModel | Conditioned,
        scheduler: DDPMScheduler,
        *,
        rank: int,
        layers: Sequence[str],
        sampling_steps: int,
        seed: int,
        space: Space | None = None,
        guidance_scale: float = 1.0,
    ) -> None:
        unet.requires_grad_(False)
        self._possible = len(_able(unet))
        self.unet: Any = inject_lora(unet, rank=rank, layers=layers).eval()
        self.scheduler, self._rank, self._groups, self._seed = scheduler, rank, tuple(layers), seed
        self.sampling_steps, self._guidance_scale = sampling_steps, guidance_scale
        self._space = space or pixels_of(unet.config)
        self.image_shape = self._space.shape
        rng = torch.Generator().manual_seed(seed)
        self._layers: dict[str, Any] = {}
        self._factors: list[nn.Linear | nn.Conv2d] = []
        self._norms: dict[str, nn.GroupNorm] = {}
        self._slices: list[slice] = []
        self._parts: tuple[Tensor, ...] = ()
        start = 0
        modules = dict(self.unet.named_modules())
        for name, module in modules.items():
            if name.endswith("lora_A.default"):
                fan_in = module.weight[0].numel()
                weight = torch.linalg.qr(torch.randn(fan_in, len(module.weight), generator=rng)).Q.T
                module.weight = nn.Parameter(weight.to(module.weight).view_as(module.weight), requires_grad=False)
                # Opacus unfolds what enters B by strides that it takes to be contiguous; convolutions on small images
                # return channels last, and its gradients would be wrong without a word.
                module.register_forward_hook(lambda m, args, out: out.contiguous())
            elif name.endswith("lora_B.default"):
                index = len(self._factors)
                layer = name.removesuffix(".lora_B.default")
                self._layers[layer] = self.unet.get_submodule(layer)
                module.weight.requires_grad_(True)
                module.register_forward_hook(lambda m, args, out, i=index: self._generated(i, args[0], out))
                self._factors.append(module)
                self._slices.append(slice(start, start := start + module.weight.numel()))
        for name, module in modules.items():
            if NORMS in layers and isinstance(module, nn.GroupNorm):
                module.requires_grad_(True)
                index = len(self._slices)
                module.register_forward_hook(lambda m, args, out, i=index: self._shifted(m, args[0], out, i))
                self._norms[name] = module
                self._slices.append(slice(start, start := start + 2 * module.num_channels))
        self.num_parameters = start
        self._feature_blocks = _feature_blocks(self.unet)
        self.num_features = math.prod(self.image_shape) + sum(width for _, width in self._feature_blocks)
        self._grad_sample: Any = GradSampleModule(self.unet, loss_reduction="sum").eval()
        self._grad_sample.disable_hooks()
        for norm in self._norms.values():  # opacus has seen that they are free; elsewhere θ alone has a gradient
            norm.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        device: torch.device = self.unet.device
        return device

    def initial(self) -> Tensor:
        """θ = 0, the base model; shape (P,)."""
        return torch.zeros(self.num_parameters, device=self.device)

    def encode(self, records: NDArray[Any]) -> Tensor:
        """(b, H, W, C) uint8 images to (b, C, H, W), each by itself, on the model's device."""
        return self._space.encode(records, self.device)

    def bound(self, x: Tensor) -> Tensor:
        """Pixels in [-1, 1], latents as they are."""
        return self._space.bound(x)

    @property
    def account(self) -> list[str]:
        """Of how many layers a LoRA is, and how many parameters that makes."""
        entries = {entry: sum(_belongs(name, entry) for name in self._layers) for entry in self._groups}
        entries |= {NORMS: len(self._norms)} if NORMS in self._groups else {}
        shares = ", ".join(f"{entry} {count}" for entry, count in entries.items())
        return [
            f"a LoRA of rank {self._rank} on {len(self._layers)} of {self._possible} linear and convolutional layers "
            f"({shares}): {self.num_parameters:,} parameters"
        ]

    @property
    def layout(self) -> str:
        """Hash of what the numbers of θ stand for: layers, shapes, and the seed of A."""
        names = [*self._layers, *self._norms]
        return content_hash([names, self.layer_shapes, self._seed])

    def all_weights(self) -> Target:
        """The U-Net with θ the difference of all its weights from the base model's."""
        return AllWeights(self)

    def restricted(self, rank: int, layers: Sequence[str]) -> Target:
        """A LoRA of smaller rank, or on fewer layers, inside this one."""
        if rank > self._rank:
            raise UserError(f"options.rank = {rank}: expected at most the target's, base.rank = {self._rank}")
        for group in layers:
            if group not in self._groups:
                raise unknown_name("group of layers in options.layers", group, self._groups)
        groups = layers or self._groups
        free, shapes = [], []
        names = (*self._layers, *self._norms)
        for name, part, (rows, columns) in zip(names, self._slices, self.layer_shapes, strict=True):
            if name in self._norms:
                kept = columns if NORMS in groups else 0
            else:
                kept = min(rank or columns, columns) if any(_belongs(name, group) for group in groups) else 0
            free.append(torch.arange(part.start, part.stop).view(rows, columns)[:, :kept].flatten())
            shapes += [(rows, kept)] if kept else []
        return Restricted(self, torch.cat(free), shapes)

    @property
    def layer_shapes(self) -> list[tuple[int, int]]:
        """(out_features, rank) of each B, then (channels, 2) of each norm, in the order in which they lie in θ."""
        factors = [(factor.weight.shape[0], factor.weight.shape[1]) for factor in self._factors]
        return factors + [(norm.num_channels, 2) for norm in self._norms.values()]

    def _generated(self, index: int, a_B_R: Tensor, out: Tensor) -> Tensor:
        """Output of one B when θ is bound, which may differ between the examples of a batch."""
        if not self._parts:
            return out
        weight = self._parts[index].unflatten(-1, self.layer_shapes[index])
        if isinstance(self._factors[index], nn.Conv2d):  # B of a convolution is 1×1: channels times weight
            flat: Tensor = weight @ a_B_R.flatten(2)
            return flat.view(*flat.shape[:2], *a_B_R.shape[2:])
        if weight.dim() == 2:
            delta: Tensor = a_B_R @ weight.T
        else:
            flat = a_B_R.reshape(len(a_B_R), -1, a_B_R.shape[-1])
            delta = (flat @ weight.mT).reshape(*a_B_R.shape[:-1], -1)
        return delta

    def _shifted(self, norm: nn.GroupNorm, x: Tensor, out: Tensor, index: int) -> Tensor:
        """Output of one norm when θ is bound, which may differ between the examples of a batch."""
        if not self._parts:
            return out
        change = self._parts[index].unflatten(-1, (norm.num_channels, 2))
        change = change.unflatten(-2, (norm.num_channels, *(1,) * (x.dim() - 2)))
        shape = (-1, *(1,) * (x.dim() - 2))
        scale = norm.weight.view(shape) + change[..., 0]
        shift = norm.bias.view(shape) + change[..., 1]
        normed: Tensor = nn.functional.group_norm(x, norm.num_groups, eps=norm.eps)
        shifted: Tensor = normed * scale + shift
        return shifted

    def predict(self, theta: Tensor, x: Tensor, t: Tensor | int) -> Tensor:
        """What the adapted U-Net predicts of noisy images at time ``t``; differentiable in θ, (P,) or (b, P), and x."""
        if theta.dim() == 1:
            with self._without_adapters():
                merged: Tensor = functional_call(self.unet, self._merged(theta), (x, t), {"return_dict": False})[0]
            return merged
        with self._bound(theta):
            predicted: Tensor = self.unet(x, t, return_dict=False)[0]
        return predicted

    def _merged(self, theta: Tensor) -> dict[str, Tensor]:
        """The weights W + B A of the layers that θ changes; one θ for all images needs no second path through them."""
        weights = {}
        changes = [theta[part].view(shape) for part, shape in zip(self._slices, self.layer_shapes, strict=True)]
        for (name, layer), b in zip(self._layers.items(), changes, strict=False):
            base, a = layer.base_layer.weight, layer.lora_A["default"].weight
            weights[f"{name}.base_layer.weight"] = base + (b @ a.flatten(1)).view_as(base)
        for (name, norm), change in zip(self._norms.items(), changes[len(self._layers) :], strict=True):
            weights[f"{name}.weight"] = norm.weight + change[:, 0]
            weights[f"{name}.bias"] = norm.bias + change[:, 1]
        return weights

    @contextmanager
    def _without_adapters(self) -> Iterator[None]:
        """Switch the LoRA layers off; peft's own switch would also change what has a gradient."""
        for layer in self._layers.values():
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer in self._layers.values():
                layer._disable_adapters = False

    @contextmanager
    def _bound(self, theta: Tensor) -> Iterator[None]:
        # Cut at once: the gradient of a slice is as long as all of θ, and there would be one for each layer.
        self._parts = theta.split([part.stop - part.start for part in self._slices], -1)
        try:
            yield
        finally:
            self._parts = ()

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
        # Image-major order, so that the K draws of an image lie together.
        drawn = corrupt(self.scheduler, x.repeat_interleave(multiplicity, 0), rng, stratified=False)
        # Opacus listens to modules in training; no other may be, for dropout would draw from the global generator.
        self._listen(True)
        # As many at once as there are images: K draws take K times as long, and no more memory than one.
        parts = zip(*(whole.split(len(x)) for whole in drawn), strict=True)
        with self._held(theta):
            rows = torch.cat([self._hooked_gradients(*part) for part in parts])
        self._listen(False)
        return rows.view(len(x), multiplicity, -1).mean(1)

    def _listen(self, on: bool) -> None:
        """Switch opacus' hooks on or off."""
        for module in (*self._factors, *self._norms.values()):
            module.train(on)
        (self._grad_sample.enable_hooks if on else self._grad_sample.disable_hooks)()

    @contextmanager
    def _held(self, theta: Tensor) -> Iterator[None]:
        """Put θ into the modules themselves, where opacus' hooks look for it."""
        matrices = [theta[part].view(shape) for part, shape in zip(self._slices, self.layer_shapes, strict=True)]
        norms = [parameter for norm in self._norms.values() for parameter in (norm.weight, norm.bias)]
        base = [parameter.detach().clone() for parameter in norms]
        changes = [column for matrix in matrices[len(self._factors) :] for column in matrix.unbind(1)]
        with torch.no_grad():
            for factor, matrix in zip(self._factors, matrices, strict=False):
                factor.weight.copy_(matrix.view_as(factor.weight))
            for parameter, change in zip(norms, changes, strict=True):
                parameter.add_(change).requires_grad_(True)
        try:
            yield
        finally:
            with torch.no_grad():
                for factor in self._factors:
                    factor.weight.zero_()
                for parameter, value in zip(norms, base, strict=True):
                    parameter.copy_(value).requires_grad_(False)

    def _hooked_gradients(self, noisy: Tensor, t_B: Tensor, wanted: Tensor) -> Tensor:
        """(b, P) gradients at the weights that the modules hold, by opacus' hooks."""
        predicted = self._grad_sample(noisy, t_B, return_dict=False)[0]
        (predicted - wanted).square().flatten(1).mean(1).sum().backward()
        parts = [_rows(factor.weight).flatten(1) for factor in self._factors]
        norms = self._norms.values()
        parts += [torch.stack([_rows(norm.weight), _rows(norm.bias)], 2).flatten(1) for norm in norms]
        rows = torch.cat(parts, 1)
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
            images.append(self._space.decode(self._denoise(theta, x, rng, begin_at=0)))
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
            parts.append(self._space.bound(self._denoise(theta, noisy, rng, begin_at=begin_at)))
        return torch.cat(parts)

    def few_step_samples(self, theta: Tensor, num: int, steps: int, rng: torch.Generator) -> Tensor:
        """Images of a deterministic sampler of few steps (DDIM, Song et al. 2021), differentiable in θ.

        Args:
            theta: (P,).
            num: b.
            steps: Steps from pure noise, evenly spaced.
            rng: Source of the initial noise.

        Returns:
            (b, C, H, W) predicted clean images of the last step, pixels clamped to [-1, 1].
        """
        alpha_t = self.scheduler.alphas_cumprod.to(theta)
        times = np.linspace(len(alpha_t) - 1, 0, steps + 1).round().astype(int)[:-1].tolist()
        x = torch.randn((num, *self.image_shape), generator=rng, device=rng.device).to(theta)
        clean = x
        for step, t in enumerate(times):
            kept, lost = alpha_t[t].sqrt(), (1 - alpha_t[t]).sqrt()
            predicted = self.predict(theta, x, t)
            kind = self.scheduler.config["prediction_type"]
            if kind == "v_prediction":
                clean = kept * x - lost * predicted
            else:
                clean = (x - lost * predicted) / kept if kind == "epsilon" else predicted
            clean = self._space.bound(clean)
            if step + 1 < steps:
                noise = (x - kept * clean) / lost
                following = alpha_t[times[step + 1]]
                x = following.sqrt() * clean + (1 - following).sqrt() * noise
        return clean

    def _noise(self, size: int, rng: torch.Generator) -> Tensor:
        return torch.randn((size, *self.image_shape), generator=rng, device=rng.device).to(self.device)

    def _solver(self) -> DPMSolverMultistepScheduler:
        solver = DPMSolverMultistepScheduler.from_config(
            self.scheduler.config,
            algorithm_type="sde-dpmsolver++",
            final_sigmas_type="zero",
            # A schedule that was saved names its spacing, a new one leaves it to the solver, whose default is another.
            timestep_spacing=self.scheduler.config["timestep_spacing"],
        )
        solver.set_timesteps(self.sampling_steps)
        return solver

    def _denoise(self, theta: Tensor, x: Tensor, rng: torch.Generator, *, begin_at: int) -> Tensor:
        """Walk the sampler's steps from the given one to the end."""
        solver = self._solver()
        solver.set_begin_index(begin_at)
        for t in solver.timesteps[begin_at:]:
            predicted = self._guided(theta, x, t)
            x = solver.step(predicted, t, x, variance_noise=self._noise(len(x), rng), return_dict=False)[0]
        return x

    def _guided(self, theta: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The prediction under classifier-free guidance (Ho and Salimans 2022, equation 6, with scale 1 for none)."""
        predicted = self.predict(theta, x, t)
        if self._guidance_scale == 1:
            return predicted
        with self.unet.unconditional():
            free = self.predict(theta, x, t)
        return free + self._guidance_scale * (predicted - free)

    def features(self, x: Tensor, batch_size: int = 512) -> Tensor:
        """Pixels, and activations of the base model on the clean image averaged over space; each image by itself.

        Args:
            x: (b, C, H, W) in [-1, 1].
            batch_size: Images at once; changes nothing but memory and speed.

        Returns:
            (b, F): C·H·W pixels, then spatial means of the outputs of some blocks: of a U-Net the down blocks and the
            middle block, of a transformer those at a quarter and at half of its depth; differentiable in ``x``.
        """
        # A tenth of the schedule: little enough noise level for the image to be taken as it is.
        t = self.scheduler.config["num_train_timesteps"] // 10
        caught: list[Tensor] = []

        def catch(block: nn.Module, args: object, out: Any) -> None:
            caught.append(out[0] if isinstance(out, tuple) else out)
            if block is blocks[-1]:
                raise _SeenEnoughError

        blocks = [block for block, _ in self._feature_blocks]
        handles = [block.register_forward_hook(catch) for block in blocks]
        try:
            rows = []
            for part in x.split(batch_size):
                caught.clear()
                with suppress(_SeenEnoughError):
                    self.unet(part, t)
                rows.append(torch.cat([part.flatten(1), *map(_spatial_mean, caught)], 1))
        finally:
            for handle in handles:
                handle.remove()
        return torch.cat(rows)


def _rows(parameter: Tensor) -> Tensor:
    """(b, …) the gradients of single examples that opacus left on a parameter."""
    rows: Tensor = cast(Any, parameter).grad_sample
    return rows


class _SeenEnoughError(Exception):
    """Ends a forward pass behind the last activation that is wanted; the rest would be most of the work."""


def _spatial_mean(activation: Tensor) -> Tensor:
    """(b, width) of a U-Net's (b, width, H, W), or of a transformer's (b, tokens, width)."""
    return activation.mean((2, 3)) if activation.dim() == 4 else activation.mean(1)


def _feature_blocks(unet: nn.Module) -> list[tuple[nn.Module, int]]:
    """The blocks whose outputs are features, in the order in which they run, with the width of each."""
    net: Any = unet.net if isinstance(unet, Conditioned) else unet
    if hasattr(net, "transformer_blocks"):
        width = net.config["num_attention_heads"] * net.config["attention_head_dim"]
        depth = len(net.transformer_blocks)
        # The middle of a diffusion model knows most of what is in an image (Xiang et al. 2023, arXiv:2303.09769).
        return [(net.transformer_blocks[place], width) for place in sorted({depth // 4, depth // 2})]
    widths = [*net.config["block_out_channels"], net.config["block_out_channels"][-1]]
    return list(zip((*net.down_blocks, net.mid_block), widths, strict=True))


def pixels_of(config: Any) -> Pixels:
    """The pixels of a ``UNet2DModel`` of this configuration."""
    size = config["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return Pixels((config["in_channels"], height, width))
