"""The registries of methods and data sources, and a cell in its canonical form.

A new method or source is one new file and one line of entry points (``pyproject.toml``); nothing is imported until a
name is looked up.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from dphyper.core.errors import UserError
from dphyper.core.registry import Registry
from dphyper.core.specs import Cell

if TYPE_CHECKING:
    from dphyper.bench.method import Method
    from dphyper.bench.source import Source

METHODS: "Registry[Method]" = Registry("method", "dphyper.bench.method:Method", "dphyper.methods")
DATASETS: "Registry[Source]" = Registry("data source", "dphyper.bench.source:Source", "dphyper.datasets")


def canonical(cell: Cell) -> Cell:
    """The cell with the axes that its method does not use set to one value, and its options complete.

    Cells that differ only in an unused axis (public_only at two ε) are one cell and run once.

    Raises:
        UserError: Unknown method or option, or no embedding dimension for a method that has an embedding.
    """
    method = METHODS[cell.method]
    changes: dict[str, Any] = {
        "options": dataclasses.asdict(method.options_type.parse(cell.method, cell.options)),
    }
    if "epsilon" not in method.uses:
        changes |= {"epsilon": math.inf, "noise_draw": 0}
    if "embedding_dim" not in method.uses:
        changes["embedding_dim"] = 0
    elif not cell.embedding_dim:
        raise UserError(f"embedding_dim = 0 for method '{cell.method}', which has an embedding: expected at least 1")
    return dataclasses.replace(cell, **changes)
