"""Names as people type them: on the command line, in a YAML file, and in one form of Unicode."""

from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from dphyper.core.errors import UserError
from dphyper.core.names import Part
from dphyper.core.parsing import parse
from dphyper.core.specs import Cell, DataSpec


def data_of(*arguments: str) -> DataSpec:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Cell)
    data: DataSpec = parse(parser, arguments)["data"]
    return data


TYPED: dict[str, tuple[Any, ...]] = {
    "A": ("A",),
    "[8]": ("8",),
    "01": ("01",),
    "on": ("on",),
    "[01, on, 1.10, 0x1f, null, ~]": ("01", "on", "1.10", "0x1f", "null", "~"),
    "two words": ("two words",),
    "[two words, 'a, b']": ("two words", "a, b"),
    "a: b": ("a: b",),
    "folder:scans": ("folder:scans",),
    "{source: 'folder:scans', families: 01}": (Part(source="folder:scans", families=("01",)),),
    "e\u0301te\u0301": ("\u00e9t\u00e9",),
    "": (),
}


@pytest.mark.parametrize("typed", TYPED)
def test_names_on_the_command_line_are_what_was_typed(typed: str) -> None:
    assert data_of("--data.private", typed).private == TYPED[typed]
    assert data_of(f"--data.private={typed}").private == TYPED[typed]


@pytest.mark.parametrize(
    ("yaml", "names"),
    [
        ("A", ("A",)),
        ('["01", "on", "1.10", "0x1f", 8]', ("01", "on", "1.10", "0x1f", "8")),
        ('"01"', ("01",)),
        ("[{source: 'npz:a', families: ['01', 8]}]", (Part(source="npz:a", families=("01", "8")),)),
    ],
)
def test_quoted_names_in_a_file_stay_text(yaml: str, names: tuple[Any, ...], tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"data: {{private: {yaml}}}")
    assert data_of("--config", str(tmp_path / "a.yaml")).private == names


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("[true]", "YAML reads a name as True: expected text, put the name in quotes"),
        ("[1.10]", "YAML reads a name as 1.1"),
        ("[{sourc: a}]", "is no part of the data: expected {source: SOURCE"),
        ("[{source: 'npz:a', families: [{source: b}]}]", "families of 'npz:a' are"),
    ],
)
def test_what_is_no_name_is_refused(yaml: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"data: {{private: {yaml}}}")
    with pytest.raises(UserError, match=message):
        data_of("--config", str(tmp_path / "a.yaml"))
    with pytest.raises(UserError, match=r"'\[odd' is no list of names"):
        data_of("--data.private", "[odd")


def test_a_part_keeps_the_id_of_a_cell_and_names_alone_keep_their_plain_form() -> None:
    part = Cell(data=DataSpec(private=("a", Part(source="npz:b", families=("c",)))))
    plain = part.to_dict()["data"]["private"]
    assert plain == ("a", {"source": "npz:b", "families": ("c",)})
    assert Cell.from_dict(part.to_dict()).id == part.id
    assert Cell(task="e\u0301").id == Cell(task="\u00e9").id != Cell(task="e").id
    assert Cell(data=DataSpec(private=("e\u0301",))).id == Cell(data=DataSpec(private=("\u00e9",))).id


def test_a_value_range_is_two_rising_numbers() -> None:
    assert DataSpec(value_range=(0, 4095)).value_range == (0.0, 4095.0)
    for given in ((0,), (1, 1), (5, 2)):
        with pytest.raises(UserError, match=r"data.value_range = .* expected \[BLACK, WHITE\]"):
            DataSpec(value_range=given)
