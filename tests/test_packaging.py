"""The namespace layout: the folders at the top shadow nobody's package, and the wheel holds one name."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP_FOLDERS = ["bench", "methods", "datasets", "sweeps", "reports"]

FIND = """
import importlib.util, sys
for name in ("datasets", "sweeps", "bench", "methods", "reports"):
    spec = importlib.util.find_spec(name)
    # A folder without __init__.py is at most a namespace (no origin), which an installed package always beats.
    assert spec is None or spec.origin is None or {root!r} not in spec.origin, (name, spec)
"""


@pytest.mark.parametrize("flags", [["-c"], ["-m", "pytest"]])
def test_no_top_folder_is_a_package(flags: list[str], tmp_path: Path) -> None:
    code = FIND.format(root=str(ROOT))
    if flags == ["-c"]:
        command = [sys.executable, "-c", code]
    else:
        test = tmp_path / "test_find.py"
        test.write_text("def test_find():\n" + "".join(f"    {line}\n" for line in code.splitlines()))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", str(test)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_init_file_where_the_namespace_must_have_none() -> None:
    stray = [p for top in [*TOP_FOLDERS, "tests"] for p in (ROOT / top).rglob("__init__.py")]
    assert not stray
    packages = [path for top in TOP_FOLDERS for path in (ROOT / top / "dphyper").iterdir() if any(path.glob("*.py"))]
    assert len(packages) >= 12
    assert all((package / "py.typed").exists() for package in packages)


def test_wheel_holds_one_top_level_name_and_installs(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"dphyper"}

    # A fresh environment: nothing of the checkout is on its path. Its dependencies come from this one, as a path.
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    site = next(p for p in sys.path if p.endswith("site-packages"))
    code = (
        f"import sys; sys.path.append({site!r})\n"
        "import dphyper.cli.main, dphyper.reports.page\n"
        f"assert dphyper.cli.main.__file__.startswith({str(environment)!r})"
    )
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
