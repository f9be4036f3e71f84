"""The sweeps of pretrained models run as written, from the photographs and the pipeline folder to the report."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from diffusers import DiffusionPipeline
from PIL import Image

from dphyper.bench.store import Store
from dphyper.core.parsing import build, parse
from dphyper.sweeps.plan import Sweep, sweep_parser
from dphyper.targets.tiny import TINY, save_tiny

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photographs of three public families and a private one."""
    rng = np.random.default_rng(0)
    for family, level in (("public/cats", 60), ("public/cars", 120), ("public/trees", 180), ("private/patients", 220)):
        folder = tmp_path / "photos" / family
        folder.mkdir(parents=True)
        for i in range(80):
            pixels = np.clip(level + 40 * rng.standard_normal((20, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    monkeypatch.chdir(tmp_path)

    def offline(*given: object, **named: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(DiffusionPipeline, "download", offline)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(TINY))
def test_a_sweep_of_a_pretrained_model_runs_as_written(
    kind: str, place: Path, dphyper: Callable[..., int], refusal: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(shutil.copy(EXAMPLES / f"pretrained_{kind}.yaml", place))
    assert f"base.pretrained = 'models/{kind}': no such folder here" in refusal("sweep", "plan", path)
    save_tiny(kind, place / "models" / kind)
    assert dphyper("sweep", "plan", path) == 0
    assert "target: a LoRA of rank 2 on " in capsys.readouterr().out
    assert dphyper("sweep", "run", path, "--performance.threads", "1") == 0
    sweep = build(Sweep, parse(sweep_parser(), ["--config", str(path)]))
    rows = Store(sweep.store_path).rows()
    assert {*rows["method"]} == {method for axes in sweep.grid for method in axes["method"]}
    assert {*rows["status"]} == {"done"}, rows["error"].tolist()
    assert rows["frechet"].notna().all()
    assert rows["parameters"].nunique() == 1
    spent = rows.loc[rows["role"] == "method", "epsilon_spent"]
    assert spent.between(7.5, 8.0 + 1e-6).all()
    assert dphyper("report", "--store", sweep.store_path) == 0
    assert (place / sweep.store_path / "report" / "index.html").is_file()
    cells = pd.json_normalize([cell.to_dict() for cell in sweep.cells()])
    assert {*cells["base.kind"]} == {kind}
