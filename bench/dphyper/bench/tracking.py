"""Weights & Biases as a sink: one run for each cell, one for each public phase, one for the sweep's table.

The store is the source of truth; nothing is ever read back from here. Offline unless the user is logged in, and
absent altogether with ``off``: then wandb is not even imported.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger, WandbLogger

from dphyper.bench.store import Row, Store, flat
from dphyper.core.specs import Cell, WandbMode

PROJECT = "dphyper"


class Tracking:
    """Writes runs of one sweep.

    Args:
        mode: ``auto`` is online when wandb knows an API key, else offline; ``off`` logs nothing.
        folder: Where wandb keeps its files.
        group: Name of the sweep.
    """

    def __init__(self, mode: WandbMode, folder: Path, group: str) -> None:
        self.folder, self.group, self.mode = folder, group, mode
        if mode == "auto":
            self.mode = "online" if _wandb().login(prompt=False) else "offline"

    @contextmanager
    def phase(self, name: str) -> Iterator[Logger | Literal[False]]:
        """A Lightning logger for one public phase; False, Lightning's word for none, when off."""
        if self.mode == "off":
            yield False
            return
        with self._run(None, "public phase", {}, name=name) as run:
            yield WandbLogger(experiment=run)

    def cell(self, cell: Cell, row: Row, store: Store) -> None:
        """Log one finished or failed cell: its spec, its row and its sample grid."""
        if self.mode == "off":
            return
        with self._run(cell.id, cell.method, cell.to_dict()) as run:
            run.summary.update(flat(row))
            grid = store.directory(cell.id) / "samples.png"
            if row["status"] == "done":
                run.log({"samples": _wandb().Image(str(grid))})

    def table(self, store: Store) -> None:
        """Log all rows of a sweep as one table and its parquet file as an artifact."""
        if self.mode == "off":
            return
        wandb = _wandb()
        with self._run(f"{self.group}-table", "table", {}) as run:
            run.log({"rows": wandb.Table(dataframe=store.rows())})
            artifact = wandb.Artifact(f"{self.group}-rows", type="rows")
            artifact.add_file(str(store.export()))
            run.log_artifact(artifact)

    def _run(self, identity: str | None, job_type: str, config: dict[str, Any], name: str | None = None) -> Any:
        wandb = _wandb()
        return wandb.init(
            project=PROJECT,
            id=identity,
            name=name or identity,
            group=self.group,
            job_type=job_type,
            config=config,
            dir=self.folder,
            mode=self.mode,
            reinit="finish_previous",
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )


def _wandb() -> Any:
    import wandb

    return wandb
