"""The result store: one directory for each cell, one row for each cell. The source of truth.

Layout: ``STORE/cells/<cell id>/`` holds ``cell.json`` (the spec), ``row.json`` (what was measured), and for a
finished cell ``ledger.json`` (the privacy ledger), ``samples.png`` (a grid) and ``samples.npz`` (the generated
uint8 images). ``row.json`` is written last and atomically: a cell with a row of status ``done`` is whole, and a
killed worker leaves nothing that looks finished. `Store.export` writes all rows, each with its cell's spec and ledger,
to ``STORE/rows.parquet`` for other tools, and `Store.merge` reads such a file back, so that a sweep goes on elsewhere
from its rows; their samples stay behind. In frames each metric is a column of its own name, the same metric on real
records ``real_NAME``, and each diagnostic a column. Nothing is averaged here, and no torch is imported, unless rows of
a former schema are merged (`dphyper.bench.migration`). A store stays at home: what may leave it, `dphyper publish`
copies.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pandas as pd

from dphyper.core.errors import UserError
from dphyper.core.files import whole_file, write_json
from dphyper.core.specs import Cell

SCHEMA = 5
FORMER_SCHEMAS = (2, 3, 4)  # which `dphyper.bench.migration` reads


# Groups of numbers in a row, and what stands before their names in a frame.
NESTED = {"metrics": "", "real_metrics": "real_", "diagnostics": ""}


class Row(TypedDict):
    """One row of the store. Keys marked NotRequired are absent from the rows of failed cells."""

    schema: int  # SCHEMA at the time of writing
    cell: str  # id of the cell
    status: str  # "done" or "failed"
    error: str  # message of a failed cell, else ""
    sweep: str  # name of the sweep that ran it
    collection: str  # name of the collection
    task: str
    family: str
    split: str  # "private" or "tuning"
    development: bool  # whether the task's family has prompted a decision of the design
    distance: str  # the source's word for public-private distance: "near", "far", ...
    n: int
    method: str
    role: str  # "method", "control", "floor" or "ceiling"
    epsilon: float  # the budget asked for; inf where the method spends none or knows no privacy
    delta: float
    relation: str
    embedding_dim: int  # 0 for methods without an embedding
    seed: int
    noise_draw: int  # number of the draw of the privacy noise
    private: bool  # False: no privacy claim may be made (non-private method, reproducible noise)
    selection: str  # "fixed", "tuned_public", "tuned_private", "non_private" or "unknown"
    search: str  # name of the recorded search that the options come from, "" for none
    harness: str  # version of dphyper that made the row
    protocol: str  # hash of the evaluation protocol, extractor weights included
    extractor: str
    epsilon_spent: NotRequired[float]  # by the ledger, at delta
    metrics: NotRequired[dict[str, float]]  # of the generated records, by registered name
    real_metrics: NotRequired[dict[str, float]]  # real against real: num_real records against the remaining reference
    diagnostics: NotRequired[dict[str, float]]  # of the adaptation, each a function of what was released
    num_images: NotRequired[int]  # generated images
    num_reference: NotRequired[int]  # images of the held-out reference
    num_real: NotRequired[int]  # images on the drawn side of real against real
    public_shift: NotRequired[float]  # Fréchet distance public tasks to this task's reference, same features
    seconds_public: NotRequired[float]  # of the public phase when it was trained, shared by all cells
    seconds_adapt: NotRequired[float]  # of rows with a private selection, whose trials are a secret, both are absent
    seconds_evaluate: NotRequired[float]
    parameters: NotRequired[int]  # p, parameters the method sets
    statement: NotRequired[str]  # privacy paragraph that a paper can print
    base_hash: NotRequired[str]
    provenance: NotRequired[str]  # hash of the task's data under the store's key: alike within one store only
    commit: NotRequired[str]  # git commit of the harness, "" outside a repository
    versions: NotRequired[str]  # JSON: package to version
    machine: NotRequired[str]


class Store:
    """A folder of cells.

    Args:
        root: Created when missing.

    Raises:
        UserError: ``root`` is a file.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if self.root.is_file():
            raise UserError(f"store '{root}' is a file: name a folder")

    def directory(self, cell_id: str) -> Path:
        """The folder of one cell; it need not exist yet."""
        return self.root / "cells" / cell_id

    def status(self, cell_id: str) -> str:
        """``done``, ``failed`` or ``to do``; which of the last are being run, `dphyper status` knows."""
        path = self.directory(cell_id) / "row.json"
        return self.row(cell_id)["status"] if path.exists() else "to do"

    def write(self, cell: Cell, row: Row) -> None:
        """Write the spec and then the row of a cell; the row appears whole or not at all."""
        folder = self.directory(cell.id)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "cell.json", cell.to_dict())
        write_json(folder / "row.json", row)

    def protocols(self) -> set[str]:
        """Hashes of the evaluation protocols of all rows."""
        return {json.loads(path.read_text())["protocol"] for path in self.root.glob("cells/*/row.json")}

    def row(self, cell_id: str) -> Row:
        """The row of a finished or failed cell."""
        row: Row = json.loads((self.directory(cell_id) / "row.json").read_text())
        return row

    def cell(self, cell_id: str) -> Cell:
        """The spec of a stored cell."""
        return Cell.from_dict(json.loads((self.directory(cell_id) / "cell.json").read_text()))

    def key(self) -> bytes:
        """32 secret random bytes that are made once: the key of hashes of private data, which nobody can test without.

        Raises:
            UserError: The file holds something else.
        """
        path = self.root / "key"
        if not path.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f".{secrets.token_hex(4)}.key")
            fresh.touch(0o600)
            fresh.write_bytes(secrets.token_bytes(32))
            # A link is made once, on file systems that hosts share too: all go on with the first one's key.
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)
            fresh.unlink()
        key = path.read_bytes()
        if len(key) != 32:
            raise UserError(f"'{path}' holds {len(key)} bytes, expected 32: restore it, or remove it to begin anew")
        return key

    def require_current(self) -> None:
        """Refuse a store with a row of another schema.

        Raises:
            UserError: It has one.
        """
        for path in self.root.glob("cells/*/row.json"):
            _require_schema(json.loads(path.read_text()).get("schema"), self.root)

    def rows(self) -> pd.DataFrame:
        """All rows, one for each cell, in a stable order; columns as `flat` names them.

        Raises:
            UserError: There is no row, or a row was written by another version of the schema.
        """
        found = [json.loads(path.read_text()) for path in sorted(self.root.glob("cells/*/row.json"))]
        for row in found:
            _require_schema(row.get("schema"), self.root)
        if not found:
            raise UserError(f"store '{self.root}' has no row: run a sweep into it first, or name another folder")
        frame = pd.DataFrame([flat(row) for row in found])
        keys = ["collection", "split", "task", "method", "epsilon", "embedding_dim", "n", "seed", "noise_draw", "cell"]
        return frame.sort_values(keys, ignore_index=True)

    def rows_with_specs(self) -> pd.DataFrame:
        """`rows` with the row itself, the spec and the ledger of each as JSON in three more columns."""
        rows = self.rows()
        texts = {
            column: [_text(self.directory(cell) / file) for cell in rows["cell"]]
            for column, file in (("row", "row.json"), ("spec", "cell.json"), ("ledger", "ledger.json"))
        }
        return rows.assign(**texts)

    def export(self) -> Path:
        """Write `rows_with_specs` to ``rows.parquet`` and return its path."""
        path = self.root / "rows.parquet"
        with whole_file(path) as temporary:
            self.rows_with_specs().to_parquet(temporary, index=False)
        return path

    def merge(self, path: str | Path) -> int:
        """Take over the finished rows of a file that `export` wrote, as far as they are missing here.

        Rows of the former schema are migrated on the way in; options that are not the defaults of their method then
        count as chosen in an unknown way, unless the file was migrated before with the searches that they come from.

        Returns:
            How many rows were taken over.

        Raises:
            UserError: The file is missing or not such a file, or a row does not belong to its spec.
        """
        self.require_current()
        frame = read_parquet(path)
        if frame["schema"].isin(FORMER_SCHEMAS).any():
            from dphyper.bench.migration import migrated_frame

            frame, _ = migrated_frame(frame, ())
        taken = 0
        for _, series in frame[frame["status"] == "done"].iterrows():
            _require_schema(series["schema"], path)
            cell = Cell.from_dict(json.loads(series["spec"]))
            if cell.id != series["cell"]:
                raise UserError(
                    f"row {series['cell']} of '{path}' has the spec of cell {cell.id}: it was edited or is of another "
                    "version, run its sweep again"
                )
            if self.status(cell.id) == "done":
                continue
            folder = self.directory(cell.id)
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "ledger.json", json.loads(series["ledger"]))
            self.write(cell, json.loads(series["row"]))
            taken += 1
        return taken


