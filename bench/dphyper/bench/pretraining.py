"""The base model: a U-Net pre-trained on public tasks by Lightning, or read from a folder.

Batches are drawn uniformly over tasks and then over their images. Trained once for each collection and spec,
cached by content; nothing private reaches it.
"""

from pathlib import Path

import lightning
import torch
from diffusers import DDPMScheduler, UNet2DModel
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from dphyper.bench.public import Episode, PublicTasks
from dphyper.core.errors import UserError
from dphyper.core.specs import BaseSpec
from dphyper.targets.unet import corrupt, new_scheduler, new_unet


class Pretraining(lightning.LightningModule):
    """Ordinary diffusion training of a U-Net.

    Args:
        unet: Trained in place.
        scheduler: Noise schedule and prediction type.
        learning_rate: Peak of a one-cycle schedule that ends at 0.
    """

    def __init__(self, unet: UNet2DModel, scheduler: DDPMScheduler, learning_rate: float) -> None:
        super().__init__()
        self.unet, self.scheduler, self.learning_rate = unet, scheduler, learning_rate

    def training_step(self, batch: Episode, batch_idx: int) -> Tensor:
        """Mean denoising loss of the query images."""
        data: PublicTasks = self.trainer.datamodule  # type: ignore[attr-defined]
        x = data.images[batch.query_TQ.flatten().cpu()].to(self.device)
        noisy, t, wanted = corrupt(self.scheduler, x, None, stratified=True)
        loss = nn.functional.mse_loss(self.unet(noisy, t, return_dict=False)[0], wanted)
        self.log("base/loss", loss)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a one-cycle learning rate."""
        optimizer = torch.optim.AdamW(self.unet.parameters(), lr=self.learning_rate, weight_decay=1e-4)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def untrained(spec: BaseSpec, *, image_size: int, channels: int) -> tuple[UNet2DModel, DDPMScheduler]:
    """The U-Net of ``spec`` before training, initialised from its seed."""
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        unet = new_unet(
            image_size=image_size,
            channels=channels,
            block_out_channels=spec.block_out_channels,
            layers_per_block=spec.layers_per_block,
        )
    return unet, new_scheduler()


def load_base(folder: str | Path, *, image_size: int, channels: int) -> tuple[UNet2DModel, DDPMScheduler]:
    """Read a diffusers pipeline folder, or a folder that ``UNet2DModel.save_pretrained`` wrote.

    Args:
        folder: With ``unet/`` and ``scheduler/`` inside, or with the U-Net's own files; a bare U-Net is taken
            to predict velocities on the cosine schedule.
        image_size: Height and width of the collection's images.
        channels: Channels of the collection's images.

    Raises:
        UserError: The folder or a file in it is missing or cannot be read, or the model has another shape.
    """
    folder = Path(folder)
    inner = folder / "unet" if (folder / "unet").is_dir() else folder
    if not (inner / "config.json").is_file():
        raise UserError(
            f"base.pretrained = '{folder}': expected a diffusers pipeline folder with unet/config.json, "
            "or a folder written by UNet2DModel.save_pretrained"
        )
    try:
        unet = UNet2DModel.from_pretrained(inner, local_files_only=True)
        bare = not (folder / "scheduler").is_dir()
        scheduler = new_scheduler() if bare else DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"base.pretrained = '{folder}' cannot be read ({reason}): export the model again") from error
    found = (unet.config["sample_size"], unet.config["in_channels"])
    if found != (image_size, channels):
        raise UserError(
            f"base.pretrained = '{folder}' makes images of size {found[0]} with {found[1]} channels, the data has "
            f"{image_size} with {channels}: set data.image_size and data.channels to the model's"
        )
    return unet, scheduler
