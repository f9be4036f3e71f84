"""The command line with toy cells, which take a moment and write a row that tells how often they ran.

Everything about sweeps is real: files, plan, queue, workers, parent, store. What a cell does is not, so that hundreds
of them can be run and killed in seconds and without torch. ``TOY`` holds what a cell of a seed does (``fail``, ``die``,
``exit`` or ``full``), ``TOY_PART`` the public work that fails, and ``TOY_SECONDS`` how long each takes.
"""

import errno
import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from dphyper.bench.store import SCHEMA, Row, Store
from dphyper.core.files import write_json
from dphyper.core.specs import Cell
from dphyper.sweeps import plan, worker


class ToyPart:
    """Public work of toys: all cells of one embedding dimension share one."""

    def __init__(self, root: Path, key: str) -> None:
        self.key, self.name, self._root = key, f"part {key}", root

    def make(self) -> float:
        _note(self._root / "parts", self.key)
        time.sleep(float(os.environ.get("TOY_SECONDS", "0.05")))
        if os.environ.get("TOY_PART") == self.key:
            raise AssertionError
        return 1.0


class ToyRunner:
    """Stands where `dphyper.bench.runner.Runner` does."""

    def __init__(self, sweep: plan.Sweep, store: Store, performance: Any) -> None:
        self._store, self._sweep = store, sweep.name
        self.public = self.tracking = self

    def check(self, cells: Any, judges: Any = ()) -> None:
        """All toys are well made."""

    def table(self, store: Store, report: Any) -> None:
        """Nothing is tracked."""

    def parts(self, cell: Cell) -> list[ToyPart]:
        return [ToyPart(self._store.root, f"base {cell.embedding_dim}")]

    def make(self, part: ToyPart, *, threads: int) -> float:
        return part.make()

    def failed(self, cell: Cell, error: str) -> dict[str, Any]:
        return self._keep(cell, status="failed", error=error)

    def run(self, cell: Cell) -> dict[str, Any]:
        # As a release: what is drawn twice at a time, or after it was seen, stands here twice.
        _note(self._store.root / "begun", cell.id)
        time.sleep(float(os.environ.get("TOY_SECONDS", "0.05")))
        what = json.loads(os.environ.get("TOY", "{}")).get(str(cell.seed))
        if what == "fail":
            raise AssertionError
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "exit":
            sys.exit(0)
        if what == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        _note(self._store.root / "ended", cell.id)
        # Of dp_sgd a learning rate of 20 is best, on each task in its own measure.
        distance = 100 * (1 + abs(math.log(cell.options.get("learning_rate", 20.0) / 20)))
        distance *= 1 + len(cell.task)
        metrics = {"frechet": distance if cell.method == "dp_sgd" else 1.0 + cell.seed}
        return self._keep(cell, metrics=metrics, seconds_evaluate=1.0)

    def _keep(self, cell: Cell, **known: Any) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys(Row.__required_keys__, "")
        row |= {
            "private": False,
            "schema": SCHEMA,
            "cell": cell.id,
            "status": "done",
            "error": "",
            "sweep": self._sweep,
            "seed": cell.seed,
        }
        row |= {"collection": "toys", "split": "tuning", "task": cell.task, "method": cell.method, "n": cell.n}
        row |= {"epsilon": cell.epsilon, "embedding_dim": cell.embedding_dim, "noise_draw": 0, "extractor": "inception"}
        row |= {"protocol": "toy", **known}
        folder = self._store.directory(cell.id)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "ledger.json", {"charges": []})
        self._store.write(cell, row)  # type: ignore[arg-type]
        return row


def _note(folder: Path, name: str) -> None:
    """One more time, and by whom."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("a") as file:
        file.write(f"{os.getpid()}\n")


def install() -> None:
    """Put toys in the place of cells, in this process."""
    worker.make_runner = ToyRunner  # type: ignore[assignment]
    plan.canonical = lambda cell: cell  # the registry of methods would load torch


if __name__ in ("__main__", "__mp_main__"):  # the command, and the workers that it starts
    install()
if __name__ == "__main__":
    from dphyper.cli.main import main

    main()