def read_parquet(path: str | Path) -> pd.DataFrame:
    """All rows, of any schema, of a file that `Store.export` wrote.

    Raises:
        UserError: The file is missing or not such a file.
    """
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read '{path}' ({error}): expected the rows.parquet of a store") from error
    if not {"spec", "ledger", "cell", "status", "schema"} <= set(frame.columns):
        raise UserError(f"'{path}' does not hold rows with their specs: expected the rows.parquet of a store")
    return frame


def read_rows(path: str | Path) -> pd.DataFrame:
    """All rows of a file that `Store.export` wrote, of the present schema.

    Raises:
        UserError: The file is missing, not such a file, or of another schema.
    """
    frame = read_parquet(path)
    for schema in frame["schema"].unique():
        _require_schema(schema, path)
    return frame


def _require_schema(schema: Any, where: str | Path) -> None:
    if schema in FORMER_SCHEMAS:
        raise UserError(
            f"'{where}' has rows of schema {schema}, this version reads {SCHEMA}: run  dphyper migrate {where}  first"
        )
    if schema != SCHEMA:
        raise UserError(
            f"'{where}' has rows of schema {schema}, this version reads {SCHEMA}: read it with the version that wrote "
            "it, or run the sweep again"
        )


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in which each metric and each diagnostic stands under its own name; on real records, under ``real_NAME``.

    Raises:
        UserError: A metric or a diagnostic is called as another column.

    >>> flat({"task": "leaf", "metrics": {"frechet": 9.0}, "real_metrics": {"frechet": 1.0}})
    {'task': 'leaf', 'frechet': 9.0, 'real_frechet': 1.0}
    """
    found = {name: value for name, value in row.items() if name not in NESTED}
    for group, prefix in NESTED.items():
        for name, value in row.get(group, {}).items():
            if (column := f"{prefix}{name}") in found or column in Row.__annotations__:
                raise UserError(f"'{column}' names two columns of a row: give the metric or diagnostic another name")
            found[column] = value
    return found


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else "{}"
