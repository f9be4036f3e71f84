"""Which rows stand side by side, and their values for each seed."""

import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from toy_store import PRIVATE, add, change, only, point

from dphyper.bench.store import Store
from dphyper.core.specs import BaseSpec, Cell
from dphyper.reports.aggregate import aggregate, crossed
from dphyper.reports.differences import differences
from dphyper.reports.sections import ALL, OTHERS, Section, load, sections
from dphyper.reports.table import conditions
from dphyper.reports.tables.differences import Differences
from dphyper.reports.tables.main import Main


def test_the_mean_over_tasks_is_taken_inside_each_seed_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    # Both tasks move together, so averaging rows (n = 4) or tasks last would give other intervals.
    for seed, base in enumerate((10.0, 20.0)):
        for offset, task in enumerate(PRIVATE):
            add(store, Cell(task=task, method="dp_sgd", seed=seed), "private", base + offset)
    add(store, Cell(task="kettle", method="dp_sgd", seed=2), "private", 1000.0)  # the other task did not finish
    row = point(aggregate(only(store).values), metric="frechet", task=ALL, method="dp_sgd")
    assert (row["mean"], row["seeds"]) == (15.5, 2)
    assert row["half"] == pytest.approx(stats.t.ppf(0.975, 1) * 10 / math.sqrt(2) / math.sqrt(2))


def test_real_versus_real_is_a_series_of_its_own(section: Section) -> None:
    row = point(aggregate(section.values), metric="frechet", task="kettle", method="real_versus_real")
    assert (row["mean"], row["seeds"], row["private"]) == (pytest.approx(5.1), 4 - 1, False)


def test_k_is_chosen_on_tuning_tasks_never_on_private_ones(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for k, tuning, private in ((4, 10.0, 90.0), (16, 50.0, 1.0)):
        for split, task, frechet in (("tuning", "chair", tuning), ("private", "kettle", private)):
            cell = Cell(task=task, embedding_dim=k)
            add(store, cell, split, frechet, embedding_dim=k, selection="fixed")
    section = only(store)
    assert section.tuned_k == {"hypernetwork": 4}
    assert {*section.values.query("role == 'method'")["embedding_dim"]} == {4}
    assert {*section.values.query("role == 'method'")["selection"]} == {"tuned_public"}  # the choice was a tuning
    assert {*section.every_k.query("role == 'method'")["embedding_dim"]} == {4, 16}
    change(store, "task == task", selection="unknown")
    assert {*only(store).values.query("role == 'method'")["selection"]} == {"unknown"}  # the options stay so


def test_search_trials_on_tuning_tasks_are_left_out_and_counted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for rate in (0.1, 0.2):
        add(store, Cell(task="chair", method="dp_sgd", options={"rate": rate}), "tuning", 100 * rate)
    add(store, Cell(task="kettle", method="dp_sgd", options={"rate": 0.2}), "private", 1.0)
    section = only(store)
    assert section.trials == 1
    assert point(section.values, metric="frechet", task="chair", role="method")["value"] == 20.0


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)])
def test_two_settings_of_one_method_are_two_series(tmp_path: Path, seeds: tuple[int, int]) -> None:
    store = Store(tmp_path)
    for rate, seed in zip((0.1, 0.2), seeds, strict=True):
        add(store, Cell(task="kettle", method="dp_sgd", options={"rate": rate, "x": 1}, seed=seed), "private", rate)
    assert {*only(store).values.query("role == 'method'")["variant"]} == {"rate=0.1", "rate=0.2"}


