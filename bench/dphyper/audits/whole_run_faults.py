"""Faults planted in whole runs, each of which breaks the claim of a method whose ledger looks sound.

An audit that convicts none of them would be worth nothing. The ledger is charged for the mechanism that the method
declares, so that the claim is that of the sound method; what is drawn is something else. None of this can be reached
from a run of the benchmark.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dphyper.core.errors import unknown_name
from dphyper.core.specs import Cell
from dphyper.privacy.noise import NoiseSource


class _ScaledNoise(NoiseSource):
    def rounded_gaussian(self, shape: int | tuple[int, ...], std: float) -> NDArray[np.int64]:
        return super().rounded_gaussian(shape, std / 10)


class _FixedNoise(NoiseSource):
    def rounded_gaussian(self, shape: int | tuple[int, ...], std: float) -> NDArray[np.int64]:
        return NoiseSource.reproducible(0).rounded_gaussian(shape, std)


def _unclipped(rows_bk: Tensor, l2_clip_norm: float) -> Tensor:
    return rows_bk.double()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong in a run.

    Attributes:
        name: For tables; empty for no fault.
        method: In which it is planted.
        noise: Kind of source that the noise comes from.
        clips: Whether rows are clipped.
        leak: Share of the published parameters that comes from a run without noise.
        options: Of the method, where the fault does not show under those of the sweep.
    """

    name: str
    method: str = ""
    noise: type[NoiseSource] = NoiseSource
    clips: bool = True
    leak: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def source(self, noise: NoiseSource) -> NoiseSource:
        """The faulty source behind a sound one."""
        return self.noise(noise._stream, is_reproducible=noise.is_reproducible)

    def patches(self) -> Iterator[AbstractContextManager[object]]:
        """What has to be in force while a method runs."""
        if not self.clips:
            yield mock.patch("dphyper.privacy.noisy_sum.clip_rows", _unclipped)


SOUND = Fault(name="")
FAULTS = (
    Fault(name="a tenth of the noise", method="dp_sgd", noise=_ScaledNoise),
    # At the usual clip norm the canary's gradient is hardly clipped; a tenth of it binds.
    Fault(name="no clipping", method="dp_sgd", clips=False, options={"l2_clip_norm": 0.003}),
    Fault(name="the same noise in every run", method="dp_sgd", noise=_FixedNoise),
    Fault(name="a fifth of the answer without noise", method="hypernetwork", leak=0.2),
)


def plan_whole_runs(name: str, cells: Sequence[Cell], sweep: str) -> list[tuple[Cell, Fault]]:
    """Which cells of a sweep are attacked, and with which fault, cells of small ε first.

    Args:
        name: A method, whose cells are attacked without a fault; ``all`` for every cell so; ``faults`` for each fault
            in the cell of least ε of its method.
        cells: Of the sweep.
        sweep: Its name, for messages.

    Raises:
        UserError: The sweep has no cell of a method that is asked for.
    """
    cells = sorted(cells, key=lambda cell: cell.epsilon)
    if name == "all":
        return [(cell, SOUND) for cell in cells]
    methods = {cell.method for cell in cells}
    for method in [fault.method for fault in FAULTS] if name == "faults" else [name]:
        if method not in methods:
            raise unknown_name(f"method in sweep '{sweep}'", method, methods)
    if name != "faults":
        return [(cell, SOUND) for cell in cells if cell.method == name]
    plan = []
    for fault in FAULTS:
        cell = next(cell for cell in cells if cell.method == fault.method)
        plan.append((dataclasses.replace(cell, options={**cell.options, **fault.options}), fault))
    return plan
