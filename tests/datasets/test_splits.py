"""Splits on the command line: no public task is adapted, and what was left out is said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dphyper.cli.main import main


def dphyper(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code, printed.out, printed.err


@pytest.fixture
def letters(tmp_path: Path, three: Any) -> Path:
    """A sweep file on a folder without data.private, whose first families are thus public; one has a copy."""
    copies = {"D": np.concatenate([three.pictures(14), three.pictures(11)[:1]])}
    three.folder(tmp_path / "letters", {name: three.pictures(10 + i) for i, name in enumerate("ABC")} | copies)
    sweep = {
        "name": "letters",
        "store": str(tmp_path / "store"),
        "wandb": "off",
        "performance": {"cache": str(tmp_path / "cache")},
        "cell": {
            "data": {"source": f"folder:{tmp_path / 'letters'}", "cluster_sizes": []},
            "base": {"block_out_channels": [16, 32], "train_steps": 1},
            "n": 16,
        },
        "grid": [{"method": ["dp_sgd"]}],
    }
    path = tmp_path / "letters.yaml"
    path.write_text(json.dumps(sweep))  # JSON is YAML
    return path


@pytest.mark.parametrize("command", ["run", "plan", "sweep", "audit"])
def test_no_command_adapts_a_public_task(command: str, letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = json.loads(letters.read_text())
    arguments: list[str | Path]
    match command:
        case "run":
            data = ["--data.source", sweep["cell"]["data"]["source"], "--method", "dp_sgd", "--n", "16"]
            arguments = ["run", *data, "--store", sweep["store"], "--wandb", "off", "--task", "A"]
        case action:
            letters.write_text(json.dumps({**sweep, "cell": {**sweep["cell"], "task": "A"}}))
            arguments = ["sweep", action.replace("sweep", "run"), letters]
            if action == "audit":
                arguments = ["audit", "dp_sgd", "--sweep", letters]
    status, _, errors = dphyper(capsys, *arguments)
    assert status == 2
    (line,) = errors.splitlines()
    assert "task 'A' of 'letters' is public" in line
    assert "expected one of 'B' (tuning), 'C' (private), 'D' (private), or name its family in data.private" in line
    assert not list(letters.parent.rglob("row.json"))
    assert not list(letters.parent.rglob("done.json"))


def test_a_plan_and_a_listing_say_what_was_left_out(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = json.loads(letters.read_text())
    said = "data: 1 image of the tuning family 'B', equal to images of the private family 'D'\n"
    letters.write_text(json.dumps({**sweep, "cell": {**sweep["cell"], "task": "D"}, "grid": [{"seed": [0, 1]}]}))
    status, out, _ = dphyper(capsys, "sweep", "plan", letters)
    assert (status, out.count(said)) == (0, 1)
    status, out, _ = dphyper(capsys, "ls", "tasks", "--source", sweep["cell"]["data"]["source"])
    assert (status, out.count(said)) == (0, 1)
    assert out.splitlines()[0].split() == ["public", "40", "A"]
    assert out.splitlines()[-1] == "data: letters: 160 records in 4 families"
    chosen = ["--source", sweep["cell"]["data"]["source"], "--data.private", "A", "--data.tuning", "[D]"]
    status, out, _ = dphyper(capsys, "ls", "tasks", *chosen)
    assert (status, out.count("private      40 A\n"), out.count("tuning       41 D\n")) == (0, 1, 1)
    assert "data: 1 image of the public family 'B', equal to images of the tuning family 'D'\n" in out
    errors = dphyper(capsys, "ls", "tasks", "--data.privte", "[A]")[2]
    assert "unknown key 'data.privte': did you mean 'data.private'?" in errors
