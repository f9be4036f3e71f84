"""The examples run as a stranger would run them: installed with pip, from a folder that is not the repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the examples, installed beside it."""
    folder = tmp_path_factory.mktemp("stranger") / "examples"
    shutil.copytree(EXAMPLES, folder)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(folder / "site"), str(folder)], check=True)
    for path in folder.glob("my_*.py"):  # what was installed is what runs
        path.unlink()
    return folder


def dphyper(folder: Path, *arguments: str, statuses: tuple[int, ...] = (0,)) -> str:
    """Run a command in a folder and return what it prints."""
    path = os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "ignore", "-c", "from dphyper.cli.main import main; main()", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode in statuses, done.stdout + done.stderr
    return done.stdout


def test_the_parts_are_found_by_name(stranger: Path) -> None:
    assert "The LoRA fitted to the public images nearest" in dphyper(stranger, "ls", "methods")
    assert "Noisy stripes of eight directions" in dphyper(stranger, "ls", "data")
    assert "The public mean image" in dphyper(stranger, "ls", "targets")
    assert "Share of real records" in dphyper(stranger, "ls", "metrics")


def test_the_method_passes_the_privacy_contract(stranger: Path) -> None:
    assert "nearest_images: no finding" in dphyper(stranger, "audit", "nearest_images", "--contract")


def test_the_sweep_runs_and_reports_the_method_and_the_metric(stranger: Path) -> None:
    assert "10 of 10 cells done" in dphyper(stranger, "sweep", "run", "my_sweep.yaml", "--performance.threads", "1")
    rows = pd.read_parquet(stranger / "runs" / "my_sweep" / "rows.parquet")
    assert set(rows["method"]) == {"public_only", "nearest_images", "dp_sgd"}
    assert rows["coverage"].between(0, 1).all()
    assert (rows["real_coverage"] > rows["coverage"].max()).all(), "real images cover more than any others"
    found = dphyper(stranger, "check", "--store", "runs/my_sweep", statuses=(0, 1)).splitlines()
    # While the repository has changes that are not committed, no row supports a claim; nothing else is found.
    assert all(line.endswith(("no finding", "what ran is not known")) for line in found)
    dphyper(stranger, "report", "--store", "runs/my_sweep")
    page = (stranger / "runs" / "my_sweep" / "report" / "index.html").read_text()
    assert "Nearest public images" in page
    assert "Coverage" in page
    tables = "".join(path.read_text() for path in stranger.glob("runs/my_sweep/report/*/*.md"))
    assert "Nearest public images" in tables
    assert "How many results stand behind each method" in page


def test_methods_run_on_the_target(stranger: Path) -> None:
    config = ["--base.kind", "mean_image", "--base.train_steps", "50", "--protocol.num_images", "400", "--wandb", "off"]
    data = ["--data.source", "stripes", "--data.image_size", "8", "--task", "0", "--n", "64", "--epsilon", "8"]
    options = ["--method", "dp_sgd", "--options", '{"steps": 4, "multiplicity": 1}']
    printed = dphyper(stranger, "run", *config, *data, *options)
    assert "status             done" in printed
    assert "parameters         64" in printed


@pytest.mark.parametrize("name", ["method", "target", "metric"])
def test_the_docs_show_the_example_as_it_stands(name: str) -> None:
    assert f'--8<-- "examples/my_{name}.py"' in (ROOT / "docs" / "how-to" / f"own_{name}.md").read_text()
    assert (EXAMPLES / f"my_{name}.py").exists()
