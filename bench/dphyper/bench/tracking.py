"""Weights & Biases beside the store: one run for each cell, one for each public phase, one for the sweep's table.

The run of a cell has the cell's id, the sweep as its group and the method as its job type. Its files are those that a
store has of the cell (row, spec, ledger, sheets of images), so that `pull` makes a store of the runs whose report is
that of the first. Runs are written to disk by a thread of their own, after the cell; ``online`` then uploads each with
W&B's own ``wandb sync``. So W&B cannot delay a cell, and whatever fails in it costs one line and no cell: the rest of
the process does without. A run that was on its way when its process was killed is lost, and its row is not.

What is synced has left the house with everything that a row holds, those without a privacy claim included;
`dphyper publish` tells what may leave it.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, Literal, cast

from lightning.pytorch.loggers import Logger, WandbLogger

from dphyper.bench.store import Record, Row, Store, flat, require_sound
from dphyper.core.errors import UserError, in_one_line
from dphyper.core.files import DamagedFileError, read_json, warn
from dphyper.core.specs import Cell, WandbMode

PROJECT = "dphyper"
RECORD = ("row.json", "cell.json", "ledger.json")
SHEETS = ("samples.png", "reference.png")
_ROOM = 1 << 20  # bytes, more than the run of a cell takes
_SYNC_SECONDS = 120  # that one upload may take before it is left to the user


class Tracking:
    """Writes runs of one sweep.

    Args:
        mode: ``offline`` writes runs to disk; ``online`` uploads them too; ``auto`` does so where wandb knows an API
            key; ``off`` writes nothing.
        folder: Where wandb keeps its files.
        group: Name of the sweep.
    """

    def __init__(self, mode: WandbMode, folder: Path, group: str) -> None:
        self.mode, self.folder, self.group = mode, folder, group
        self._unreachable = False
        self._thread = ThreadPoolExecutor(1, "wandb")  # it starts with its first task, and ends its tasks at exit
        if mode == "auto":
            with self._harmless():
                self.mode = "online" if _wandb().api.api_key else "offline"

    @contextmanager
    def phase(self, name: str) -> Iterator[Logger | Literal[False]]:
        """A Lightning logger for one public phase; False, Lightning's word for none, when off."""
        run = None
        if self.mode != "off":
            with self._harmless():
                run = self._run(None, "public phase", {}, name=name)
        yield _Logger(run) if run is not None else False
        if run is not None:
            with self._harmless():
                run.finish()
                self._thread.submit(self._sync, Path(run.dir).parent)

    def cell(self, cell: Cell, row: Row, store: Store) -> None:
        """Write the run of a finished or failed cell, some time soon."""
        if self.mode != "off":
            self._thread.submit(self._cell, cell, row, store.directory(cell.id))

    def _cell(self, cell: Cell, row: Row, folder: Path) -> None:
        def write(run: Any) -> None:
            run.summary.update(flat(row))
            present = [name for name in (*RECORD, *SHEETS) if (folder / name).exists()]
            for name in present:
                copied = shutil.copyfile(folder / name, Path(run.dir) / name)
                run.save(str(copied), base_path=run.dir, policy="now")
            if "samples.png" in present:
                run.log({"samples": _wandb().Image(str(folder / "samples.png"))})

        self._write(cell.id, cell.method, cell.to_dict(), write)

    def table(self, store: Store, report: Callable[[], Path]) -> None:
        """Write all rows of a sweep as one table, and its parquet file and its report as artifacts of one run.

        Prints how to upload them.

        Args:
            store: With the rows.
            report: Makes the folder of the report; not called when off.
        """
        if self.mode == "off":
            return
        folder = None
        try:
            folder = report()
        except Exception as error:  # of whatever kind: the rows are written without it
            warn(f"no report for W&B ({in_one_line(error)}): make it with  dphyper report --store {store.root}")

        def write(run: Any) -> None:
            wandb = _wandb()
            run.log({"rows": wandb.Table(dataframe=store.rows())})
            artifact = wandb.Artifact(f"{self.group}-rows", type="rows")
            artifact.add_file(str(store.export()))
            run.log_artifact(artifact)
            if folder:
                artifact = wandb.Artifact(f"{self.group}-report", type="report")
                for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                    artifact.add_file(str(path), name=str(path.relative_to(folder)))
                run.log_artifact(artifact)

        self._thread.submit(self._write, f"{self.group}-table", "table", {}, write).result()
        if self.mode == "offline" and not self._unreachable:
            print(f"W&B: runs of this sweep lie on disk; to upload them:  {self._sync_command()}", flush=True)

    def _write(self, identity: str, job_type: str, config: dict[str, Any], write: Callable[[Any], None]) -> None:
        if self.mode == "off":  # since an earlier run failed
            return
        with self._harmless():
            run = self._run(identity, job_type, config, name=identity)
            try:
                write(run)
            finally:
                run.finish()
            self._sync(Path(run.dir).parent)

    def _sync(self, run: Path) -> None:
        """Upload a run, where that is asked for; the first failure leaves the rest to the user."""
        if self.mode != "online":
            return
        command = [sys.executable, "-m", "wandb", "sync", str(run.resolve())]
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,  # where it keeps a log of its own
                capture_output=True,
                text=True,
                timeout=_SYNC_SECONDS,
                check=False,
            )
            reason = "" if done.returncode == 0 else " ".join((done.stderr or done.stdout).split()[-30:])
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = type(error).__name__
        if reason:
            self.mode, self._unreachable = "offline", True
            warn(f"W&B cannot be reached ({reason}): runs stay on disk, upload them later with  {self._sync_command()}")

    def _sync_command(self) -> str:
        return f"cd {self.folder.resolve()} && wandb sync --yes"

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Turn whatever W&B raises into one line, and do without it from then on."""
        try:
            yield
        except Exception as error:  # of whatever kind: no cell may be lost to a log
            self.mode = "off"
            reason = " ".join(str(error).split()) or "without a reason"
            warn(f"W&B failed ({type(error).__name__}: {reason[:200]}): going on without it, rows are in the store")

    def _run(self, identity: str | None, job_type: str, config: Mapping[str, Any], name: str) -> Any:
        wandb = _wandb()
        # Where it cannot write, wandb would go on in a temporary folder, which nobody would look into.
        (self.folder / "wandb").mkdir(parents=True, exist_ok=True)
        # On a full disk its loggers would print hundreds of lines before the first error.
        with TemporaryFile(dir=self.folder / "wandb") as probe:
            probe.write(bytes(_ROOM))
            probe.flush()
        return wandb.init(
            project=PROJECT,
            id=identity,
            name=name,
            group=self.group,
            job_type=job_type,
            config=dict(config),
            dir=self.folder,
            mode="offline",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )


class _Logger(WandbLogger):
    """Lightning's logger of a run, whose failures stop no training."""

    def __init__(self, run: Any) -> None:
        super().__init__(experiment=run)

    def log_metrics(self, *arguments: Any, **keywords: Any) -> None:
        try:
            super().log_metrics(*arguments, **keywords)
        except Exception as error:
            warn(f"W&B failed while training ({type(error).__name__}): its curves are not whole")


