"""What of a store may leave the house: a copy with everything else left behind, and counted.

A store at home holds more than its guarantees cover: a secret key, queues and locks whose times tell how long runs
took, sheets of private images, parameters and samples of methods without privacy, and statistics that no noise covers.
`publish` copies rows, specs, ledgers, and, of the rows that may claim privacy, parameters and samples. It copies what
it knows and nothing else. What remains uncovered are the distances, losses and shifts, which judge on held-out private
images (``docs/publish.md``). Nothing is changed in the store.
"""

import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dphyper.bench.store import Store, sealed
from dphyper.core.errors import UserError
from dphyper.core.files import json_text, read_json, write_json
from dphyper.core.labels import doubt
from dphyper.metrics.metric import METRICS

_COPIED = ("cell.json", "samples.png", "theta.safetensors")
_RELEASED = ("samples.npz", "samples.png", "theta.safetensors")
_TIMES = ("seconds_adapt", "seconds_evaluate")
# One time for every file, the earliest that a zip archive can hold: 1980-01-01 in UTC.
_TIME = 315_532_800
_LEFT = {
    "key": "key of the hashes of private data",
    "locks": "folder of locks, whose times tell when cells ran",
    "wandb": "folder of W&B runs, with times",
    "report": "report: make it again from the copy",
    "generator.npy": "secret generators of interrupted runs",
    "ledger.interrupted.json": "ledgers of interrupted attempts",
    "reference.png": "sheets of held-out images of private tasks",
    **dict.fromkeys(_RELEASED, "files of parameters and samples on private tasks, of rows that support no claim"),
}


def publish(store: Store, out: Path) -> tuple[int, "Counter[str]"]:
    """Copy what may leave the house.

    Args:
        store: Stays as it is.
        out: Folder of the copy, itself a store, with a ``rows.parquet``.

    Returns:
        How many rows were copied, and what was left behind, in words, with counts.

    Raises:
        UserError: ``out`` is a file, a folder with something in it or one in the store; or the store has no row or one
            of another schema.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UserError(
            f"'{out}' exists and is not empty: name a new folder, so that nothing else is published with it"
        )
    if out.resolve().is_relative_to(store.root.resolve()):
        raise UserError(f"'{out}' lies in the store itself: name a folder outside it")
    rows, left, copy = store.rows(), Counter[str](), Store(out)
    for cell in rows["cell"]:
        left += _publish_cell(store.directory(cell), copy.directory(cell))
    left += Counter(_left(path) for path in store.root.iterdir() if path.name not in ("cells", "rows.parquet"))
    unfinished = {path.name for path in store.root.glob("cells/*")} - {*rows["cell"]}
    left += Counter({"folders of cells without a row": len(unfinished)})
    copy.export()
    for path in [*out.rglob("*"), out]:
        os.utime(path, (_TIME, _TIME))
    return len(rows), left


def _publish_cell(source: Path, target: Path) -> "Counter[str]":
    """Copy one cell, and count what stays."""
    row, spec = (read_json(source / name) for name in ("row.json", "cell.json"))
    left: Counter[str] = Counter()
    covered = _covered(row)
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.name in ("row.json", "ledger.json"):
            continue
        if path.name == "reference.png" and _may_be_shown(row, spec):
            shutil.copyfile(path, target / path.name)
        elif path.name == "samples.npz" and covered:
            _copy_archive(path, target / path.name)
        elif path.name in _COPIED and (covered or path.name not in _RELEASED):
            shutil.copyfile(path, target / path.name)
        else:
            left[_left(path)] += 1
    ledger = read_json(path) if (path := source / "ledger.json").exists() else {}
    if ledger and not covered:
        left["released outputs in ledgers on private tasks, of rows that support no claim"] += sum(
            charge["output"] is not None for charge in ledger["charges"]
        )
        ledger["charges"] = [{**charge, "output": None} for charge in ledger["charges"]]
    if ledger:
        write_json(target / "ledger.json", ledger)
    kept, fields = _row(row, ledger, covered)
    write_json(target / "row.json", sealed(kept, json_text(ledger)))
    return left + fields


def _covered(row: Mapping[str, Any]) -> bool:
    """Whether what a row released may be shown: it claims privacy with reason, or its task is not private."""
    if row["status"] != "done":
        return False
    return row["split"] == "tuning" or (bool(row["private"]) and not doubt(row["harness"], row.get("commit", "")))


def _may_be_shown(row: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    """Whether the sheet of reference images may be: of private tasks, former versions wrote it unasked."""
    asked = not doubt(row["harness"], commit="whatever it was")
    return bool(row["split"] == "tuning" or spec["data"]["show_reference"] or asked)


def _row(row: Mapping[str, Any], ledger: Mapping[str, Any], covered: bool) -> tuple[dict[str, Any], "Counter[str]"]:
    """A row without what must stay, and what that was."""
    left: Counter[str] = Counter()
    drop: set[str] = set()
    if not covered:
        # Functions of what was released: without noise, statistics of private records. Some metrics read them directly.
        drop.add("diagnostics")
        metrics = row.get("metrics", {})
        known = {name for name in metrics if name in METRICS and "private_features" not in METRICS[name].needs}
        row = {**row, "metrics": {name: metrics[name] for name in metrics if name in known}} if metrics else row
        count = len(row.get("diagnostics", {})) + len(metrics) - len(known)
        left["statistics of private records, in rows that support no claim"] += count
    if any(charge["mechanism"]["kind"] == "BestOfTrials" for charge in ledger.get("charges", [])):
        timed = {*_TIMES} & {*row}
        drop |= timed
        left["running times of rows with a private selection"] += len(timed)
    kept = {name: value for name, value in row.items() if name not in drop}
    # An exception's text may quote the records that it fell over.
    kind, _, text = row["error"].partition(":")
    if text and row["split"] != "tuning":
        kept["error"] = kind
        left["texts of errors on private tasks"] += 1
    return kept, left


def _copy_archive(source: Path, target: Path) -> None:
    """Copy a zip archive without the times at which its members were written."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), old.read(name), zipfile.ZIP_DEFLATED)


def _left(path: Path) -> str:
    """What stays behind, in words."""
    if path.name.startswith("queue."):
        return "files of queues, whose times tell how long cells took"
    if path.name.startswith("ledger.given_up."):
        return "ledgers of attempts that were given up"
    return _LEFT.get(path.name, f"other files or folders named {path.name}")
