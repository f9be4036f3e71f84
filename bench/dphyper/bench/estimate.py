"""What a sweep will cost, roughly, before it starts.

Passes of records through the base model are counted and multiplied by the time of one, measured here and now. Counted
are training of the base model and of public phases, private gradients, fits to images, and sampling. Not counted are
the features of the metric, reading data, and what a method's own networks add: a factor of two is the best to expect.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import torch

from dphyper.bench.catalog import METHODS
from dphyper.bench.public_work import PublicWork
from dphyper.core.specs import Cell
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.mechanisms import PoissonGradientSteps

# A backward pass takes about as long as two forward ones, of all weights or of a LoRA at the far end of the network.
_TRAINED = 3
_BATCH = 16  # records in the pass that is timed


def estimate(cells: Sequence[Cell], public: PublicWork) -> list[str]:
    """Lines that tell how long the cells take one after another, on this machine.

    Args:
        cells: What there is to do, in canonical form.
        public: Reads data and models; nothing is trained.
    """
    if not cells:
        return []
    parts: dict[str, float] = {}  # seconds by key of shared work, and by id of a cell
    shared = 0
    for cell in cells:
        second = _seconds_of_a_pass(cell, public)
        for key, passes in _public_passes(cell, public).items():
            shared += key not in parts
            parts.setdefault(key, passes * second)
        parts[cell.id] = _cell_passes(cell) * second
    own = sum(parts[cell.id] for cell in cells)
    return [
        f"estimate: {_span(sum(parts.values()) - own)} for {shared} pieces of public work where none is cached, and "
        f"{_span(own)} for {len(cells)} cells, one after another on this machine's {public.device}; good to a factor "
        "of two"
    ]


def _public_passes(cell: Cell, public: PublicWork) -> dict[str, float]:
    """Passes of the public work of a cell, by what tells it from other work."""
    base, kind = cell.base, METHODS[cell.method]
    found = {}
    if steps := base.finetune_steps if base.pretrained else base.train_steps:
        found[f"base {public.base_key(cell.data, base)}"] = float(_TRAINED * steps * base.batch_size)
    if kind.public_phase:
        options: Any = kind.options_type.parse(cell.method, cell.options)
        episode = getattr(options, "tasks", 1) * (_TRAINED * getattr(options, "query", 1))
        key = f"public {kind.public_phase} {cell.public_configuration}"
        found[key] = float(getattr(options, "train_steps", 0) * episode)
    return found


def _cell_passes(cell: Cell) -> float:
    """Passes of a cell: sampling, gradients of private records, fits to images."""
    kind, base = METHODS[cell.method], cell.base
    options: Any = kind.options_type.parse(cell.method, cell.options)
    guided = 1 if base.guidance_scale == 1 else 2
    passes = float(cell.protocol.num_images * base.sampling_steps * guided)
    passes += _TRAINED * getattr(options, "fit_steps", 0) * getattr(options, "fit_batch_size", 0)
    # Without noise nothing is calibrated, and the number of steps does not depend on the budget.
    free = Budget(epsilon=math.inf, delta=cell.delta, relation=Relation(cell.relation))
    for mechanism in kind.mechanisms(free, options):
        if isinstance(mechanism, PoissonGradientSteps):
            drawn = mechanism.steps * mechanism.sampling_prob * cell.n
            passes += _TRAINED * drawn * getattr(options, "multiplicity", 1)
    return passes


_TIMED: dict[tuple[Any, Any], float] = {}


@torch.no_grad()
def _seconds_of_a_pass(cell: Cell, public: PublicWork) -> float:
    """Seconds of one record's pass through the base model, in a batch."""
    if (cell.data, cell.base) not in _TIMED:
        target = public.untrained_base(cell).to(public.device).target(cell.base)
        rows = public.collection(cell.data).records[:1].repeat(_BATCH, 0)
        x, theta, rng = target.encode(rows), target.initial(), torch.Generator().manual_seed(0)
        target.per_example_loss(theta, x, rng)  # the first pass allocates
        begin = time.perf_counter()
        target.per_example_loss(theta, x, rng).sum().item()
        _TIMED[cell.data, cell.base] = (time.perf_counter() - begin) / _BATCH
    return _TIMED[cell.data, cell.base]


def _span(seconds: float) -> str:
    """A time as people say it.

    >>> _span(30), _span(600), _span(7200), _span(400_000)
    ('1 min', '10 min', '2.0 h', '4.6 d')
    """
    if seconds < 3600:
        return f"{max(math.ceil(seconds / 60), 1)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} d"
