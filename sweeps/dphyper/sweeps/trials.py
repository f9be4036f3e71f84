"""The trials of a search: proposed by Optuna, run as ordinary cells, judged by their rows.

A trial is one setting of a method's options at one ε, run on the search's tuning tasks one after another. Its score is
the mean logarithm of the Fréchet distance over tasks and seeds: that of the geometric mean, so that no task counts more
for having larger distances. A trial with a cell that failed has no score and stands as one that was made.

What to run next is a function of the rows in the store and of the proposals that lie beside them. Each proposal is
written once, before any of its cells runs. So any number of workers come to the same trials, none asks twice, and a
worker that dies or a search that is stopped loses nothing. A proposal is a function of the trials before it, of the
search's seed and of Optuna's version; the noise of private releases is fresh, so that two runs of one search may choose
differently. A search whose entry in the sweep file was changed, or the keys that its cells share, begins anew, and what
it had chosen before counts no more; rows of settings that it proposes again are not run again.

Proposals come from Optuna's TPE sampler, after a third of the trials at random; a trial is given up by its median
pruner.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from dphyper.bench.catalog import METHODS, canonical
from dphyper.bench.store import Store
from dphyper.core.errors import UserError
from dphyper.core.files import read_json, write_json, write_json_once
from dphyper.core.names import typed_name
from dphyper.core.specs import Cell, content_hash
from dphyper.sweeps.plan import Sweep
from dphyper.sweeps.search import DIMENSION, FOLDER, Choice, Search, label, outcome, told

_WARM_UP_TASKS = 2  # that a trial is judged on before it may be given up: one may be odd
_LEAST = 1e-6  # distance that has a logarithm; rounding may make one of 0
_ASKED = 20  # times for a setting that was not tried before; a small space has no more

optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is known of a trial.

    Attributes:
        settings: Searched options to their values; empty for the defaults.
        scores: Running mean of the score after each task that is through.
        state: Running, complete, pruned or failed.
        cells: Ids of the cells that it has asked for.
        missing: Those of them that have no row yet.
        seconds: That the others took.
    """

    settings: dict[str, Any]
    scores: tuple[float, ...]
    state: TrialState
    cells: tuple[str, ...]
    missing: tuple[Cell, ...]
    seconds: float


