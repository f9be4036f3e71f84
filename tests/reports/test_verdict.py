"""The verdict praises and blames where the numbers do, and names what is missing."""

from pathlib import Path

from toy_store import add, fill, losing, only, told, winning

from dphyper.bench.store import Store
from dphyper.core.specs import Cell
from dphyper.reports.sections import Section


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
    assert "no training and draw of nonprivate_lora" in told(only(store), "Sanity")


def test_sanity_flags_overspending_and_the_impossible(tmp_path: Path, section: Section) -> None:
    store = fill(Store(tmp_path / "bad"), winning, seeds=2, real={"kernel": 0.065})
    add(store, Cell(task="kettle", seed=5, embedding_dim=8), "private", 42.0, epsilon_spent=1.1)
    sanity = told(only(store), "Sanity")
    assert "bad: Rows that spent more than their budget: 1" in sanity
    (below,) = (line for line in sanity.splitlines() if line.startswith("bad: Below real versus real"))
    assert "Hypernetwork, k = 8" in below
    assert "DP-SGD" not in below
    assert "good: No row shown here spent more" in told(section, "Sanity")
    # The Fréchet floor, at half the images, is above what perfect samples have: being below it convicts nobody.
    biased = told(only(fill(Store(tmp_path / "biased"), winning, seeds=2, real={"frechet": 55.0})), "Sanity")
    assert "good: No method is shown below real versus real" in biased


def test_sanity_tells_runs_of_a_public_phase_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed, seconds in enumerate((12.5, 12.5, 13.5)):
        if seed == 2:
            assert "its public phase" not in told(only(store), "Sanity")
        add(store, Cell(task="kettle", seed=seed, embedding_dim=8), "private", 9.0 + seed, seconds_public=seconds)
    assert "open: The cells of Hypernetwork, k = 8" in told(only(store), "Sanity")
    assert "from 2 runs of its public phase" in told(only(store), "Sanity")


def test_where_more_is_better_the_higher_one_wins(tmp_path: Path, rising_headline: None) -> None:
    section = only(fill(Store(tmp_path), losing, real={"frechet": 55.0}))
    assert told(section, "Where the hypernetwork loses").startswith("open: No comparison")
    assert "bad: " not in told(section, "In short")
    losses = told(only(fill(Store(tmp_path / "losing"), winning)), "Where the hypernetwork loses")
    assert "kettle: worse than Public mean, k = 8 (fixed), by 8.0 ± 3.7 at ε = 1" in losses
    sanity = told(section, "Sanity")
    assert "has a higher mean than the ceiling: distrust that." in sanity
    (above,) = (line for line in sanity.splitlines() if line.startswith("bad: Above real versus real in coverage"))
    assert "Hypernetwork, k = 8" in above
    assert "Public mean" not in above
