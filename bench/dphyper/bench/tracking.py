"""Weights & Biases as a sink: one run for each cell, one for each public phase, one for the sweep's table.

The store is the source of truth; nothing is ever read back from here. Offline unless the user is logged in, and
absent altogether with ``off``: then wandb is not even imported.
"""

from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger

from dphyper.bench.specs import Cell, WandbMode
from dphyper.bench.store import Row, Store

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

    def logger(self, name: str, config: dict[str, Any]) -> Logger | Literal[False]:
        """A Lightning logger for a public phase; False, Lightning's word for none, when off."""
        if self.mode == "off":
            return False
        from lightning.pytorch.loggers import WandbLogger

        return WandbLogger(
            project=PROJECT,
            name=name,
            group=self.group,
            job_type="public phase",
            save_dir=self.folder,
            offline=self.mode == "offline",
            config=config,
        )

    def cell(self, cell: Cell, row: Row, store: Store) -> None:
        """Log one finished or failed cell: its spec, its row and its sample grid."""
        if self.mode == "off":
            return
        with self._run(cell.id, cell.method, cell.to_dict()) as run:
            run.summary.update(row)
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

    def _run(self, identity: str, job_type: str, config: dict[str, Any]) -> Any:
        wandb = _wandb()
        return wandb.init(
            project=PROJECT,
            id=identity,
            name=identity,
            group=self.group,
            job_type=job_type,
            config=config,
            dir=self.folder,
            mode=self.mode,
            reinit="finish_previous",
            settings=wandb.Settings(silent=True, console="off"),
        )


def _wandb() -> Any:
    import wandb

    return wandb
