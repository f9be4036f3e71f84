"""``dphyper audit``: a bound for whatever claims one, one line for whatever does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dphyper.audits.faulty_methods import MeanPicture
from dphyper.bench.catalog import METHODS
from dphyper.privacy.budget import Budget
from dphyper.privacy.mechanisms import Mechanism

Command, Refusal = Callable[..., int], Callable[..., str]
Captured = pytest.CaptureFixture[str]


class Broken(MeanPicture):
    """A method of an outside package whose mechanisms raise."""

    @classmethod
    def mechanisms(cls, budget: Budget, options: Any) -> tuple[Mechanism, ...]:
        raise ZeroDivisionError


class Nonsense(MeanPicture):
    """A method of an outside package whose mechanisms are none."""

    @classmethod
    def mechanisms(cls, budget: Budget, options: Any) -> tuple[Mechanism, ...]:
        return ("a mean",)  # type: ignore[return-value]


def test_every_method_is_audited_or_refused_in_one_line(
    tmp_path: Path, dphyper: Command, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (MeanPicture, Broken, Nonsense):
        monkeypatch.setitem(METHODS.locations, kind.__name__, f"{kind.__module__}:{kind.__name__}")
    assert dphyper("audit", "all", "--draws", "4", "--out", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    private = [name for name in METHODS if METHODS[name].private and "epsilon" in METHODS[name].uses]
    audited = [name for name in private if name not in ("Broken", "Nonsense")]
    refused = [name for name in METHODS if name not in audited]
    notes = [line for line in lines if "accounted and not attacked" in line]
    assert len(lines) == len(METHODS) + len(notes)
    assert [*pd.read_csv(tmp_path / "mechanisms.csv")["method"]] == audited
    for name in audited:
        (line,) = [line for line in lines if line.startswith(f"{name}: claimed ε = ")]
        assert "at δ = 1e-05; audited ε ≥ " in line
        assert ("claimed ε = 1.000" in line) is not any(note.startswith(f"{name}: ") for note in notes)
    for name in refused:
        assert any(f"method '{name}'" in line for line in lines), name
    assert len(refused) == 2 + sum(not METHODS[name].private or "epsilon" not in METHODS[name].uses for name in METHODS)


def test_code_that_raises_or_returns_nonsense_is_one_line(refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Broken, Nonsense):
        monkeypatch.setitem(METHODS.locations, kind.__name__, f"{kind.__module__}:{kind.__name__}")
    assert "cannot be built (ZeroDivisionError: ): mend its `mechanisms`" in refusal("audit", "Broken")
    assert "returns ('a mean',): expected a tuple of mechanisms" in refusal("audit", "Nonsense")


def test_a_bound_is_drawn_and_what_claims_nothing_is_refused(
    tmp_path: Path, dphyper: Command, refusal: Refusal, capsys: Captured
) -> None:
    assert dphyper("audit", "hypernetwork", "--epsilon", "4", "--draws", "300", "--out", tmp_path) == 0
    assert "claimed ε = 4.000" in capsys.readouterr().out
    assert (tmp_path / "hypernetwork.png").stat().st_size > 1000
    assert "claims no ε to audit" in refusal("audit", "nonprivate_lora")
    assert "claims no ε to audit" in refusal("audit", "public_only")
    assert "claims no ε to audit" in refusal("audit", "dp_sgd", "--epsilon", ".inf")


def test_every_planted_bug_is_caught(dphyper: Command, capsys: Captured) -> None:
    assert dphyper("audit", "guards") == 0
    assert "MISSED" not in capsys.readouterr().out


def test_the_contract_is_a_command_too(dphyper: Command, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dphyper("audit", "public_only", "--contract") == 0
    assert capsys.readouterr().out == "public_only: no finding\n"
    monkeypatch.setitem(METHODS.locations, "Broken", f"{Broken.__module__}:Broken")
    assert dphyper("audit", "Broken", "--contract") == 1
    assert "Broken: declared: it fails with ZeroDivisionError" in capsys.readouterr().out


def test_whole_runs_take_their_cells_from_a_sweep_file(
    tmp_path: Path, sweep_file: Callable[..., Path], dphyper: Command, refusal: Refusal, capsys: Captured
) -> None:
    grid = [{"method": ["hypernetwork"], "epsilon": [1, 8]}]
    whole = ["--sweep", sweep_file(cell={"n": 4}, grid=grid), "--runs", "10", "--out", tmp_path]
    assert dphyper("audit", "hypernetwork", *whole) == 0
    assert "method hypernetwork" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "whole_runs.csv")
    assert table["claimed ε"].tolist() == [1.0] * 3 + [8.0] * 3
    assert table["score"].tolist() == ["loss", "lda", "releases"] * 2
    assert (tmp_path / "whole_runs.md").read_text().count("\n") == 8
    assert "runs = 0: expected at least 1" in refusal("audit", "hypernetwork", *whole, "--runs", "0")
    assert "unknown method in sweep" in refusal("audit", "public_mean", *whole)
    assert "unknown method in sweep" in refusal("audit", "faults", *whole)  # some are planted in dp_sgd


def test_what_can_be_attacked_is_named(refusal: Refusal) -> None:
    assert "did you mean 'hypernetwork'?" in refusal("audit", "hypernetworks")
    assert "name their sweep" in refusal("audit", "faults")
    assert "embedding_dim = 0: expected at least 1" in refusal("audit", "hypernetwork", "--embedding_dim", "0")
    assert "3 releases from each data set: expected at least 4" in refusal("audit", "hypernetwork", "--draws", "3")
    assert "0 releases from each data set: expected at least 4" in refusal("audit", "bits", "--draws", "4")
    assert "epsilon = -1.0: expected a number above 0" in refusal("audit", "dp_sgd", "--epsilon", "-1")
