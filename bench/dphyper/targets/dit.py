"""``base.kind: dit``, a pretrained class-conditional diffusion transformer on latents, with the class fixed.

It is read from a ``DiTPipeline`` folder (Peebles and Xie 2023, arXiv:2212.09748). A learned variance is left aside; the
null class serves classifier-free guidance when images are drawn.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import DiTTransformer2DModel

from dphyper.core.specs import BaseSpec
from dphyper.targets.conditioned import Conditioned
from dphyper.targets.latents import LatentModel
from dphyper.targets.pretrained import PipelineFolder, require_class_label, require_no_condition


class DiTBase(LatentModel):
    """A DiT with its autoencoder."""

    quick_spec = {"layers": ("attention", "feed_forward", "time"), "rank": 2, "sampling_steps": 3, "class_label": 1}
    kind: ClassVar[str] = "dit"
    pipelines = ("DiTPipeline",)
    part: ClassVar[str] = "transformer"
    network = DiTTransformer2DModel
    # DiT was saved as the second before it had a class of its own.
    network_classes = ("DiTTransformer2DModel", "Transformer2DModel")

    @classmethod
    def require_served(cls, folder: PipelineFolder, config: Mapping[str, Any]) -> None:
        """Refuse a transformer that is no DiT."""
        if config.get("norm_type") != "ada_norm_zero":
            raise folder.refused(
                f"has a transformer with norm_type '{config.get('norm_type')}': expected 'ada_norm_zero', as a DiT has"
            )

    def condition(self, spec: BaseSpec) -> None:
        """Fix the class.

        Raises:
            UserError: There is no such class, or a prompt is given.
        """
        require_no_condition(spec, "prompt", "flips")
        null = self.bare.config["num_embeds_ada_norm"]
        require_class_label(self.folder, spec.class_label, null)
        own, absent = ({"class_labels": torch.tensor([label])} for label in (spec.class_label, null))
        self.net = Conditioned(self.bare, own, absent)
