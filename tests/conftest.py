"""Fixtures shared by the suite: a sweep on the 8×8 digits that is small enough to run in seconds."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dphyper.cli.main import main

# One thread a process: the suite runs on several processes at once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TINY: dict[str, Any] = {
    "name": "tiny",
    "wandb": "off",
    "performance": {"workers": 1, "threads": 1},
    "cell": {
        "data": {"source": "digits8", "image_size": 8, "cluster_sizes": [60]},
        "base": {"block_out_channels": [16, 32], "train_steps": 20, "batch_size": 32, "sampling_steps": 3},
        "protocol": {"num_images": 32},
        "task": "8",
        "n": 64,
        "embedding_dim": 4,
        "reproducible_noise": True,
    },
    "options": {
        "hypernetwork": {"train_steps": 15, "tasks": 4, "support": 32, "query": 4, "width": 32},
        "dp_sgd": {"steps": 3, "multiplicity": 1},
        "nonprivate_lora": {"steps": 3},
    },
    "grid": [{"method": ["public_only", "hypernetwork", "dp_sgd", "nonprivate_lora"], "epsilon": [1, 8]}],
}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of public work that all tests of one process share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def sweep_file(tmp_path: Path, cache: Path) -> Callable[..., Path]:
    """Write a variant of the tiny sweep into ``tmp_path`` and return its path."""

    def write(cell: dict[str, Any] | None = None, performance: dict[str, Any] | None = None, **changes: Any) -> Path:
        sweep = {**TINY, "store": str(tmp_path / "store"), **changes}
        sweep["cell"] = {**TINY["cell"], **(cell or {})}
        sweep["performance"] = {**TINY["performance"], "cache": str(cache), **(performance or {})}
        methods = {method for axes in sweep["grid"] for method in axes["method"]}
        sweep["options"] = {name: options for name, options in sweep["options"].items() if name in methods}
        path = tmp_path / f"{sweep['name']}.yaml"
        path.write_text(yaml.safe_dump(sweep))
        return path

    return write


@pytest.fixture
def dphyper() -> Callable[..., int]:
    """Run a command in this process and give its exit status."""

    def run(*arguments: str | Path) -> int:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        return int(stopped.value.code or 0)

    return run


@pytest.fixture
def refusal(dphyper: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line that a command is refused with."""

    def run(*arguments: str | Path) -> str:
        capsys.readouterr()
        assert dphyper(*arguments) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("dphyper: ")
        return lines[0]

    return run
