"""The result store: one directory for each cell, one row for each cell. The source of truth.

Layout: ``STORE/cells/<cell id>/`` holds ``cell.json`` (the spec), ``row.json`` (what was measured), and for a
finished cell ``ledger.json`` (the privacy ledger), ``samples.png`` (a grid) and ``samples.npz`` (the generated
uint8 images). ``row.json`` is written last and atomically: a cell with a row of status ``done`` is whole, and a
killed worker leaves nothing that looks finished.

A row carries a hash of itself and one of its ledger, and the name of its folder is a hash of its spec. A row whose
files are not what was written counts as missing, wherever rows are read, and is named in one line. This finds damage
and slips; who forges a row on purpose can forge its hashes too.

`Store.export` writes all rows, each with its cell's spec and ledger, to ``STORE/rows.parquet`` for other tools, and
`Store.merge` reads such a file back, so that a sweep goes on elsewhere from its rows; their samples stay behind. In
frames each metric is a column of its own name, the same metric on real records ``real_NAME``, and each diagnostic a
column. Nothing is averaged here, and no torch is imported, unless rows of a former schema are merged
(`dphyper.bench.migration`). A store stays at home: what may leave it, `dphyper publish` copies.
"""

import contextlib
import hashlib
import itertools
import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict, cast

import pandas as pd

from dphyper.core.errors import UserError
from dphyper.core.files import DamagedFileError, json_text, read_json, warn, whole_file, write_json
from dphyper.core.specs import Cell, content_hash, require_folder

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
    ledger_digest: NotRequired[str]  # of a done row: hash of the text of its ledger.json
    digest: NotRequired[str]  # hash of all the rest of the row; `sealed` gives both


NO_LEDGER = "{}"  # in the place of a ledger's text, of a failed cell that left none


class Record(NamedTuple):
    """A row, and the texts of the files that belong to it, as they lie in a store or in a ``rows.parquet``."""

    row: Row
    spec: str
    ledger: str  # or NO_LEDGER