def pull(source: str, store: Store) -> int:
    """Store the rows that the runs of a sweep hold, as far as they are missing.

    Args:
        source: ``wandb:ENTITY/PROJECT/GROUP``, or a folder with offline runs anywhere in it.
        store: Takes them, with their sheets of images; parameters and samples stay where they were made.

    Returns:
        How many rows were stored.

    Raises:
        UserError: There are no such runs, or W&B does not answer.
    """
    with TemporaryDirectory() as downloads:
        folder = (
            _download(source.removeprefix("wandb:"), Path(downloads)) if source.startswith("wandb:") else Path(source)
        )
        found: dict[str, tuple[Record, Path]] = {}
        # Names of runs begin with their times. Of several runs of a cell the last counts, and a done one before all.
        for row in sorted(folder.rglob("row.json"), key=lambda path: path.parts[-3:]):
            if record := _record(row.parent):
                known = found.get(record.row["cell"])
                if known is None or known[0].row["status"] != "done" or record.row["status"] == "done":
                    found[record.row["cell"]] = record, row.parent
        if not found:
            raise UserError(
                f"'{source}' has no run of a cell: expected wandb:ENTITY/PROJECT/GROUP, or the folder of offline runs, "
                "such as STORE/wandb"
            )
        return sum(store.take(record, folder, SHEETS) for record, folder in found.values())


def _record(folder: Path) -> Record | None:
    try:
        texts = [(folder / name).read_text() if (folder / name).exists() else "{}" for name in RECORD[1:]]
        record = Record(cast(Row, read_json(folder / "row.json")), *texts)
        require_sound(record)
    except (DamagedFileError, OSError, UnicodeDecodeError) as error:
        warn(f"run '{folder}' is left out: {error}")
        return None
    return record


def _download(path: str, to: Path) -> Path:
    """The files of the runs of a group, in a folder for each run."""
    entity, project, group, *more = [*path.split("/"), "", "", ""]
    if not (entity and project and group) or any(more):
        raise UserError(f"'wandb:{path}': expected wandb:ENTITY/PROJECT/GROUP, where the group is the sweep's name")
    try:
        for run in _wandb().Api().runs(f"{entity}/{project}", filters={"group": group}):
            for file in run.files(names=[*RECORD, *SHEETS]):
                file.download(root=str(to / f"{run.created_at}-{run.id}" / "files"), replace=True)
    except Exception as error:  # of whatever kind: the library raises many
        raise UserError(
            f"W&B does not give '{path}' ({type(error).__name__}: {' '.join(str(error).split())})"
        ) from error
    return to


def _wandb() -> Any:
    import wandb

    return wandb
