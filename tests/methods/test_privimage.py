"""PrivImage selects the public task that the records come from."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch

from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.private_data import PrivateData

FREE = Budget(epsilon=math.inf, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def releases(method: Any, budget: Budget) -> Any:
    return method.mechanisms(budget, method.options)


def selected_task(greys: Any, door: Callable[..., PrivateData], task: int, budget: Budget, seed: int) -> float:
    """Mean grey of the images that PrivImage takes for records of one task, less that of the task."""
    method = greys.method("privimage", votes=1, selected=1, query_share=1.0)
    (query,) = releases(method, budget)
    images, weights = method.ask(door(greys.images(greys.levels[task], 24, seed=40), budget, seed), query, seeded())
    assert len(images) == len(weights) == 16
    return float(images.mean()) - greys.levels[task]


def test_privimage_selects_the_task_that_the_records_come_from(door: Any, greys: Any) -> None:
    tiny = dataclasses.replace(FREE, epsilon=0.01)
    assert all(abs(selected_task(greys, door, task, FREE, 0)) < 0.1 for task in (0, 2, 5))
    missed = [abs(selected_task(greys, door, 5, tiny, seed)) > 0.1 for seed in range(8)]
    assert sum(missed) >= 3, "with so much noise the right task comes up one time in six"
