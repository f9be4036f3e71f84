"""A sweep file and the cells that it names.

A sweep is a designed grid: one or several cross products of axes over one set of shared keys, written in one YAML
file. Cells are enumerated in the same order every time, and each is named once: axes that a method does not use are
collapsed. Nothing is run here, and no torch is imported until cells are enumerated.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from jsonargparse import ArgumentParser

from dphyper.bench.catalog import canonical
from dphyper.core.errors import UserError, unknown_name
from dphyper.core.names import Value, typed_name
from dphyper.core.parsing import build, parse
from dphyper.core.specs import MOST_NAME, Cell, Performance, WandbMode, content_hash
from dphyper.sweeps.search import DIMENSION, FROM, Choice, Search, nearest_choice, read_choices

_SHOWN_VALUES = 12  # of an axis in a summary
# Fields whose values need no parser where they have their type already: it takes 10 ms for each.
_PLAIN = {name: kind for name, kind in get_type_hints(Cell).items() if kind in (int, float, bool)}


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep file says.

    Attributes:
        name: Name of the sweep: W&B group, Optuna study, label in the rows.
        store: Folder of the results; empty for ``runs/NAME``.
        wandb: ``offline`` (runs on disk, uploaded when you say so), ``online``, ``auto`` (online when logged in, else
            offline) or ``off``.
        storage: Where workers note what they are at: ``journal`` (a file in the store, for one host) or the URL of a
            database that all hosts reach, ``postgresql://USER@HOST/DATABASE``. Results are in the store either way.
        performance: Knobs that change speed only.
        slurm: What ``dphyper sweep submit`` asks SLURM for, as submitit names it: ``timeout_min``, ``mem_gb``,
            ``gpus_per_node``, ``slurm_partition``, ….
        cell: Keys that all cells share, as in ``dphyper run``.
        searches: Recorded searches that the options come from: each a store's folder or its ``rows.parquet``, with rows
            on tuning tasks alone and several settings of a method. Options that are neither the defaults nor in one of
            them are labelled unknown.
        search: Searches of hyper-parameters on tuning tasks, by name, which run before what needs them.
        options: Hyper-parameters by method; an axis such as ``options.steps`` of the grid wins over them. ``from``
            among them is the name of a search, or the folder of a store with finished ones: its choice for the method
            at the nearest ε is taken, and the other options here stand beside it.
        grid: One or several cross products; each maps keys of a cell (dotted where nested) to lists of values.
    """

    name: str
    grid: list[dict[str, list[Value]]] = field(default_factory=list)
    store: str = ""
    wandb: WandbMode = "offline"
    storage: str = "journal"
    performance: Performance = field(default_factory=Performance)
    slurm: dict[str, Any] = field(default_factory=dict)
    cell: dict[str, Value] = field(default_factory=dict)
    searches: list[str] = field(default_factory=list)
    search: dict[str, Search] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w .+-]*", self.name) or len(self.name) > MOST_NAME:
            raise UserError(
                f"name = '{self.name[:MOST_NAME]}': expected a name without a slash, such as 'demo', of at most "
                f"{MOST_NAME} letters, digits and . + - _"
            )
        if not self.grid and not self.search:
            raise UserError("grid is empty: expected at least one mapping of axes to lists of values")
        for name in self.search:
            if not re.fullmatch(r"\w[\w.+-]*", name):
                raise UserError(f"search '{name}': expected a name of letters, digits and . + - _")
        for axes in self.grid:
            for key, values in axes.items():
                if not isinstance(key, str):
                    raise UserError(f"axis {key!r} of the grid: expected the key of a cell, such as 'epsilon'")
                if not values:
                    raise UserError(f"axis '{key}' of the grid has no value: give it one, or leave the axis out")

    @property
    def store_path(self) -> str:
        """Where the results go."""
        return self.store or f"runs/{self.name}"

    def cells(self) -> list[Cell]:
        """All cells of the grid in the order of the file, each once.

        Raises:
            UserError: A value that no cell may have, options for a method that neither grid nor search names, or
                options from a search that is not through.
        """
        cells, waiting = self.known_cells()
        if waiting:
            raise UserError(
                f"sweep '{self.name}': {waiting} cells take their options from a search that is not through: run the "
                "sweep first"
            )
        return cells

    def known_cells(self, *, by_default: bool = False) -> tuple[list[Cell], int]:
        """The cells of the grid whose options are known, in the order of the file, and how many are not.

        Args:
            by_default: Take defaults where the choice of a search is not known.

        Raises:
            UserError: As for `cells`.
        """
        found: dict[str, Cell] = {}
        waiting = 0
        methods = {method for search in self.search.values() for method in search.methods}
        for axes in self.grid:
            for cell, known in self._product(axes, self._chosen()):
                methods.add(cell.method)
                if known or by_default:
                    whole = canonical(cell)
                    found.setdefault(whole.id, whole)
                else:
                    waiting += 1
        for name in self.options:
            if name not in methods:
                raise unknown_name("method in options", name, methods)
        return list(found.values()), waiting

    def choices(self) -> list[Choice]:
        """What the searches have chosen that the options of this sweep come from, as far as they are through."""
        sources = {str(options[FROM]) for options in self.options.values() if FROM in options}
        return [choice for source in sorted(sources) for choice in self._choices_of(source)]

    def _choices_of(self, source: str) -> list[Choice]:
        if source in self.search:
            return read_choices(Path(self.store_path), source, self.search_key(source))
        found = read_choices(Path(source))
        if not found:
            raise UserError(
                f"options from '{source}': expected a search of this sweep ({', '.join(self.search) or 'it has none'}) "
                "or the folder of a store with a finished one"
            )
        return found

    def _chosen(self) -> Callable[[str, float], tuple[Mapping[str, Any], bool]]:
        """What was chosen for a method at an ε: its settings, and whether they are known already."""
        choices = {
            method: self._choices_of(str(options[FROM])) for method, options in self.options.items() if FROM in options
        }

        def settings(method: str, epsilon: float) -> tuple[Mapping[str, Any], bool]:
            if method not in choices:
                return {}, True
            choice = nearest_choice(choices[method], method, epsilon)
            return (choice.settings, True) if choice else ({}, False)

        return settings

    def search_key(self, name: str) -> str:
        """Hash of all that a search's proposals and its choice depend on."""
        search = self.search[name]
        return content_hash([dataclasses.asdict(search), [cell.to_dict() for cell in self.templates(search)]])

    def templates(self, search: Search) -> Iterator[Cell]:
        """A cell for each method and ε of a search, with the options of `options`; its task is any."""
        shared = _parsed(self.cell)
        for method in search.methods:
            options = {key: value for key, value in self.options.get(method, {}).items() if key != FROM}
            for epsilon in search.epsilon or [shared.epsilon]:
                yield canonical(Cell(**{**vars(shared), "method": method, "epsilon": epsilon, "options": options}))

    def _product(
        self, axes: Mapping[str, Sequence[Any]], chosen: Callable[[str, float], tuple[Mapping[str, Any], bool]]
    ) -> Iterator[tuple[Cell, bool]]:
        """The cells of one cross product, and whether their options are known.

        Each value is parsed once, not once for each cell that has it.
        """
        shared = dict(vars(_parsed(self.cell)))
        typed = [[_axis_value(key, value) for value in values] for key, values in axes.items()]
        for values in itertools.product(*typed):
            fields, nested = dict(shared), dict[str, dict[str, Any]]()
            for key, value in zip(axes, values, strict=True):
                top, _, inner = key.partition(".")
                if inner:
                    nested.setdefault(top, {})[inner] = value
                else:
                    fields[top] = value
            settings, known = chosen(fields["method"], fields["epsilon"])
            settings = dict(settings)
            dimension = settings.pop(DIMENSION, None)
            if dimension is not None and DIMENSION not in axes:
                fields[DIMENSION] = dimension
            given = {key: value for key, value in self.options.get(fields["method"], {}).items() if key != FROM}
            options = {**settings, **given, **fields["options"], **nested.pop("options", {})}
            for top, changes in nested.items():
                fields[top] = dataclasses.replace(fields[top], **changes)
            yield Cell(**{**fields, "options": options}), known


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
    return build(Cell, _parsed(plain))


