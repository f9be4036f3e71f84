"""The report side on a synthetic store: golden statistics, honest tables and verdicts, one page that stands alone."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

from dphyper.bench.store import SCHEMA, Row, Store
from dphyper.core.errors import UserError
from dphyper.core.labels import SOUND_SINCE
from dphyper.core.specs import BaseSpec, Cell
from dphyper.reports import figures
from dphyper.reports.aggregate import ALL, Section, aggregate, load, noise_quantiles, sections
from dphyper.reports.figures import embedding_dim_heat_map
from dphyper.reports.gap import gain_table, gains, gap_closed, gap_table
from dphyper.reports.page import write_report
from dphyper.reports.tables import cost, embedding_dims, results, versus
from dphyper.reports.verdict import differences, verdict

EPSILONS = (1.0, 4.0, 16.0)
PRIVATE, TUNING = ("dark_umbrella", "kettle"), ("chair",)
# method: role, embedding dimension, is it private, how it was tuned
METHODS: dict[str, tuple[str, int, bool, str]] = {
    "hypernetwork": ("method", 8, True, "tuned_public"),
    "dp_sgd": ("method", 0, True, "tuned_public"),
    "public_mean": ("control", 8, True, "fixed"),
    "hypernetwork_sigma0": ("control", 8, False, "non_private"),
    "public_only": ("floor", 0, True, "fixed"),
    "nonprivate_lora": ("ceiling", 0, False, "non_private"),
}
LEVEL = {"public_mean": 50.0, "hypernetwork_sigma0": 40.0, "public_only": 60.0, "nonprivate_lora": 20.0}
Level = Callable[[str, float], float]


def winning(method: str, epsilon: float) -> float:
    """The hypernetwork is far below everything that is private."""
    return {"hypernetwork": 42.0, "dp_sgd": 70.0 - 2 * math.log2(epsilon)}.get(method) or LEVEL[method]


def losing(method: str, epsilon: float) -> float:
    """The hypernetwork is far above everything."""
    return 90.0 if method == "hypernetwork" else winning(method, epsilon)


def add(store: Store, cell: Cell, split: str, fid: float, **changes: Any) -> Cell:
    role, k, private, selection = METHODS.get(cell.method, ("method", 0, True, "fixed"))
    values: dict[str, Any] = {
        "schema": SCHEMA, "cell": cell.id, "status": "done", "error": "", "sweep": "smoke", "collection": "toy",
        "task": cell.task, "family": cell.task, "split": split, "development": False, "distance": "near", "n": cell.n,
        "method": cell.method, "role": role, "epsilon": cell.epsilon, "delta": cell.delta,
        "relation": cell.relation, "embedding_dim": cell.embedding_dim if k else 0, "seed": cell.seed,
        "noise_draw": cell.noise_draw, "private": private, "selection": selection, "search": "",
        "harness": SOUND_SINCE, "protocol": "0123456789abcdef",
        "extractor": "efficientnet_lite0", "epsilon_spent": cell.epsilon if private else math.inf,
        "fid": fid, "kid": fid / 1000, "fid_floor": 5.0 + 0.1 * cell.seed, "kid_floor": 0.005, "num_images": 500,
        "num_reference": 372, "floor_images": 186, "public_shift": 33.0, "seconds_adapt": 2.0,
        "statement": f"{cell.method} at ε = {cell.epsilon}", "base_hash": "b", "commit": "c0ffee",
        "versions": json.dumps({"torch": "2.8"}), "machine": "two cores",
    }  # fmt: skip
    values |= changes
    if values["status"] == "failed":
        values = {key: values[key] for key in Row.__required_keys__}
    store.write(cell, Row(**values))  # type: ignore[typeddict-item]
    pixels = np.random.default_rng(cell.seed).integers(0, 255, (32, 32), np.uint8)
    Image.fromarray(pixels).save(store.directory(cell.id) / "samples.png")
    return cell


def fill(store: Store, level: Level, seeds: int = 3, **changes: Any) -> Store:
    """Every method on every task; a task adds its own offset, a seed a different one for each method."""
    for split, tasks in (("private", PRIVATE), ("tuning", TUNING)):
        for t, task in enumerate(tasks):
            for m, (method, (role, k, _, _)) in enumerate(METHODS.items()):
                for epsilon in EPSILONS if role == "method" else (math.inf,):
                    for seed in range(seeds):
                        cell = Cell(task=task, method=method, epsilon=epsilon, seed=seed, embedding_dim=k or 32)
                        noise = (0.0, 1.0, -0.7)[(seed + m) % 3]
                        add(store, cell, split, level(method, epsilon) + 3 * t + noise, **changes)
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The winning store, with a failed cell, an unknown method of one seed and a non-private ε = ∞ of DP-SGD."""
    store = fill(Store(tmp_path_factory.mktemp("store")), winning)
    add(store, Cell(task="kettle", method="dp_sgd", seed=9), "private", 0.0, status="failed", error="boom <b> & more")
    for task in PRIVATE:
        add(store, Cell(task=task, method="my_method", epsilon=4.0), "private", 10.0)
        lost = {"private": False, "selection": "non_private"}
        add(store, Cell(task=task, method="dp_sgd", epsilon=math.inf), "private", 1.0, **lost)
    return store


