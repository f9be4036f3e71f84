"""Searches in a sweep file: trials are cells, the choice is what the rows say, and a kill changes nothing."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from dphyper.bench.store import Store
from dphyper.core.errors import UserError
from dphyper.sweeps import plan
from dphyper.sweeps.plan import read_sweep
from dphyper.sweeps.search import Search, read_choices
from dphyper.sweeps.status import statuses

TOYS = Path(__file__).with_name("toy.py")
SPACE = {"learning_rate": {"low": 1, "high": 400, "log": True}}
Write = Callable[..., Path]


@pytest.fixture
def searching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a sweep of toy cells with a search, whose choice its grid takes."""
    monkeypatch.setattr(plan, "canonical", lambda cell: cell)  # as the toys have it

    def write(
        name: str = "searching", grid: list[dict[str, Any]] | None = None, storage: str = "journal", **changes: Any
    ) -> Path:
        search = {"tasks": ["a", "bb", "ccc"], "trials": 6, "epsilon": [1, 8], "methods": {"dp_sgd": SPACE}, **changes}
        plain = {"name": name, "wandb": "off", "store": str(tmp_path / name), "cell": {"task": "a"}}
        plain |= {"search": {"rate": search}, "options": {"dp_sgd": {"from": "rate"}}}
        plain |= {"performance": {"workers": 2}, "storage": storage}
        plain["grid"] = grid or [{"method": ["dp_sgd"], "task": ["private"], "epsilon": [1, 2, 8]}]
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(plain))
        return path

    return write


