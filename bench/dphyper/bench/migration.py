"""Rows of former schemas, brought to the present one: the only place that knows how a store used to look.

A store in a folder is rewritten in place (`migrate_store`), a ``rows.parquet`` as a file (`migrate_file`), and
`Store.merge` takes old files through `migrated_frame`. What was measured stays as it is. Ids change, since a spec has
new keys. From schema 2, labels of options are derived again, and what should not have been written goes: outputs of the
sampler whose noise showed all its bits, running times of private selections, and hashes of private data without a key.
To take an output out mends this copy; it does not mend earlier copies, nor the parameters and samples that follow from
it. From schema 3, numbers get the names of their metrics, and specs name the kind of their target. From schema 4, specs
name the groups of layers that the LoRA changes.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dphyper.bench.catalog import METHODS
from dphyper.bench.searches import RecordedSearch, selection_of
from dphyper.bench.store import FORMER_SCHEMAS, SCHEMA, Store, flat, read_parquet, sealed
from dphyper.core.errors import UserError
from dphyper.core.files import DamagedFileError, json_text, read_json, warn, whole_file, write_json
from dphyper.core.labels import SELECTIONS
from dphyper.core.specs import Cell, content_hash

_LEDGER_SCHEMA, _FORMER_LEDGER_SCHEMA = 2, 1
_NEW_BASE: Mapping[str, Any] = {"kind": "unet", "flips": False}
# What `base.convolutions` of former schemas meant, in groups of layers.
_LAYERS: Mapping[bool, list[str]] = {False: ["attention", "time"], True: ["attention", "time", "convolutions"]}
# What specs of schema 3 left out at its default, and what those of schemas 3 and 4 do not know yet.
_NEW_DATA: Mapping[str, Any] = {"development": [], "show_reference": False}
_NEWEST_DATA: Mapping[str, Any] = {"public": [], "fit": "crop", "background": "white", "value_range": []}
_TIMES = ("seconds_adapt", "seconds_evaluate")
# Columns of schema 3 and what they are called now, by group.
_METRICS = {"fid": "frechet", "kid": "kernel", "denoising_loss": "denoising_loss"}
_REAL_METRICS = {"fid_floor": "frechet", "kid_floor": "kernel"}
_COUNTS = ("num_images", "num_reference", "num_real", "parameters")
_DIAGNOSTICS = {"embedding_shift": "embedding_shift"}


def migrate_file(path: Path, searches: Iterable[RecordedSearch]) -> "Counter[str]":
    """Rewrite a ``rows.parquet``, whole or not at all; see `migrated_frame`.

    Raises:
        UserError: It is no such file, or of an unknown schema.
    """
    frame, counts = migrated_frame(read_parquet(path), searches)
    if counts:
        with whole_file(path) as temporary:
            frame.to_parquet(temporary, index=False)
    return counts


def migrate_store(store: Store, searches: Iterable[RecordedSearch]) -> "Counter[str]":
    """Rewrite a store in place; one that was stopped goes on when it is run again.

    In each cell the folder gets its new name first, and the row is rewritten last. Folders of runs that ended without a
    row stay as they are and are never met again.

    Returns:
        What was done, in words, with counts; empty if there was nothing to do.

    Raises:
        UserError: The store has no row, a spec that was edited, or two cells that the new schema cannot tell apart;
            nothing is changed then.
    """
    searches = tuple(searches)
    ids: dict[str, Path] = {}
    for path in sorted(store.root.glob("cells/*/row.json")):
        folder = path.parent
        try:
            spec, row, _ = _files(folder)
        except DamagedFileError as error:
            warn(f"cell {folder.name} of '{store.root}' is left as it is: {error}")
            continue
        _require_own(spec, row)
        other = ids.setdefault(Cell.from_dict(_spec(spec)).id, folder)
        if other != folder:
            raise UserError(
                f"cells {other.name} and {folder.name} of '{store.root}' differ in the sampler of the noise alone, "
                "which is no choice any more: move one of the two folders away"
            )
    if not ids:
        raise UserError(f"store '{store.root}' has no row: name a store's folder or a rows.parquet")
    counts: Counter[str] = Counter()
    for new, folder in ids.items():
        target = store.directory(new)
        if folder != target:
            folder.rename(target)
        counts += _migrate_cell(target, searches)
    bare = {path for path in store.root.glob("cells/*") if path.is_dir()} - {store.directory(new) for new in ids}
    if counts and (store.root / "rows.parquet").exists():
        store.export()
    if counts and bare:
        counts["folders of runs that ended without a row, left as they are"] = len(bare)
    return counts


def _migrate_cell(folder: Path, searches: Iterable[RecordedSearch]) -> "Counter[str]":
    """Rewrite the files of a cell, each only if it is old, the row last."""
    spec, row, ledger = _files(folder)
    if row.get("schema") not in FORMER_SCHEMAS:
        return Counter()
    new_row, new_spec, new_ledger, counts = _migrated(row, spec, ledger, searches)
    if ledger:
        write_json(folder / "ledger.json", new_ledger)
    interrupted = folder / "ledger.interrupted.json"
    if interrupted.exists():
        write_json(interrupted, _ledger(json.loads(interrupted.read_text())))
    write_json(folder / "cell.json", new_spec)
    write_json(folder / "row.json", sealed(new_row, json_text(new_ledger)))
    return counts


def _files(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Spec, row and ledger of a cell."""
    ledger = folder / "ledger.json"
    return (
        read_json(folder / "cell.json"),
        read_json(folder / "row.json"),
        read_json(ledger) if ledger.exists() else {},
    )


