"""What a user may do wrong: each mistake is answered by one line, exit status 2, and nothing is lost or begun."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dphyper.bench.store import Store
from dphyper.cli.main import main
from dphyper.core.specs import Cell

SweepFile = Callable[..., Path]
SMALL_FOLDER = {"image_size": 8, "min_task_size": 4, "cluster_sizes": [], "private": ["a"], "tuning": []}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line that a command is refused with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("dphyper: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "dp_sdg"], "unknown method 'dp_sdg': did you mean 'dp_sgd'?"),
        (["--secure_noise", "true"], "unknown key 'secure_noise'"),
        (["--searches", "nowhere"], "search 'nowhere' is missing: name a store's folder or its rows.parquet"),
        (["--epsilonn", "1"], "unknown key 'epsilonn': did you mean 'epsilon'?"),
        (["--data.sorce", "glyphs"], "unknown key 'data.sorce': did you mean 'data.source'?"),
        (["--data.source", "glyphz"], "unknown data source 'glyphz': did you mean 'glyphs'?"),
        (["--epsilon", "0"], "epsilon = 0.0: expected a number above 0"),
        (["--epsilon", "-1"], "epsilon = -1.0: expected a number above 0"),
        (["--epsilon", "much"], "epsilon: Expected a float. Got value: much"),
        (["--delta", "0.01"], "delta = 0.01: expected above 0 and below 1/n = 0.00781"),
        (["--n", "1"], "n = 1: expected at least 2"),
        (["--relation", "swap"], "relation: Expected a Literal['add_or_remove_one'"),
        (["--options.stepz", "3", "--method", "dp_sgd"], "unknown option of method dp_sgd 'stepz'"),
        (["--task", "3", "--n", "5000"], "n = 5000 records asked of task '3'"),
        (["--task", "88"], "unknown task '88': did you mean '8'?"),
        (["--embedding_dim", "5000"], "embedding_dim = 5000 is larger than the"),
        (["--protocol.extractor", "inception"], "inception"),
        (["--data.channels", "2"], "data.channels = 2: expected 1 (grey) or 3 (RGB)"),
        (["--base.pretrained", "nowhere"], "base.pretrained = 'nowhere': expected a diffusers pipeline folder"),
        (["--config", "nowhere.yaml"], "File does not exist"),
    ],
)
def test_mistakes_of_a_run(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # No download may be tried: the address leads nowhere.
    monkeypatch.setattr("cleanfid.downloads_helper.inception_url", "file:///nowhere")
    base = ["--data.source", "digits8", "--data.image_size", "8", "--task", "8", "--wandb", "off"]
    assert said in refusal(capsys, "run", "--store", "store", *base, *arguments)
    assert not list(Path("store").glob("cells/*/row.json"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"grid": []}, "grid is empty"),
        ({"wandbb": "off"}, "unknown key 'wandbb': did you mean 'wandb'?"),
        ({"grid": [{"metod": ["dp_sgd"]}]}, "unknown key 'metod': did you mean 'method'?"),
        ({"grid": [{"data.source": ["digits"]}]}, "unknown data source 'digits': did you mean 'digits8'?"),
        ({"cell": {"n": "many"}}, "n: Expected a int. Got value: many"),
        ({"options": {"dp_sgb": {}}}, "unknown method in options 'dp_sgb': did you mean 'dp_sgd'?"),
        ({"options": {"dp_sgd": {"steps": "ten"}}}, "options.dp_sgd.steps = 'ten': expected int"),
        ({"performance": {"workers": 0}}, "workers = 0: expected a number above 0"),
        ({"searches": ["nowhere"]}, "search 'nowhere' is missing: name a store's folder or its rows.parquet"),
    ],
)
def test_mistakes_in_a_sweep_file(
    change: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep: dict[str, Any] = {
        "name": "wrong",
        "store": str(tmp_path / "store"),
        "wandb": "off",
        "grid": [{"method": ["dp_sgd"]}],
        "cell": {"data": {"source": "digits8", "image_size": 8}, "task": "8"},
    }
    path = tmp_path / "wrong.yaml"
    path.write_text(json.dumps({**sweep, **change}))  # JSON is YAML
    assert said in refusal(capsys, "sweep", "run", path)


def test_store_of_another_protocol(sweep_file: SweepFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = [{"method": ["public_only"]}]
    with pytest.raises(SystemExit) as stopped:
        main(["sweep", "run", str(sweep_file(grid=grid))])
    assert stopped.value.code == 0
    before = Store(tmp_path / "store").rows()
    other = sweep_file(grid=grid, cell={"protocol": {"num_images": 33}})
    assert "would mix evaluation protocols" in refusal(capsys, "sweep", "run", other)
    assert Store(tmp_path / "store").rows().equals(before)


def test_empty_folder_and_corrupt_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    config = tmp_path / "run.yaml"
    run = {"data": {"source": f"folder:{folder}", **SMALL_FOLDER}, "task": "a", "n": 4, "wandb": "off"}
    config.write_text(json.dumps({**run, "store": str(tmp_path / "store")}))
    assert str(folder) in refusal(capsys, "run", "--config", config)
    for name in ("a", "b"):
        (folder / name).mkdir()
        for index in range(8):
            pixels = np.random.default_rng([index, *name.encode()]).integers(0, 255, (8, 8), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    (folder / "b" / "3.png").write_bytes(b"no image")
    assert "3.png" in refusal(capsys, "run", "--config", config)


def test_report_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "has no row" in refusal(capsys, "report", "--store", tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "is a file" in refusal(capsys, "report", "--store", tmp_path / "file")


def test_migrating_and_publishing_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "has no row" in refusal(capsys, "migrate", tmp_path / "nowhere")
    assert "has no row" in refusal(capsys, "publish", tmp_path / "nowhere", "--out", tmp_path / "out")
    (tmp_path / "file").touch()
    assert "expected the rows.parquet of a store" in refusal(capsys, "migrate", tmp_path / "file")
    assert "is a file: name a folder" in refusal(capsys, "publish", tmp_path / "file", "--out", tmp_path / "out")


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\nfrom dphyper.cli.main import main\ntry: main(['sweep', 'run', '--help'])\nexcept SystemExit: pass"
    )
    checked = f"{code}\nassert 'torch' not in sys.modules and 'wandb' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--performance.workers" in done.stdout


def test_unused_axes_collapse_and_used_ones_do_not() -> None:
    from dphyper.bench.catalog import canonical

    def ids(method: str, **axis: Any) -> set[str]:
        ((name, values),) = axis.items()
        return {canonical(Cell(method=method, task="8", **{name: value})).id for value in values}

    assert len(ids("public_only", epsilon=[1.0, 8.0])) == 1
    assert len(ids("dp_sgd", epsilon=[1.0, 8.0])) == 2
    assert len(ids("dp_sgd", embedding_dim=[4, 8])) == 1
    assert len(ids("hypernetwork", embedding_dim=[4, 8])) == 2
    assert len(ids("nonprivate_lora", seed=[0, 1])) == 2


def test_audit_bounds_the_claim_and_refuses_what_claims_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["audit", "hypernetwork", "--epsilon", "4", "--draws", "300", "--out", str(tmp_path)])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert "claimed ε = 4.000" in said
    assert (tmp_path / "hypernetwork.png").stat().st_size > 1000
    assert "claims no ε to audit" in refusal(capsys, "audit", "nonprivate_lora")
    assert "claims no ε to audit" in refusal(capsys, "audit", "public_only")
    with pytest.raises(SystemExit) as stopped:
        main(["audit", "guards"])
    assert stopped.value.code == 0
    assert "MISSED" not in capsys.readouterr().out


def test_audit_of_whole_runs_takes_its_cells_from_a_sweep_file(
    tmp_path: Path, sweep_file: SweepFile, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = [{"method": ["hypernetwork"], "epsilon": [1, 8]}]
    whole = ["--sweep", str(sweep_file(cell={"n": 4}, grid=grid)), "--runs", "10", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        main(["audit", "hypernetwork", *whole])
    assert stopped.value.code == 0
    assert "method hypernetwork" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "whole_runs.csv")
    assert table["claimed ε"].tolist() == [1.0] * 3 + [8.0] * 3
    assert table["score"].tolist() == ["loss", "lda", "releases"] * 2
    assert (tmp_path / "whole_runs.md").read_text().count("\n") == 8
    assert "unknown method in sweep" in refusal(capsys, "audit", "public_mean", *whole)
    assert "unknown method in sweep" in refusal(capsys, "audit", "faults", *whole)  # some are planted in dp_sgd


def test_audit_names_what_it_can_attack(capsys: pytest.CaptureFixture[str]) -> None:
    assert "hypernetwork" in refusal(capsys, "audit", "hypernetworks")
    assert "name their sweep" in refusal(capsys, "audit", "faults")
