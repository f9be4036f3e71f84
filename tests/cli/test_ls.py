"""``dphyper ls``: what is registered is listed from its source, and is what the classes say."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dphyper.bench.catalog import DATASETS, METHODS
from dphyper.core.registry import Registry
from dphyper.metrics.metric import METRICS
from dphyper.targets.registry import TARGETS

REGISTRIES: dict[str, Registry] = {"methods": METHODS, "data": DATASETS, "targets": TARGETS, "metrics": METRICS}
LITERALS = {"methods": "role", "metrics": "label"}


@pytest.mark.parametrize("what", REGISTRIES)
def test_lists_say_what_the_classes_say(
    what: str, dphyper: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dphyper("ls", what) == 0
    lines = capsys.readouterr().out.splitlines()
    registry = REGISTRIES[what]
    names = [line.split()[0] for line in lines]
    assert sorted(names) == sorted(registry)
    for name, line in zip(names, lines, strict=True):
        assert line.endswith((registry[name].__doc__ or "").splitlines()[0])
        assert str(getattr(registry[name], LITERALS.get(what, ""), "")) in line


@pytest.mark.parametrize("location", ["no.such.package:Method", "no_class", "broken_plugin:Method", "bad_parent.it:M"])
def test_a_class_that_cannot_be_imported_is_listed(
    location: str,
    dphyper: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "broken_plugin.py").write_text("def no python")
    (tmp_path / "bad_parent").mkdir()
    (tmp_path / "bad_parent" / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(METHODS.locations, "gone", location)
    assert dphyper("ls", "methods") == 0  # after all that know their place
    assert capsys.readouterr().out.splitlines()[-1].split() == ["gone"]


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A sweep file on two collections."""
    sweep = {
        "name": "digits",
        "cell": {"data": {"source": "digits8", "image_size": 8}, "n": 16},
        "grid": [{"task": ["3", "8"], "data.image_size": [8, 10], "method": ["dp_sgd"]}],
    }
    path = tmp_path / "digits.yaml"
    path.write_text(json.dumps(sweep))  # JSON is YAML
    return path


def test_tasks_of_a_sweep_file_with_a_sheet_of_each_collection(
    dphyper: Callable[..., int], capsys: pytest.CaptureFixture[str], digits: Path
) -> None:
    assert dphyper("ls", "tasks", str(digits), "--sheet", str(digits.with_name("sheet.png"))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith("× 1:")] == ["digits8, 8 × 8 × 1:", "digits8, 10 × 10 × 1:"]
    assert sum(line.split()[::2] == ["private", "3"] for line in lines) == 2
    assert not any("cluster64/" in line for line in lines)
    assert any(line.endswith("clusters (--clusters lists them)") for line in lines)
    assert lines[-2].startswith("data: digits8: 1,797 records in 10 families")
    with Image.open(digits.with_name("sheet-1.png")) as sheet:
        assert sheet.size[0] >= 12 * 64
        assert len(sheet.convert("L").getcolors()) > 10  # images, and no empty page
    assert dphyper("ls", "tasks", "--source", "digits8", "--data.image_size", "8", "--clusters") == 0
    assert "cluster64/" in capsys.readouterr().out


def test_tasks_that_do_not_exist_are_said(refusal: Callable[..., str], digits: Path, tmp_path: Path) -> None:
    sweep = json.loads(digits.read_text())
    sweep["grid"][0]["task"] = ["3", "08", "11"]
    digits.write_text(json.dumps(sweep))
    said = "unknown tasks '08', '11' of 'digits8': expected some of 5, 3, 8"
    assert said in refusal("ls", "tasks", str(digits))
    assert said in refusal("sweep", "plan", str(digits))
    both = refusal("ls", "tasks", str(digits), "--data.channels", "3")
    assert "both the sweep file" in both
    where = ["--source", "digits8", "--data.image_size", "8", "--sheet"]
    assert "cannot write the sheet" in refusal("ls", "tasks", *where, str(tmp_path / "none" / "sheet.png"))
    assert "cannot write the sheet" in refusal("ls", "tasks", *where, str(tmp_path / "sheet.mp3"))


def test_tasks_and_cells(
    dphyper: Callable[..., int], refusal: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dphyper("ls", "tasks", "--source", "digits8", "--data.image_size", "8") == 0
    assert "tuning" in capsys.readouterr().out
    assert "did you mean 'digits8'?" in refusal("ls", "tasks", "--source", "digits")
    assert "has no row" in refusal("ls", "cells", "--store", "nowhere")
    assert "invalid choice: 'task'" in refusal("ls", "task")