class Trials:
    """The trials of one method at one ε.

    Args:
        name: Of the search.
        search: What it tries.
        template: A cell of the method at this ε with the options that are not searched; its task and seed are replaced.
        store: Where rows lie.
        folder: Of the proposals of the search.
    """

    def __init__(self, name: str, search: Search, template: Cell, store: Store, folder: Path) -> None:
        self.name, self.method, self.epsilon = name, template.method, template.epsilon
        self._search, self._template, self._store = search, template, store
        space = search.methods[template.method]
        self._space = {option: _distribution(option, given, template.method) for option, given in space.items()}
        own = label(template.method, template.epsilon)
        self._folder = folder / own
        self._sampler_seed = content_hash([search.seed, name, own])
        self.trials: list[Trial] = []

    @property
    def open(self) -> bool:
        """Whether trials are missing or not through."""
        return len(self._ended()) < self._search.trials

    def look(self, *, propose: bool) -> list[Cell]:
        """The cells that the trials so far still ask for; with ``propose``, of trials that can be proposed now too."""
        cells: list[Cell] = []
        for number in range(self._search.trials):
            if number < len(self.trials) and self.trials[number].state.is_finished():
                trial = self.trials[number]
            else:
                earlier = self.trials[: max(number - self._search.at_once + 1, 0)]
                if not all(trial.state.is_finished() for trial in earlier):
                    break
                settings = self._proposal(number, earlier, propose=propose)
                if settings is None:
                    break
                trial = self._judge(settings, earlier)
                self.trials[number:] = [trial]
            cells += trial.missing
        return cells

    def best(self) -> Trial | None:
        """The complete trial of the least score, the first of several; None where there is none."""
        complete = [trial for trial in self._ended() if trial.state == TrialState.COMPLETE]
        return min(complete, key=lambda trial: trial.scores[-1], default=None)

    def choice(self, sweep: str) -> Choice | None:
        """The best trial as it is stored; None where there is none."""
        best = self.best()
        if best is None:
            return None
        return Choice(
            search=self.name,
            sweep=sweep,
            method=self.method,
            epsilon=self.epsilon,
            settings=best.settings,
            options=self._cells(best.settings)[0][0].options,
            score=best.scores[-1],
            trials=len(self.trials),
            cells=len({cell for trial in self.trials for cell in trial.cells}),
            seconds=sum(trial.seconds for trial in self.trials),
        )

    def described(self) -> str:
        """How far it is, and what is best so far, in one line."""
        best, ended = self.best(), self._ended()
        line = f"{told(self.method, self.epsilon)}: {len(ended)} of {self._search.trials} trials"
        pruned, failed = (
            sum(trial.state == state for trial in ended) for state in (TrialState.PRUNED, TrialState.FAIL)
        )
        line += f", {pruned} given up" * bool(pruned) + f", {failed} failed" * bool(failed)
        if best:
            line += f"; best {outcome(best.scores[-1], best.settings)}"
        return line

    def examples(self) -> Iterator[Cell]:
        """Cells with every value of the space by itself on every task, of which none needs to be run."""
        for settings in self._search.examples(self.method):
            for cells in self._cells(settings):
                yield from cells

    def _ended(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state.is_finished()]

    def _cells(self, settings: Mapping[str, Any]) -> list[list[Cell]]:
        """The cells of a setting, those of each task together."""
        options = {name: value for name, value in settings.items() if name != DIMENSION}
        cell = replace(
            self._template,
            options={**self._template.options, **options},
            embedding_dim=settings.get(DIMENSION, self._template.embedding_dim),
        )
        tasks = map(typed_name, self._search.tasks)
        return [[canonical(replace(cell, task=task, seed=seed)) for seed in self._search.seeds] for task in tasks]

    def _proposal(self, number: int, earlier: Sequence[Trial], *, propose: bool) -> dict[str, Any] | None:
        """The settings of a trial: as written down, or else, if that is wanted, proposed and written down."""
        path = self._folder / f"{number:04}.json"
        if not path.exists():
            if not propose:
                return None
            self._folder.mkdir(parents=True, exist_ok=True)
            write_json_once(path, {"settings": self._propose(number, earlier) if number else {}})
        settings: dict[str, Any] = read_json(path)["settings"]
        return settings

    def _propose(self, number: int, earlier: Sequence[Trial]) -> dict[str, Any]:
        seed = int(content_hash([self._sampler_seed, number]), 16) % 2**32
        at_random = max(self._search.trials // 3, 1)
        study = self._study(earlier, optuna.samplers.TPESampler(seed=seed, n_startup_trials=at_random))
        tried = [trial.settings for trial in earlier]
        for _ in range(_ASKED):
            asked = study.ask(self._space).params
            settings = {option: _decoded(value, self._space[option]) for option, value in asked.items()}
            if settings not in tried:
                break
        return settings

    def _study(self, trials: Sequence[Trial], sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
        """A study in memory with the trials that were not lost to an error."""
        study = optuna.create_study(sampler=sampler)
        for trial in trials:
            if trial.state == TrialState.FAIL:
                continue
            params = self._params(trial.settings)
            study.add_trial(
                create_trial(
                    state=trial.state,
                    value=trial.scores[-1] if trial.state == TrialState.COMPLETE else None,
                    params=params,
                    distributions=self._space if params else {},
                    intermediate_values=dict(enumerate(trial.scores)),
                )
            )
        return study

    def _params(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings as Optuna has them, defaults filled in; empty where they lie outside of the space."""
        defaults = {**asdict(METHODS[self.method].options_type()), **self._template.options}
        values = {**defaults, DIMENSION: self._template.embedding_dim, **settings}
        params = {option: _encoded(values[option], kind) for option, kind in self._space.items()}
        return params if all(_holds(kind, params[option]) for option, kind in self._space.items()) else {}

    def _judge(self, settings: dict[str, Any], earlier: Sequence[Trial]) -> Trial:
        """What the rows say of a trial."""
        values: list[float] = []
        scores: list[float] = []
        asked: list[str] = []
        missing: list[Cell] = []
        seconds, state = 0.0, TrialState.COMPLETE
        per_task = self._cells(settings)
        for step, cells in enumerate(per_task):
            asked += [cell.id for cell in cells]
            states = [self._store.status(cell.id) for cell in cells]
            rows = [self._store.row(cell.id) for cell, known in zip(cells, states, strict=True) if known == "done"]
            seconds += sum(row.get("seconds_adapt", 0.0) + row["seconds_evaluate"] for row in rows)
            if "to do" in states:
                missing = [cell for cell, known in zip(cells, states, strict=True) if known == "to do"]
                state = TrialState.RUNNING
                break
            if "failed" in states:
                state = TrialState.FAIL
                break
            values += [math.log(max(row["metrics"]["frechet"], _LEAST)) for row in rows]
            scores.append(sum(values) / len(values))
            if step + 1 < len(per_task) and self._behind(scores, earlier):
                state = TrialState.PRUNED
                break
        return Trial(
            settings=settings,
            scores=tuple(scores),
            state=state,
            cells=tuple(asked),
            missing=tuple(missing),
            seconds=seconds,
        )

    def _behind(self, scores: Sequence[float], earlier: Sequence[Trial]) -> bool:
        """Whether a trial is to be given up at its present task."""
        if not self._search.prune:
            return False
        pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=_WARM_UP_TASKS - 1)
        running = create_trial(state=TrialState.RUNNING, intermediate_values=dict(enumerate(scores)))
        behind: bool = pruner.prune(self._study(earlier), running)
        return behind


class Agenda:
    """What a sweep with searches has to do, as far as it is known: cells of trials, and those of the grid.

    The grid's cells that take their options from a search are known when it is through. Every process of a sweep has an
    agenda of its own and comes to the same one.

    Args:
        sweep: With its searches.

    Attributes:
        cells: All that are known, by id; the grid's, and every trial's so far.
        waiting: How many cells of the grid are not.
        open: Whether more will be known.
    """

    def __init__(self, sweep: Sweep) -> None:
        self._sweep, self._store = sweep, Store(sweep.store_path)
        self._keys = {name: sweep.search_key(name) for name in sweep.search}
        self.searches = {
            name: list({(trials.method, trials.epsilon): trials for trials in self._trials(name, search)}.values())
            for name, search in sweep.search.items()
        }
        self.cells: dict[str, Cell] = {}
        self.waiting = 0
        self.open = True

    def _trials(self, name: str, search: Search) -> Iterator[Trials]:
        folder = self._store.root / FOLDER / name / self._keys[name]
        for template in self._sweep.templates(search):
            yield Trials(name, search, template, self._store, folder)

    def look(self, *, propose: bool = True) -> list[Cell]:
        """Cells that were not known before.

        Args:
            propose: Whether new trials are proposed, and choices written down; otherwise this reads only.
        """
        found: list[Cell] = []
        self.open = False
        for name, all_trials in self.searches.items():
            for trials in all_trials:
                found += trials.look(propose=propose)
            through = not any(trials.open for trials in all_trials)
            self.open |= not through
            if propose and through and not self._is_written(name):
                self._write(name, all_trials)
        grid, self.waiting = self._sweep.known_cells()
        new = {cell.id: cell for cell in [*found, *grid] if cell.id not in self.cells}
        self.cells |= new
        return list(new.values())

    def examples(self) -> list[Cell]:
        """Cells that show every mistake in the searches and the grid; not all of them will be run.

        Raises:
            UserError: A value that an option may not have.
        """
        found = {cell.id: cell for cell in self._sweep.known_cells(by_default=True)[0]}
        for all_trials in self.searches.values():
            for trials in all_trials:
                found |= {cell.id: cell for cell in trials.examples()}
        return list(found.values())

    def judges(self) -> list[Cell]:
        """Cells by whose rows something is chosen."""
        return [cell for all_trials in self.searches.values() for trials in all_trials for cell in trials.examples()]

    def lines(self) -> list[str]:
        """A line on each method and ε of a search."""
        return [
            f"search {name}: {trials.described()}"
            for name, all_trials in self.searches.items()
            for trials in all_trials
        ]

    def _is_written(self, name: str) -> bool:
        path = self._store.root / FOLDER / f"{name}.json"
        return path.exists() and read_json(path).get("key") == self._keys[name]

    def _write(self, name: str, all_trials: Sequence[Trials]) -> None:
        """Write down what a search that is through has chosen."""
        choices = [choice for trials in all_trials if (choice := trials.choice(self._sweep.name))]
        plain = [{**asdict(choice), "epsilon": str(choice.epsilon)} for choice in choices]
        content = {"key": self._keys[name], "search": asdict(self._sweep.search[name]), "choices": plain}
        write_json(self._store.root / FOLDER / f"{name}.json", content)


def _distribution(option: str, given: Any, method: str) -> BaseDistribution:
    """What Optuna draws an option from; a range of an option that is a whole number has whole numbers."""
    if not isinstance(given, Mapping):
        return CategoricalDistribution([json.dumps(value) for value in given])
    low, high, log = given["low"], given["high"], bool(given.get("log"))
    default = 1 if option == DIMENSION else getattr(METHODS[method].options_type(), option, None)
    if isinstance(default, bool) or not isinstance(default, int | float):
        raise UserError(f"search of {method}: {option} is no number: expected a list of its values")
    if isinstance(default, int):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _holds(kind: BaseDistribution, value: Any) -> bool:
    if isinstance(kind, CategoricalDistribution):
        return value in kind.choices
    assert isinstance(kind, IntDistribution | FloatDistribution)
    return bool(kind.low <= value <= kind.high)


def _encoded(value: Any, kind: BaseDistribution) -> Any:
    return json.dumps(value) if isinstance(kind, CategoricalDistribution) else value


def _decoded(value: Any, kind: BaseDistribution) -> Any:
    return json.loads(value) if isinstance(kind, CategoricalDistribution) else value
