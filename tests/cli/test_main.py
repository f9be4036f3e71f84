"""The command line as a whole: help comes at once, and a mistake gets one line."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version

import pytest

from dphyper.cli.main import COMMANDS, main

Refusal = Callable[..., str]
HEAVY = {"torch", "lightning", "diffusers", "pandas", "scipy", "wandb", "optuna", "matplotlib"}
LIGHT = [["--help"], ["sweep", "run", "--help"], *(["ls", what] for what in ("methods", "data", "targets", "metrics"))]


def loaded_by(arguments: list[str]) -> tuple[str, set[str]]:
    """What a command prints, and the top packages that it imports, in a fresh process."""
    code = (
        "import sys\nfrom dphyper.cli.main import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as stopped: assert not stopped.code, stopped.code\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, {*done.stderr.split()}


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_help_and_lists_load_nothing_heavy(arguments: list[str]) -> None:
    said, loaded = loaded_by(arguments)
    assert "jsonargparse" in loaded
    assert not loaded & HEAVY
    assert said


def test_a_command_that_reads_data_loads_more() -> None:
    """So that the test above can fail."""
    _, loaded = loaded_by(["ls", "tasks", "--source", "digits8", "--data.image_size", "8"])
    assert loaded & HEAVY


def test_help_names_every_command_and_every_key(
    dphyper: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dphyper("--help") == 0
    said = capsys.readouterr().out
    assert all(f"    {name} " in said for name in COMMANDS)
    assert dphyper() == 0
    assert capsys.readouterr().out == said
    assert dphyper("sweep", "run", "--help") == 0
    assert "--performance.workers" in capsys.readouterr().out


def test_the_version_is_said(dphyper: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert dphyper("--version") == 0
    assert capsys.readouterr().out.split() == ["dphyper", version("dphyper")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["swep"], "invalid choice: 'swep' (choose from 'run', 'sweep'"),
        (["report"], "the following arguments are required: report.store"),
        (["report", "--stroe", "x"], "unknown key 'stroe': did you mean 'store'?"),
        (["audit", "dp_sgd", "--drawz", "3"], "unknown key 'drawz': did you mean 'draws'?"),
        (["ls", "data", "--data.sorce", "x"], "unknown key 'data.sorce': did you mean 'data.source'?"),
        (["merge", "x", "--epsilon", "1"], "unknown key 'epsilon': expected one of store"),
    ],
)
def test_the_keys_of_a_command_are_those_of_its_parser(refusal: Refusal, arguments: list[str], said: str) -> None:
    assert said in refusal(*arguments)


def test_whoever_stops_reading_gets_no_traceback() -> None:
    listing = f"{sys.executable} -c 'from dphyper.cli.main import main; main()' ls methods"
    for reader, lines in (("head -n 1", 1), ("cat", 25)):
        done = subprocess.run(f"{listing} | {reader}", shell=True, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert done.stdout.count("\n") >= lines


def test_threads_that_wait_sleep_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    with pytest.raises(SystemExit):
        main(["--version"])
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    with pytest.raises(SystemExit):
        main(["--version"])
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
