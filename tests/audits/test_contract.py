"""The contract suite goes through outside packages, and tells of code that fails in one line.

That it finds every planted fault is in test_planted.py, and that it finds none in the registered methods in
tests/methods/test_contract.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dphyper.audits import contract
from dphyper.audits.faulty_methods import MeanPicture
from dphyper.bench.catalog import METHODS
from dphyper.bench.method import Adaptation
from dphyper.core.errors import UserError
from dphyper.privacy.budget import Budget
from dphyper.privacy.private_data import PrivateData


def test_an_outside_package_goes_through_the_suite(tmp_path: Path) -> None:
    """As a stranger's: a module and entry points on the path, nothing registered here."""
    (tmp_path / "rogue.py").write_text(
        "from dphyper.audits.faulty_methods import MeanPicture, MixesTheExactMean, DrawsGlobally\n"
        "class Honest(MeanPicture):\n    '''An honest method.'''\n"
        "class Rogue(MixesTheExactMean):\n    '''A method that mixes the exact mean in.'''\n"
        "class Careless(DrawsGlobally):\n    '''A method that draws from the global generator.'''\n"
    )
    info = tmp_path / "rogue-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rogue\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[dphyper.methods]\nhonest = rogue:Honest\nrogue = rogue:Rogue\ncareless = rogue:Careless\n"
    )
    program = (
        "from dphyper.audits.contract import findings\n"
        "for name in ('honest', 'rogue', 'careless'): print(name, [line.split(':')[0] for line in findings(name)])"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "honest []"
    assert done.stdout.splitlines()[1].startswith("rogue ['released_alone'")
    assert "record_wise" in done.stdout.splitlines()[2]


class Fails(MeanPicture):
    """A method whose code fails."""

    def adapt(self, private: PrivateData, budget: Budget, rng: torch.Generator) -> Adaptation:
        raise ZeroDivisionError("first line\nsecond line")


class CannotBeBuilt(MeanPicture):
    """A method whose constructor fails."""

    def __init__(self, *arguments: object, **keywords: object) -> None:
        raise ZeroDivisionError


def test_a_method_that_fails_is_a_finding_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Fails, CannotBeBuilt):
        monkeypatch.setitem(METHODS.locations, kind.__name__, f"{kind.__module__}:{kind.__name__}")
    found = [*contract.findings("Fails")]
    assert len(found) == len(contract.CHECKS)
    assert {line.partition(": ")[2] for line in found} == {"it fails with ZeroDivisionError: first line"}
    assert [*contract.findings("CannotBeBuilt")] == ["it cannot be built: ZeroDivisionError: "]
    with pytest.raises(UserError, match="unknown method 'Fail'"):
        next(contract.findings("Fail"))
