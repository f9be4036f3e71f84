"""W&B beside the store: nothing at all when off, whole rows when offline, and no harm when it fails."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dphyper.bench.store import SCHEMA, Row, Store
from dphyper.bench.tracking import Tracking, pull
from dphyper.core.errors import UserError
from dphyper.core.files import write_json
from dphyper.core.specs import Cell


def add(store: Store, cell: Cell, **changes: Any) -> Row:
    values: dict[str, Any] = dict.fromkeys(Row.__required_keys__, "")
    values |= {"schema": SCHEMA, "cell": cell.id, "status": "done", "epsilon": cell.epsilon, "private": True, **changes}
    store.directory(cell.id).mkdir(parents=True, exist_ok=True)
    write_json(store.directory(cell.id) / "ledger.json", {"charges": [{"output": [1 / 3]}]})
    store.write(cell, Row(**values))  # type: ignore[typeddict-item]
    return store.row(cell.id)


def test_off_writes_nothing_and_does_not_even_import_wandb(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dphyper.bench.tracking import Tracking; "
        f"tracking = Tracking('off', Path({str(tmp_path)!r}), 'g')\n"
        "with tracking.phase('base') as logger: assert logger is False\n"
        "tracking.cell(None, None, None); tracking.table(None, None); assert 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    assert not list(tmp_path.iterdir())


def test_a_store_is_made_again_of_offline_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "store")
    cells = [Cell(task="a"), Cell(task="a", epsilon=math.inf), Cell(task="b"), Cell(task="c")]
    tracking = Tracking("offline", tmp_path, "group")
    row = add(store, cells[0], metrics={"frechet": 3.25}, diagnostics={"embedding_shift": 1.5})
    (store.directory(cells[0].id) / "samples.png").write_bytes(
        bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
                      "0000000a49444154789c6360000000020001e221bc330000000049454e44ae426082")
    )  # fmt: skip
    tracking.cell(cells[0], row, store)
    tracking.cell(cells[1], add(store, cells[1], metrics={"frechet": 4.0}), store)
    tracking.cell(cells[2], add(store, cells[2], status="failed", error="first"), store)
    tracking.cell(cells[2], add(store, cells[2], metrics={"frechet": 5.0}), store)  # it was run again
    tracking.cell(cells[3], add(store, cells[3], status="failed", error="boom"), store)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("<p>the report</p>")
    tracking.table(store, lambda: tmp_path / "report")  # waits for them all
    assert f"cd {tmp_path} && wandb sync" in capsys.readouterr().out

    made = Store(tmp_path / "made")
    assert pull(str(tmp_path / "wandb"), made) == 4
    assert made.rows_with_specs().equals(store.rows_with_specs())
    assert (made.directory(row["cell"]) / "samples.png").exists()
    assert pull(str(tmp_path / "wandb"), made) == 0
    # What a run holds is what the binary log of W&B names, and thus what `wandb sync` uploads.
    (log,) = (path for path in tmp_path.glob("wandb/*/run-*.wandb") if row["cell"] in path.name)
    for name in (b"frechet", b"3.25", b"embedding_shift", b"row.json", b"ledger.json", cells[0].id.encode()):
        assert name in log.read_bytes()

    (table,) = tmp_path.glob("wandb/offline-run-*/run-group-table.wandb")
    assert b"group-report" in table.read_bytes()
    assert b"index.html" in table.read_bytes()

    (edited,) = (path for path in tmp_path.glob("wandb/*/files/row.json") if row["cell"] in str(path))
    edited.write_text(edited.read_text().replace("3.25", "1.25"))
    assert pull(str(tmp_path / "wandb"), Store(tmp_path / "third")) == 3
    assert "its row is not what was written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "said"),
    [("nowhere", "has no run of a cell"), ("wandb:me/dphyper", "expected wandb:ENTITY/PROJECT/GROUP")],
)
def test_what_holds_no_runs_is_refused(tmp_path: Path, source: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        pull(source, Store(tmp_path))


def test_a_failure_of_wandb_costs_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store, cell = Store(tmp_path / "store"), Cell(task="a")
    row = add(store, cell)
    (tmp_path / "file").touch()
    tracking = Tracking("offline", tmp_path / "file", "group")
    for _ in range(3):
        tracking.cell(cell, row, store)
    tracking.table(store, lambda: tmp_path)
    with tracking.phase("base") as logger:
        assert logger is False
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "going on without it, rows are in the store" in lines[0]
    assert store.status(cell.id) == "done"
