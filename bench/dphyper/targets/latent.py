"""``base.kind: latent``, a pretrained text-conditional U-Net on latents, with the prompt fixed: Stable Diffusion.

It is read from a ``StableDiffusionPipeline`` folder, or one like it: ``UNet2DConditionModel``, ``AutoencoderKL``, one
``CLIPTextModel`` with its tokenizer, a scheduler. The prompt is embedded once. Autoencoder and text encoder are frozen.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging

from dphyper.core.errors import in_one_line
from dphyper.core.specs import BaseSpec
from dphyper.targets.conditioned import Conditioned
from dphyper.targets.latents import LatentModel
from dphyper.targets.pretrained import PipelineFolder, require_no_condition

logging.disable_progress_bar()  # of loading weights, in the middle of the lines of a sweep

_UNSERVED = (
    "addition_embed_type",
    "class_embed_type",
    "num_class_embeds",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
)


class LatentBase(LatentModel):
    """A U-Net of Stable Diffusion's kind with its autoencoder and its text encoder."""

    quick_spec = {"layers": ("attention", "time"), "rank": 2, "sampling_steps": 3, "prompt": "a digit"}
    kind: ClassVar[str] = "latent"
    pipelines = ("StableDiffusionPipeline",)
    part: ClassVar[str] = "unet"
    network = UNet2DConditionModel
    network_classes = ("UNet2DConditionModel",)
    frozen = ("vae", "text_encoder", "tokenizer")

    def __init__(self, folder: PipelineFolder, size: int) -> None:
        super().__init__(folder, size)
        try:
            self._tokenizer = CLIPTokenizer.from_pretrained(folder.part("tokenizer"), local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise folder.refused(
                f"has a tokenizer that cannot be read ({in_one_line(error)}): export it again"
            ) from error
        self.text: Any = folder.read("text_encoder", CLIPTextModel).requires_grad_(False)

    @classmethod
    def require_served(cls, folder: PipelineFolder, config: Mapping[str, Any]) -> None:
        """Refuse a U-Net with more conditions than a prompt, and text encoders of another kind."""
        for key in _UNSERVED:
            if config.get(key) is not None:
                raise folder.refused(
                    f"has a U-Net with {key} = {config[key]!r}: expected one that takes a prompt alone"
                )
        text = folder.require_class("text_encoder", ("CLIPTextModel",))
        if config["cross_attention_dim"] != text["hidden_size"]:
            raise folder.refused(
                f"has a U-Net for texts of {config['cross_attention_dim']} dimensions and a text encoder of "
                f"{text['hidden_size']}: expected the same number"
            )

    def train(self, mode: bool = True) -> "LatentBase":
        """Train the U-Net alone."""
        super().train(mode)
        self.text.eval()
        return self

    def condition(self, spec: BaseSpec) -> None:
        """Fix the prompt, which may be empty; guidance is away from the empty one.

        Raises:
            UserError: A class is given.
        """
        require_no_condition(spec, "class_label", "flips")
        own, absent = ({"encoder_hidden_states": self._embedded(text)} for text in (spec.prompt, ""))
        self.net = Conditioned(self.bare, own, absent)

    @torch.no_grad()
    def _embedded(self, text: str) -> Tensor:
        """(1, tokens, width) of a prompt, as the pipeline makes it."""
        length = self._tokenizer.model_max_length
        ids = self._tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        embedded: Tensor = self.text(ids.input_ids)[0]
        return embedded
