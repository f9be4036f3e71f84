"""A sweep made small: the same methods through the same code, on tiny models, in minutes on two cores.

``dphyper sweep run FILE --reduced`` shows that a sweep of hours runs to its end, before the hours are spent. Its
numbers mean nothing. Data are replaced by the digits that come with scikit-learn, pretrained models by tiny ones of the
same kind, options by the quick ones of each method, and of each axis but the methods one value is kept.
"""

import dataclasses
from pathlib import Path
from typing import Any

from dphyper.bench.catalog import METHODS
from dphyper.bench.stand_in import stand_in
from dphyper.core.names import Value
from dphyper.sweeps.plan import Sweep

_IMAGE_SIZE = 8
_DATA = {"source": "digits8", "image_size": _IMAGE_SIZE, "cluster_sizes": [60]}
_TASK = "8"
_BASE = {"train_steps": 20, "batch_size": 8, "sampling_steps": 3}
_PROTOCOL = {"num_images": 32}
_RECORDS, _EMBEDDING_DIM = 24, 4
# Axes of which the first value is kept; those of tasks, data, models and options go.
_KEPT = ("epsilon", "seed", "relation", "noise_draw")


def reduced(sweep: Sweep) -> Sweep:
    """The small sweep, with a name and a store of its own; a tiny pretrained model is written into the cache.

    Raises:
        UserError: An unknown method or kind of target.
    """
    given: dict[str, Any] = dict(sweep.cell)
    base, channels = given.get("base", {}), given.get("data", {}).get("channels", 1)
    cell = {name: value for name, value in given.items() if name in ("method", *_KEPT)}
    tiny = stand_in(base, Path(sweep.performance.cache), image_size=_IMAGE_SIZE, channels=channels)
    cell |= {"data": {**_DATA, "channels": channels}, "base": {**tiny, **_BASE}, "protocol": _PROTOCOL}
    cell |= {"task": _TASK, "n": _RECORDS, "embedding_dim": _EMBEDDING_DIM}
    grid = [_axes(axes) for axes in sweep.grid]
    methods = {name for axes in grid for name in axes.get("method", [cell.get("method", "hypernetwork")])}
    return dataclasses.replace(
        sweep,
        name=f"{sweep.name} reduced",
        store=f"{sweep.store_path} reduced",
        searches=[],
        search={},
        cell=cell,
        options={str(name): dict(METHODS[str(name)].quick_options) for name in sorted(map(str, methods))},
        grid=grid,
    )


def _axes(given: dict[str, list[Value]]) -> dict[str, list[Value]]:
    """All methods of a grid, at the first value of its other axes."""
    first = {key: values[:1] for key, values in given.items() if key in _KEPT}
    return {"seed": [0], **first, **({"method": given["method"]} if "method" in given else {})}
