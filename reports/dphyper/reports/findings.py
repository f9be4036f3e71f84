"""The findings of the docs and the README, from the committed rows: ``python -m dphyper.reports.findings``.

Every number in these pages is computed here from ``docs/results/**/rows.parquet`` (or a committed CSV); a template in
``docs/templates`` says where it stands. A sentence that depends on numbers is tied to them with the filter ``given``:
where the rows no longer bear it, the command fails. The tables and figures behind the pages are written again as well.

It does not measure anything. Rows of former schemas are read through `Store.merge`, which needs what training needs.
"""

import math
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from jsonargparse import auto_cli

from dphyper.bench.store import Store
from dphyper.core.errors import UserError
from dphyper.metrics.metric import HEADLINE
from dphyper.reports import figures
from dphyper.reports.aggregate import Interval, aggregate, at_every_epsilon
from dphyper.reports.differences import differences
from dphyper.reports.sections import ALL, Section, load, sections
from dphyper.reports.style import budget, look, number, number_format, records
from dphyper.reports.table import in_page_order
from dphyper.reports.tables.gap_closed import gap_closed

TEMPLATES = Path("docs/templates")
RESULTS = Path("docs/results")
DEFAULT_N = 128  # the n whose files carry no prefix
# Stems of the tables that are committed beside the rows of each study.
TABLES_OF: Mapping[str, tuple[str, ...]] = {
    "compare": ("private_main", "private_differences", "gains", "gap_closed"),
    "compare_cifar10": ("private_main", "private_differences", "gains", "gap_closed"),
    "hypernetwork": ("private_main", "private_tasks", "private_differences", "gains", "gap_closed", "noise_draws"),
    "icons": ("private_main", "private_tasks", "private_differences", "gains", "gap_closed"),
    "embedding_dim": ("private_embedding_dims",),
    "nested": ("tuning_embedding_dims",),
    "public_tasks": ("tuning_main", "tuning_tasks", "gains"),
    "gap": ("gap_closed",),
    "tune": ("tuning_tasks",),
    "tune_dp_sgd": ("tuning_main", "tuning_tasks"),
}
# Study, n and stem of every figure.
FIGURES = (
    ("compare", 128, "fid_vs_epsilon"),
    ("compare_cifar10", 128, "fid_vs_epsilon"),
    ("hypernetwork", 128, "fid_vs_epsilon"),
    ("icons", 128, "fid_vs_epsilon"),
    ("embedding_dim", 128, "fid_vs_embedding_dim"),
    ("embedding_dim", 32, "embedding_dim_heat_map"),
    ("embedding_dim", 128, "embedding_dim_heat_map"),
    ("embedding_dim", 512, "embedding_dim_heat_map"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """The sections of one folder of rows, one for each n.

    Attributes:
        folder: Where ``rows.parquet`` lies.
    """

    folder: Path

    @cached_property
    def every_section(self) -> list[Section]:
        """All sections, those with most rows first."""
        with tempfile.TemporaryDirectory() as root:
            store = Store(root)
            store.merge(self.folder / "rows.parquet")
            return sorted(sections(load(store)), key=lambda section: -len(section.rows))

    @cached_property
    def sections(self) -> dict[int, Section]:
        """n to its section; where a base model was trained again and there are several, to that with most rows."""
        return {int(section.key["n"]): section for section in reversed(self.every_section)}

    def interval(self, method: str, epsilon: float, task: str, split: str, n: int, k: int | None) -> Interval:
        """Mean and interval of the headline metric at one place; series without ε stand at every ε."""
        section = self.sections[n]
        values = section.every_k if k else at_every_epsilon(section)
        chosen = values[(values["metric"] == HEADLINE) & (values["split"] == split) & (values["task"] == task)]
        chosen = chosen[(chosen["method"] == method) & (chosen["epsilon"] == epsilon)]
        chosen = chosen[chosen["embedding_dim"] == k] if k else chosen
        points = aggregate(chosen)
        return _only(points, f"{method} at {budget(epsilon)} on {task}, {self.folder}", "mean")

    def difference(self, rival: str, epsilon: float, task: str, split: str, n: int) -> Interval:
        """The hypernetwork minus a rival, paired; below 0 the hypernetwork is better."""
        gaps = differences(self.sections[n])
        gaps = gaps[(gaps["metric"] == HEADLINE) & (gaps["split"] == split) & (gaps["task"] == task)]
        gaps = gaps[(gaps["rival_method"] == rival) & (gaps["epsilon"] == epsilon)]
        return _only(gaps, f"{rival} at {budget(epsilon)} on {task}, {self.folder}", "difference")

    def share(self, method: str, epsilon: float, task: str, split: str, n: int) -> Interval:
        """The share of the gap between public data and no privacy that a method closes."""
        shares = gap_closed(self.sections[n])
        shares = shares[(shares["metric"] == HEADLINE) & (shares["split"] == split) & (shares["task"] == task)]
        shares = shares[(shares["method"] == method) & shares["epsilon"].isin([epsilon, math.inf])]
        return _only(shares, f"{method} at {budget(epsilon)} on {task}, {self.folder}", "closed")


@cache  # reading a study takes seconds, and tables, figures and pages all ask for it
def read_study(folder: Path) -> Study:
    """The study of a folder.

    Raises:
        UserError: There are no rows.
    """
    if not (folder / "rows.parquet").exists():
        raise UserError(f"'{folder}' has no rows.parquet: run its sweep, or take its page out")
    return Study(folder=folder)


def _only(points: pd.DataFrame, what: str, column: str) -> Interval:
    if len(points) != 1:
        raise UserError(f"{what}: expected one number in the rows, found {len(points)}")
    (point,) = records(points)
    return Interval(getattr(point, column), point.half, point.seeds, point.trainings)


class Findings:
    """What a template may ask of the rows.

    Args:
        results: Folder of the studies, such as ``docs/results``.
    """

    def __init__(self, results: Path) -> None:
        self.results = results

    def study(self, name: str) -> Study:
        """A study by the path of its folder under ``results``."""
        return read_study(self.results / name)

    def has(self, name: str) -> bool:
        """Whether the rows of a study exist."""
        return (self.results / name / "rows.parquet").exists()

    def mean(self, study: str, method: str, epsilon: float, task: str = ALL, split: str = "private",
             n: int = DEFAULT_N, k: int | None = None) -> float:  # fmt: skip
        """The mean distance, unrounded."""
        return self.study(study).interval(method, epsilon, task, split, n, k).mean

    def distance(self, study: str, method: str, epsilon: float, task: str = ALL, split: str = "private",
                 n: int = DEFAULT_N, k: int | None = None) -> str:  # fmt: skip
        """The mean distance with its interval, as tables print it."""
        found = self.study(study).interval(method, epsilon, task, split, n, k)
        return number_format(self.study(study).sections[n]).interval(found.mean, found.half)

    def variant(self, study: str, method: str, epsilon: float, variant: str, split: str = "tuning",
                n: int = DEFAULT_N) -> float:  # fmt: skip
        """The mean distance over tasks of one variant of a method, such as ``families=20``."""
        values = at_every_epsilon(self.study(study).sections[n])
        values = values[(values["metric"] == HEADLINE) & (values["split"] == split) & (values["task"] == ALL)]
        values = values[(values["method"] == method) & (values["epsilon"] == epsilon) & (values["variant"] == variant)]
        if values.empty:
            raise UserError(f"{method} with {variant} at {budget(epsilon)}, {study}: no row")
        return float(values["value"].mean())

    def lead(self, study: str, rival: str, epsilon: float, task: str = ALL, split: str = "private",
             n: int = DEFAULT_N) -> Interval:  # fmt: skip
        """By how much the hypernetwork's distance is below a rival's; ``sign`` is 1 where that is shown."""
        gap = self.study(study).difference(rival, epsilon, task, split, n)
        return gap._replace(mean=-gap.mean)

    def lead_text(self, study: str, rival: str, epsilon: float, task: str = ALL, n: int = DEFAULT_N) -> str:
        """`lead` in print."""
        found = self.lead(study, rival, epsilon, task, n=n)
        return number_format(self.study(study).sections[n]).interval(found.mean, found.half)

    def share(self, study: str, method: str, epsilon: float = math.inf, task: str = ALL, split: str = "private",
              n: int = DEFAULT_N) -> str:  # fmt: skip
        """The share of the gap that is closed, with its interval."""
        found = self.study(study).share(method, epsilon, task, split, n)
        return number(found.mean, found.half, 2).removesuffix(" (n/a)")

    def csv(self, name: str) -> list[dict[str, Any]]:
        """The lines of a committed CSV file."""
        lines = pd.read_csv(self.results / name).to_dict("records")
        return [{str(column): value for column, value in line.items()} for line in lines]

    def private_methods(self, study: str, n: int = DEFAULT_N) -> list[str]:
        """The private methods of a study."""
        rows = self.study(study).sections[n].rows
        return sorted(rows.loc[rows["role"] == "method", "method"].unique())

    def settings(self, study: str, method: str, epsilon: float, n: int = DEFAULT_N) -> list[float]:
        """The mean distance over tuning tasks of every setting of a method that a search tried at one ε."""
        rows = self.study(study).sections[n].rows
        own = rows[(rows["method"] == method) & (rows["epsilon"] == epsilon) & (rows["split"] == "tuning")]
        return sorted(own.groupby("options")[HEADLINE].mean())


def given(text: str, holds: object) -> str:
    """A sentence that the rows bear out.

    >>> given("It is ahead at every ε.", 2 > 1)
    'It is ahead at every ε.'

    Raises:
        UserError: They do not.
    """
    if not holds:
        raise UserError(f"the rows no longer bear this sentence, rewrite its template: '{text}'")
    return text


def table(header: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    """A pipe table.

    >>> print(table(["k", "distance"], [[4, "601"]]))
    | k | distance |
    |---|---|
    | 4 | 601 |
    """
    header = [*header]
    body = ["| " + " | ".join(map(str, line)) + " |" for line in [header, *lines]]
    return "\n".join([body[0], "|" + "---|" * len(header), *body[1:]])


def pages(root: Path) -> dict[Path, str]:
    """Every page that has a template, rendered.

    Args:
        root: Folder of the repository.

    Returns:
        Path below ``root`` to text. ``docs/templates/README.md.j2`` makes ``README.md``, any other
        ``docs/templates/PATH.j2`` makes ``docs/PATH``.

    Raises:
        UserError: A template asks for what the rows do not have, or a sentence of it no longer holds.
    """
    found = Findings(root / RESULTS)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(root / TEMPLATES), undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    environment.filters.update(given=given, budget=budget)
    environment.globals.update(
        inf=math.inf, found=found, table=table, label=lambda method: look(method).label, budget=budget
    )
    environment.globals["read"] = lambda path: (root / path).read_text(encoding="utf-8").rstrip("\n")
    rendered = {}
    for path in sorted((root / TEMPLATES).rglob("*.md.j2")):
        name = path.relative_to(root / TEMPLATES).as_posix()
        target = Path(name[:-3]) if name == "README.md.j2" else Path("docs") / name[:-3]
        rendered[target] = environment.get_template(name).render()
    return rendered


def tables(root: Path) -> dict[Path, str]:
    """Every committed table of the small-target study, made again from its rows.

    Returns:
        Path below ``root`` to text. Names of another n begin with it; those of a base model that was trained again,
        with fewer rows of the same n, end in ``_again``. Main tables are there as LaTeX, too.
    """
    made = {}
    for name, stems in TABLES_OF.items():
        study = read_study(root / RESULTS / "small_target" / name)
        for section in study.every_section:
            n = section.key["n"]
            prefix, suffix = "" if n == DEFAULT_N else f"n{n}_", "" if section is study.sections[n] else "_again"
            for kind_name, kind, split in in_page_order():
                stem = "_".join(part for part in (split, kind_name) if part)
                if stem in stems and (found := kind.make(section, split)):
                    path = RESULTS / "small_target" / name / f"{prefix}{stem}{suffix}"
                    made[path.with_suffix(".md")] = found.to_markdown()
                    if stem == "private_main":
                        made[path.with_suffix(".tex")] = found.to_latex(f"tab:{name}")
    return made


def draw_figures(root: Path) -> None:
    """Every committed figure of the small-target study, as PNG; those of another n end in it."""
    draw = {
        "fid_vs_epsilon": lambda section, path: figures.distance_vs_epsilon(section, "private", path),
        "fid_vs_embedding_dim": figures.distance_vs_embedding_dim,
        "embedding_dim_heat_map": figures.embedding_dim_heat_map,
    }
    for name, n, stem in FIGURES:
        study = read_study(root / RESULTS / "small_target" / name)
        path = study.folder / (stem if n == DEFAULT_N else f"{stem}_n{n}")
        draw[stem](study.sections[n], path)
        path.with_suffix(".pdf").unlink()


def main(pages_only: bool = False) -> None:
    """Make tables, figures and pages of the docs again from the rows, in the folder of the repository.

    Args:
        pages_only: Leave the tables and figures behind the pages as they are.
    """
    root = Path()
    if not pages_only:
        for path, text in tables(root).items():
            (root / path).write_text(text, encoding="utf-8")
        draw_figures(root)
    for path, text in pages(root).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    auto_cli(main)
