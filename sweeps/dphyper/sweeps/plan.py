"""A sweep file and the cells that it names.

A sweep is a designed grid: one or several cross products of axes over one set of shared keys, written in one YAML
file. Cells are enumerated in the same order every time, and each is named once: axes that a method does not use are
collapsed. Nothing is run here, and no torch is imported until cells are enumerated.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jsonargparse import ArgumentParser

from dphyper.bench.catalog import canonical
from dphyper.core.errors import UserError, unknown_name
from dphyper.core.names import Value, typed_name
from dphyper.core.parsing import build, parse
from dphyper.core.specs import Cell, Performance, WandbMode


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep file says.

    Attributes:
        name: Name of the sweep: W&B group, Optuna study, label in the rows.
        store: Folder of the results; empty for ``runs/NAME``.
        wandb: ``auto`` (online when logged in, else offline), ``online``, ``offline`` or ``off``.
        storage: Where workers note what they are at: ``journal`` (a file in the store, for one host) or the URL of a
            database that all hosts reach, ``postgresql://USER@HOST/DATABASE``. Results are in the store either way.
        performance: Knobs that change speed only.
        slurm: What ``dphyper sweep submit`` asks SLURM for, as submitit names it: ``timeout_min``, ``mem_gb``,
            ``gpus_per_node``, ``slurm_partition``, ….
        cell: Keys that all cells share, as in ``dphyper run``.
        searches: Recorded searches that the options come from: each a store's folder or its ``rows.parquet``, with rows
            on tuning tasks alone and several settings of a method. Options that are neither the defaults nor in one of
            them are labelled unknown.
        options: Hyper-parameters by method; an axis such as ``options.steps`` of the grid wins over them.
        grid: One or several cross products; each maps keys of a cell (dotted where nested) to lists of values.
    """

    name: str
    grid: list[dict[str, list[Value]]]
    store: str = ""
    wandb: WandbMode = "auto"
    storage: str = "journal"
    performance: Performance = field(default_factory=Performance)
    slurm: dict[str, Any] = field(default_factory=dict)
    cell: dict[str, Value] = field(default_factory=dict)
    searches: list[str] = field(default_factory=list)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise UserError(f"name = '{self.name}': expected a name without a slash, such as 'demo'")
        if not self.grid:
            raise UserError("grid is empty: expected at least one mapping of axes to lists of values")

    @property
    def store_path(self) -> str:
        """Where the results go."""
        return self.store or f"runs/{self.name}"

    def cells(self) -> list[Cell]:
        """All cells in the order of the file, each once.

        Raises:
            UserError: A value that no cell may have, or options for a method that the grid does not name.
        """
        found: dict[str, Cell] = {}
        methods = set()
        for axes in self.grid:
            for values in itertools.product(*axes.values()):
                merged = _copy(self.cell)
                for key, value in zip(axes, values, strict=True):
                    _set(merged, key, value)
                method = merged.get("method", Cell.method)
                methods.add(method)
                merged["options"] = {**self.options.get(method, {}), **merged.get("options", {})}
                cell = canonical(parse_cell(merged))
                found.setdefault(cell.id, cell)
        for name in self.options:
            if name not in methods:
                raise unknown_name("method in options", name, methods)
        return list(found.values())


def read_sweep(path: str) -> tuple[Sweep, list[Cell]]:
    """A sweep file and its cells.

    Raises:
        UserError: The file is missing or says something wrong.
    """
    sweep = build(Sweep, parse(sweep_parser(), ["--config", path]))
    return sweep, sweep.cells()


def sweep_parser() -> ArgumentParser:
    """The schema of a sweep file, whose keys are options too."""
    parser = ArgumentParser(
        exit_on_error=False,
        usage="dphyper sweep {plan,run,worker,submit} FILE [options]",
        description="FILE is YAML with the keys below; options override it.",
    )
    parser.add_argument("--config", action="config", help="the same as FILE")
    parser.add_class_arguments(Sweep)
    return parser


def parse_cell(plain: Mapping[str, Any]) -> Cell:
    """A cell from nested plain data, as a YAML file holds them.

    Raises:
        UserError: An unknown key, or a value that no cell may have.

    >>> parse_cell({"task": 8, "epsilon": "inf", "data": {"source": "digits8"}}).task
    '8'
    """
    # YAML reads a task called 8 as a number, and "inf" as a word.
    given = {key: typed_name(value) if key in ("task", "method") else value for key, value in plain.items()}
    if given.get("epsilon") == "inf":
        given["epsilon"] = math.inf
    return build(Cell, parse(_cell_parser(), given))


@cache
def _cell_parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Cell)
    return parser


def _copy(nested: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in nested.items()}


def _set(nested: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key."""
    *parents, last = key.split(".")
    for parent in parents:
        nested = nested.setdefault(parent, {})
    nested[last] = value