def summary(cells: Sequence[Cell], states: Mapping[str, str]) -> list[str]:
    """A few lines about the cells of a sweep: the values of each axis, and how many cells of a method are done.

    Args:
        cells: Of the sweep.
        states: Id of each cell to its state.

    >>> print("\\n".join(summary([Cell(task="a"), Cell(task="a", seed=1)], {})))
    task       a
    seed       0, 1
    method          cells
    hypernetwork        2
    """
    plain = [{"method": cell.method, **_axes_of(cell)} for cell in cells]
    lines = []
    for axis in dict.fromkeys(name for axes in plain for name in axes if name != "method"):
        values = list(dict.fromkeys(axes[axis] for axes in plain if axis in axes))
        if len(values) > 1 or axis == "task":
            more = f", … {len(values)} in all" if len(values) > _SHOWN_VALUES else ""
            lines.append(f"{axis:10} {', '.join(map(str, values[:_SHOWN_VALUES]))}{more}")
    named = sorted(set(states.values()))
    width = max(12, *(len(cell.method) for cell in cells)) + 2
    lines.append(f"{'method':{width}}{'cells':>7}" + "".join(f"{state:>9}" for state in named))
    for method in dict.fromkeys(cell.method for cell in cells):
        mine = [states.get(cell.id) for cell in cells if cell.method == method]
        lines.append(f"{method:{width}}{len(mine):7}" + "".join(f"{mine.count(state):9}" for state in named))
    return lines


def _axes_of(cell: Cell) -> dict[str, Any]:
    """The axes of a cell that its method uses, as people read them."""
    axes: dict[str, Any] = {"source": cell.data.source, "task": cell.task, "n": cell.n}
    if math.isfinite(cell.epsilon):
        axes["epsilon"] = f"{cell.epsilon:g}"
    if cell.embedding_dim:
        axes["k"] = cell.embedding_dim
    return axes | {"seed": cell.seed, "noise draw": cell.noise_draw}


def _axis_value(key: str, value: Any) -> Any:
    """A value of an axis with the type that the key has in a cell; options keep theirs until their method is known."""
    top, _, inner = key.partition(".")
    if top == "options" and inner:
        return value
    if not inner and type(value) is _PLAIN.get(key):
        return value
    found = _parsed({top: {inner: value}} if inner else {key: value})[top]
    return getattr(found, inner) if inner else found


def _parsed(plain: Mapping[str, Any]) -> Any:
    """The fields of a cell, with their types and defaults."""
    # YAML reads a task called 8 as a number, and "inf" as a word.
    given = {key: typed_name(value) if key in ("task", "method") else value for key, value in plain.items()}
    if given.get("epsilon") == "inf":
        given["epsilon"] = math.inf
    return parse(_cell_parser(), given)


@cache
def _cell_parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Cell)
    return parser
