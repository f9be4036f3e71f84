"""Whether a result store deserves belief: every claim in it is derived again from its ledgers.

`check_store` asks of each cell: is it what was written; does ε follow from the ledger, by both accountants; does the
ledger hold every release that the method declares, and no other; do ledger, spec and row agree; was the noise secret;
was the run repeated; was its code sound. Of the store as a whole it asks: is there one protocol, one relation, and one
setting of a method on a private task; what did failed cells release; does a private number beat the non-private ceiling
beyond chance. It reads the store only. It cannot see a private record that never passed the ledger; the contract suite
and the audits look for that.
"""

import functools
import json
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import ttest_ind

from dphyper.audits.declared import declared_releases, in_one_line
from dphyper.bench.catalog import METHODS
from dphyper.bench.store import Store
from dphyper.core.errors import PrivacyError, UserError
from dphyper.core.files import DamagedFileError, read_json
from dphyper.core.labels import doubt
from dphyper.core.specs import Cell
from dphyper.metrics.metric import METRICS
from dphyper.privacy.accounting import epsilon_of
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.json_form import event_from_json, event_json, mechanism_json
from dphyper.privacy.ledger import Ledger
from dphyper.privacy.mechanisms import Mechanism

# Chance that a sound store has a finding of a private number beyond the ceiling.
FALSE_FINDING_CHANCE = 0.01
# What reading a ledger that was damaged or edited may raise.
_UNDERIVABLE = (PrivacyError, UserError, LookupError, TypeError, ValueError, AttributeError)
Declared = Callable[[str, str, Budget], tuple[Mechanism, ...]]


def check_store(store: Store) -> list[str]:
    """Findings in a store, one line each; empty if there are none.

    Raises:
        UserError: The store has no row, or one of another schema.
    """
    damage: list[str] = []
    try:
        rows = store.rows(damage.append)
    except UserError:
        if damage:  # in every row
            return damage
        raise
    done = rows[rows["status"] == "done"]
    declared = functools.cache(_declared)
    findings = [
        f"cell {row['cell']} ({row['method']}, ε = {row['epsilon']:g}): {finding}"
        for row in done.to_dict("records")
        for finding in _check_cell(store, row, declared)
    ]
    failed = _check_failed(store, rows[rows["status"] == "failed"])
    return [
        *damage,
        *findings,
        *_check_folders(store, {*done["cell"]}),
        *failed,
        *_check_settings(store, done),
        *_check_whole(done),
    ]


def _declared(method: str, options: str, budget: Budget) -> tuple[Mechanism, ...]:
    """The releases that a method declares for options in JSON.

    Raises:
        UserError: It is not installed, or declares nothing for them.
    """
    if method not in METHODS:
        raise UserError("its method is not installed here, so that it cannot be told whether its ledger is complete")
    try:
        return declared_releases(method, json.loads(options), budget)
    except Exception as error:  # of whatever kind: the code may be anyone's
        raise UserError(
            f"what its method declares cannot be built from its spec ({in_one_line(error)}), so that it cannot be told "
            "whether its ledger is complete"
        ) from error


def _check_cell(store: Store, row: Mapping[Hashable, Any], declared: Declared) -> Iterator[str]:
    cell = store.cell(row["cell"])
    if cell.id != row["cell"]:
        yield f"its spec has the id {cell.id}: the spec was changed after the run"
    for name in ("epsilon", "delta", "relation", "n", "seed", "method", "task"):
        if row[name] != getattr(cell, name):
            yield f"{name} is {row[name]} in the row and {getattr(cell, name)} in the spec"
    folder = store.directory(row["cell"])
    yield from _check_history(row, folder)
    plain = read_json(folder / "ledger.json")
    try:
        ledger = Ledger.from_json(plain)
        spent = ledger.spent()
        events = [event_from_json(line["event"]) for line in plain["charges"]]
        others = {
            "derived from the recorded events": epsilon_of(events, ledger.budget.delta, ledger.budget.relation),
            "recorded in the ledger": float(plain["epsilon_spent"]),
            "in the row": float(row["epsilon_spent"]),
        }
    except _UNDERIVABLE as error:
        yield f"ε cannot be derived from its ledger: {type(error).__name__}: {error}"
        return
    for what, value in others.items():
        if not _same(value, spent):
            yield f"ε = {value:.6g} {what}, {spent:.6g} derived from the mechanisms"
    if spent > ledger.budget.epsilon:
        yield f"ε = {spent:.6g} spent of a budget of {ledger.budget.epsilon:.6g}"
    if row["private"]:
        yield from _check_claim(row["selection"], ledger, spent)
    yield from _check_ledger(cell, ledger, plain)
    try:
        releases = declared(cell.method, json.dumps(cell.options, sort_keys=True), ledger.budget)
    except UserError as error:
        yield str(error)
    else:
        yield from ledger.differences(releases)


