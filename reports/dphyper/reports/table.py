"""The contract of a report table: one class that makes one table, as LaTeX, Markdown and HTML.

A table is one pandas frame of finished strings with a bold mask beside it, so that the three formats show the same
digits. Its caption carries what a number needs to be read: seeds, images, reference, protocol, relation, δ and the rule
for bold. Unrounded numbers are in CSV files, never in a table.
"""

import html
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
from pandas.io.formats.style import Styler

from dphyper.core.errors import UserError
from dphyper.core.registry import Registry
from dphyper.reports.sections import DOUBT, Section
from dphyper.reports.style import budget, count_range

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"\textpm{}", "†": r"\textdagger{}",
        "‡": r"\textdaggerdbl{}", "−": "$-$", "×": r"$\times$", "√": r"$\surd$",
        "ε": r"$\varepsilon$", "δ": r"$\delta$", "σ": r"$\sigma$", "∞": r"$\infty$",
    }
)  # fmt: skip


def latex(text: str) -> str:
    """Escape text for LaTeX, once; the symbols of this report become commands.

    >>> latex("dp_sgd at ε = 1")
    'dp\\\\_sgd at $\\\\varepsilon$ = 1'
    """
    return text.translate(LATEX)


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Finished strings.

    Attributes:
        cells: The strings; index and columns may be nested.
        bold: Mask of the same shape; None where nothing is bold.
        caption: What stands below.
        long: Whether the LaTeX breaks over pages (longtable) instead of floating.
        numbers: The unrounded numbers, where the table is the only place to have them.
    """

    cells: pd.DataFrame
    bold: pd.DataFrame | None = None
    caption: str
    long: bool = False
    numbers: pd.DataFrame | None = None

    def _styled(self, escape: Callable[[Any], str]) -> Styler:
        weights = self._mask().replace({True: "font-weight: bold;", False: ""})
        styler = self.cells.style.apply(lambda _: weights, axis=None).hide(names=True)
        styler.format(escape).format_index(escape, axis=0).format_index(escape, axis=1)
        return styler

    def _mask(self) -> pd.DataFrame:
        nothing = pd.DataFrame(False, index=self.cells.index, columns=self.cells.columns)
        return nothing if self.bold is None else self.bold

    def to_latex(self, label: str) -> str:
        """A booktabs table with a LaTeX label; needs the packages booktabs, multirow and longtable."""
        text = self._styled(latex).to_latex(
            hrules=True,
            convert_css=True,
            multirow_align="t",
            clines="skip-last;data",
            column_format="l" * self.cells.index.nlevels + "r" * self.cells.shape[1],
            caption=latex(self.caption),
            label=label,
            environment="longtable" if self.long else None,
            position_float=None if self.long else "centering",
        )
        # Rules between the outermost blocks only, and none above the closing rule.
        text = re.sub(r"\s*\\cline\{[2-9]\S*", "", text)
        text = re.sub(r"\\cline\{\S+\n(?=\\bottomrule|\\end)", "", text).replace(r"\cline", r"\cmidrule")
        return f"% needs \\usepackage{{booktabs,multirow,longtable}}\n{text}"

    def to_html(self, label: str) -> str:
        """A ``<table>`` without caption; ids in it begin with the label."""
        styler = self._styled(lambda cell: html.escape(str(cell))).set_uuid(label.replace(":", "-"))
        return styler.to_html(table_attributes='class="numbers"')

    def to_markdown(self) -> str:
        """A pipe table with its caption below."""
        strong = self.cells.mask(self._mask(), "**" + self.cells.astype(str) + "**")
        flat = strong.reset_index()
        lines = [[str(column) for column in flat.columns], ["---"] * flat.shape[1], *flat.values.tolist()]
        return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + f"\n\n{self.caption}\n"


class ReportTable(ABC):
    """One table of the report. The name it is registered under is the stem of its files.

    Class attributes:
        title: Above the table on the page; ``{split}`` stands for the split.
        label: End of its LaTeX label.
        by_split: Whether it is made for each split, or once for the section.
        order: Place on the page, the lowest first; tables of the private split come before those of the tuning split,
            and tables of the section last.
        opened: Whether the page shows it unfolded for the private split.
    """

    title: ClassVar[str]
    label: ClassVar[str]
    by_split: ClassVar[bool] = False
    order: ClassVar[int] = 100
    opened: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def make(cls, section: Section, split: str) -> Table | None:
        """The table; None where the section has nothing to show in it.

        Args:
            section: Rows that may stand side by side.
            split: "private" or "tuning"; "" for a table of the section.
        """

    @classmethod
    def title_of(cls, section: Section, split: str) -> str:
        """The title above one table."""
        return cls.title.format(split=split)


TABLES: Registry[ReportTable] = Registry("report table", "dphyper.reports.table:ReportTable", "dphyper.tables")


def in_page_order() -> Iterator[tuple[str, type[ReportTable], str]]:
    """Every registered table: its name, its class and the split to make it for, as they follow on the page.

    Raises:
        UserError: None is registered.
    """
    if not TABLES:
        raise UserError(f"no report table is registered in the group {TABLES.group}: install dphyper again")
    kinds = sorted(((name, TABLES[name]) for name in TABLES), key=lambda entry: (entry[1].order, entry[0]))
    for split in ("private", "tuning"):
        yield from ((name, kind, split) for name, kind in kinds if kind.by_split)
    yield from ((name, kind, "") for name, kind in kinds if not kind.by_split)


def against_epsilon(points: pd.DataFrame, index: list[str], column: str, epsilons: list[float]) -> pd.DataFrame:
    """A column of points with the columns of ``index`` as rows, in the order of the points, and ε as columns.

    Places without a point are missing.
    """
    rows = pd.MultiIndex.from_frame(points[index].drop_duplicates())
    wide = points.assign(budget=points["epsilon"].map(budget)).pivot(index=index, columns="budget", values=column)
    return wide.reindex(index=rows, columns=[budget(value) for value in epsilons]).rename_axis(columns=None)


def spread(section: Section) -> str:
    """What the intervals of a section hold."""
    several = section.rows["training"].nunique() > 1
    return "over trainings and draws, crossed" if several else "over draws alone, of one training"


def conditions(section: Section) -> str:
    """What every number of a section was measured under, in one sentence for captions."""
    key = section.key
    images, reference, real = (count_range(section.rows[name]) for name in ("num_images", "num_reference", "num_real"))
    crossed = "; seeds: trainings × draws, or the draws of one training" if "crossed" in spread(section) else ""
    return (
        f"Intervals are {spread(section)}{crossed}. "
        f"Collection {key['collection']}, n = {key['n']} private records, relation {key['relation']}, "
        f"δ = {key['delta']:g}; {images} generated images against {reference} held-out real images, real versus real "
        f"at {real}; {key['sampling_steps']} sampling steps; protocol {key['protocol']}."
    )


def legend(points: pd.DataFrame) -> str:
    """What the marks among some points mean: sentences for captions, each only where its mark occurs."""
    doubted = (
        f" {DOUBT}: from code with known faults or of an unknown state, supports no claim, never bold."
        if points["doubted"].any()
        else ""
    )
    unknown = (
        " Unknown: how the hyper-parameters were chosen is not recorded; never bold."
        if (points["selection"] == "unknown").any()
        else ""
    )
    return doubted + unknown
