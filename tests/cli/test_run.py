"""``dphyper run``: each mistake is answered by one line, and nothing is begun."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Refusal = Callable[..., str]
SMALL_FOLDER = {"image_size": 8, "min_task_size": 4, "cluster_sizes": [], "private": ["a"], "tuning": []}


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
        (
            ["--base.pretrained", "nowhere"],
            "base.pretrained = 'nowhere': no such folder; expected a folder, or OWNER/NAME on the hub",
        ),
        (["--config", "nowhere.yaml"], "File does not exist"),
        (["--store", ""], "store = '': expected the name of a folder"),
        (["--store", "~/runs"], "only a shell expands ~"),
        (["--seed", "-1"], "seed = -1: expected a whole number from 0"),
        (["--performance.device", "gpu"], "performance.device = 'gpu': expected auto, cpu or cuda"),
        (["--method", "hypernetwork", "--embedding_dim", "0"], "which has an embedding: expected at least 1"),
    ],
)
def test_mistakes_of_a_run(
    arguments: list[str], said: str, tmp_path: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # No download may be tried: the address leads nowhere.
    monkeypatch.setattr("cleanfid.downloads_helper.inception_url", "file:///nowhere")
    base = ["--data.source", "digits8", "--data.image_size", "8", "--task", "8", "--wandb", "off"]
    assert said in refusal("run", "--store", "store", *base, *arguments)
    assert not list(Path("store").glob("cells/*/row.json"))


def test_empty_folder_and_corrupt_image(tmp_path: Path, refusal: Refusal) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    config = tmp_path / "run.yaml"
    run = {"data": {"source": f"folder:{folder}", **SMALL_FOLDER}, "task": "a", "n": 4, "wandb": "off"}
    config.write_text(json.dumps({**run, "store": str(tmp_path / "store")}))
    assert str(folder) in refusal("run", "--config", config)
    for name in ("a", "b"):
        (folder / name).mkdir()
        for index in range(8):
            pixels = np.random.default_rng([index, *name.encode()]).integers(0, 255, (8, 8), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    (folder / "b" / "3.png").write_bytes(b"no image")
    assert "3.png" in refusal("run", "--config", config)