@functools.cache
def _private_metrics() -> list[str]:
    """The metrics that are taken from the private records themselves."""
    return sorted(name for name in METRICS if "private_features" in METRICS[name].needs)


def _check_history(row: Mapping[Hashable, Any], folder: Path) -> Iterator[str]:
    """How the row came to be: by which code, on whose records, at the first attempt or not."""
    if row["private"]:
        if reason := doubt(row["harness"], _text(row.get("commit"))):
            yield reason
        if row["split"] == "private":
            for name in _private_metrics():
                if not pd.isna(row.get(name, math.nan)):
                    yield f"its metric {name} was taken from the private records themselves, and no noise covers it"
        if row["split"] == "public":
            yield "marked private, but its task is public: the base model and the public phase saw its records"
    interrupted = folder / "ledger.interrupted.json"
    if interrupted.exists():
        try:
            roles = [f"'{line['role']}'" for line in read_json(interrupted)["charges"]]
        except _UNDERIVABLE as error:
            roles = [f"its {interrupted.name} cannot be read ({error})"]
        yield f"it was interrupted and drawn again: {', '.join(roles)}"
    yield from _check_given_up(folder)


def _check_given_up(folder: Path) -> Iterator[str]:
    """What attempts spent that `dphyper reset` gave up, together with the one that stands."""
    given_up = sorted(folder.glob("ledger.given_up.*.json"))
    if not given_up:
        return
    try:
        ledgers = [Ledger.from_json(read_json(path)) for path in (*given_up, folder / "ledger.json")]
        events = [charge.mechanism.event() for ledger in ledgers for charge in ledger.charges]
        budget = ledgers[-1].budget
        spent = f"ε = {epsilon_of(events, budget.delta, budget.relation):.6g}"
    except _UNDERIVABLE as error:
        spent = f"an ε that cannot be derived ({type(error).__name__}: {error})"
    times = "once" if len(given_up) == 1 else f"{len(given_up)} times"
    yield f"it was given up {times} and begun anew: all together spent {spent}"


def _text(value: Any) -> str:
    """A text of a row; pandas has NaN where there is none."""
    return value if isinstance(value, str) else ""


def _check_claim(selection: str, ledger: Ledger, spent: float) -> Iterator[str]:
    if (ledger.noise or {}).get("source") == "reproducible":
        yield "marked private, but its noise was drawn from a seed"
    if math.isinf(spent):
        yield "marked private, but records were used without noise"
    if selection == "non_private" or (selection == "tuned_private" and not ledger.has_selection):
        yield "marked private, but its hyper-parameters were chosen on private records without accounting"
    if ledger.has_selection and selection != "tuned_private":
        yield f"its hyper-parameters are labelled {selection}, but its ledger has a choice on the private records"


def _check_ledger(cell: Cell, ledger: Ledger, plain: dict[str, Any]) -> Iterator[str]:
    budget = ledger.budget
    if (budget.epsilon, budget.delta, budget.relation) != (cell.epsilon, cell.delta, cell.relation):
        yield f"its ledger is of {budget}, its spec of ε = {cell.epsilon:g}, δ = {cell.delta:g}, {cell.relation}"
    if ledger.charges and ledger.n != cell.n:
        yield f"n = {ledger.n} in the ledger and {cell.n} in the spec"
    attempts = {charge.attempt for charge in ledger.charges} - {0}
    if attempts:
        yield (
            f"{len(attempts)} attempt{'s' * (len(attempts) > 1)} at it failed after a release: all together spent "
            f"ε = {ledger.spent():.6g}"
        )
    for charge, line in zip(ledger.charges, plain["charges"], strict=True):
        mechanism, role = charge.mechanism, f"role '{charge.role}'"
        if not charge.complete:
            yield f"{role} was charged and not completed"
        if line["event"] != event_json(mechanism.event()):
            yield f"{role} recorded an event that is not its mechanism's"
        for name, value in (
            ("sensitivity", mechanism.sensitivity(budget.relation)),
            ("noise_std", mechanism.noise_std(budget.relation)),
        ):
            recorded, derived = _numbers(line[name]), _numbers(value)
            if len(recorded) != len(derived) or not all(map(_same, recorded, derived)):
                shown = ", ".join(f"{number:.6g}" for number in derived)
                yield f"{role} has {name} {line[name]} recorded, {shown} by its mechanism under {budget.relation}"
    yield from _check_options(cell, [charge.mechanism for charge in ledger.charges])


