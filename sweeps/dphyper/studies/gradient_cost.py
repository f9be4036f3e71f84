"""What per-example gradients cost: ``python -m dphyper.studies.gradient_cost``.

`LoRADiffusion.per_example_gradients` stands beside the least that any gradient costs: a training step of the same LoRA
in plain PyTorch without a hook (forward, mean loss, backward). Steps of both kinds take turns, so other load on the
machine falls on both alike, and the time is the processor's. Peak memory is that of a process of its own for each case.
The numbers are those of one small U-Net, 16×16 images, on this machine; an accelerator or a larger U-Net has others.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from diffusers import UNet2DModel
from torch import Tensor

from dphyper.core.specs import BaseSpec
from dphyper.studies.command import run_command
from dphyper.studies.process import peak_mib, run_alone
from dphyper.targets.diffusion import corrupt, new_scheduler, new_unet
from dphyper.targets.lora import GROUPS, NORMS, LoRADiffusion, inject_lora

RANK = BaseSpec.rank
LAYERS = (("norms",), ("attention", "time"), ("attention", "time", "convolutions"), GROUPS)
WARM_UP = 3  # steps that are not timed
CASES = {"model alone": -1, "plain step": 0, "K = 1": 1, "K = 8": 8}
"""Draws of time and noise for each image; 0 is the plain step, and -1 no step at all."""

Step = Callable[[Tensor], object]


def main(batch: int = 64, rounds: int = 30, threads: int = 1) -> None:
    """Print one line of times and one of peak memory for each choice of LoRA layers.

    Args:
        batch: Images in a step.
        rounds: Of one step of each kind; medians are printed.
        threads: Of torch. The processor's time is that of all threads together.
    """
    torch.set_num_threads(threads)
    x = draw_images(batch)
    for layers in LAYERS:
        name = ", ".join(layers)
        plain, ours = make_plain_step(layers), make_per_example_step(layers, 1)
        turns = [(_seconds(plain, x), _seconds(ours, x)) for _ in range(WARM_UP + rounds)][WARM_UP:]
        times = [1e3 * statistics.median(column) for column in zip(*turns, strict=True)]
        ratio = statistics.median(second / first for first, second in turns)
        print(f"{name}: plain step {times[0]:.0f} ms, per-example gradients {times[1]:.0f} ms, ratio {ratio:.2f}")
        peaks = (f"{case} {run_alone(measure_peak, draws, layers, batch)}" for case, draws in CASES.items())
        print(f"{name}: peak memory in MiB: {', '.join(peaks)}")


def draw_images(batch: int) -> Tensor:
    """(b, 1, 16, 16) of uniform noise; time and memory do not depend on what is seen."""
    return torch.rand(batch, 1, 16, 16) * 2 - 1


def make_unet() -> UNet2DModel:
    """The untrained U-Net of the default base model."""
    return new_unet(image_size=16, channels=1, block_out_channels=(32, 64, 64), layers_per_block=1)


def make_plain_step(layers: Sequence[str]) -> Step:
    """One training step without hooks.

    `LoRADiffusion` would not do: opacus' hooks stay on its modules when they are switched off.
    """
    scheduler = new_scheduler()
    model = inject_lora(make_unet().requires_grad_(False), rank=RANK, layers=layers)
    for module in model.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.requires_grad_(NORMS in layers)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.requires_grad_("lora_B" in name)
    rng = torch.Generator().manual_seed(0)

    def step(x: Tensor) -> None:
        model.zero_grad(set_to_none=True)
        noisy, t_B, target = corrupt(scheduler, x, rng, stratified=False)
        (model(noisy, t_B, return_dict=False)[0] - target).square().mean().backward()

    return step


def make_per_example_step(layers: Sequence[str], multiplicity: int) -> Step:
    """The gradient of every image, by the code that private runs use."""
    target = LoRADiffusion(make_unet(), new_scheduler(), rank=RANK, layers=layers, sampling_steps=1, seed=0)
    theta, rng = target.initial(), torch.Generator().manual_seed(0)
    return lambda x: target.per_example_gradients(theta, x, rng, multiplicity)


def _seconds(step: Step, x: Tensor) -> float:
    begin = time.process_time()
    step(x)
    return time.process_time() - begin


def measure_peak(draws: int, layers: Sequence[str], batch: int) -> int:
    """Peak memory in MiB after a few steps, for a process that does nothing else; ``draws`` as in `CASES`."""
    torch.set_num_threads(1)
    step = make_per_example_step(layers, draws) if draws > 0 else make_plain_step(layers)
    for _ in range(WARM_UP if draws >= 0 else 0):
        step(draw_images(batch))
    return peak_mib()


if __name__ == "__main__":
    run_command(main)
