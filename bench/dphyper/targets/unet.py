"""The default kind of target, ``base.kind: unet``: a diffusers U-Net in pixel space with a LoRA.

The base model is trained from scratch on public images, or read from a diffusers pipeline folder (or a folder that
``UNet2DModel.save_pretrained`` wrote) of any image size and prediction type.

Shapes: C H W image channels, height, width; images are float32 in [-1, 1].
"""

import copy
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import DDPMScheduler, UNet2DModel
from numpy.typing import NDArray
from torch import Tensor, nn

from dphyper.core.errors import UserError
from dphyper.core.specs import BaseSpec
from dphyper.targets.diffusion import corrupt, new_scheduler, new_unet, to_unit
from dphyper.targets.lora import LoRADiffusion
from dphyper.targets.target import BaseModel


class UNetBase(BaseModel):
    """A U-Net and its noise schedule.

    Args:
        unet: Makes images of its own size and channels.
        scheduler: Noise schedule and prediction type.
    """

    version: ClassVar[int] = 1
    quick_spec = {"block_out_channels": (16, 32), "rank": 2, "sampling_steps": 3}

    def __init__(self, unet: UNet2DModel, scheduler: DDPMScheduler) -> None:
        super().__init__()
        self.unet, self.scheduler = unet, scheduler

    @classmethod
    def untrained(cls, spec: BaseSpec, *, image_size: int, channels: int) -> Self:
        """The U-Net of ``spec`` before training, initialised from its seed.

        Raises:
            UserError: Its levels cannot halve the images evenly.
        """
        levels = len(spec.block_out_channels)
        if image_size % 2 ** (levels - 1):
            raise UserError(
                f"data.image_size = {image_size} with {levels} levels in base.block_out_channels: expected a multiple "
                f"of {2 ** (levels - 1)}, for each level but the last halves the images"
            )
        with torch.random.fork_rng():
            torch.manual_seed(spec.seed)
            unet = new_unet(
                image_size=image_size,
                channels=channels,
                block_out_channels=spec.block_out_channels,
                layers_per_block=spec.layers_per_block,
            )
        return cls(unet, new_scheduler())

    @classmethod
    def load(cls, folder: Path, *, image_size: int, channels: int) -> Self:
        """Read a diffusers pipeline folder, or a folder that ``UNet2DModel.save_pretrained`` wrote.

        Args:
            folder: With ``unet/`` and ``scheduler/`` inside, or with the U-Net's own files; a bare U-Net is taken
                to predict velocities on the cosine schedule.
            image_size: Height and width of the collection's images.
            channels: Channels of the collection's images.

        Raises:
            UserError: The folder or a file in it is missing or cannot be read, or the model has another shape.
        """
        inner = folder / "unet" if (folder / "unet").is_dir() else folder
        if not (inner / "config.json").is_file():
            raise UserError(
                f"base.pretrained = '{folder}': expected a diffusers pipeline folder with unet/config.json, "
                "or a folder written by UNet2DModel.save_pretrained"
            )
        try:
            unet = UNet2DModel.from_pretrained(inner, local_files_only=True).float()
            bare = not (folder / "scheduler").is_dir()
            scheduler = new_scheduler() if bare else DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"base.pretrained = '{folder}' cannot be read ({reason}): export the model again"
            ) from error
        found = (unet.config["sample_size"], unet.config["in_channels"])
        if found != (image_size, channels):
            raise UserError(
                f"base.pretrained = '{folder}' makes images of size {found[0]} with {found[1]} channels, the data has "
                f"{image_size} with {channels}: set data.image_size and data.channels to the model's"
            )
        return cls(unet, scheduler)

    def save(self, folder: Path) -> None:
        """Write ``unet/``, in half precision, and ``scheduler/``, which diffusers reads too."""
        copy.deepcopy(self.unet).half().save_pretrained(folder / "unet")
        self.scheduler.save_pretrained(folder / "scheduler")

    def encode(self, records: NDArray[Any]) -> Tensor:
        """(b, H, W, C) uint8 images to (b, C, H, W) in [-1, 1]."""
        return to_unit(records)

    def loss(self, x: Tensor) -> Tensor:
        """Mean squared error of the prediction, at stratified times."""
        noisy, t_B, wanted = corrupt(self.scheduler, x, None, stratified=True)
        return nn.functional.mse_loss(self.unet(noisy, t_B, return_dict=False)[0], wanted)

    def target(self, spec: BaseSpec) -> LoRADiffusion:
        """The LoRA of ``spec`` around the U-Net."""
        return LoRADiffusion(
            self.unet,
            self.scheduler,
            rank=spec.rank,
            layers=spec.layers,
            sampling_steps=spec.sampling_steps,
            seed=spec.seed,
        )
