"""The 8×8 digits are there without a file, with their own choice of families, and may be shown."""

from dphyper.bench.catalog import DATASETS
from dphyper.core.specs import DataSpec


def test_the_digits_have_their_classes_and_may_be_shown() -> None:
    collection = DATASETS["digits8"].load(DataSpec(source="digits8"))
    split = {task.id: task.split for task in collection.tasks if task.kind == "family"}
    assert {family for family, of in split.items() if of == "private"} == {"3", "8"}
    assert {family for family, of in split.items() if of == "tuning"} == {"5"}
    assert split.keys() == set("0123456789")
    assert collection.show_reference
