"""The short form of `make chaos`: toy cells, a few kills, and a table like that of a run that was left alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dphyper.bench.store import Store
from dphyper.studies import chaos
from dphyper.studies.postgres import running_server
from dphyper.sweeps import plan

TOYS = (sys.executable, "-W", "ignore", str(Path(__file__).parents[1] / "sweeps" / "toy.py"))


def test_workers_and_parents_are_killed_and_every_cell_is_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = {"name": "toys", "wandb": "off", "cell": {"task": "a", "method": "public_only"}}
    sweep |= {"performance": {"workers": 2, "threads": 1, "grace": 5}, "grid": [{"seed": list(range(40))}]}
    file = tmp_path / "toys.yaml"
    file.write_text(yaml.safe_dump(sweep))
    monkeypatch.setattr(plan, "canonical", lambda cell: cell)  # as in the toys' own processes
    calm = chaos.variant(file, tmp_path / "undisturbed.yaml")
    environment = {**os.environ, "TOY_SECONDS": "0"}
    subprocess.run([*TOYS, "sweep", "worker", calm], check=True, env=environment)
    monkeypatch.setattr(chaos, "check_store", lambda store: [])  # toys have no ledgers
    monkeypatch.setenv("TOY_SECONDS", "0.3")
    with running_server() as server:
        for name, address in (("journal", "journal"), ("postgresql", server.url())):
            disturbed = chaos.variant(file, tmp_path / f"{name}.yaml", storage=address)
            toll = chaos.disturb(
                disturbed,
                pause=3.0,
                seed=1,
                server=server if name == "postgresql" else None,
                command=TOYS,
                most=3,
            )
            assert toll["workers killed"] + toll["parents killed"] == 3
            assert toll["restarts of the database"] == (name == "postgresql")
            assert chaos.compare(disturbed, calm) == []
    # What is not as it was is found.
    sweep_of, cells = plan.read_sweep(str(disturbed))
    (Store(sweep_of.store_path).directory(cells[0].id) / "row.json").unlink()
    assert [finding for finding in chaos.compare(disturbed, calm) if "is to do" in finding]
    assert any("the rows differ" in finding for finding in chaos.compare(disturbed, calm))
