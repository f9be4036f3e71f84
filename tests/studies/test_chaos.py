"""The short form of `make chaos`: toy cells, a few kills, and a table like that of a run that was left alone."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from dphyper.bench.store import Store
from dphyper.studies import chaos
from dphyper.studies.postgres import running_server
from dphyper.sweeps import plan

TOYS = (sys.executable, "-W", "ignore", str(Path(__file__).parents[1] / "sweeps" / "toy.py"))


@pytest.mark.parametrize("storage", ["journal", "postgresql"])
def test_workers_and_parents_are_killed_and_every_cell_is_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    sweep = {"name": "toys", "wandb": "off", "cell": {"task": "a", "method": "public_only"}}
    sweep |= {"performance": {"workers": 2, "threads": 1, "grace": 5}, "grid": [{"seed": list(range(30))}]}
    file = tmp_path / "toys.yaml"
    file.write_text(yaml.safe_dump(sweep))
    monkeypatch.setattr(plan, "canonical", lambda cell: cell)  # as in the toys' own processes
    monkeypatch.setattr(chaos, "check_store", lambda store: [])  # toys have no ledgers
    calm = chaos.variant(file, tmp_path / "undisturbed.yaml")
    subprocess.run([*TOYS, "sweep", "worker", calm], check=True, env={**os.environ, "TOY_SECONDS": "0"})
    monkeypatch.setenv("TOY_SECONDS", "0.3")
    with ExitStack() as stack:
        server = stack.enter_context(running_server()) if storage == "postgresql" else None
        disturbed = chaos.variant(file, tmp_path / "disturbed.yaml", storage=server.url() if server else storage)
        toll = chaos.disturb(disturbed, pause=3.0, seed=1, server=server, command=TOYS, most=2)
        assert toll["workers killed"] + toll["parents killed"] == 2
        assert toll["restarts of the database"] == (server is not None)
        assert chaos.compare(disturbed, calm) == []
        # What is not as it was is found.
        changed, cells = plan.read_sweep(str(disturbed))
        (Store(changed.store_path).directory(cells[0].id) / "row.json").unlink()
        findings = chaos.compare(disturbed, calm)
    assert f"cell {cells[0].id} is to do" in findings
    assert any("the rows differ" in finding for finding in findings)