def migrated_frame(frame: pd.DataFrame, searches: Iterable[RecordedSearch]) -> tuple[pd.DataFrame, "Counter[str]"]:
    """All rows of a `read_parquet` frame in the present schema, and what was done, in words, with counts.

    Args:
        frame: Rows of the former or the present schema; those of the present are left alone.
        searches: Recorded searches that options other than the defaults may come from.

    Raises:
        UserError: A row of another schema, or with a spec that was edited.
    """
    searches, counts, found = tuple(searches), Counter[str](), []
    for values in frame.to_dict("records"):
        row = {str(key): value for key, value in values.items() if not pd.isna(value)}
        spec, ledger = json.loads(row.pop("spec")), json.loads(row.pop("ledger"))
        if "row" in row:  # from schema 4 on; before, the columns were all there is
            row = json.loads(row["row"])
        if row["schema"] not in (*FORMER_SCHEMAS, SCHEMA):
            known = ", ".join(map(str, (*FORMER_SCHEMAS, SCHEMA)))
            raise UserError(f"rows of schema {row['schema']}: this version reads {known}")
        if row["schema"] in FORMER_SCHEMAS:
            _require_own(spec, row)
            row, spec, ledger, done = _migrated(row, spec, ledger, searches)
            row = sealed(row, json_text(ledger))
            counts += done
        texts = {name: json_text(value) for name, value in (("row", row), ("spec", spec), ("ledger", ledger))}
        found.append({**flat(row), **texts})
    return pd.DataFrame(found), counts


def _migrated(
    row: Mapping[str, Any], spec: Mapping[str, Any], ledger: Mapping[str, Any], searches: Iterable[RecordedSearch]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], "Counter[str]"]:
    """Row, spec and ledger in the present schema, and what was done."""
    counts = Counter({"rows migrated": 1})
    new_row, new_spec, new_ledger = dict(row), _spec(spec), _ledger(ledger)
    if row["schema"] == 2:
        new_row, done = _from_2(row, new_spec, ledger, new_ledger, searches)
        counts += done
    if row["schema"] in (2, 3):
        new_row = _regrouped(new_row)
    new_row |= {"schema": SCHEMA, "cell": Cell.from_dict(new_spec).id}
    return new_row, new_spec, new_ledger, counts


