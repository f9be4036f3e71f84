"""A search of hyper-parameters in a sweep file: what is tried of which methods, on which tasks, and what was chosen.

Each method has the same number of trials at each ε, and the first trial of each is its defaults. Only tuning tasks may
judge: they are public, so that choosing on them costs no privacy. What was chosen lies in the store, in one file for
each search, with the budget that it took; a sweep that takes its options from there is labelled by it.

How trials are proposed and judged is in `dphyper.sweeps.trials`. Nothing is run here, and no Optuna is imported.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dphyper.core.errors import UserError, unknown_name
from dphyper.core.files import read_json
from dphyper.core.names import Value

FOLDER = "searches"  # of a store: choices, and a folder of proposals for each search
FROM = "from"  # the key in a method's options that names a search
DIMENSION = "embedding_dim"  # which is searched like an option, though it is an axis of a cell

Range = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search tries.

    Attributes:
        methods: Method to its space: an option, or ``embedding_dim``, to a list of values or to a range
            ``{low: 1, high: 100}``, with ``log: true`` where factors count and not differences.
        tasks: Tuning tasks that judge each trial, one after another.
        epsilon: Budgets, each with a choice of its own; empty for that of `cell`.
        seeds: Draws on each task.
        trials: Settings that are tried of each method at each ε.
        prune: Whether a trial is given up that is behind the median of the earlier ones after two tasks or more.
        at_once: Trials of one method and ε that may run side by side; none is proposed from those beside it.
        seed: Of the proposals.
    """

    methods: dict[str, dict[str, Any]]
    tasks: list[Value]
    epsilon: list[float] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])
    trials: int = 16
    prune: bool = True
    at_once: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, given in (("methods", self.methods), ("tasks", self.tasks), ("seeds", self.seeds)):
            if not given:
                raise UserError(f"{name} of a search is empty: expected at least one")
        if self.trials < 2 or self.at_once < 1:
            raise UserError(
                f"trials = {self.trials}, at_once = {self.at_once} of a search: expected at least 2 trials, 1 at once"
            )
        for method, space in self.methods.items():
            for option, given in space.items():
                where = f"search of {method}: {option}"
                if isinstance(given, Mapping):
                    _require_range(where, given)
                elif not isinstance(given, list) or len(given) < 2:
                    raise UserError(f"{where} = {given!r}: expected a list of values, or {{low: …, high: …}}")

    def examples(self, method: str) -> Iterator[dict[str, Any]]:
        """The defaults, and every value and end of a range by itself: what has to be valid."""
        yield {}
        for option, given in self.methods[method].items():
            for value in (given["low"], given["high"]) if isinstance(given, Mapping) else given:
                yield {option: value}


def _require_range(where: str, given: Range) -> None:
    for key in given:
        if key not in ("low", "high", "log"):
            raise unknown_name(f"key in the range of a {where}", str(key), ("low", "high", "log"))
    low, high = given.get("low"), given.get("high")
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high)) or not low < high:  # type: ignore[operator]
        raise UserError(f"{where} = {dict(given)}: expected two numbers, low below high")
    if given.get("log") and low <= 0:  # type: ignore[operator]
        raise UserError(f"{where} = {dict(given)}: expected low above 0 where factors count (log: true)")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The best trial of one method at one ε.

    Attributes:
        search: Name of the search.
        sweep: Name of the sweep that it was part of.
        method: A registered method.
        epsilon: ∞ for a method that knows no ε.
        settings: What was searched, to its best value; empty where the defaults were best.
        options: All options of the best trial.
        score: Of the best trial, as in `dphyper.sweeps.trials`.
        trials: How many were made.
        cells: How many cells these took.
        seconds: How long the cells took in all.
    """

    search: str
    sweep: str
    method: str
    epsilon: float
    settings: dict[str, Any]
    options: dict[str, Any]
    score: float
    trials: int
    cells: int
    seconds: float


def label(method: str, epsilon: float) -> str:
    """A method at an ε, as folders of proposals are called."""
    return f"{method} {epsilon:g}"


def told(method: str, epsilon: float) -> str:
    """A method at an ε, for people; a method without ε stands alone."""
    return method + (f" at ε={epsilon:g}" if math.isfinite(epsilon) else "")


def outcome(score: float, settings: Mapping[str, Any]) -> str:
    """The distance that a trial reached, and with what.

    >>> outcome(0.0, {"steps": 40, "learning_rate": 3.14159}), outcome(0.0, {})
    ('1.0 with steps=40, learning_rate=3.14', '1.0 with the defaults')
    """
    shown = [
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in settings.items()
    ]
    return f"{math.exp(score):.1f} with {', '.join(shown) or 'the defaults'}"


def progress(root: Path, search: str, key: str, trials: int) -> list[str]:
    """A line on each method and ε of a search, from what lies in the store.

    Args:
        root: Folder of the store.
        search: Its name.
        key: As in `read_choices`.
        trials: Of each method at each ε.
    """
    lines = [
        f"{told(choice.method, choice.epsilon)}: {choice.trials} trials of {choice.cells} cells; chosen "
        + outcome(choice.score, choice.settings)
        for choice in read_choices(root, search, key)
    ]
    if not lines:
        for folder in sorted((root / FOLDER / search / key).glob("[!.]*")):
            method, _, epsilon = folder.name.rpartition(" ")
            lines.append(f"{told(method, float(epsilon))}: trial {len([*folder.glob('[!.]*.json')])} of {trials}")
    return [f"{search}: {line}" for line in lines]


def read_choices(root: Path, search: str = "", key: str = "") -> list[Choice]:
    """What searches in a store have chosen.

    Args:
        root: Folder of the store.
        search: Name of one; empty for all.
        key: Of the search as it stands in the sweep file; a choice that was made when it said something else does not
            count. Empty for whatever was chosen.
    """
    paths = sorted((root / FOLDER).glob(f"{search}.json" if search else "[!.]*.json"))
    files = [plain for path in paths if (plain := read_json(path)) and key in ("", plain.get("key"))]
    found = [choice for plain in files for choice in plain["choices"]]
    return [Choice(**{**choice, "epsilon": float(choice["epsilon"])}) for choice in found]


def nearest_choice(choices: list[Choice], method: str, epsilon: float) -> Choice | None:
    """The choice for a method at the ε that is nearest by its factor; of two the smaller. None where there is none.

    >>> tried = dict(search="s", sweep="s", method="m", settings={}, options={}, score=0.0, trials=2, cells=2)
    >>> tried["seconds"] = 1.0
    >>> chosen = nearest_choice([Choice(epsilon=e, **tried) for e in (1.0, 4.0)], "m", 2.0)
    >>> chosen.epsilon
    1.0
    """

    def factor(choice: Choice) -> float:
        if choice.epsilon == epsilon:
            return 0.0
        return abs(math.log(choice.epsilon) - math.log(epsilon))

    own = sorted((choice for choice in choices if choice.method == method), key=lambda choice: choice.epsilon)
    return min(own, key=factor, default=None)
