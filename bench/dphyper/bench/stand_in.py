"""A tiny base model that stands in for another of the same kind, where a sweep is only to be seen to run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dphyper.targets.registry import TARGETS


def stand_in(given: Mapping[str, Any], cache: Path, *, image_size: int, channels: int) -> dict[str, Any]:
    """The fields of a tiny model of the same kind; where one is pretrained, it is written into the cache.

    Args:
        given: Fields of the model that it stands in for, as a sweep file has them.
        cache: Folder of what cells share.
        image_size: Of its images.
        channels: Of its images.

    Raises:
        UserError: An unknown kind of target.
    """
    kind = given.get("kind", "unet")
    quick = TARGETS[kind].quick_spec.items()
    found = {"kind": kind, **{name: list(value) if isinstance(value, tuple) else value for name, value in quick}}
    if not given.get("pretrained"):
        return found
    from dphyper.targets.tiny import save_tiny

    folder = cache / "tiny" / f"{kind}-{image_size}-{channels}"
    if not (folder / "model_index.json").is_file():
        save_tiny(kind, folder, image_size=image_size, channels=channels)
    return {**found, "pretrained": str(folder), "finetune_steps": min(given.get("finetune_steps", 0), 2)}
