"""What `dphyper publish` leaves behind, and that what it copies is a store."""

import io
import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dphyper.bench.publishing import publish
from dphyper.bench.store import SCHEMA, Row, Store
from dphyper.cli.main import main
from dphyper.core.errors import UserError
from dphyper.core.files import write_json
from dphyper.core.labels import SOUND_SINCE
from dphyper.core.specs import Cell, DataSpec

FILES = ("samples.png", "theta.safetensors", "reference.png", "generator.npy", "ledger.interrupted.json")


def add(store: Store, method: str, *, kind: str = "OneShotMean", show: bool = False, **changes: Any) -> str:
    """A cell with every file that one may have, released with an output."""
    cell = Cell(task="8", method=method, data=DataSpec(show_reference=show))
    values: dict[str, Any] = dict.fromkeys(Row.__required_keys__, "")
    values |= {"schema": SCHEMA, "cell": cell.id, "status": "done", "split": "private", "method": method, "task": "8"}
    values |= {"epsilon": 1.0, "n": 128, "seed": 0, "noise_draw": 0, "embedding_dim": 0, "private": True}
    values |= {
        "harness": SOUND_SINCE,
        "commit": "c0ffee",
        "diagnostics": {"embedding_shift": 1.2},
        "seconds_adapt": 3.0,
    }
    values |= {"seconds_evaluate": 4.0, "metrics": {"frechet": 5.0}, **changes}
    folder = store.directory(cell.id)
    folder.mkdir(parents=True)
    write_json(folder / "ledger.json", {"charges": [{"mechanism": {"kind": kind}, "output": [1.0]}]})
    store.write(cell, Row(**values))  # type: ignore[typeddict-item]
    for name in FILES:
        (folder / name).write_bytes(name.encode())
    np.save(array := io.BytesIO(), np.arange(4))
    with zipfile.ZipFile(folder / "samples.npz", "w") as archive:  # with a time, as some versions of NumPy do
        archive.writestr(zipfile.ZipInfo("images.npy", (2026, 1, 2, 3, 4, 6)), array.getvalue())
    return cell.id


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.key()
    (store.root / "queue.log").touch()
    (store.root / "locks").mkdir(exist_ok=True)
    (store.root / "notes.txt").touch()
    (store.directory("interrupted")).mkdir(parents=True)
    return store


def files(out: Path, cell: str) -> set[str]:
    return {path.name for path in Store(out).directory(cell).iterdir()}


def ledger(out: Path, cell: str) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads((Store(out).directory(cell) / "ledger.json").read_text())
    return plain


def test_a_row_that_supports_its_claim_keeps_what_it_released(store: Store, tmp_path: Path) -> None:
    cell, out = add(store, "hypernetwork"), tmp_path / "out"
    copied, left = publish(store, out)
    released = {"samples.png", "samples.npz", "theta.safetensors"}
    assert files(out, cell) == {"row.json", "cell.json", "ledger.json", "reference.png", *released}
    assert ledger(out, cell)["charges"][0]["output"] == [1.0]
    assert Store(out).row(cell) == store.row(cell)
    assert np.array_equal(np.load(Store(out).directory(cell) / "samples.npz")["images"], np.arange(4))
    assert copied == 1
    assert left == {
        "key of the hashes of private data": 1,
        "folder of locks, whose times tell when cells ran": 1,
        "files of queues, whose times tell how long cells took": 1,
        "other files or folders named notes.txt": 1,
        "folders of cells without a row": 1,
        "secret generators of interrupted runs": 1,
        "ledgers of interrupted attempts": 1,
    }
    assert {path.name for path in out.iterdir()} == {"cells", "rows.parquet"}


def test_no_time_is_told_by_any_file(store: Store, tmp_path: Path) -> None:
    cell, out = add(store, "dp_sgd_tuned", kind="BestOfTrials"), tmp_path / "out"
    _, left = publish(store, out)
    assert left["running times of rows with a private selection"] == 2
    assert {*store.row(cell)} - {*Store(out).row(cell)} == {"seconds_adapt", "seconds_evaluate"}
    assert len({path.stat().st_mtime for path in [out, *out.rglob("*")]}) == 1
    with zipfile.ZipFile(Store(out).directory(cell) / "samples.npz") as archive:
        assert [(member.filename, member.date_time) for member in archive.infolist()] == [
            ("images.npy", (1980, 1, 1, 0, 0, 0))
        ]


