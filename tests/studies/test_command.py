"""A user's mistake ends a study in one line and status 2; any other error keeps its traceback."""

import sys

import pytest

from dphyper.core.errors import UserError
from dphyper.studies.command import run_command


def study(name: str, fault: str = "") -> None:
    """A study.

    Args:
        name: Printed.
        fault: Of the user, or any other.
    """
    if fault:
        raise UserError(fault) if fault == "a mistake" else RuntimeError(fault)
    print(f"studied {name}")


def test_options_come_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["study", "limits"])
    run_command(study)
    assert capsys.readouterr().out == "studied limits\n"


def test_a_mistake_is_one_line_and_another_error_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["study", "limits", "--fault", "a mistake"])
    with pytest.raises(SystemExit) as stopped:
        run_command(study)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "dphyper: a mistake\n"
    monkeypatch.setattr(sys, "argv", ["study", "limits", "--fault", "a bug"])
    with pytest.raises(RuntimeError, match="a bug"):
        run_command(study)
