"""``dphyper ls``: list what is registered, the tasks that data make, or a store's cells.

Methods, data sources, targets and metrics are registered. What is listed of them is read from the sources of their
classes, which are not imported: the list comes at once, and names also what cannot run here. Tasks are those of the
``--data`` keys or of a sweep file, cut as a run cuts them; what is said of private records is for the user alone.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from dphyper.core.errors import UserError
from dphyper.core.registry import Registry
from dphyper.core.specs import DataSpec

if TYPE_CHECKING:
    from dphyper.bench.tasks import Collection

HELP = "list methods, data sources, targets, metrics, the tasks of data or of a sweep, a store's cells"


def parser() -> ArgumentParser:
    """What to list, and of which data or store."""
    made = ArgumentParser(exit_on_error=False, description="List what there is.")
    made.add_argument("what", choices=[*LISTS], help="what to list")
    made.add_argument("file", nargs="?", default="", help="of tasks: a sweep file, in place of the data keys")
    made.add_argument("--source", type=str, default="", help="of tasks: short for --data.source")
    made.add_argument("--clusters", action="store_true", help="of tasks: public clusters one by one")
    made.add_argument("--sheet", type=str, default="", help="of tasks: write a PNG with images of every family")
    made.add_class_arguments(DataSpec, "data")
    made.add_argument("--store", type=str, default="runs/demo", help="of cells: the folder of results")
    return made


def execute(config: Namespace) -> int:
    """Print the list, one thing a line."""
    for line in LISTS[config.what](config):
        print(line)
    return 0


def _methods(config: Namespace) -> Iterator[str]:
    from dphyper.bench.catalog import METHODS

    return _registered(METHODS, 20, "role", 8)


def _data(config: Namespace) -> Iterator[str]:
    from dphyper.bench.catalog import DATASETS

    return _registered(DATASETS, 12)


def _targets(config: Namespace) -> Iterator[str]:
    from dphyper.targets.registry import TARGETS

    return _registered(TARGETS, 12)


def _metrics(config: Namespace) -> Iterator[str]:
    from dphyper.metrics.metric import METRICS

    return _registered(METRICS, 20, "label", 24)


def _registered(registry: Registry[Any], width: int, literal: str = "", literal_width: int = 0) -> Iterator[str]:
    """Name, one literal of the class where one is asked for, and its summary."""
    cards = {name: registry.card(name) for name in registry}
    # Methods have a place among those of their role; other things follow by name.
    for name, card in sorted(cards.items(), key=lambda entry: (entry[1].attributes.get("order") or 1000, entry[0])):
        columns = [f"{name:{width}}"]
        if literal:
            columns.append(f"{card.attributes.get(literal, ''):{literal_width}}")
        yield " ".join([*columns, card.summary])


def _tasks(config: Namespace) -> Iterator[str]:
    from dphyper.bench.catalog import DATASETS

    wanted, asked = _data_of(config), []
    for number, (spec, task_ids) in enumerate(wanted.items(), 1):
        collection = DATASETS[spec.scheme].load(spec)
        if len(wanted) > 1:
            yield f"{collection.name}, {spec.image_size} × {spec.image_size} × {spec.channels}:"
        yield from _splits(collection, config.clusters)
        if config.sheet:
            from dphyper.bench.contact_sheet import contact_sheet

            path = Path(config.sheet)
            if len(wanted) > 1:  # one for each collection
                path = path.with_stem(f"{path.stem}-{number}")
            contact_sheet(collection, path)
            yield f"sheet: {path}"
        asked.append((collection, task_ids))
    for collection, task_ids in asked:  # when all is listed
        collection.require(task_ids)


def _data_of(config: Namespace) -> dict[DataSpec, list[str]]:
    """The data to list, each with the tasks that a sweep asks of it.

    Raises:
        UserError: A sweep file and data keys, or a file that says something wrong.
    """
    spec = dataclasses.replace(config.data, **({"source": config.source} if config.source else {}))
    if not config.file:
        return {spec: []}
    if spec != DataSpec():
        raise UserError(f"both the sweep file '{config.file}' and data keys are given: expected one of them")
    from dphyper.sweeps.plan import read_sweep

    found: dict[DataSpec, list[str]] = {}
    for cell in read_sweep(config.file)[1]:
        tasks = found.setdefault(cell.data, [])
        if cell.task not in tasks:
            tasks.append(cell.task)
    return found


def _splits(collection: "Collection", clusters: bool) -> Iterator[str]:
    """Each task with its split and size, and what became of the rest."""
    shown = [task for task in collection.tasks if clusters or task.kind == "family"]
    for task in shown:
        held_back = f" + {len(task.reference)} for the reference" if len(task.reference) else ""
        note = " (development)" if task.development else ""
        yield f"{task.split:8} {len(task):6} {task.id}{held_back}{note}"
    if hidden := len(collection.tasks) - len(shown):
        yield f"public          and {hidden} clusters (--clusters lists them)"
    for line in collection.account:
        yield f"data: {line}"


def _cells(config: Namespace) -> Iterator[str]:
    from dphyper.bench.store import Store

    rows = Store(config.store).rows()
    columns = ["cell", "status", "method", "task", "epsilon", "seed", "frechet"]
    yield rows.reindex(columns=columns).to_string()


LISTS: dict[str, Callable[[Namespace], Iterator[str]]] = {
    "methods": _methods,
    "data": _data,
    "targets": _targets,
    "metrics": _metrics,
    "tasks": _tasks,
    "cells": _cells,
}
