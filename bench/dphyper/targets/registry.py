"""The registry of kinds of targets; importing it loads no torch, so that a list of them comes at once."""

from typing import TYPE_CHECKING

from dphyper.core.registry import Registry

if TYPE_CHECKING:
    from dphyper.targets.target import BaseModel

TARGETS: "Registry[BaseModel]" = Registry("kind of target", "dphyper.targets.target:BaseModel", "dphyper.targets")
