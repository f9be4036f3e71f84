"""The cache: an entry is made once, appears whole, and a damaged one is reported and made again."""

import multiprocessing
from pathlib import Path

import pytest

from dphyper.bench.cache import CONTENTS, Cache


def write(result: Path, unfinished: Path) -> None:
    """Two files, one in a folder of its own."""
    (result / "inner").mkdir()
    (result / "inner" / "weights.bin").write_bytes(b"weights")
    (result / "seconds.json").write_text("{}")


def never(result: Path, unfinished: Path) -> None:
    raise AssertionError("made a second time")


def test_an_entry_is_made_once_and_holds_what_was_written(tmp_path: Path) -> None:
    place = Cache(tmp_path).entry("base", "key", write)
    assert sorted(path.name for path in place.rglob("*") if path.is_file()) == [CONTENTS, "seconds.json", "weights.bin"]
    assert Cache(tmp_path).entry("base", "key", never) == place
    with pytest.raises(AssertionError, match="made a second time"):
        Cache(tmp_path).entry("base", "other", never)


@pytest.mark.parametrize("damage", ["changed", "missing", "added", "no list"])
def test_a_damaged_entry_is_one_line_and_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    place = Cache(tmp_path).entry("base", "key", write)
    weights = place / "inner" / "weights.bin"
    if damage == "changed":
        weights.write_bytes(b"weighty")
    elif damage == "missing":
        weights.unlink()
    elif damage == "added":
        (place / "stray").touch()
    else:
        (place / CONTENTS).write_text("{")
    assert Cache(tmp_path).entry("base", "key", write) == place
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert f"cache: entry {place} is damaged" in out
    assert weights.read_bytes() == b"weights"
    assert Cache(tmp_path).entry("base", "key", never) == place


def test_what_was_interrupted_leaves_no_entry_and_goes_on(tmp_path: Path) -> None:
    def killed(result: Path, unfinished: Path) -> None:
        (result / "half").touch()
        (unfinished / "checkpoint").write_text("step 100")
        raise KeyboardInterrupt

    def resumed(result: Path, unfinished: Path) -> None:
        assert not list(result.iterdir())
        assert (unfinished / "checkpoint").read_text() == "step 100"
        write(result, unfinished)

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).entry("base", "key", killed)
    assert not (tmp_path / "base" / "key").exists()
    place = Cache(tmp_path).entry("base", "key", resumed)
    assert [path.name for path in place.parent.iterdir() if path.is_dir()] == ["key"]


def test_what_another_host_without_common_locks_has_made_meanwhile_stays(tmp_path: Path) -> None:
    def overtaken(result: Path, unfinished: Path) -> None:
        write(result, unfinished)
        (tmp_path / "base" / "key").mkdir()
        (tmp_path / "base" / "key" / "theirs").touch()

    place = Cache(tmp_path).entry("base", "key", overtaken)
    assert [path.name for path in place.iterdir()] == ["theirs"]
    assert [path.name for path in place.parent.iterdir() if path.is_dir()] == ["key"]


def _slow(result: Path, unfinished: Path) -> None:
    with (unfinished.parent / "made").open("a") as file:
        file.write("once\n")
    write(result, unfinished)


def _entry(root: str) -> None:
    Cache(root).entry("base", "key", _slow)


def test_processes_that_want_the_same_entry_make_it_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        pool.map(_entry, [str(tmp_path)] * 6)
    assert (tmp_path / "base" / "made").read_text() == "once\n"
