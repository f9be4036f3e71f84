"""What the kinds of target on latents share: a frozen autoencoder, and a network whose condition is fixed.

A kind that derives from `LatentModel` names the parts that it reads and fixes its own condition. It is never trained
from nothing, but may be trained on with the public tasks; the autoencoder never is.

Shapes: b records; c h w channels, height, width of the latents.
"""

import copy
import shutil
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from diffusers import AutoencoderKL, DDPMScheduler
from numpy.typing import NDArray
from torch import Tensor, nn

from dphyper.core.errors import UserError
from dphyper.core.specs import BaseSpec
from dphyper.targets.conditioned import Conditioned
from dphyper.targets.diffusion import corrupt
from dphyper.targets.lora import LoRADiffusion
from dphyper.targets.pretrained import PipelineFolder, require_size
from dphyper.targets.spaces import Latents, downsampling
from dphyper.targets.target import BaseModel


class LatentModel(BaseModel):
    """A pretrained network on the latents of a frozen autoencoder.

    Class attributes:
        kind: Its name as a kind of target.
        pipelines: Names of the pipelines that it is read from.
        part: The part of the pipeline that is the network.
        network: The network's class in diffusers.
        network_classes: Names of this class, former ones among them.
        frozen: The parts of the pipeline that no training changes.

    Args:
        folder: Where it is read.
        size: Pixels of an image's side.
    """

    version: ClassVar[int] = 1
    slow_encoding = True
    kind: ClassVar[str]
    pipelines: ClassVar[tuple[str, ...]]
    part: ClassVar[str]
    network: ClassVar[Any]
    network_classes: ClassVar[tuple[str, ...]]
    frozen: ClassVar[tuple[str, ...]] = ("vae",)

    def __init__(self, folder: PipelineFolder, size: int) -> None:
        super().__init__()
        self.folder = folder
        self.scheduler: DDPMScheduler = folder.scheduler()
        self.net: Any = folder.read(self.part, self.network)
        self.space = Latents(folder.read("vae", AutoencoderKL), size)

    @classmethod
    def untrained(cls, spec: BaseSpec, *, image_size: int, channels: int) -> Self:
        """Refuse: an autoencoder is not trained here.

        Raises:
            UserError: Always.
        """
        raise UserError(
            f"base.kind = '{cls.kind}' is a pretrained model, and base.pretrained is empty: name the folder of a "
            f"{cls.pipelines[0]}"
        )

    @classmethod
    def load(cls, folder: Path, *, image_size: int, channels: int) -> Self:
        """Read a pipeline folder.

        Raises:
            UserError: A part is missing, cannot be read, is not served, or is for images of another size.
        """
        found = PipelineFolder(path=folder, kind=cls.kind)
        found.require_pipeline(cls.pipelines)
        config = found.require_class(cls.part, cls.network_classes)
        vae = found.require_class("vae", ("AutoencoderKL",))
        seen, made = config["in_channels"], vae["latent_channels"]
        if seen != made:
            raise found.refused(f"has a {cls.part} of {seen} channels and a vae of {made}: expected the same number")
        if config.get("out_channels") not in (None, seen, 2 * seen):
            raise found.refused(
                f"has out_channels = {config['out_channels']}: expected {seen}, or {2 * seen} with a learned variance"
            )
        side = config.get("sample_size")
        size = side * downsampling(vae) if isinstance(side, int) else side
        require_size(found, size=size, channels=vae["in_channels"], image_size=image_size, data_channels=channels)
        cls.require_served(found, config)
        return cls(found, image_size)

    @classmethod
    @abstractmethod
    def require_served(cls, folder: PipelineFolder, config: Mapping[str, Any]) -> None:
        """Refuse a network that this kind cannot serve, by its configuration.

        Raises:
            UserError: It cannot.
        """

    @property
    def bare(self) -> Any:
        """The network itself, without what fixes its condition."""
        return self.net.net if isinstance(self.net, Conditioned) else self.net

    def save(self, folder: Path) -> None:
        """Write the network, in half precision, the scheduler, and the frozen parts as the files that they were."""
        copy.deepcopy(self.bare).half().save_pretrained(folder / self.part)
        self.scheduler.save_pretrained(folder / "scheduler")
        for part in self.frozen:
            shutil.copytree(self.folder.part(part), folder / part)

    def encode(self, records: NDArray[Any]) -> Tensor:
        """(b, H, W, C) uint8 images to (b, c, h, w) latents, each image by itself."""
        return self.space.encode(records, next(self.parameters()).device)

    def remember(self, records: NDArray[Any], x: Tensor) -> None:
        """As `Latents.remember`."""
        self.space.remember(records, x)

    def loss(self, x: Tensor) -> Tensor:
        """Mean squared error of the prediction, at stratified times."""
        noisy, t_B, wanted = corrupt(self.scheduler, x, None, stratified=True)
        return nn.functional.mse_loss(self.net(noisy, t_B, return_dict=False)[0], wanted)

    def target(self, spec: BaseSpec) -> LoRADiffusion:
        """The LoRA of ``spec`` around the network."""
        return LoRADiffusion(
            self.net,
            self.scheduler,
            rank=spec.rank,
            layers=spec.layers,
            sampling_steps=spec.sampling_steps,
            seed=spec.seed,
            space=self.space,
            guidance_scale=spec.guidance_scale,
        )
