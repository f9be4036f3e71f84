"""One page that stands alone, with every file beside it."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from toy_store import Loads, add, change, only

from dphyper.bench.store import Store
from dphyper.core.errors import UserError
from dphyper.core.specs import Cell
from dphyper.reports.page import write_report
from dphyper.reports.verdict import verdict


@pytest.fixture(scope="module")
def report(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(store, tmp_path_factory.mktemp("report"))


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
        "distance_vs_epsilon.pdf", "distance_vs_epsilon.png", "distance_vs_epsilon_tuning.pdf", "samples_kettle.png",
        "numbers.csv", "differences.csv",
        "private_main.tex", "private_main.md", "private_tasks.tex", "private_differences.tex",
        "gap_closed.csv", "gap_closed.md", "gap_closed.tex", "gains.csv", "gains.md", "gains.tex",
    }  # fmt: skip
    assert "distance_vs_embedding_dim.pdf" not in names
    assert b"/FontFile2" in (folder / "distance_vs_epsilon.pdf").read_bytes()  # TrueType, embedded
    numbers = pd.read_csv(folder / "numbers.csv").query("metric == 'frechet' and task == 'kettle'")
    unrounded = 60 + 3 + (0.0 + 1.0 - 0.7) / 3
    assert numbers.query("method == 'public_only'")["mean"].item() == pytest.approx(unrounded, abs=1e-9)
    assert len(pd.read_csv(report.parent / "rows.csv")) == 90 + 1 + 4


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
    said = [line for paragraph in verdict(only(store)) for line in paragraph.lines]
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


def test_development_families_are_explained(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for task in ("kettle", "dark_umbrella"):
        add(store, Cell(task=task), "private", 9.0)
    assert "evelopment" not in Loads(write_report(store, tmp_path / "before").read_text()).text
    change(store, "task == 'kettle'", development=True)
    page = write_report(store, tmp_path / "after")
    assert "Development: kettle. Results on these families have prompted decisions" in Loads(page.read_text()).text
    assert "| kettle (development) |" in next(page.parent.glob("*/private_tasks.md")).read_text()


def test_a_page_with_rows_that_support_no_claim_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    add(store, Cell(task="kettle"), "private", 9.0)
    sentence = "1 of 2 private rows come from code with known faults or of an unknown state"
    add(store, Cell(task="kettle", seed=1), "private", 9.0, harness="0.1.0")
    assert sentence in Loads(write_report(store, tmp_path / "report").read_text()).text


def test_files_are_written_for_what_there_is_to_show(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for k in (4, 16):
        for draw in (0, 1):
            cell = Cell(task="kettle", embedding_dim=k, noise_draw=draw, epsilon=1.0)
            add(store, cell, "private", 10.0 + draw, embedding_dim=k)
    (folder,) = (path for path in write_report(store, tmp_path / "out").parent.iterdir() if path.is_dir())
    names = {path.name for path in folder.iterdir()}
    assert {"distance_vs_embedding_dim.pdf", "private_embedding_dims.md", "noise_draws.md", "cost.tex"} <= names
    assert (
        not {"gap_closed.md", "gap_closed.csv", "gains.csv", "private_tasks.md", "embedding_dim_heat_map.pdf"} & names
    )
