"""``dphyper ls``: what is registered is listed from its source, and is what the classes say."""

from collections.abc import Callable

import pytest

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


def test_a_class_that_cannot_be_imported_is_listed(
    dphyper: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS.locations, "gone", "no.such.package:Method")
    assert dphyper("ls", "methods") == 0  # after all that know their place
    assert capsys.readouterr().out.splitlines()[-1].split() == ["gone"]


def test_tasks_and_cells(
    dphyper: Callable[..., int], refusal: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dphyper("ls", "tasks", "--source", "digits8", "--data.image_size", "8") == 0
    assert "tuning" in capsys.readouterr().out
    assert "did you mean 'digits8'?" in refusal("ls", "tasks", "--source", "digits")
    assert "has no row" in refusal("ls", "cells", "--store", "nowhere")
    assert "invalid choice: 'task'" in refusal("ls", "task")