def test_loras_of_two_ranks_are_two_series_and_samplers_two_sections(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for rank in (1, 4):
        add(store, Cell(task="kettle", method="dp_sgd", base=BaseSpec(rank=rank)), "private", float(rank))
    assert {*only(store).values.query("role == 'method'")["variant"]} == {"rank=1", "rank=4"}
    add(store, Cell(task="kettle", method="dp_sgd", base=BaseSpec(sampling_steps=50)), "private", 1.0)
    assert [len(section.rows) for section in sections(load(store))] == [2, 1]


def in_trainings(store: Store, hashes: dict[int, str], **changes: Any) -> None:
    for training, model in hashes.items():
        for seed in range(2):
            cell = Cell(task="kettle", base=BaseSpec(seed=training, **changes), seed=seed)
            add(store, cell, "private", 10.0 * training + seed, base_hash=model)


def test_trainings_of_one_base_model_stand_side_by_side_and_are_a_factor_of_the_interval(tmp_path: Path) -> None:
    store = Store(tmp_path)
    in_trainings(store, {0: "a", 1: "b", 2: "c"}, rank=4)
    in_trainings(store, {0: "a", 3: "d"}, rank=1)  # the same model under another LoRA, and a further training of it
    section = only(store)
    assert section.key["base"] == "a"
    row = point(aggregate(section.values), metric="frechet", task="kettle", variant="rank=4")
    values = [10.0 * training + seed for training in range(3) for seed in range(2)]
    expected = crossed([(training, seed) for training in range(3) for seed in range(2)], values)
    assert (row["mean"], row["half"], row["trainings"], row["seeds"]) == (10.5, pytest.approx(expected.half), 3, 2)
    real = section.values.query("method == 'real_versus_real' and task == 'kettle' and metric == 'frechet'")
    assert len(real) == 8, "real images have their number in every training, to be paired with"
    assert "over trainings and draws, crossed" in conditions(section)


def test_trainings_of_other_models_do_not(tmp_path: Path) -> None:
    wider = Store(tmp_path / "wider")
    in_trainings(wider, {0: "a", 1: "b"})
    in_trainings(wider, {0: "c", 1: "d"}, train_steps=9)
    assert [section.key["base"] for section in sections(load(wider))] == ["a", "c"]
    # Two models of one seed are two versions: nobody knows to which of them the other training belongs.
    store = Store(tmp_path / "version")
    in_trainings(store, {0: "a", 1: "b"})
    add(store, Cell(task="chair", seed=5), "private", 1.0, base_hash="other")
    assert [section.key["base"] for section in sections(load(store))] == ["a", "b", "other"]
    assert "over draws alone, of one training" in conditions(next(sections(load(store))))


def test_differences_are_paired_by_training_and_draw(tmp_path: Path) -> None:
    """Each training moves all methods together, by more than they differ."""
    store = Store(tmp_path)
    for training, level in enumerate((10.0, 90.0, 40.0)):
        for seed in range(3):
            for method, own in {"hypernetwork": 0.0, "dp_sgd": 3.0 + 0.1 * seed - 0.05 * training}.items():
                cell = Cell(task="kettle", method=method, base=BaseSpec(seed=training), seed=seed, embedding_dim=8)
                add(store, cell, "private", level + own, base_hash=f"model of {training}")
    row = point(differences(only(store)), metric="frechet", task="kettle", rival_method="dp_sgd")
    assert (row["verdict"], row["trainings"], row["seeds"]) == ("better", 3, 3)
    assert row["difference"] == pytest.approx(-3.05)
    assert row["half"] < 0.4
    assert "| 3 × 3 | better |" in Differences.make(only(store), "private").to_markdown()


@pytest.mark.parametrize("field", ["protocol", "relation", "base_hash", "delta", "n"])
def test_rows_that_cannot_be_compared_are_in_different_sections(tmp_path: Path, field: str) -> None:
    store = Store(tmp_path)
    add(store, Cell(task="kettle"), "private", 1.0)
    add(store, Cell(task="kettle", seed=1), "private", 2.0)
    assert len([*sections(load(store))]) == 1
    add(store, Cell(task="kettle", seed=2), "private", 3.0, **{field: {"delta": 1e-6, "n": 64}.get(field, "other")})
    assert [len(section.rows) for section in sections(load(store))] in ([1, 2], [2, 1])


def test_development_families_are_marked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for split, task in (("private", "kettle"), ("private", "dark_umbrella"), ("tuning", "chair")):
        add(store, Cell(task=task), split, 9.0)
    assert only(store).title("private", "kettle") == "kettle"
    assert only(store).development == set()
    change(store, "task == 'kettle'", development=True)
    section = only(store)
    assert section.title("private", "kettle") == "kettle (development)"
    assert section.title("private", "dark_umbrella") == "dark_umbrella"
    assert section.title("private", ALL) == "Mean of 2 private tasks, 1 of them development"
    assert section.title("tuning", "chair") == "chair"


def test_the_mean_of_the_others_stands_beside_the_mean_of_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for level, task in enumerate(("kettle", "leaf", "dark_umbrella")):
        add(store, Cell(task=task), "private", 10.0 * level, development=task == "kettle")
        add(store, Cell(task=f"{task} for tuning"), "tuning", 1.0)
    section = only(store)
    assert section.means("private") == [ALL, OTHERS]
    assert section.means("tuning") == [ALL]
    points = aggregate(section.values.query("role == 'method' and split == 'private'"))
    means = points.query("metric == 'frechet'").set_index("task")["mean"]
    assert (means[ALL], means[OTHERS]) == (10.0, 15.0)
    assert section.title("private", OTHERS) == "Mean of the other 2 private tasks"
    table = Main.make(section, "private")
    assert [*dict.fromkeys(table.cells.index.get_level_values("Task"))] == [
        "Mean of 3 private tasks, 1 of them development", "Mean of the other 2 private tasks",
    ]  # fmt: skip
    change(store, "task == 'leaf'", development=True)
    assert only(store).means("private") == [ALL], "the mean of one task is that task"


def test_k_is_the_highest_on_tuning_tasks_where_more_is_better(tmp_path: Path, rising_headline: None) -> None:
    store = Store(tmp_path)
    for k, tuning, private in ((4, 10.0, 90.0), (16, 50.0, 1.0)):
        for split, task, value in (("tuning", "chair", tuning), ("private", "kettle", private)):
            add(store, Cell(task=task, embedding_dim=k), split, value, embedding_dim=k, selection="fixed")
    assert only(store).tuned_k == {"hypernetwork": 16}


def test_the_metrics_of_a_section_are_those_of_its_rows_that_are_registered(tmp_path: Path, coverage: str) -> None:
    store = Store(tmp_path)
    add(store, Cell(task="kettle"), "private", 9.0, metrics={"coverage": 0.5, "unheard_of": 1.0})
    section = only(store)
    assert section.metrics == ["frechet", "coverage", "kernel"], "the denoising loss has no value, one has no class"
    real = section.values.query("method == 'real_versus_real' and task == 'kettle'")
    assert {*real["metric"]} == {"frechet", "kernel"}