def start(path: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", str(TOYS), "sweep", "run", str(path)],
        start_new_session=True,
        env={**os.environ, "TOY_SECONDS": "0", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(path: Path, **environment: str) -> tuple[int, str]:
    running = start(path, **environment)
    said, _ = running.communicate(timeout=300)
    return running.returncode, said


def rows_of(root: Path) -> pd.DataFrame:
    rows = Store(root).rows_with_specs()
    rows["rate"] = [json.loads(spec)["options"].get("learning_rate", math.nan) for spec in rows["spec"]]
    return rows


def test_the_choice_is_the_best_trial_and_the_grid_takes_it(searching: Write, tmp_path: Path) -> None:
    path = searching()
    with pytest.raises(UserError, match="3 cells take their options from a search that is not through"):
        read_sweep(str(path))
    status, said = run(path)
    assert status == 0, said
    rows = rows_of(tmp_path / "searching")
    trials, grid = rows[rows["task"] != "private"], rows[rows["task"] == "private"]
    chosen = {choice.epsilon: choice for choice in read_choices(tmp_path / "searching", "rate")}
    assert sorted(chosen) == [1.0, 8.0]
    for epsilon, own in trials.groupby("epsilon"):
        whole = own.groupby("rate").filter(lambda trial: len(trial) == 3)  # on all three tasks
        means = whole.groupby("rate")["frechet"].apply(lambda values: values.map(math.log).mean())
        assert own["rate"].nunique() == 6 == chosen[epsilon].trials
        assert 26.0 in set(own["rate"])  # the default
        assert chosen[epsilon].settings["learning_rate"] == means.idxmin()
        assert chosen[epsilon].score == pytest.approx(means.min())
        assert means.min() < means[26.0] < means.max()
        assert len(whole) < len(own)  # some were given up
        assert chosen[epsilon].cells == len(own)
    assert len(grid) == 3
    nearest = {1.0: 1.0, 2.0: 1.0, 8.0: 8.0}
    for _, row in grid.iterrows():
        assert row["rate"] == chosen[nearest[row["epsilon"]]].settings["learning_rate"]
    (found,) = statuses(Store(tmp_path / "searching"))
    best = chosen[8.0]
    assert found.searches[1] == (
        f"rate: dp_sgd at ε=8: {best.trials} trials of {best.cells} cells; chosen {math.exp(best.score):.1f} with "
        f"learning_rate={best.settings['learning_rate']:.3g}"
    )
    assert [cell.epsilon for cell in read_sweep(str(path))[1]] == [1.0, 2.0, 8.0]

    other = yaml.safe_load(path.read_text()) | {"name": "other", "store": str(tmp_path / "other")}
    del other["search"]
    for source, line in ((str(tmp_path / "searching"), ""), (str(tmp_path), "expected a search of this sweep")):
        other["options"] = {"dp_sgd": {"from": source}}
        (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
        if line:
            with pytest.raises(UserError, match=line):
                read_sweep(str(tmp_path / "other.yaml"))
        else:
            _, cells = read_sweep(str(tmp_path / "other.yaml"))
            assert cells[0].options["learning_rate"] == chosen[1.0].settings["learning_rate"]


def test_a_search_that_was_changed_chooses_anew_and_its_grid_waits(searching: Write, tmp_path: Path) -> None:
    assert run(searching(trials=3, epsilon=[1]))[0] == 0
    (before,) = read_choices(tmp_path / "searching", "rate")
    ran = len([*(tmp_path / "searching" / "ended").iterdir()])
    changed = searching(trials=3, epsilon=[1], methods={"dp_sgd": {"learning_rate": [20, 300]}})
    with pytest.raises(UserError, match="3 cells take their options from a search that is not through"):
        read_sweep(str(changed))
    assert run(changed)[0] == 0
    (after,) = read_choices(tmp_path / "searching", "rate")
    assert before.settings != after.settings == {"learning_rate": 20}
    # Its defaults had run already, on three tasks.
    assert {len(file.read_text().split()) for file in (tmp_path / "searching" / "ended").iterdir()} == {1}
    assert len([*(tmp_path / "searching" / "ended").iterdir()]) > ran
    assert read_sweep(str(changed))[1][0].options["learning_rate"] == after.settings["learning_rate"]


def test_kills_change_no_trial(searching: Write, tmp_path: Path, address: str) -> None:
    assert run(searching("calm", trials=4, epsilon=[1]))[0] == 0
    path = searching("killed", trials=4, epsilon=[1], storage=address)
    running = start(path, TOY_SECONDS="0.4")
    while len([*(tmp_path / "killed").glob("ended/*")]) < 5:
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    (found,) = statuses(Store(tmp_path / "killed"))
    assert re.fullmatch(r"rate: dp_sgd at ε=1: trial [234] of 4", found.searches[0])
    assert run(path)[0] == 0
    assert {len(file.read_text().split()) for file in (tmp_path / "killed" / "ended").iterdir()} == {1}
    calm, killed = (read_choices(tmp_path / name, "rate") for name in ("calm", "killed"))
    assert [(c.epsilon, c.settings, c.score, c.cells) for c in calm] == [
        (c.epsilon, c.settings, c.score, c.cells) for c in killed
    ]


def test_a_search_whose_trials_fail_chooses_nothing(searching: Write, tmp_path: Path) -> None:
    status, said = run(searching(trials=2, seeds=[3]), TOY='{"3": "fail"}')
    assert status == 1
    assert "3 cells wait for the choice of a search that came to none" in said
    assert read_choices(tmp_path / "searching", "rate") == []
    assert run(searching(trials=2, seeds=[3], prune=False))[0] == 1  # failed cells are not run again unasked


def test_every_method_has_as_many_trials(searching: Write, tmp_path: Path) -> None:
    methods = {"dp_sgd": SPACE, "hypernetwork": {"embedding_dim": [4, 8], "width": [64, 128, 256]}}
    status, said = run(searching(methods=methods, trials=4, epsilon=[1], prune=False, at_once=2))
    assert status == 0, said
    chosen = read_choices(tmp_path / "searching", "rate")
    assert {choice.method: (choice.trials, choice.cells) for choice in chosen} == {
        "dp_sgd": (4, 12),
        "hypernetwork": (4, 12),
    }
    assert "search rate: dp_sgd at ε=1: 4 of 4 trials; best" in said


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"methods": {}}, "methods of a search is empty"),
        ({"trials": 1}, "trials = 1, at_once = 1 of a search: expected at least 2 trials"),
        ({"methods": {"dp_sgd": {"steps": [3]}}}, "search of dp_sgd: steps = .3.: expected a list of values"),
        ({"methods": {"dp_sgd": {"steps": {"low": 3}}}}, "expected two numbers, low below high"),
        ({"methods": {"dp_sgd": {"steps": {"low": 3, "hgih": 4}}}}, "'hgih': did you mean 'high'"),
        ({"methods": {"dp_sgd": {"steps": {"low": 0, "high": 4, "log": True}}}}, "expected low above 0"),
    ],
)
def test_what_no_search_can_be_is_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        Search(**{"methods": {"dp_sgd": SPACE}, "tasks": ["a"], **changes})