def _from_2(
    row: Mapping[str, Any],
    spec: Mapping[str, Any],
    ledger: Mapping[str, Any],
    new_ledger: Mapping[str, Any],
    searches: Iterable[RecordedSearch],
) -> tuple[dict[str, Any], "Counter[str]"]:
    """A row of schema 2 with the fields of schema 3, and what was done."""
    selection, search = _selection(row, spec, searches)
    new_row = {
        **row,
        "development": False,
        "selection": selection,
        "search": search,
        "harness": json.loads(row.get("versions", "{}")).get("dphyper", ""),
    }
    new_row.pop("provenance", None)
    if "statement" in row:
        new_row["statement"] = row["statement"].replace(SELECTIONS[row["selection"]], SELECTIONS[selection])
    charges = new_ledger.get("charges", [])
    counts: Counter[str] = Counter()
    taken = sum(charge.get("output") is not None for charge in ledger.get("charges", []))
    if taken and all(charge["output"] is None for charge in charges):
        counts[
            f"{'private rows' if row['private'] else 'rows without privacy'} with their released outputs taken out"
        ] = 1
    if any(charge["mechanism"]["kind"] == "BestOfTrials" for charge in charges):
        counts["rows of a private selection without their running times now"] = 1
        new_row = {name: value for name, value in new_row.items() if name not in _TIMES}
    if selection != row["selection"]:
        counts[f"rows of {row['method']} labelled {selection} in place of {row['selection']}"] = 1
    return new_row, counts


def _regrouped(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of schema 3 with its numbers in groups, under the names of their metrics."""
    groups = {"metrics": _METRICS, "real_metrics": _REAL_METRICS, "diagnostics": _DIAGNOSTICS}
    moved = {name for names in groups.values() for name in names}
    new_row = {name: value for name, value in row.items() if name not in moved}
    if "floor_images" in row:
        new_row["num_real"] = new_row.pop("floor_images")
    # A column that failed rows lack is one of floats.
    new_row |= {name: int(new_row[name]) for name in _COUNTS if name in new_row}
    if row["status"] == "done":
        for group, names in groups.items():
            new_row[group] = {new: row[old] for old, new in names.items() if old in row}
    return new_row


def _selection(row: Mapping[str, Any], spec: Mapping[str, Any], searches: Iterable[RecordedSearch]) -> tuple[str, str]:
    """The label of a row's options, derived again, as far as its method is known here."""
    if row["method"] not in METHODS:
        return (row["selection"] if row["selection"] in ("non_private", "tuned_private") else "unknown"), ""
    kind = METHODS[row["method"]]
    return selection_of(kind, row["method"], spec["options"], searches, split=row["split"])


def _require_own(spec: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    """Refuse a former spec whose hash is not the id of its cell: with a new id nobody could see that."""
    if "layers" in spec["base"]:
        return  # it was rewritten before a migration was stopped
    plain = dict(spec)
    if row["schema"] == 3:  # whose specs may lack what was left at its default
        plain["data"] = {**_NEW_DATA, **spec["data"]}
    if content_hash(plain) != row["cell"]:
        raise UserError(
            f"row {row['cell']} has the spec of cell {content_hash(plain)}: it was edited, run its sweep again"
        )


def _spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec of any schema in the present one."""
    kept = {name: value for name, value in spec.items() if name != "secure_noise"}
    base = {**_NEW_BASE, **spec["base"]}
    if "convolutions" in base:
        base["layers"] = _LAYERS[base.pop("convolutions")]
    return {**kept, "data": {**_NEW_DATA, **_NEWEST_DATA, **spec["data"]}, "base": base}


def _ledger(ledger: Mapping[str, Any]) -> dict[str, Any]:
    """A ledger in the present schema; ``continuous`` outputs are gone, and the sampler's name stays to tell of them."""
    if ledger.get("schema") != _FORMER_LEDGER_SCHEMA:
        return dict(ledger)
    bare = (ledger["noise"] or {}).get("sampler") == "continuous"
    charges = [
        {
            **charge,
            "attempt": 0,
            "mechanism": _mechanism(charge["mechanism"]),
            "output": None if bare else charge["output"],
        }
        for charge in ledger["charges"]
    ]
    return {**ledger, "schema": _LEDGER_SCHEMA, "charges": charges}


def _mechanism(plain: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in plain.items() if (plain["kind"], name) != ("NoisyHistogram", "bins")}
    return {**kept, "trial": [*map(_mechanism, plain["trial"])]} if "trial" in plain else kept