class Store:
    """A folder of cells.

    Args:
        root: Created when missing.

    Raises:
        UserError: ``root`` is a file.
    """

    def __init__(self, root: str | Path) -> None:
        require_folder("store", str(root))
        self.root = Path(root)
        file = next((path for path in (self.root, *self.root.parents) if path.is_file()), None)
        if file is not None:
            inside = "" if file == self.root else f" lies under '{file}', which"
            raise UserError(f"store '{root}'{inside} is a file: name a folder")

    def directory(self, cell_id: str) -> Path:
        """The folder of one cell; it need not exist yet."""
        return self.root / "cells" / cell_id

    def status(self, cell_id: str) -> str:
        """``done``, ``failed`` or ``to do``; which of the last are being run, `dphyper status` knows.

        Reads only. A damaged row is one to do, and is named in a line.
        """
        found = self._sound(self.directory(cell_id))
        return found.row["status"] if found else "to do"

    def write(self, cell: Cell, row: Row) -> None:
        """Write the spec and then the row of a cell, with its hashes; the row appears whole or not at all."""
        folder = self.directory(cell.id)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "cell.json", cell.to_dict())
        write_json(folder / "row.json", sealed(row, _text(folder / "ledger.json")))

    def records(self, damaged: Callable[[str], None] = warn) -> Iterator[Record]:
        """Every sound row with its spec and ledger; each damaged one is left out.

        Args:
            damaged: Given one line for each row that is left out.

        Raises:
            UserError: A row is of another schema.
        """
        for path in sorted(self.root.glob("cells/*/row.json")):
            if found := self._sound(path.parent, damaged):
                _require_schema(found.row.get("schema"), self.root)
                yield found

    def protocols(self) -> set[str]:
        """Hashes of the evaluation protocols of all rows."""
        return {found.row["protocol"] for found in self.records()}

    def row(self, cell_id: str) -> Row:
        """The row of a finished or failed cell.

        Raises:
            DamagedFileError: It has none, or none that is what was written.
        """
        return self._record(self.directory(cell_id)).row

    def cell(self, cell_id: str) -> Cell:
        """The spec of a stored cell.

        Raises:
            DamagedFileError: It is missing, or was changed.
        """
        path = self.directory(cell_id) / "cell.json"
        try:
            return Cell.from_dict(read_json(path))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DamagedFileError(f"'{path}' is damaged ({type(error).__name__}: {error})") from error

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
        for _ in self.records():
            pass

    def rows(self, damaged: Callable[[str], None] = warn) -> pd.DataFrame:
        """All sound rows, one for each cell, in a stable order; columns as `flat` names them.

        Args:
            damaged: As for `records`.

        Raises:
            UserError: There is no row, or a row was written by another version of the schema.
        """
        return self._frame(flat(found.row) for found in self.records(damaged))

    def rows_with_specs(self) -> pd.DataFrame:
        """`rows` with the row itself, the spec and the ledger of each as JSON in three more columns."""
        return self._frame(_with_texts(found) for found in self.records())

    def _frame(self, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
        frame = pd.DataFrame(list(rows))
        if frame.empty:
            raise UserError(f"store '{self.root}' has no row: run a sweep into it first, or name another folder")
        keys = ["collection", "split", "task", "method", "epsilon", "embedding_dim", "n", "seed", "noise_draw", "cell"]
        return frame.sort_values(keys, ignore_index=True)

    def export(self) -> Path:
        """Write `rows_with_specs` to ``rows.parquet`` and return its path."""
        path = self.root / "rows.parquet"
        with whole_file(path) as temporary:
            self.rows_with_specs().to_parquet(temporary, index=False)
        return path

    def merge(self, source: str | Path) -> int:
        """Take over the finished rows of another store as far as they are missing here.

        Rows of the former schema are migrated on the way in; options that are not the defaults of their method then
        count as chosen in an unknown way, unless the file was migrated before with the searches that they come from.
        What a cell had here before, without being done, is given up (`give_up`).

        Args:
            source: A folder, whose parameters and samples come along, or a file that `export` wrote.

        Returns:
            How many rows were taken over.

        Raises:
            UserError: There is no such store, or it has rows of an unknown schema.
        """
        self.require_current()
        source = Path(source)
        if source.resolve() == self.root.resolve():
            raise UserError(f"'{source}' is the store itself: name another one")
        if source.is_dir():
            other = Store(source)
            done = (record for record in other.records() if record.row["status"] == "done")
            return sum(self.take(record, other.directory(record.row["cell"])) for record in done)
        return sum(self.take(record) for record in _records_of_any_schema(source) if record.row["status"] == "done")

    def take(self, record: Record, folder: Path | None = None, files: Collection[str] = ()) -> bool:
        """Store a row that another store made, unless the cell is done here, or failed here too.

        Args:
            record: Sound.
            folder: With files of the cell that come along; None for the record alone.
            files: Names of these; empty for all that are there.

        Returns:
            Whether it was stored.
        """
        cell_id = record.row["cell"]
        place = self.directory(cell_id)
        if place.exists():
            if self.status(cell_id) in ("done", record.row["status"]):
                return False
            self.give_up(cell_id)
        # A folder that is made beside its place needs no other care for each of its files.
        made = place.with_name(f".{secrets.token_hex(4)}.{cell_id}")
        made.mkdir(parents=True)
        try:
            for path in folder.iterdir() if folder else ():
                if path.name in files if files else not path.name.startswith("."):
                    shutil.copyfile(path, made / path.name)
            for path in place.glob("ledger.given_up.*"):
                shutil.copyfile(path, made / path.name)
            (made / "cell.json").write_text(record.spec)
            if record.ledger != NO_LEDGER:
                (made / "ledger.json").write_text(record.ledger)
            (made / "row.json").write_text(json_text(sealed(record.row, record.ledger)))
            shutil.rmtree(place, ignore_errors=True)
            os.replace(made, place)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return True

    def give_up(self, cell_id: str) -> Path | None:
        """Remove what a cell left, so that it can be begun anew; its ledger stays, under another name.

        What the ledger says was spent remains spent: `dphyper check` tells of it as long as the file is there.

        Returns:
            The ledger under its new name; None if there was none.
        """
        folder, kept = self.directory(cell_id), None
        ledger = folder / "ledger.json"
        if ledger.exists():
            kept = next(path for i in itertools.count(1) if not (path := folder / f"ledger.given_up.{i}.json").exists())
            ledger.rename(kept)
        for path in folder.iterdir():
            if not path.name.startswith("ledger."):
                path.unlink()
        return kept

    def _sound(self, folder: Path, damaged: Callable[[str], None] = warn) -> Record | None:
        """The row in a folder; None where there is none, or none that is what was written."""
        if not (folder / "row.json").exists():
            return None
        try:
            return self._record(folder)
        except DamagedFileError as error:
            damaged(f"cell {folder.name} of '{self.root}' counts as missing: {error}")
            return None

    def _record(self, folder: Path) -> Record:
        row = cast(Row, read_json(folder / "row.json"))
        found = Record(row=row, spec=_text(folder / "cell.json"), ledger=_text(folder / "ledger.json"))
        if row.get("schema", SCHEMA) != SCHEMA:
            return found
        if row.get("cell", folder.name) != folder.name:
            raise DamagedFileError(f"its folder holds the row of cell {row['cell']}: remove this copy")
        try:
            require_sound(found)
        except _DamagedLedgerError as error:
            raise DamagedFileError(
                f"{error}, so that nothing can be claimed for it: bring its ledger.json back from a copy, or give the "
                f"cell up with  dphyper reset {folder.name} --store {self.root}"
            ) from error
        except DamagedFileError as error:
            raise DamagedFileError(f"{error}: run its sweep again") from error
        return found


class _DamagedLedgerError(DamagedFileError):
    """The ledger of a row is missing or is not the one that it was written with."""


def sealed(row: Mapping[str, Any], ledger: str) -> dict[str, Any]:
    """A row with the hashes of itself and, where it is done, of the text of its ledger.

    Args:
        row: Former hashes in it are left out.
        ledger: Text of its ledger, or `NO_LEDGER`. That of a failed cell changes when it is run again.

    >>> row = sealed({"cell": "a", "status": "done"}, NO_LEDGER)
    >>> sealed({**row, "status": "failed"}, NO_LEDGER)["digest"] == row["digest"]
    False
    """
    plain = {name: value for name, value in row.items() if name not in ("digest", "ledger_digest")}
    if row["status"] == "done" and ledger != NO_LEDGER:
        plain["ledger_digest"] = _digest(ledger)
    return {**plain, "digest": content_hash(plain)}


def require_sound(found: Record) -> None:
    """Refuse a row that is not what was written, or whose spec or ledger is not.

    Raises:
        DamagedFileError: It is such a row.
    """
    row = found.row
    plain = {name: value for name, value in row.items() if name != "digest"}
    if missing := sorted((Row.__required_keys__ | {"digest"}) - {*row}):
        raise DamagedFileError(f"its row has no {missing[0]}")
    if row["digest"] != content_hash(plain):
        raise DamagedFileError("its row is not what was written")
    if content_hash(_parsed(found.spec, "spec")) != row["cell"]:
        raise DamagedFileError("its spec is that of another cell, or was edited")
    if row["status"] != "done":
        return
    if not _parsed(found.ledger, "ledger") and (row["private"] or "ledger_digest" in row):
        raise _DamagedLedgerError("its ledger is missing")
    if "ledger_digest" in row and row["ledger_digest"] != _digest(found.ledger):
        raise _DamagedLedgerError("its ledger is not the one that it was written with")


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        kind = _DamagedLedgerError if what == "ledger" else DamagedFileError
        raise kind(f"its {what} cannot be read ({error})") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
    """All sound rows of a file that `Store.export` wrote, of the present schema; each other one is named in a line.

    Raises:
        UserError: The file is missing, not such a file, of another schema, or without a sound row.
    """
    frame = read_parquet(path)
    for schema in frame["schema"].unique():
        _require_schema(schema, path)
    found = [_with_texts(record) for record in _sound_records(frame, path)]
    if not found:
        raise UserError(f"'{path}' has no row that is what was written: name another file")
    return pd.DataFrame(found)


def _records_of_any_schema(path: Path) -> Iterator[Record]:
    """The sound rows of a file that `Store.export` wrote, those of former schemas as the present one has them."""
    frame = read_parquet(path)
    for schema in frame["schema"].unique():
        if schema not in FORMER_SCHEMAS:
            _require_schema(schema, path)
    if frame["schema"].isin(FORMER_SCHEMAS).any():
        from dphyper.bench.migration import migrated_frame

        frame, _ = migrated_frame(frame, ())
    yield from _sound_records(frame, path)


def _sound_records(frame: pd.DataFrame, path: str | Path) -> Iterator[Record]:
    """The rows of a `read_parquet` frame as they were stored; one whose columns say something else is left out."""
    for values in frame.to_dict("records"):
        try:
            row = _parsed(str(values.get("row")), "row")
            found = Record(row=row, spec=values["spec"], ledger=values["ledger"])
            require_sound(found)
            for name, value in flat(row).items():
                if (stored := values.get(name)) != value and not (pd.isna(stored) and pd.isna(value)):
                    raise DamagedFileError(f"its {name} is {stored} in the table and {value} in its row")
        except DamagedFileError as error:
            warn(f"cell {values['cell']} of '{path}' is left out: {error}")
        else:
            yield found


def _with_texts(found: Record) -> dict[str, Any]:
    """A flat row with the texts that it came from in three more columns."""
    return {
        **flat(found.row),
        "row": json_text(found.row),
        "spec": found.spec,
        "ledger": found.ledger,
    }


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
    """The text of a file, that of no ledger where there is none."""
    try:
        return path.read_text() if path.exists() else NO_LEDGER
    except (OSError, UnicodeDecodeError) as error:
        return f"cannot be read: {error}"
