"""How a cell's options were chosen: the label that its row carries, and the recorded searches that it rests on.

A recorded search is a store whose rows are all on tuning tasks and hold several settings of a method's options. It
shows what was tried, on public records only. Whether a setting was tried elsewhere on private records too cannot be
seen from here; the label says only what is recorded.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dphyper.bench.method import Method, Selection
from dphyper.bench.store import Store, read_rows
from dphyper.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class RecordedSearch:
    """The settings that one store tried on tuning tasks.

    Attributes:
        settings: Method to its settings as plain options, each with the name of the sweep that ran it.
    """

    settings: Mapping[str, tuple[tuple[Mapping[str, Any], str], ...]]

    @classmethod
    def read(cls, path: str | Path) -> "RecordedSearch":
        """The search in a store's folder or in its ``rows.parquet``.

        Raises:
            UserError: There is no such store, it has rows on other than tuning tasks, or it tried no method with two
                settings.
        """
        path = Path(path)
        if not path.exists():
            raise UserError(f"search '{path}' is missing: name a store's folder or its rows.parquet")
        rows = read_rows(path) if path.is_file() else Store(path).rows_with_specs()
        rows = rows[rows["status"] == "done"]
        others = rows[rows["split"] != "tuning"]
        if len(others):
            first = others.iloc[0]
            raise UserError(
                f"search '{path}' has {len(others)} rows on other than tuning tasks, the first of {first['method']} on "
                f"the {first['split']} task '{first['task']}': expected a search on tuning tasks alone"
            )
        found: dict[str, dict[str, tuple[Mapping[str, Any], str]]] = {}
        for method, spec, sweep in zip(rows["method"], rows["spec"], rows["sweep"], strict=True):
            options = json.loads(spec)["options"]
            found.setdefault(method, {}).setdefault(json.dumps(options, sort_keys=True), (options, sweep))
        several = {method: tuple(tried.values()) for method, tried in found.items() if len(tried) > 1}
        if not several:
            raise UserError(f"search '{path}' has no method with two settings: expected a search among several")
        return cls(settings=several)

    @classmethod
    def of(cls, method: str, options: Mapping[str, Any], name: str) -> "RecordedSearch":
        """The search of a name, as far as one of its settings goes."""
        return cls(settings={method: ((options, name),)})


def selection_of(
    kind: type[Method], name: str, options: Mapping[str, Any], searches: Iterable[RecordedSearch], *, split: str
) -> tuple[Selection, str]:
    """How the options of a cell were chosen, and the name of the search that they come from ("" for none).

    Defaults have the label of their class. What a recorded search ran is ``tuned_public``, and so is every setting on
    a tuning task, where it is a trial on public records itself. Anything else is ``unknown``. Labels of a class
    that say that private records chose stay what they are.

    Args:
        kind: The method's class.
        name: Its registered name.
        options: Of the cell; missing ones are the defaults.
        searches: What was recorded.
        split: Of the cell's task.
    """
    if kind.selection in ("non_private", "tuned_private"):
        return kind.selection, ""
    try:
        given = kind.options_type.parse(name, options)
    except UserError:  # an option that the class had once
        return ("tuned_public", "") if split == "tuning" else ("unknown", "")
    if given == kind.options_type():
        return kind.selection, ""
    for search in searches:
        for tried, sweep in search.settings.get(name, ()):
            if {**dataclasses.asdict(kind.options_type()), **tried} == dataclasses.asdict(given):
                return "tuned_public", sweep
    return ("tuned_public", "") if split == "tuning" else ("unknown", "")