def _check_options(cell: Cell, charged: list[Mechanism]) -> Iterator[str]:
    """Options of the spec that some mechanism should have and none has; a method may have several mechanisms."""
    parts = [part for mechanism in charged for part in (mechanism, *getattr(mechanism, "trial", ()))]
    for name in ("steps", "sampling_prob", "l2_clip_norm", "mean_trials", "shape"):
        values = [getattr(part, name) for part in parts if name in mechanism_json(part)]
        if name in cell.options and values and cell.options[name] not in values:
            shown = ", ".join(map(str, values))
            yield f"{name} = {shown} in its ledger, its spec {cell.options[name]}"


def _check_folders(store: Store, done: set[str]) -> Iterator[str]:
    """Parameters without a ledger, in any folder but those of done cells, of which that is said already."""
    for theta in sorted(store.root.glob("cells/*/theta.safetensors")):
        if theta.parent.name not in done and not (theta.parent / "ledger.json").exists():
            yield f"cell {theta.parent.name}: it has parameters and no ledger.json: nothing can be claimed for them"


def _check_failed(store: Store, failed: pd.DataFrame) -> Iterator[str]:
    """Failed cells that had released something: whoever tries until a cell succeeds pays for all tries."""
    keys = ["method", "task", "n", "delta", "relation"]
    for key, rows in failed.groupby(keys):
        method, task, n, delta, relation = map(str, key)
        paths = [store.directory(cell) / "ledger.json" for cell in rows["cell"]]
        try:
            ledgers = [read_json(path) for path in paths if path.exists()]
        except DamagedFileError as error:
            yield f"{error}: what this failed cell released cannot be told"
            continue
        charged = [ledger["charges"] for ledger in ledgers if ledger.get("charges")]
        if not charged:
            continue
        try:
            events = [event_from_json(line["event"]) for charges in charged for line in charges]
            spent = f"ε = {epsilon_of(events, float(delta), Relation(relation)):.6g} at δ = {float(delta):g}"
        except _UNDERIVABLE as error:
            spent = f"an ε that cannot be derived ({type(error).__name__}: {error})"
        cells = f"{len(charged)} failed cell{'s' * (len(charged) > 1)}"
        yield (
            f"{method} on {task} (n = {n}): {cells} failed after a release and count as attempts; together they spent "
            f"{spent}"
        )


def _check_settings(store: Store, done: pd.DataFrame) -> Iterator[str]:
    """Several settings of one method on one private task: to show one of them is a choice on private results."""
    rows = done[(done["split"] == "private") & (done["role"] == "method")]
    rows = rows.assign(options=[json.dumps(store.cell(cell).options, sort_keys=True) for cell in rows["cell"]])
    keys = ["collection", "task", "method", "epsilon", "n", "embedding_dim"]
    for (_, task, method, epsilon, n, k), group in rows.groupby(keys):
        settings = [json.loads(options) for options in group["options"].unique()]
        if len(settings) < 2:
            continue
        names = sorted({name for options in settings for name in options})
        differing = [name for name in names if len({str(options.get(name)) for options in settings}) > 1]
        shown = "; ".join(", ".join(f"{name} = {options.get(name)}" for name in differing) for options in settings)
        where = f"n = {n}, k = {k}" if k else f"n = {n}"
        yield (
            f"{method} at ε = {epsilon:g} on {task} ({where}): {len(settings)} settings ran on this private task "
            f"({shown}); to choose among them by their results is a use of private records that is not accounted for"
        )


def _check_whole(done: pd.DataFrame) -> Iterator[str]:
    for name, values in (("protocol", done["protocol"]), ("relation", done["relation"]), ("delta", done["delta"])):
        found = sorted(values.unique())
        if len(found) > 1:
            yield f"rows of different {name} in one store: {', '.join(map(str, found))}; keep one store for each"
    if "frechet" not in done:
        return
    groups = done.groupby(["collection", "task", "n", "protocol"])
    tests = [
        (key, method, epsilon, rows["frechet"], group.loc[group["role"] == "ceiling", "frechet"])
        for key, group in groups
        for (method, epsilon), rows in group[group["private"] & (group["epsilon_spent"] > 0)].groupby(
            ["method", "epsilon"]
        )
    ]
    for (_, task, n, _), method, epsilon, private, ceiling in tests:
        # An interval needs two numbers on either side.
        if min(private.count(), ceiling.count()) < 2:
            continue
        # A pooled variance, for with three seeds a side Welch's test finds nothing at this level.
        better = ttest_ind(private, ceiling, alternative="less", nan_policy="omit")
        if better.pvalue < FALSE_FINDING_CHANCE / len(tests):
            yield (
                f"{method} at ε = {epsilon:g} on {task} (n = {n}): a Fréchet distance of {private.mean():.4g} over "
                f"{len(private)} seeds beats the non-private ceiling's {ceiling.mean():.4g} (p = {better.pvalue:.1g})"
            )


def _numbers(value: Any) -> list[float]:
    return [float(number) for number in (value if isinstance(value, (list, tuple)) else [value])]


def _same(a: float, b: float) -> bool:
    return a == b or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
