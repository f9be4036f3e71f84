"""The default kind of target, ``base.kind: unet``: a diffusers U-Net in pixel space with a LoRA.

The base model is trained from scratch on public images, or read from a diffusers pipeline folder with a
``UNet2DModel``: of any image size and prediction type, class-conditional (with one class for all images), or with a
learned variance, which is left aside.

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
from dphyper.targets.conditioned import Conditioned
from dphyper.targets.diffusion import corrupt, new_scheduler, new_unet, to_unit
from dphyper.targets.lora import LoRADiffusion, pixels_of
from dphyper.targets.pretrained import PipelineFolder, require_class_label, require_no_condition, require_size
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
        learned_variance = unet.config["out_channels"] != unet.config["in_channels"]
        self.unet: UNet2DModel | Conditioned = Conditioned(unet, {}) if learned_variance else unet
        self.scheduler = scheduler
        self._folder = PipelineFolder(path=Path(), kind="unet")

    @property
    def _bare(self) -> UNet2DModel:
        """The U-Net itself, without what fixes its class."""
        return self.unet.net if isinstance(self.unet, Conditioned) else self.unet

    @classmethod
    def untrained(cls, spec: BaseSpec, *, image_size: int, channels: int) -> Self:
        """The U-Net of ``spec`` before training, initialised from its seed.

        Raises:
            UserError: Its levels cannot halve the images evenly.
        """
        _require_halves(image_size, len(spec.block_out_channels), "base.block_out_channels")
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
        """Read a ``DDPMPipeline`` folder, or another one with a ``UNet2DModel`` and its scheduler.

        Args:
            folder: With ``unet/`` and ``scheduler/`` inside, or with the files of both at its top.
            image_size: Height and width of the collection's images.
            channels: Channels of the collection's images.

        Raises:
            UserError: A file is missing or cannot be read, or the model is not served or has another shape.
        """
        found = PipelineFolder(path=folder, kind="unet")
        found.require_pipeline(("DDPMPipeline", "DDIMPipeline", "PNDMPipeline"))
        config = found.require_class("unet", ("UNet2DModel",))
        if any((folder / part).is_dir() for part in ("vae", "vqvae", "movq")):
            raise found.refused(
                "has an autoencoder beside its U-Net, which therefore sees latents: expected a model of pixels"
            )
        # The size is missing from a configuration where it was not set.
        size, seen = config.get("sample_size"), config["in_channels"]
        require_size(found, size=size, channels=seen, image_size=image_size, data_channels=channels)
        _require_halves(image_size, len(config["block_out_channels"]), "the pretrained model")
        if config["out_channels"] not in (seen, 2 * seen):
            raise found.refused(
                f"has out_channels = {config['out_channels']}: expected {seen}, or {2 * seen} with a learned variance"
            )
        for key, served in (("class_embed_type", None), ("mid_block_type", "UNetMidBlock2D")):
            if config.get(key, served) != served:
                raise found.refused(f"has a U-Net with {key} '{config[key]}', which is not served")
        made = cls(found.read("unet", UNet2DModel), found.scheduler())
        made._folder = found
        return made

    def condition(self, spec: BaseSpec) -> None:
        """Fix the class of a class-conditional model.

        Raises:
            UserError: It has no such class, or a condition is given that it does not have.
        """
        require_no_condition(spec, "prompt", "guidance_scale")
        if classes := self._bare.config.get("num_class_embeds"):
            require_class_label(self._folder, spec.class_label, classes - 1)
            self.unet = Conditioned(self._bare, {"class_labels": torch.tensor([spec.class_label])})
        else:
            require_no_condition(spec, "class_label")

    def save(self, folder: Path) -> None:
        """Write ``unet/``, in half precision, and ``scheduler/``, which diffusers reads too."""
        copy.deepcopy(self._bare).half().save_pretrained(folder / "unet")
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
            space=pixels_of(self._bare.config),
        )


def _require_halves(image_size: int, levels: int, where: str) -> None:
    """Refuse images that the levels of a U-Net cannot halve evenly.

    Raises:
        UserError: They cannot.
    """
    if image_size % 2 ** (levels - 1):
        raise UserError(
            f"data.image_size = {image_size} with {levels} levels in {where}: expected a multiple "
            f"of {2 ** (levels - 1)}, for each level but the last halves the images"
        )
