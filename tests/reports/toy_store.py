"""A synthetic store whose every number is known, for the tests of the report side."""

import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from dphyper.bench.store import SCHEMA, Row, Store
from dphyper.core.files import write_json
from dphyper.core.labels import SOUND_SINCE
from dphyper.core.specs import Cell
from dphyper.reports.sections import Section, load, sections
from dphyper.reports.verdict import verdict

EPSILONS = (1.0, 4.0, 16.0)
PRIVATE, TUNING = ("dark_umbrella", "kettle"), ("chair",)
# method: role, embedding dimension, is it private, how it was tuned
METHODS: dict[str, tuple[str, int, bool, str]] = {
    "hypernetwork": ("method", 8, True, "tuned_public"),
    "dp_sgd": ("method", 0, True, "tuned_public"),
    "public_mean": ("control", 8, True, "fixed"),
    "hypernetwork_sigma0": ("control", 8, False, "non_private"),
    "public_only": ("floor", 0, True, "fixed"),
    "nonprivate_lora": ("ceiling", 0, False, "non_private"),
}
LEVEL = {"public_mean": 50.0, "hypernetwork_sigma0": 40.0, "public_only": 60.0, "nonprivate_lora": 20.0}
Level = Callable[[str, float], float]


def winning(method: str, epsilon: float) -> float:
    """The hypernetwork is far below everything that is private."""
    return {"hypernetwork": 42.0, "dp_sgd": 70.0 - 2 * math.log2(epsilon)}.get(method) or LEVEL[method]


def losing(method: str, epsilon: float) -> float:
    """The hypernetwork is far above everything."""
    return 90.0 if method == "hypernetwork" else winning(method, epsilon)


def add(
    store: Store,
    cell: Cell,
    split: str,
    frechet: float,
    *,
    metrics: dict[str, float] | None = None,
    real: dict[str, float] | None = None,
    **changes: Any,
) -> Cell:
    """Store a row; ``metrics`` and ``real`` (metrics on real records) join the Fréchet and the kernel distance."""
    role, k, private, selection = METHODS.get(cell.method, ("method", 0, True, "fixed"))
    values: dict[str, Any] = {
        "schema": SCHEMA, "cell": cell.id, "status": "done", "error": "", "sweep": "smoke", "collection": "toy",
        "task": cell.task, "family": cell.task, "split": split, "development": False, "distance": "near", "n": cell.n,
        "method": cell.method, "role": role, "epsilon": cell.epsilon, "delta": cell.delta,
        "relation": cell.relation, "embedding_dim": cell.embedding_dim if k else 0, "seed": cell.seed,
        "noise_draw": cell.noise_draw, "private": private, "selection": selection, "search": "",
        "harness": SOUND_SINCE, "protocol": "0123456789abcdef",
        "extractor": "efficientnet_lite0", "epsilon_spent": cell.epsilon if private else math.inf,
        "metrics": {"frechet": frechet, "kernel": frechet / 1000, **(metrics or {})},
        "real_metrics": {"frechet": 5.0 + 0.1 * cell.seed, "kernel": 0.005, **(real or {})}, "num_images": 500,
        "num_reference": 372, "num_real": 186, "public_shift": 33.0, "seconds_adapt": 2.0,
        "statement": f"{cell.method} at ε = {cell.epsilon}", "base_hash": "b", "commit": "c0ffee",
        "versions": json.dumps({"torch": "2.8"}), "machine": "two cores",
    }  # fmt: skip
    values |= changes
    if values["status"] == "failed":
        values = {key: values[key] for key in Row.__required_keys__}
    store.directory(cell.id).mkdir(parents=True, exist_ok=True)
    write_json(store.directory(cell.id) / "ledger.json", {"charges": []})
    store.write(cell, Row(**values))  # type: ignore[typeddict-item]
    pixels = np.random.default_rng(cell.seed).integers(0, 255, (32, 32), np.uint8)
    Image.fromarray(pixels).save(store.directory(cell.id) / "samples.png")
    return cell


def fill(store: Store, level: Level, seeds: int = 3, **changes: Any) -> Store:
    """Every method on every task; a task adds its own offset, a seed a different one for each method."""
    for split, tasks in (("private", PRIVATE), ("tuning", TUNING)):
        for t, task in enumerate(tasks):
            for m, (method, (role, k, _, _)) in enumerate(METHODS.items()):
                for epsilon in EPSILONS if role == "method" else (math.inf,):
                    for seed in range(seeds):
                        cell = Cell(task=task, method=method, epsilon=epsilon, seed=seed, embedding_dim=k or 32)
                        noise = (0.0, 1.0, -0.7)[(seed + m) % 3]
                        add(store, cell, split, level(method, epsilon) + 3 * t + noise, **changes)
    return store


def change(store: Store, query: str, **changes: Any) -> None:
    """Change some rows of a store."""
    for cell in store.rows().query(query)["cell"]:
        store.write(store.cell(cell), Row(**{**store.row(cell), **changes}))  # type: ignore[typeddict-item]


def only(store: Store) -> Section:
    """The only section of a store."""
    (section,) = sections(load(store))
    return section


def point(frame: pd.DataFrame, **where: Any) -> "pd.Series[Any]":
    """The only row of a frame with these values."""
    (row,) = (row for _, row in frame.iterrows() if all(row[key] == value for key, value in where.items()))
    return row


def told(section: Section, title: str) -> str:
    """The lines of a paragraph of the verdict, each with its tone."""
    (paragraph,) = (p for p in verdict(section) if p.title == title)
    return "\n".join(f"{line.tone}: {line.text}" for line in paragraph.lines)


class Loads(HTMLParser):
    """Collects what a browser would fetch, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"src", "href", "srcset", "data", "action", "poster"} and value:
                self.found.append(value)

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is None:
            self.text += data
        elif self.cdata_elem == "style":
            self.found += re.findall(r"url\(\W*([^)]*)|@import\s+(\S+)", data)
