"""``dphyper ls``: list what is registered, a source's tasks or a store's cells.

Methods, data sources, targets and metrics are registered. What is listed of them is read from the sources of their
classes, which are not imported: the list comes at once, and names also what cannot run here.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from dphyper.core.registry import Registry
from dphyper.core.specs import DataSpec

HELP = "list methods, data sources, targets, metrics, a source's tasks, a store's cells"


def parser() -> ArgumentParser:
    """What to list, and of which data or store."""
    made = ArgumentParser(exit_on_error=False, description="List what there is.")
    made.add_argument("what", choices=[*LISTS], help="what to list")
    made.add_argument("--source", type=str, default="", help="of tasks: short for --data.source")
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

    spec = dataclasses.replace(config.data, **({"source": config.source} if config.source else {}))
    collection = DATASETS[spec.scheme].load(spec)
    for task in collection.tasks:
        yield f"{task.split:8} {len(task):6} {task.id}{' (development)' if task.development else ''}"
    for line in collection.passed_over:
        yield f"data: {line}"


def _cells(config: Namespace) -> Iterator[str]:
    from dphyper.bench.store import Store

    rows = Store(config.store).rows()
    yield rows[["cell", "status", "method", "task", "epsilon", "seed", "frechet"]].to_string()


LISTS: dict[str, Callable[[Namespace], Iterator[str]]] = {
    "methods": _methods,
    "data": _data,
    "targets": _targets,
    "metrics": _metrics,
    "tasks": _tasks,
    "cells": _cells,
}
