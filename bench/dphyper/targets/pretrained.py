"""Models that others trained: diffusers pipeline folders, read part by part, or refused in one line.

What a kind of target cannot serve is refused before anything runs: a part of another class, a scheduler that is no
discrete variance-preserving one, a missing weight, a weight that is not finite. Nothing here guesses: a folder that
does not say what its model predicts is refused.
"""

import functools
import inspect
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import DDPMScheduler, DiffusionPipeline
from torch import nn

from dphyper.core.errors import UserError, in_one_line
from dphyper.core.finite import require_finite_weights
from dphyper.core.specs import BaseSpec

# Samplers of one family: all describe their model by the same betas, times and prediction type as `DDPMScheduler`.
SCHEDULERS = (
    *("DDPMScheduler", "DDIMScheduler", "DDPMParallelScheduler", "DDIMParallelScheduler", "PNDMScheduler"),
    *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler"),
    *("UniPCMultistepScheduler", "DEISMultistepScheduler", "LMSDiscreteScheduler", "HeunDiscreteScheduler"),
    *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"),
    *("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"),
)
_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
_PREDICTIONS = ("epsilon", "v_prediction", "sample")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")


@functools.cache
def model_folder(name: str) -> Path:
    """The folder of ``base.pretrained``; a name on the Hugging Face hub is downloaded into its own cache.

    Raises:
        UserError: There is no such folder, and no model of that name can be fetched.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not _HUB_NAME.fullmatch(name):
        raise UserError(f"base.pretrained = '{name}': no such folder; expected a folder, or OWNER/NAME on the hub")
    repository, _, revision = name.partition("@")
    try:
        return Path(DiffusionPipeline.download(repository, revision=revision or None))
    except Exception as error:  # of whatever kind: the hub's, the network's, the disk's
        raise UserError(
            f"base.pretrained = '{name}': no such folder here, and no pipeline of that name could be fetched "
            f"({in_one_line(error)}): name a folder, or fetch it where there is a network"
        ) from error


@dataclass(frozen=True, kw_only=True)
class PipelineFolder:
    """A folder that a diffusers pipeline was saved into.

    Attributes:
        path: The folder.
        kind: The kind of target that reads it, for messages.
    """

    path: Path
    kind: str

    @property
    def index(self) -> dict[str, Any]:
        """What ``model_index.json`` says; empty where there is none."""
        return self._json(self.path / "model_index.json") if (self.path / "model_index.json").is_file() else {}

    def part(self, name: str) -> Path:
        """The folder of a part of the pipeline; old pipelines keep their only model at the top."""
        inner = self.path / name
        return inner if inner.is_dir() else self.path

    def require_pipeline(self, served: Sequence[str]) -> None:
        """Refuse a pipeline of another class; a folder that names none is judged by its parts.

        Raises:
            UserError: It is another one.
        """
        found = self.index.get("_class_name")
        if found and found not in served:
            other = {"StableDiffusionPipeline": "latent", "DiTPipeline": "dit", "DDPMPipeline": "unet"}.get(found)
            way = f": set base.kind to {other}" if other else ""
            raise self.refused(f"holds a {found}, and base.kind = '{self.kind}' serves {_either(served)}{way}")

    def require_class(self, part: str, served: Sequence[str]) -> dict[str, Any]:
        """The configuration of a part of the pipeline.

        Raises:
            UserError: The part is missing or of another class.
        """
        path = self.part(part) / "config.json"
        if not path.is_file():
            raise self.refused(f"has no {part}/config.json: expected a diffusers pipeline folder with {served[0]}")
        config = self._json(path)
        found = config.get("_class_name") or next(iter(config.get("architectures") or []), "of no class")
        if found not in served:
            raise self.refused(f"has a {part} that is {found}, and base.kind = '{self.kind}' serves {_either(served)}")
        return config

    def read(self, part: str, model: Any) -> Any:
        """A part of the pipeline with its weights, in single precision.

        Args:
            part: Name of the part.
            model: Its class, with ``from_pretrained`` of diffusers or transformers.

        Raises:
            UserError: A weight is missing, of another shape, or not finite.
        """
        try:
            found, information = model.from_pretrained(
                self.part(part), local_files_only=True, output_loading_info=True, low_cpu_mem_usage=False
            )
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise self.refused(f"cannot be read ({in_one_line(error)}): export the model again") from error
        missing = sorted(map(str, (*information["missing_keys"], *information.get("mismatched_keys", ()))))
        if missing:
            raise self.refused(
                f"has {len(missing)} weights of its {part} missing or of another shape, such as {missing[0]}: "
                "export the model again"
            )
        self._require_finite(part, found)
        return found.float().eval()

    def _require_finite(self, part: str, model: nn.Module) -> None:
        try:
            require_finite_weights(part, model)
        except FloatingPointError as error:
            raise self.refused(f"has weights that are no numbers ({error}): take an earlier checkpoint") from error

    def scheduler(self) -> DDPMScheduler:
        """The noise schedule that the model was trained on, with its betas, times and prediction type.

        Raises:
            UserError: There is none, or none of the discrete variance-preserving ones.
        """
        path = self.part("scheduler") / "scheduler_config.json"
        if not path.is_file():
            raise self.refused(
                "has no scheduler/scheduler_config.json, so that nothing says what its model predicts: save the "
                "schedule that it was trained on, as DDPMScheduler(...).save_pretrained(FOLDER + '/scheduler')"
            )
        config = self._json(path)
        found = config.get("_class_name", "of no class")
        if found not in SCHEDULERS:
            raise self.refused(
                f"has a scheduler that is {found}, and what is served are discrete variance-preserving ones: "
                f"{', '.join(SCHEDULERS)}"
            )
        for key, given, served in (
            ("prediction_type", config.get("prediction_type", "epsilon"), _PREDICTIONS),
            ("beta_schedule", config.get("beta_schedule", "linear"), _SCHEDULES),
        ):
            if given not in served:
                raise self.refused(f"has a scheduler with {key} '{given}': expected {_either(served)}")
        # The model's own sampler says how it samples; here ours does, from the same betas.
        known = inspect.signature(DDPMScheduler).parameters
        kept = {key: value for key, value in config.items() if key in known}
        return DDPMScheduler.from_config(kept | {"variance_type": "fixed_small"})

    def refused(self, why: str) -> UserError:
        """The error for this folder."""
        return UserError(f"base.pretrained = '{self.path}' {why}")

    def _json(self, path: Path) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise self.refused(f"cannot be read ({path.name}: {in_one_line(error)}): export the model again") from error
        return found


def require_size(folder: PipelineFolder, *, size: Any, channels: int, image_size: int, data_channels: int) -> None:
    """Refuse a model that makes other images than the data's.

    Args:
        folder: Of the model.
        size: Pixels of a side of its images, as its configuration has it: a number, a pair, or None.
        channels: Of its images.
        image_size: Of the data.
        data_channels: Of the data.

    Raises:
        UserError: They differ, or the model does not say.
    """
    if size is None:
        raise folder.refused(
            "does not say how large its images are (sample_size: null): write the size that it was trained on into "
            "its config.json"
        )
    side = size[0] if isinstance(size, list | tuple) and len(set(size)) == 1 else size
    if (side, channels) != (image_size, data_channels):
        raise folder.refused(
            f"makes images of size {side} with {channels} channels, the data has {image_size} with {data_channels}: "
            "set data.image_size and data.channels to the model's"
        )


def require_no_condition(spec: BaseSpec, *names: str) -> None:
    """Refuse options that the model does not have: a condition, or mirrored latents.

    Args:
        spec: Of the model.
        names: Fields of it that must stand at their defaults.

    Raises:
        UserError: One of them does not.
    """
    for name in names:
        given = getattr(spec, name)
        if given != getattr(BaseSpec, name):
            raise UserError(f"base.{name} = {given!r}: this model of kind '{spec.kind}' has none, leave it out")


def require_class_label(folder: PipelineFolder, label: int, most: int) -> None:
    """Refuse a class that the model does not have.

    Args:
        folder: Of the model.
        label: ``base.class_label``.
        most: The highest label.

    Raises:
        UserError: It has no such class.
    """
    if not 0 <= label <= most:
        raise folder.refused(
            f"is class-conditional, and base.class_label = {label}: expected the class of all images, 0 to {most}"
        )


def _either(served: Sequence[str]) -> str:
    return " or ".join(served)
