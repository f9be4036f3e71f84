"""Files appear whole or not at all."""

import json
from pathlib import Path

import pytest

from dphyper.core.files import whole_file, write_json


def test_a_file_takes_its_place_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_what_was_interrupted_leaves_the_old_file(tmp_path: Path, stop: type[BaseException]) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})

    def interrupted() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("{")
            raise stop

    with pytest.raises(stop):
        interrupted()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [*tmp_path.iterdir()] == [path]


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"b": 2, "a": 1})
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1, "b": 2}
