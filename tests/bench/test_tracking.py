"""W&B as a sink: nothing at all when off, whole rows when offline."""

import subprocess
import sys
from pathlib import Path

from dphyper.bench.store import Row, Store
from dphyper.bench.tracking import Tracking
from dphyper.core.specs import Cell


def test_off_writes_nothing_and_does_not_even_import_wandb(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dphyper.bench.tracking import Tracking; "
        f"tracking = Tracking('off', Path({str(tmp_path)!r}), 'g')\n"
        "with tracking.phase('base') as logger: assert logger is False\n"
        "tracking.cell(None, None, None); tracking.table(None); assert 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    assert not list(tmp_path.iterdir())


def test_an_offline_run_holds_every_number_of_the_row(tmp_path: Path) -> None:
    cell, store = Cell(task="a"), Store(tmp_path / "store")
    row = Row(status="failed", cell=cell.id, metrics={"frechet": 3.25}, diagnostics={"embedding_shift": 1.5})  # type: ignore[typeddict-item]
    Tracking("offline", tmp_path, "group").cell(cell, row, store)
    (written,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = written.read_bytes()
    for name in (b"frechet", b"3.25", b"embedding_shift", b"1.5", cell.id.encode()):
        assert name in content
    assert b"real_frechet" not in content
