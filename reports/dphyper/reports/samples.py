"""Which generated images to show: for each task a few strips, from the stored grids of the first training and seed.

It gives paths and reads no image. A sample whose file is missing is left out, and results choose nothing.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dphyper.bench.store import Store
from dphyper.reports.sections import SEEDS, Section
from dphyper.reports.style import add_names, budget, records


class Sample(NamedTuple):
    """A stored grid of images and what stands under it."""

    caption: str
    path: Path


class Strip(NamedTuple):
    """Samples side by side: one private method over ε, or everything that knows no ε."""

    title: str
    samples: list[Sample]


def strips(store: Store, section: Section, task: str) -> list[Strip]:
    """The strips of one task: references first, then one for each private method."""
    rows = add_names(section.rows[section.rows["task"] == task].sort_values(SEEDS))
    rows = rows.drop_duplicates(["series", "epsilon"])
    real = [store.directory(cell) / "reference.png" for cell in rows["cell"]]
    fixed = [Sample("Real images (reference)", path) for path in real if path.exists()][:1]
    rows = rows[[(store.directory(cell) / "samples.png").exists() for cell in rows["cell"]]]
    constant = np.isinf(rows["epsilon"]) & (rows["role"] != "method")
    fixed += [Sample(row.series, store.directory(row.cell) / "samples.png") for row in records(rows[constant])]
    found = [Strip("Without ε", fixed)] if fixed else []
    for series, part in rows[~constant].groupby("series", sort=False):
        drawn = [(budget(row.epsilon), store.directory(row.cell) / "samples.png") for row in records(part)]
        found.append(Strip(str(series), [Sample(*pair) for pair in drawn]))
    return found
