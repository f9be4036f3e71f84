"""``dphyper sweep``: a mistake in a sweep file is answered by one line, and nothing is lost or begun."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dphyper.bench.store import Store

Refusal = Callable[..., str]


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
        ({"performance": {"device": "gpu"}}, "performance.device = 'gpu': expected auto, cpu or cuda"),
        ({"performance": {"cache": "~/cache"}}, "performance.cache = '~/cache': only a shell expands ~"),
        ({"name": ".."}, "name = '..': expected a name without a slash"),
        ({"name": "x" * 300}, "expected a name without a slash, such as 'demo', of at most 100"),
        ({"name": None}, "name"),
        ({"store": "~"}, "store = '~': only a shell expands ~"),
        ({"store": "{}/wrong.yaml/store"}, "lies under"),
        ({"cell": None}, "cell is null: expected a value"),
        ({"options": None}, "options is null: expected a value"),
        ({"grid": None}, "grid"),
        ({"grid": [{"method": None}]}, "grid"),
        ({"grid": [{"method": []}]}, "axis 'method' of the grid has no value"),
        ({"grid": [{"method": [["dp_sgd"]]}]}, "YAML reads a name as ['dp_sgd']"),
        ({"grid": [{"method": ["dp_sgd"], "task": [None]}]}, "YAML reads a name as None"),
        ({"grid": [{"method": ["dp_sgd"], "n.x": [3]}]}, "n: Expected a int. Got value: {'x': 3}"),
        ({"grid": [{"method": ["dp_sgd"], "data.x.y": [3]}]}, "data.x"),
        ({"cell": {"n": None}}, "n is null: expected a value"),
        ({"cell": {"delta": None}}, "delta is null: expected a value"),
        ({"cell": {"data": None}}, "data is null: expected a value"),
        ({"cell": {"seed": None}}, "seed is null: expected a value"),
        ({"cell": {"options": None}}, "options is null: expected a value"),
        ({"cell": {"seed": -1}}, "seed = -1: expected a whole number from 0"),
        ({"cell": {"seed": 10**23}}, "expected a whole number from 0"),
        ({"cell": {"noise_draw": -1}}, "noise_draw = -1: expected a whole number from 0"),
        ({"cell": {"base": {"train_steps": 0}}}, "train_steps = 0: expected a number above 0"),
        ({"cell": {"base": {"train_steps": -1}}}, "train_steps = -1: expected a number above 0"),
        ({"cell": {"base": {"block_out_channels": [-8]}}}, "expected multiples of 8 above 0"),
        ({"cell": {"data": {"source": "digits8", "image_size": 7}}}, "data.image_size = 7 with 3 levels"),
        ({"cell": {"data": {"source": "digits8", "image_size": 100000}}}, "expected at most 1024 pixels"),
        ({"cell": {"epsilon": "1:30"}}, "epsilon: Expected a float. Got value: 1:30"),
        (
            {"cell": {"embedding_dim": 0}, "grid": [{"method": ["hypernetwork"]}]},
            "embedding_dim = 0 for method 'hypernetwork', which has an embedding",
        ),
        ({"search": {"s": {"tasks": ["8"], "methods": {"dp_sgd": {"rank": [0, 1]}}}}}, "a search would choose by it"),
        ({"search": {"s": {"tasks": ["5"], "methods": {"dp_sgd": {"rnak": [1, 2]}}}}}, "did you mean 'rank'"),
        (
            {"search": {"s": {"tasks": ["5"], "methods": {"dp_sgd": {"steps": ["x", "y"]}}}}},
            "steps = 'x': expected int",
        ),
        ({"search": {"s": {"tasks": ["5"], "methods": {"dp_sgb": {"steps": [3, 4]}}}}}, "did you mean 'dp_sgd'"),
    ],
)
def test_mistakes_in_a_sweep_file(change: dict[str, Any], said: str, tmp_path: Path, refusal: Refusal) -> None:
    """A plan finds them all, and a run begins with what a plan does."""
    sweep: dict[str, Any] = {
        "name": "wrong",
        "store": str(tmp_path / "store"),
        "wandb": "off",
        "grid": [{"method": ["dp_sgd"]}],
        "cell": {"data": {"source": "digits8", "image_size": 8}, "task": "8"},
    }
    path = tmp_path / "wrong.yaml"
    cell = {**sweep["cell"], **(change.get("cell") or {})} if change.get("cell", 1) else None
    text = json.dumps({**sweep, **change, "cell": cell})  # JSON is YAML
    path.write_text(text.replace("{}", str(tmp_path)) if "store" in change else text)
    assert said in refusal("sweep", "plan", path)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"name: a\nname: b\n", "key 'name' stands twice, again in line 2"),
        (b"name: a\ngrid: &x [*x]\n", "grid: Expected a dict"),
        (b"name: a\ngrid: [{1: [2]}]\n", "axis 1 of the grid: expected the key of a cell"),
        (b"name: a\ngrid: [{method: [dp_sgd]}]\ncell: &x {data: *x}\n", "contains itself"),
        (b"name: caf\xe9\n", "no text in UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "no text in UTF-8"),
        (b"\x00\x01\x02", "unacceptable character #x0000"),
        (b"", "holds no mapping of keys"),
        (b"- a\n- b\n", "holds no mapping of keys"),
    ],
)
def test_what_is_no_sweep_file_is_one_line(text: bytes, said: str, tmp_path: Path, refusal: Refusal) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_bytes(text)
    assert said in refusal("sweep", "plan", path)


def test_a_plan_reads_only(
    sweep_file: Callable[..., Path],
    dphyper: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = sweep_file(grid=[{"method": ["public_only", "dp_sgd"], "epsilon": [1, 8]}])
    path.write_text(path.read_text().replace("wandb: 'off'", "wandb: off"))
    assert dphyper("sweep", "plan", path) == 0
    said = capsys.readouterr().out
    assert "epsilon    1, 8" in said
    assert "3 cells: 3 to do" in said
    assert dphyper("sweep", "plan", path, "--cells") == 0
    assert capsys.readouterr().out.count("dp_sgd") == 2
    assert not (tmp_path / "store").exists()


def test_store_of_another_protocol(
    sweep_file: Callable[..., Path], dphyper: Callable[..., int], refusal: Refusal, tmp_path: Path
) -> None:
    grid = [{"method": ["public_only"]}]
    assert dphyper("sweep", "run", sweep_file(grid=grid)) == 0
    before = Store(tmp_path / "store").rows()
    other = sweep_file(grid=grid, cell={"protocol": {"num_images": 33}})
    assert "would mix evaluation protocols" in refusal("sweep", "run", other)
    assert Store(tmp_path / "store").rows().equals(before)