@pytest.mark.parametrize(
    "changes",
    [{"private": False}, {"harness": "0.1.0"}, {"commit": "c0ffee-dirty"}, {"commit": ""}, {"status": "failed"}],
)
def test_a_row_without_a_claim_keeps_its_numbers_alone(store: Store, tmp_path: Path, changes: dict[str, Any]) -> None:
    cell, out = add(store, "hypernetwork_sigma0", **changes), tmp_path / "out"
    _, left = publish(store, out)
    assert files(out, cell) - {"reference.png"} == {"row.json", "cell.json", "ledger.json"}
    assert ("reference.png" in files(out, cell)) is (changes.get("harness") != "0.1.0")
    assert ledger(out, cell)["charges"][0]["output"] is None
    assert {*store.row(cell)} - {*Store(out).row(cell)} == {"diagnostics"}
    assert left["files of parameters and samples on private tasks, of rows that support no claim"] == 3
    assert left["statistics of private records, in rows that support no claim"] == 1


@pytest.mark.parametrize("metric", ["nearest_private", "of_a_package_that_is_not_installed"])
def test_a_metric_that_reads_private_records_stays_at_home(store: Store, tmp_path: Path, metric: str) -> None:
    cell, out = add(store, "nonprivate_lora", private=False, metrics={"frechet": 5.0, metric: 3.0}), tmp_path / "out"
    _, left = publish(store, out)
    assert Store(out).row(cell)["metrics"] == {"frechet": 5.0}
    assert left["statistics of private records, in rows that support no claim"] == 2


def test_tuning_tasks_are_public(store: Store, tmp_path: Path) -> None:
    cell, out = add(store, "nonprivate_lora", private=False, split="tuning", harness="0.1.0"), tmp_path / "out"
    publish(store, out)
    assert {"samples.npz", "theta.safetensors", "reference.png"} <= files(out, cell)


def test_old_sheets_are_copied_only_where_the_spec_says_so(store: Store, tmp_path: Path) -> None:
    shown = add(store, "hypernetwork", show=True, harness="0.1.0")
    hidden = add(store, "hypernetwork", harness="0.1.0")
    publish(store, tmp_path / "out")
    assert "reference.png" in files(tmp_path / "out", shown)
    assert "reference.png" not in files(tmp_path / "out", hidden)


def test_the_text_of_an_error_stays_at_home(store: Store, tmp_path: Path) -> None:
    cell = add(store, "hypernetwork", status="failed", error="ValueError: record 7 is [0.1, 0.2]")
    _, left = publish(store, tmp_path / "out")
    assert Store(tmp_path / "out").row(cell)["error"] == "ValueError"
    assert left["texts of errors on private tasks"] == 1


def test_a_target_with_something_in_it_is_refused(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(store, "hypernetwork")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(SystemExit) as stopped:
        main(["publish", str(store.root), "--out", str(out)])
    assert stopped.value.code == 0
    assert f"1 rows of {store.root} copied to {out}; left behind:\n" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["publish", str(store.root), "--out", str(out)])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "exists and is not empty" in line
    with pytest.raises(UserError, match="lies in the store itself"):
        publish(store, store.root / "public")


def test_the_key_is_made_once_and_is_nobody_elses(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "first"), Store(tmp_path / "second")
    assert len(first.key()) == 32
    assert first.key() == first.key() != second.key()
    assert stat.S_IMODE((tmp_path / "first" / "key").stat().st_mode) == 0o600
    (tmp_path / "first" / "key").write_bytes(b"short")
    with pytest.raises(UserError, match="holds 5 bytes, expected 32"):
        first.key()


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_of_a_store_have_the_mode_of_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_json(tmp_path / "x.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == mode
