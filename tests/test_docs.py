"""The commands of the docs run, and their links lead somewhere.

Fenced shell commands of the site's pages are run in the order of their page, in an empty folder, with the YAML blocks
that have a title as files. A block with a comment ``<!-- not run: REASON -->`` above it is not run.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r'(<!-- not run: ([^\n]+) -->\n)?```(sh|bash|yaml)(?: title="([^"]+)")?\n(.*?)```', re.DOTALL)
HERE = "from dphyper.cli.main import main; main()"
# Pages that are no part of the tour; each has the reason why its commands are not run here.
ELSEWHERE = {
    "README.md": "make demo takes minutes, make test runs this; the sweep and one_cell.py are run below, made small",
    "CONTRIBUTING.md": "make lint and make test are what CI runs",
    "audit.md": "hours; tests/audits runs each audit, made small",
    "cluster.md": "needs a cluster; tests/sweeps runs workers against a database",
    "cost.md": "timings",
    "data.md": "needs data to download; tests/datasets runs each source",
    "publish.md": "tests/cli/test_publish.py runs it",
    "release.md": "a timing",
    "targets.md": "needs models; tests/examples/test_pretrained.py runs its examples on tiny ones",
}


def blocks(page: Path) -> list[tuple[str, str, str, str]]:
    """Reason not to run, language, title and text of each fenced block."""
    return [found[1:] for found in FENCE.findall(page.read_text(encoding="utf-8"))]


def tour() -> list[Path]:
    return sorted(path for name in ("start", "how-to", "explanation") for path in (DOCS / name).glob("*.md"))


def commands(page: Path) -> list[str]:
    """What is to be run of a page, a line each."""
    return [
        line.partition("#")[0].strip()
        for reason, language, _, text in blocks(page)
        if language in ("sh", "bash") and not reason
        for line in text.splitlines()
        if line.partition("#")[0].strip()
    ]


def run(folder: Path, command: str) -> str:
    """Run a command of ours in a folder and return what it says."""
    program, *arguments = shlex.split(command)
    assert program == "dphyper", f"'{command}': only our own commands are run, give a reason not to run it"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HERE, *arguments],
        cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    # From a working tree with changes no row supports a claim, and check says so with status 1.
    fine = done.returncode == 0 or (arguments[0] == "check" and "what ran is not known" in done.stdout)
    assert fine, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in tour() if commands(page)], ids=lambda page: page.stem)
def test_every_command_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    for _, language, title, text in blocks(page):
        if language == "yaml" and title:
            (tmp_path / title).write_text(text, encoding="utf-8")
    said = [run(tmp_path, command) for command in commands(page)]
    assert all(said)
    if page.stem == "tutorial":
        (section,) = [path.parent for path in tmp_path.glob("runs/mine/report/*/distance_vs_epsilon.pdf")]
        assert (section / "private_main.tex").exists() or (section / "private_tasks.tex").exists()


def test_the_tour_has_commands() -> None:
    """So that the test above cannot pass by finding none."""
    assert len(commands(DOCS / "start" / "tutorial.md")) == 5
    assert sum(bool(commands(page)) for page in tour()) >= 2


def test_every_page_with_commands_is_run_or_has_a_reason() -> None:
    others = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")]
    with_commands = {path.name for path in others if any(kind in ("sh", "bash") for _, kind, _, _ in blocks(path))}
    assert with_commands <= {*ELSEWHERE}, "give a reason, or move the page into the tour"


def test_a_command_that_fails_is_found(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"is missing|no such|not found|does not exist"):
        run(tmp_path, "dphyper sweep plan nowhere.yaml")


def test_the_readme_in_yaml_plans(tmp_path: Path) -> None:
    (text,) = [text for _, kind, _, text in blocks(ROOT / "README.md") if kind == "yaml"]
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    assert "10 cells" in run(tmp_path, "dphyper sweep plan mine.yaml")


@pytest.mark.slow
def test_the_readme_in_python_runs(tmp_path: Path) -> None:
    code = (ROOT / "examples" / "one_cell.py").read_text(encoding="utf-8")
    assert code in (ROOT / "README.md").read_text(encoding="utf-8")
    small = code.replace(
        "train_steps=8000, sampling_steps=12", "train_steps=5, sampling_steps=2, block_out_channels=(8,)"
    )
    small = small.replace('task="documents"', 'n=32, options={"steps": 2, "multiplicity": 1}, task="documents"')
    assert small.count("steps=5") == small.count("n=32") == 1
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", small], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "'frechet'" in done.stdout, done.stdout + done.stderr


def test_relative_links_of_the_pages_outside_the_site_lead_somewhere() -> None:
    """Those inside are checked when the site is built."""
    checked = 0
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / name).read_text(encoding="utf-8")):
            if not link.startswith(("http", "mailto")):
                checked += 1
                assert (ROOT / link).exists(), f"{name}: {link}"
    assert checked > 20