@pytest.fixture(scope="module")
def section(store: Store) -> Section:
    (section,) = sections(load(store))
    return section


@pytest.fixture(scope="module")
def report(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(store, tmp_path_factory.mktemp("report"))


def only(store: Store) -> Section:
    (section,) = sections(load(store))
    return section


def point(frame: pd.DataFrame, **where: Any) -> pd.Series:  # type: ignore[type-arg]
    (row,) = (row for _, row in frame.iterrows() if all(row[key] == value for key, value in where.items()))
    return row


def told(section: Section, title: str) -> str:
    (paragraph,) = (p for p in verdict(section, differences(section)) if p.title == title)
    return "\n".join(f"{line.tone}: {line.text}" for line in paragraph.lines)


# --- statistics


def test_means_and_intervals_agree_with_a_computation_by_hand(section: Section) -> None:
    values = [42.0 + 3 + noise for noise in (0.0, 1.0, -0.7)]
    row = point(aggregate(section.values), metric="fid", task="kettle", method="hypernetwork", epsilon=4.0)
    low, high = stats.t.interval(0.95, 2, np.mean(values), np.std(values, ddof=1) / math.sqrt(3))
    assert (row["mean"], row["low"], row["high"], row["seeds"]) == pytest.approx((np.mean(values), low, high, 3))
    assert row["half"] == pytest.approx(4.302652729911275 * np.std(values, ddof=1) / math.sqrt(3))


def test_the_mean_over_tasks_is_taken_inside_each_seed_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    # Both tasks move together, so averaging rows (n = 4) or tasks last would give other intervals.
    for seed, base in enumerate((10.0, 20.0)):
        for offset, task in enumerate(PRIVATE):
            add(store, Cell(task=task, method="dp_sgd", seed=seed), "private", base + offset)
    add(store, Cell(task="kettle", method="dp_sgd", seed=2), "private", 1000.0)  # the other task did not finish
    row = point(aggregate(only(store).values), metric="fid", task=ALL, method="dp_sgd")
    assert (row["mean"], row["seeds"]) == (15.5, 2)
    assert row["half"] == pytest.approx(stats.t.ppf(0.975, 1) * 10 / math.sqrt(2) / math.sqrt(2))


def test_one_seed_has_no_interval_and_is_shown_so(store: Store, section: Section) -> None:
    row = point(aggregate(section.values), metric="fid", task=ALL, method="my_method")
    assert row["mean"] == 10.0
    assert math.isnan(row["half"])
    table = results(section, "private", [ALL], "tab:x")
    assert table.cells.loc[("Private methods", "my_method", "fixed"), "ε = 4"] == "10.0 ± n/a"
    # It is the lowest number of its column, yet without an interval it is not bold.
    assert not table.bold.loc[("Private methods", "my_method", "fixed")].any()


def test_real_versus_real_is_a_series_of_its_own(section: Section) -> None:
    row = point(aggregate(section.values), metric="fid", task="kettle", method="real_versus_real")
    assert (row["mean"], row["seeds"], row["private"]) == (pytest.approx(5.1), 4 - 1, False)


def test_k_is_chosen_on_tuning_tasks_never_on_private_ones(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for k, tuning, private in ((4, 10.0, 90.0), (16, 50.0, 1.0)):
        for split, task, fid in (("tuning", "chair", tuning), ("private", "kettle", private)):
            cell = Cell(task=task, embedding_dim=k)
            add(store, cell, split, fid, embedding_dim=k, selection="fixed")
    section = only(store)
    assert section.tuned_k == {"hypernetwork": 4}
    assert {*section.values.query("role == 'method'")["embedding_dim"]} == {4}
    assert {*section.values.query("role == 'method'")["selection"]} == {"tuned_public"}  # the choice was a tuning
    assert {*section.every_k.query("role == 'method'")["embedding_dim"]} == {4, 16}
    for cell in store.rows()["cell"]:
        row = store.row(cell)
        row["selection"] = "unknown"
        store.write(store.cell(cell), row)
    assert {*only(store).values.query("role == 'method'")["selection"]} == {"unknown"}  # the options stay so


def test_search_trials_on_tuning_tasks_are_left_out_and_counted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for rate in (0.1, 0.2):
        add(store, Cell(task="chair", method="dp_sgd", options={"rate": rate}), "tuning", 100 * rate)
    add(store, Cell(task="kettle", method="dp_sgd", options={"rate": 0.2}), "private", 1.0)
    section = only(store)
    assert section.trials == 1
    assert point(section.values, metric="fid", task="chair", role="method")["value"] == 20.0


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


@pytest.mark.parametrize("field", ["protocol", "relation", "base_hash", "delta", "n"])
def test_rows_that_cannot_be_compared_are_in_different_sections(tmp_path: Path, field: str) -> None:
    store = Store(tmp_path)
    add(store, Cell(task="kettle"), "private", 1.0)
    add(store, Cell(task="kettle", seed=1), "private", 2.0)
    assert len([*sections(load(store))]) == 1
    add(store, Cell(task="kettle", seed=2), "private", 3.0, **{field: {"delta": 1e-6, "n": 64}.get(field, "other")})
    assert [len(section.rows) for section in sections(load(store))] in ([1, 2], [2, 1])


# --- tables


def test_bold_is_the_best_private_number_and_its_ties_only(tmp_path: Path) -> None:
    def level(method: str, epsilon: float) -> float:
        return {"hypernetwork": 50.0, "dp_sgd": 51.0}.get(method) or LEVEL[method]

    table = results(only(fill(Store(tmp_path), level)), "private", [ALL], "tab:x")
    bold = {method for (_, method, _), row in table.bold.iterrows() if row["ε = 1"]}
    # Noise of ±1 hides a difference of 1 but not one of 10; the two lowest numbers are not private.
    assert bold == {"Hypernetwork, k = 8", "DP-SGD", "Public mean, k = 8"}
    assert table.cells.loc[("Ceiling: no privacy", "Non-private LoRA†", "non-private"), "ε = 1"].endswith("†")


def test_a_clear_winner_is_bold_alone_and_infinity_has_no_bold(section: Section) -> None:
    table = results(section, "private", [ALL], "tab:x")
    assert [method for (_, method, _), row in table.bold.iterrows() if row["ε = 1"]] == ["Hypernetwork, k = 8"]
    assert table.cells.loc[("Private methods", "DP-SGD†", "non-private"), "ε = ∞"] == "1.0 ± n/a†"
    assert not table.bold["ε = ∞"].any()


@pytest.mark.parametrize("changes", [{"harness": "0.1.0"}, {"commit": "c0ffee-dirty"}, {"commit": ""}])
def test_a_number_with_a_row_behind_it_that_supports_no_claim_is_marked_and_never_bold(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    store = fill(Store(tmp_path / "store"), winning)
    best = "Hypernetwork, k = 8"
    clean = results(only(store), "private", [ALL], "tab:x")
    assert [method for (_, method, _), row in clean.bold.iterrows() if row["ε = 1"]] == [best]
    assert "‡" not in clean.to_markdown()
    # One seed of one task, at one ε.
    cell = Cell(task="kettle", method="hypernetwork", epsilon=1.0, seed=1, embedding_dim=8)
    add(store, cell, "private", 45.0, **changes)
    section = only(store)
    table = results(section, "private", [ALL], "tab:x")
    row = ("Private methods", best, "tuned on public tasks")
    assert table.cells.loc[row, "ε = 1"].endswith("‡")
    assert not table.cells.loc[row, "ε = 4"].endswith("‡")
    assert [method for (_, method, _), row in table.bold.iterrows() if row["ε = 1"]] == ["Public mean, k = 8"]
    assert table.bold.loc[row, "ε = 4"]
    assert "‡: from code with known faults or of an unknown state" in table.caption
    assert r"\textdaggerdbl{}" in table.to_latex()
    gaps = versus(section, differences(section), "private", "tab:x")
    assert {budget for (_, _, budget), line in gaps.cells.iterrows() if "‡" in line.iloc[0]} == {"ε = 1"}
    assert "‡" in gain_table(section, gains(section), "tab:x").to_markdown()
    assert "‡" in gap_table(section, gap_closed(section), "tab:x").to_markdown()
    private = int(section.rows["private"].sum())
    sentence = f"1 of {private} private rows come from code with known faults or of an unknown state"
    assert f"bad: {sentence}" in told(section, "In short")
    assert sentence in Loads(write_report(store, tmp_path / "report").read_text()).text


def test_rows_without_a_claim_are_not_marked(tmp_path: Path) -> None:
    store = fill(Store(tmp_path), winning, private=False, harness="0.1.0", commit="")
    assert "‡" not in results(only(store), "private", [ALL], "tab:x").to_markdown()
    assert only(store).support == ""


def test_a_choice_that_is_not_recorded_is_said_to_be_unknown_and_never_bold(tmp_path: Path) -> None:
    store = fill(Store(tmp_path), winning)
    for cell in store.rows().query("method == 'hypernetwork'")["cell"]:
        row = store.row(cell)
        row["selection"] = "unknown"
        store.write(store.cell(cell), row)
    table = results(only(store), "private", [ALL], "tab:x")
    row = ("Private methods", "Hypernetwork, k = 8", "unknown")
    assert table.cells.loc[row, "ε = 1"] == "43.6 ± 2.1"
    assert not table.bold.loc[row].any()
    assert table.bold["ε = 1"].any()  # of the others, the best
    assert "Unknown: how the hyper-parameters were chosen is not recorded" in table.caption


def test_development_families_are_marked_and_explained(tmp_path: Path) -> None:
    store = fill(Store(tmp_path / "store"), winning)
    text = Loads(write_report(store, tmp_path / "before").read_text()).text
    assert "evelopment" not in text
    for cell in store.rows().query("task == 'kettle'")["cell"]:
        row = store.row(cell)
        row["development"] = True
        store.write(store.cell(cell), row)
    section = only(store)
    assert section.title("private", "kettle") == "kettle (development)"
    assert section.title("private", "dark_umbrella") == "dark_umbrella"
    assert section.title("private", ALL) == "Mean of 2 private tasks, 1 of them development"
    assert section.title("tuning", "chair") == "chair"
    page = write_report(store, tmp_path / "after")
    assert "Development: kettle. Results on these families have prompted decisions" in Loads(page.read_text()).text
    assert "| kettle (development) |" in next(page.parent.glob("*/private_tasks.md")).read_text()


def test_latex_is_balanced_booktabs_and_escaped_once(section: Section) -> None:
    gaps = differences(section)
    for table in (
        results(section, "private", [ALL], "tab:x"),
        results(section, "private", section.tasks("private"), "tab:x"),
        versus(section, gaps, "private", "tab:x"),
    ):
        text = table.to_latex()
        for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption{", r"\label{tab:x}"):
            assert rule in text
        assert text.count("{") == text.count("}")
        assert text.count(r"\begin{") == text.count(r"\end{")
        assert text.count("$") % 2 == 0
        assert r"add\_or\_remove\_one" in text
        assert not re.search(r"(?<!\\)_|\\\\_|[εδσ±†∞−]", text)
    assert r"\bfseries 43.6 \textpm{} 2.1" in results(section, "private", [ALL], "tab:x").to_latex()


def test_one_method_with_two_ways_of_tuning_has_two_rows(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for epsilon, selection in ((1.0, "fixed"), (4.0, "tuned_private")):
        add(store, Cell(task="kettle", method="dp_sgd", epsilon=epsilon), "private", 9.0, selection=selection)
    table = results(only(store), "private", ["kettle"], "tab:x")
    assert {how for _, method, how in table.cells.index if method == "DP-SGD"} == {"fixed", "tuned privately, charged"}
    assert table.to_latex().count(r"\cmidrule{1-6}") == 1


def test_captions_name_the_conditions(section: Section) -> None:
    caption = results(section, "private", [ALL], "tab:x").caption
    for part in (
        "FD (EfficientNet-Lite0)",
        "500 generated",
        "372 held-out",
        "δ = 1e-05",
        "0123456789abcdef",
        "n = 128",
    ):
        assert part in caption


def test_markdown_has_one_line_for_each_method(section: Section) -> None:
    lines = results(section, "private", [ALL], "tab:x").to_markdown().splitlines()
    widths = {line.count("|") for line in lines if line.startswith("|")}
    assert len(widths) == 1
    assert any("**43.6 ± 2.1**" in line and "Hypernetwork" in line for line in lines)


# --- verdicts


def test_a_losing_hypernetwork_is_said_to_lose(tmp_path: Path) -> None:
    section = only(fill(Store(tmp_path), losing))
    assert "bad: " in told(section, "In short")
    assert "good: " not in told(section, "In short")
    losses = told(section, "Where the hypernetwork loses")
    assert "kettle: worse than DP-SGD (tuned on public tasks), by 20.0 ± 3.7 at ε = 1" in losses
    assert "kettle: worse than Public mean, k = 8 (fixed), by 40.0 ± 3.7 at ε = 1" in losses


def test_a_winning_hypernetwork_is_not(section: Section) -> None:
    assert (
        "Hypernetwork, k = 8 (tuned on public tasks) against Public only (fixed), over 6 pairs of task and ε: "
        in told(section, "In short")
    )
    assert "worse" not in told(section, "In short")
    assert told(section, "Where the hypernetwork loses").startswith("open: No comparison")


def test_learning_is_judged_on_tuning_tasks(section: Section, tmp_path: Path) -> None:
    assert told(section, "Does the hypernetwork learn?").startswith("good: Yes")

    def level(method: str, epsilon: float) -> float:
        return 50.5 if method == "hypernetwork_sigma0" else winning(method, epsilon)

    assert told(only(fill(Store(tmp_path), level)), "Does the hypernetwork learn?").startswith("open: Not shown")


def test_missing_rows_are_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed in range(3):
        add(store, Cell(task="kettle", seed=seed), "private", 10.0 + seed)
    assert told(only(store), "In short").count("not run in 1") == 3
    assert "no finished row on a tuning task" in told(only(store), "Does the hypernetwork learn?")
    assert "no seed of nonprivate_lora" in told(only(store), "Sanity")


def test_sanity_flags_overspending_and_the_impossible(tmp_path: Path, section: Section) -> None:
    store = fill(Store(tmp_path / "bad"), winning, seeds=2, kid_floor=0.065)
    add(store, Cell(task="kettle", seed=5, embedding_dim=8), "private", 42.0, epsilon_spent=1.1)
    sanity = told(only(store), "Sanity")
    assert "bad: Rows that spent more than their budget: 1" in sanity
    (below,) = (line for line in sanity.splitlines() if line.startswith("bad: Below real versus real"))
    assert "Hypernetwork, k = 8" in below
    assert "DP-SGD" not in below
    assert "good: No row shown here spent more" in told(section, "Sanity")
    # The Fréchet floor, at half the images, is above what perfect samples have: being below it convicts nobody.
    biased = told(only(fill(Store(tmp_path / "biased"), winning, seeds=2, fid_floor=55.0)), "Sanity")
    assert "good: No method is shown below real versus real" in biased


def test_sanity_tells_trainings_of_a_public_phase_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed, seconds in enumerate((12.5, 12.5, 13.5)):
        if seed == 2:
            assert "trainings" not in told(only(store), "Sanity")
        add(store, Cell(task="kettle", seed=seed, embedding_dim=8), "private", 9.0 + seed, seconds_public=seconds)
    assert "open: The cells of Hypernetwork, k = 8" in told(only(store), "Sanity")
    assert "from 2 trainings of its public phase" in told(only(store), "Sanity")


def test_a_paired_difference_is_the_t_interval_of_the_pairs(section: Section) -> None:
    row = point(differences(section), metric="fid", task="kettle", epsilon=1.0, rival_method="dp_sgd")
    pairs = np.array([(42 + a) - (70 + b) for a, b in zip((0, 1, -0.7), (1, -0.7, 0), strict=True)])
    low, high = stats.ttest_1samp(pairs, 0).confidence_interval(0.95)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((pairs.mean(), low, high))
    assert row["verdict"] == "better"


# --- the page


class Loads(HTMLParser):
    """Collects what a browser would fetch, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"src", "href", "srcset", "data", "action", "poster"} and value:
                self.found.append(value)

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is None:
            self.text += data
        elif self.cdata_elem == "style":
            self.found += re.findall(r"url\(\W*([^)]*)|@import\s+(\S+)", data)


def test_the_page_loads_nothing_from_outside(report: Path) -> None:
    page = report.read_text()
    found = Loads(page).found
    assert len(found) > 50
    assert [value[:60] for value in found if not value.startswith(("data:", "#"))] == []
    assert "default-src 'none'" in page
    assert Loads('<img src="http://x/y.png">').found == ["http://x/y.png"]


def test_the_page_shows_all_its_parts(report: Path) -> None:
    text = Loads(report.read_text()).text
    for part in (
        "Where the hypernetwork loses", "Does the hypernetwork learn?", "FD (EfficientNet-Lite0) against ε",
        "Failed cells: 1", "boom <b> & more", "Real versus real", "c0ffee", "two cores", "dp_sgd at ε = 4.0",
        "Not drawn: no method ran with more than one k", "dark_umbrella", "tuned on public tasks",
    ):  # fmt: skip
        assert part in text
    assert not re.search(r"(?<!-)\bFID\b", text)


def test_every_file_is_written(report: Path) -> None:
    (folder,) = (path for path in report.parent.iterdir() if path.is_dir())
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "fid_vs_epsilon.pdf", "fid_vs_epsilon.png", "fid_vs_epsilon_tuning.pdf", "samples_kettle.png", "numbers.csv",
        "differences.csv", "private_main.tex", "private_main.md", "private_tasks.tex", "private_differences.tex",
        "gap_closed.csv", "gap_closed.md", "gap_closed.tex", "gains.csv", "gains.md", "gains.tex",
    }  # fmt: skip
    assert "fid_vs_embedding_dim.pdf" not in names
    assert b"/FontFile2" in (folder / "fid_vs_epsilon.pdf").read_bytes()  # TrueType, embedded
    numbers = pd.read_csv(folder / "numbers.csv").query("metric == 'fid' and task == 'kettle'")
    unrounded = 60 + 3 + (0.0 + 1.0 - 0.7) / 3
    assert numbers.query("method == 'public_only'")["mean"].item() == pytest.approx(unrounded, abs=1e-9)
    assert len(pd.read_csv(report.parent / "rows.csv")) == 90 + 1 + 4


@pytest.fixture
def panels_drawn(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """The panels of all figures that the test draws."""
    drawn: list[Axes] = []
    canvas = figures._canvas

    @contextmanager
    def watched(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with canvas(*args, **kwargs) as (figure, axes):
            yield figure, axes
            drawn.extend(axes)

    monkeypatch.setattr(figures, "_canvas", watched)
    return drawn


@pytest.mark.parametrize(("count", "panels"), [(7, 1), (8, 2), (15, 3)])
def test_many_curves_are_dealt_to_several_panels(
    count: int, panels: int, tmp_path: Path, panels_drawn: list[Axes]
) -> None:
    store, names = Store(tmp_path / "store"), [f"method_{i}" for i in range(count)]
    for method in (*names, "public_only"):
        for epsilon in EPSILONS if method in names else (math.inf,):
            add(store, Cell(task="kettle", method=method, epsilon=epsilon), "private", 50.0 + min(epsilon, 16.0))
    (section,) = sections(load(store))
    assert figures.distance_vs_epsilon(section, "private", tmp_path / "figure")
    drawn = [ax.get_legend_handles_labels()[1] for ax in panels_drawn]
    assert len(drawn) == panels
    curves = [{label for label in panel if "method_" in label} for panel in drawn]
    assert max(map(len, curves)) <= figures.CURVES
    assert len({label for panel in curves for label in panel}) == sum(map(len, curves)) == count
    constants = [{*panel} - own for panel, own in zip(drawn, curves, strict=True)]
    assert constants[0]
    assert all(lines == constants[0] for lines in constants)


@pytest.mark.parametrize(("outlier", "left_out"), [("dp_sgd", [900.0]), ("public_only", [])])
def test_a_mean_far_above_all_others_leaves_the_frame_unless_it_is_a_floor(outlier: str, left_out: list[float]) -> None:
    roles = {"hypernetwork": "method", "dp_sgd": "method", "public_only": "floor"}
    rows = [(method, 50.0 + seed) for method in roles for seed in range(8)] + [(outlier, 900.0)]
    points = pd.DataFrame(rows, columns=["method", "mean"]).assign(half=math.nan)
    ax = Figure().subplots()
    outside = figures._frame_means(ax, points.assign(role=points["method"].map(roles)))
    assert [*outside["mean"]] == left_out
    assert (ax.get_ylim()[1] < 900) == bool(left_out)


def test_a_mean_beyond_the_fence_that_the_intervals_make_room_for_is_not_said_to_be_left_out() -> None:
    rows = [("method", 50.0 + seed, math.nan) for seed in range(8)] + [
        ("method", 84.0, math.nan),
        ("floor", 55.0, 30.0),
    ]
    points = pd.DataFrame(rows, columns=["role", "mean", "half"])
    ax = Figure().subplots()
    assert [*figures._frame_means(ax, points)["mean"]] == [84.0]
    # One mean further down, and the floor's interval may reach further up.
    assert figures._frame_means(ax, points.replace({"mean": {50.0: 20.0}})).empty
    assert ax.get_ylim()[1] > 84


def test_gains_agree_with_a_computation_by_hand_and_harm_is_counted(section: Section) -> None:
    gained = gains(section)
    row = point(gained, metric="fid", task="kettle", method="hypernetwork", epsilon=4.0)
    pairs = np.array([42 + own - 60 - floor for own, floor in zip((0.0, 1.0, -0.7), (1.0, -0.7, 0.0), strict=True)])
    half = stats.t.ppf(0.975, 2) * np.std(pairs, ddof=1) / math.sqrt(3)
    assert (row["difference"], row["half"], row["verdict"]) == (pairs.mean(), pytest.approx(half), "better")
    harmed = point(gained, metric="fid", task="kettle", method="dp_sgd", epsilon=1.0)
    assert (harmed["difference"], harmed["verdict"]) == (pytest.approx(10.0), "worse")
    assert not {"public_only", "real_versus_real"} & {*gained["method"]}
    own = gained[gained["method"].isin(["hypernetwork", "dp_sgd"]) & gained["task"].isin(PRIVATE) & gained["private"]]
    count = {word: sum(own["verdict"] == word) for word in ("better", "worse")}
    assert count["better"] == len(EPSILONS) * len(PRIVATE)  # the hypernetwork everywhere
    assert count["worse"] >= 2 * len(PRIVATE)  # DP-SGD, which lies 10, 6 and 2 above
    caption = gain_table(section, gained, "tab:gains").caption
    assert f"better and {count['worse']} worse" in caption
    assert f"{len(own)} in FD (EfficientNet-Lite0), {count['better']} of them better" in caption


def test_share_of_the_gap_agrees_with_a_computation_by_hand(section: Section) -> None:
    """The public mean (50 and a noise of its own) is the better zero, the ceiling lies 30 below it on average."""
    row = point(gap_closed(section), metric="fid", task="kettle", method="hypernetwork", epsilon=4.0)
    gains = np.array([50 - 42 + zero - own for zero, own in zip((-0.7, 0.0, 1.0), (0.0, 1.0, -0.7), strict=True)])
    half = stats.t.ppf(0.975, 2) * np.std(gains, ddof=1) / math.sqrt(3)
    found = (row["closed"], row["half"], row["seeds"], row["gap"], row["zero"])
    assert found == (pytest.approx(8 / 30), pytest.approx(half / 30), 3, pytest.approx(30.0), "public_mean")
    assert point(gap_closed(section), metric="fid", task="kettle", method="dp_sgd", epsilon=1.0)["closed"] < 0
    assert not {"public_mean", "public_only", "nonprivate_lora", "real_versus_real"} & {*gap_closed(section)["method"]}
    table = gap_table(section, gap_closed(section), "tab:gap").to_markdown()
    assert len(re.findall(r"\| kettle \|.*\| Hypernetwork, k = 8 .*0\.27 ± ", table)) == 1


def test_share_of_the_gap_is_taken_on_the_seeds_of_the_method(tmp_path: Path) -> None:
    """A rival that ran on the seed with the small gap only is not measured by the great gap of the others."""
    store = Store(tmp_path)
    for seed, ceiling in enumerate((50.0, 20.0, 20.0)):
        for method, fid in {"public_only": 60.0, "nonprivate_lora": ceiling, "hypernetwork": ceiling + 5}.items():
            add(store, Cell(task="kettle", method=method, seed=seed, epsilon=1.0), "private", fid)
    add(store, Cell(task="kettle", method="dp_sgd", seed=0, epsilon=1.0), "private", 55.0)
    closed = gap_closed(only(store))
    own, rival = (point(closed, metric="fid", task="kettle", method=name) for name in ("hypernetwork", "dp_sgd"))
    assert (own["closed"], own["gap"], own["seeds"]) == (pytest.approx(25 / 30), pytest.approx(30.0), 3)
    assert (rival["closed"], rival["gap"], rival["seeds"]) == (pytest.approx(0.5), pytest.approx(10.0), 1)


def test_share_of_the_gap_needs_its_controls_and_a_gap(tmp_path: Path) -> None:
    levels = {"hypernetwork": 0.30, "public_only": 0.40, "nonprivate_lora": 0.20}

    def closed(name: str, **changes: float) -> pd.DataFrame:
        store = Store(tmp_path / name)
        for method, loss in {**levels, **changes}.items():
            add(store, Cell(task="kettle", method=method, epsilon=1.0), "private", 9.0, denoising_loss=loss)
        write_report(store, tmp_path / f"{name}_out")
        assert bool([*(tmp_path / f"{name}_out").glob("*/gap_closed.*")]) == bool(len(gap_closed(only(store))))
        return gap_closed(only(store))

    row = point(closed("all"), metric="denoising_loss", method="hypernetwork", task="kettle")
    assert row["closed"] == pytest.approx(0.5)
    assert math.isnan(row["half"]), "one seed has no interval"
    assert closed("no_gap", nonprivate_lora=0.45).empty
    del levels["nonprivate_lora"]
    assert closed("no_ceiling").empty


def test_a_sweep_over_k_is_drawn(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for k in (4, 16):
        for seed in range(2):
            add(store, Cell(task="kettle", embedding_dim=k, seed=seed), "private", 10.0 + seed, embedding_dim=k)
    write_report(store, tmp_path / "out")
    assert [*(tmp_path / "out").glob("*/fid_vs_embedding_dim.pdf")]


def test_different_protocols_never_share_a_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    add(store, Cell(task="kettle"), "private", 11.0)
    add(store, Cell(task="kettle", seed=1), "private", 77.0, protocol="other", extractor="inception")
    page = write_report(store, tmp_path / "out")
    tables = [path.read_text() for path in (tmp_path / "out").glob("*/private_main.md")]
    shown = {(re.findall(r"11\.0|77\.0", table)[0], table.partition("FID (lower")[1] != "") for table in tables}
    assert shown == {("11.0", False), ("77.0", True)}
    assert "Numbers of different sections must not be compared" in Loads(page.read_text()).text


def test_a_store_of_failures_only_still_has_a_page(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    add(store, Cell(task="kettle"), "private", 0.0, status="failed", error="ValueError: no luck")
    text = Loads(write_report(store, tmp_path / "out").read_text()).text
    assert "ValueError: no luck" in text
    assert "No cell has finished yet" in text


def test_a_search_on_tuning_tasks_alone_has_a_page(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for epsilon in (1.0, 4.0):
        for rate in (2.0, 6.0):
            cell = Cell(task="chair", method="dp_sgd", epsilon=epsilon, options={"learning_rate": rate})
            add(store, cell, "tuning", 60.0 - rate)
    page = write_report(store, tmp_path / "report").read_text()
    assert "learning_rate=2.0" in page
    assert "learning_rate=6.0" in page
    said = [line for paragraph in verdict(only(store), differences(only(store))) for line in paragraph.lines]
    assert not any(line.tone == "good" for line in said), "nothing can be praised where no private task was run"


def test_user_errors(tmp_path: Path, store: Store) -> None:
    with pytest.raises(UserError, match="has no row"):
        write_report(Store(tmp_path / "empty"), tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file: name a folder"):
        write_report(store, tmp_path / "file")


def test_the_report_needs_no_torch(tmp_path: Path) -> None:
    add(Store(tmp_path / "store"), Cell(task="kettle"), "private", 1.0)
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "lightning", "wandb", "diffusers", "cleanfid", "PyQt6"}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
try:
    import torch
except ImportError as error:
    assert "blocked" in str(error)
else:
    raise SystemExit("the block does not block")
from pathlib import Path
from dphyper.bench.store import Store
from dphyper.reports.page import write_report
print(write_report(Store(sys.argv[1]), Path(sys.argv[2])))
"""
    run = [sys.executable, "-c", code, str(tmp_path / "store"), str(tmp_path / "out")]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("index.html")


def test_draws_of_the_noise_are_averaged_inside_a_seed_and_shown_by_quantiles(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    values = {0: [10.0, 20.0, 60.0], 1: [110.0, 130.0, 150.0]}
    for seed, distances in values.items():
        for draw, fid in enumerate(distances):
            add(store, Cell(task="kettle", epsilon=1.0, seed=seed, noise_draw=draw, embedding_dim=8), "private", fid)
    (section,) = sections(load(store))
    shown = point(aggregate(section.values), metric="fid", method="hypernetwork", task="kettle")
    assert (shown["mean"], shown["seeds"]) == (80.0, 2)  # of the seeds' means 30 and 130, not of six draws
    (found,) = noise_quantiles(section).to_dict("records")
    centred = [80.0 + 1.5**0.5 * x for x in (-20, -10, 30, -20, 0, 20)]
    assert (found["draws"], found["mean"], found["worst"]) == (6, 80.0, pytest.approx(80 + 30 * 1.5**0.5))
    assert [found[q] for q in ("q10", "q50", "q90")] == pytest.approx(np.quantile(centred, [0.1, 0.5, 0.9]))
    folder = write_report(store, tmp_path / "report").parent
    assert "| kettle | Hypernetwork, k = 8 | ε = 1 | 80.0 |" in next(folder.glob("*/noise_draws.md")).read_text()
    one = noise_quantiles(only(fill(Store(tmp_path / "one"), winning)))
    assert one.empty


def test_heat_map_is_drawn_where_a_method_ran_with_several_k_and_epsilons(
    tmp_path: Path, panels_drawn: list[Axes]
) -> None:
    store = Store(tmp_path / "store")
    for k in (4, 8):
        for epsilon in (1.0, 4.0):
            for seed in (0, 1):
                cell = Cell(task="kettle", epsilon=epsilon, seed=seed, embedding_dim=k)
                add(store, cell, "private", 10.0 * k / epsilon, embedding_dim=k)
    assert embedding_dim_heat_map(only(store), tmp_path / "map")
    assert (tmp_path / "map.pdf").exists()
    # A second task at one k only has no map, and does not take the first one's.
    for epsilon in (1.0, 4.0):
        add(store, Cell(task="leaf", epsilon=epsilon, embedding_dim=8), "private", 10.0)
    assert embedding_dim_heat_map(only(store), tmp_path / "again")
    assert [ax.get_title("left") for ax in panels_drawn] == ["kettle", "kettle"]
    assert not embedding_dim_heat_map(only(fill(Store(tmp_path / "one"), winning)), tmp_path / "none")


def test_each_k_stands_beside_the_best_k_of_its_epsilon(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for k, distances in {4: (110.0, 112.0), 8: (120.0, 126.0), 16: (130.0, 132.0)}.items():
        for seed, fid in enumerate(distances):
            cell = Cell(task="kettle", epsilon=1.0, seed=seed, embedding_dim=k)
            add(store, cell, "private", fid, embedding_dim=k)
    add(store, Cell(task="kettle", epsilon=4.0, embedding_dim=8), "private", 100.0, embedding_dim=8)
    table = embedding_dims(only(store), "private", "tab:x")
    assert table is not None
    # The differences are 10 and 14, whose interval holds 0, and 20 twice, whose interval does not; one k has no rival.
    half = stats.t.ppf(0.975, 1) * 2
    assert [*table.cells["ε = 1"]] == ["111", f"123 (+ 12 ± {half:.0f})", "131 (+ 20 ± 0)"]
    assert [*table.bold["ε = 1"]] == [True, True, False]
    assert [*table.cells.columns] == ["ε = 1"]
    assert (
        "| kettle | Hypernetwork, k = 4 | **111** |"
        in next(write_report(store, tmp_path / "report").parent.glob("*/private_embedding_dims.md")).read_text()
    )
    assert embedding_dims(only(fill(Store(tmp_path / "one"), winning)), "private", "tab:x") is None


def test_cost_stands_beside_that_of_dp_sgd(tmp_path: Path) -> None:
    store = Store(tmp_path)
    seconds = {"hypernetwork": 0.2, "dp_sgd": 10.0, "dp_sgd_tuned": None}
    for method, adapt in seconds.items():
        for seed in (0, 1, 2):
            timed = {"seconds_public": 300.0 * (method == "hypernetwork"), "seconds_adapt": adapt}
            timed = {key: value for key, value in timed.items() if value is not None}
            cell = Cell(task="kettle", method=method, epsilon=1.0, seed=seed, embedding_dim=8)
            add(store, cell, "private", 1.0)
            row = store.row(cell.id)
            row.pop("seconds_adapt")
            row.update(timed)  # type: ignore[typeddict-item]
            store.write(cell, row)
    shown = cost(only(store), "tab:x").cells
    network, dp_sgd, tuned = (
        shown.loc[shown.index.str.startswith(name)].iloc[0] for name in ("Hyp", "DP-SGD (", "DP-SGD,")
    )
    assert (network["Public phase"], network["Of DP-SGD's"]) == ("300 s", "2.0 %")
    assert (dp_sgd["Adaptation"], tuned["Adaptation"]) == ("10.00 s", "secret")
