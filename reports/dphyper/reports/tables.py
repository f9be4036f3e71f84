"""Tables of a paper: methods against ε, and the hypernetwork's paired differences; LaTeX, Markdown and HTML.

Every table is one pandas frame of finished strings with a bold mask beside it, so that the three formats show
the same digits. The caption carries what a number needs to be read: seeds, images, reference, protocol,
relation, δ and the rule for bold. The unrounded numbers are in the CSV files, not here.
"""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from dphyper.reports.aggregate import (
    DOUBT,
    POINT,
    ROLES,
    Section,
    aggregate,
    at_every_epsilon,
    best,
    noise_quantiles,
    paired,
)
from dphyper.reports.style import digits, distance, epsilon, named, number, records

DAGGER = "†"
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"\textpm{}", "†": r"\textdagger{}",
        "‡": r"\textdaggerdbl{}", "−": "$-$",
        "ε": r"$\varepsilon$", "δ": r"$\delta$", "σ": r"$\sigma$", "∞": r"$\infty$",
    }
)  # fmt: skip


def latex(text: str) -> str:
    """Escape text for LaTeX, once; the symbols of this report become commands.

    >>> latex("dp_sgd at ε = 1")
    'dp\\\\_sgd at $\\\\varepsilon$ = 1'
    """
    return text.translate(LATEX)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Finished strings: ``cells`` (index and columns may be nested), ``bold`` of the same shape, a caption."""

    cells: pd.DataFrame
    bold: pd.DataFrame
    caption: str
    label: str
    environment: str | None = None

    def _styled(self, escape: Callable[[Any], str]) -> Styler:
        weights = self.bold.replace({True: "font-weight: bold;", False: ""})
        styler = self.cells.style.apply(lambda _: weights, axis=None).hide(names=True)
        styler.format(escape).format_index(escape, axis=0).format_index(escape, axis=1)
        return styler

    def to_latex(self) -> str:
        """A floating booktabs table (or a longtable); needs the packages booktabs, multirow and longtable."""
        text = self._styled(latex).to_latex(
            hrules=True,
            convert_css=True,
            multirow_align="t",
            clines="skip-last;data",
            column_format="l" * self.cells.index.nlevels + "r" * self.cells.shape[1],
            caption=latex(self.caption),
            label=self.label,
            environment=self.environment,
            position_float=None if self.environment else "centering",
        )
        # Rules between the outermost blocks only, and none above the closing rule.
        text = re.sub(r"\s*\\cline\{[2-9]\S*", "", text)
        text = re.sub(r"\\cline\{\S+\n(?=\\bottomrule|\\end)", "", text).replace(r"\cline", r"\cmidrule")
        return f"% needs \\usepackage{{booktabs,multirow,longtable}}\n{text}"

    def to_html(self) -> str:
        """A ``<table>`` without caption."""
        styler = self._styled(lambda cell: html.escape(str(cell))).set_uuid(self.label.replace(":", "-"))
        return styler.to_html(table_attributes='class="numbers"')

    def to_markdown(self) -> str:
        """A pipe table with its caption below."""
        strong = self.cells.mask(self.bold, "**" + self.cells.astype(str) + "**")
        flat = strong.reset_index()
        lines = [[str(column) for column in flat.columns], ["---"] * flat.shape[1], *flat.values.tolist()]
        return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + f"\n\n{self.caption}\n"


def counts(values: "pd.Series[Any]") -> str:
    """The range of a column of counts, "3" or "2–3", or "?" where nothing is known."""
    known = sorted(values.dropna().astype(int).unique())
    return "–".join(str(value) for value in dict.fromkeys([known[0], known[-1]])) if known else "?"


def conditions(section: Section) -> str:
    """What every number of a section was measured under, in one sentence for captions."""
    rows, key = section.rows, section.key
    return (
        f"Collection {key['collection']}, n = {key['n']} private records, relation {key['relation']}, "
        f"δ = {key['delta']:g}; {counts(rows['num_images'])} generated images against "
        f"{counts(rows['num_reference'])} held-out real images, real versus real at {counts(rows['num_real'])}; "
        f"{key['sampling_steps']} sampling steps; protocol {key['protocol']}."
    )


def marked(text: str, doubted: bool) -> str:
    """A number in print, marked where rows that support no claim are behind it.

    >>> marked("12.3 ± 0.4", True), marked("12.3 ± 0.4", False)
    ('12.3 ± 0.4‡', '12.3 ± 0.4')
    """
    return text + DOUBT * bool(doubted)


def legend(points: pd.DataFrame) -> str:
    """What the marks among some points mean, in sentences for captions, each only where it is needed."""
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


def results(section: Section, split: str, tasks: list[str], label: str) -> Table:
    """Methods (rows, in blocks of tasks when there are several) against ε (columns)."""
    values = at_every_epsilon(section)
    values = values[(values["metric"] == "frechet") & (values["split"] == split) & values["task"].isin(tasks)]
    bold, points = best(values), named(aggregate(values))
    decimals = digits(section.distances)
    points["cell"] = [
        marked(number(row.mean, row.half, decimals) + DAGGER * (not row.private), row.doubted)
        for row in records(points)
    ]
    points["bold"] = [key in bold for key in points[["metric", *POINT]].itertuples(index=False, name=None)]
    points["Method"] = points["name"] + np.where(points["private"], "", DAGGER)
    points["Task"] = [section.title(split, task) for task in points["task"]]
    points["Group"] = points["role"].map(ROLES)
    points["Hyper-parameters"] = points["qualifier"]
    points["Seeds"] = points.groupby(["task", "series"])["seeds"].transform(counts)
    points["place"] = points["task"].map(tasks.index)
    index = ["Group" if len(tasks) == 1 else "Task", "Method", "Hyper-parameters", "Seeds"]
    cells, mask = _against_epsilon(points.sort_values("place", kind="stable"), index, section.epsilons)
    what = distance("frechet", section.extractor)
    return Table(
        cells=cells.reset_index(level="Seeds"),
        bold=mask.droplevel("Seeds").reindex(columns=["Seeds", *cells.columns], fill_value=False),
        caption=(
            f"{what} (lower is better) of the {split} tasks, mean ± half of the 95% Student-t interval over seeds; "
            "n/a: one seed, no interval. Bold: the best private number of a column and those whose difference to it, "
            "paired by seed, has a 95% interval that includes 0, with no correction for many comparisons: with few "
            f"seeds, a method that scatters is tied too; numbers of one seed are never bold. {DAGGER}: no privacy "
            f"guarantee, never bold.{legend(points)} Methods that know no ε stand in every column. "
            f"{conditions(section)}"
        ),
        label=label,
    )


def _against_epsilon(
    points: pd.DataFrame, index: list[str], epsilons: list[float]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The columns ``cell`` and ``bold`` of points: those of ``index`` in the order of the points against ε."""
    points = points.assign(column=points["epsilon"].map(lambda value: f"ε = {epsilon(value)}"))
    rows = pd.MultiIndex.from_frame(points[index].drop_duplicates())
    cells, mask = (
        points.pivot(index=index, columns="column", values=values)
        .reindex(index=rows, columns=[f"ε = {epsilon(value)}" for value in epsilons])
        .rename_axis(columns=None)
        for values in ("cell", "bold")
    )
    return cells.fillna("–"), mask.fillna(False).astype(bool)


def versus(section: Section, gaps: pd.DataFrame, split: str, label: str) -> Table:
    """The paired differences of `verdict.differences` with their verdicts in words; one row for each."""
    tasks = section.shown(split)
    shown = gaps[(gaps["metric"] == "frechet") & (gaps["split"] == split) & gaps["task"].isin(tasks)]
    shown = shown.sort_values("task", key=lambda task: task.map(tasks.index), kind="stable")
    decimals = digits(section.distances)
    several = shown["series"].nunique() > 1
    aside = f" {DOUBT}: a side comes from code with known faults or of an unknown state." * bool(shown["doubted"].any())
    index = pd.MultiIndex.from_arrays(
        [
            [section.title(split, task) for task in shown["task"]],
            shown["series"] + " − " + shown["rival"] if several else "− " + shown["rival"],
            ["ε = " + epsilon(budget) for budget in shown["epsilon"]],
        ],
        names=["Task", "Minus", "Budget"],
    )
    cells = pd.DataFrame(
        {
            distance("frechet", section.extractor): [
                marked(number(row.difference, row.half, decimals), row.doubted) if row.seeds else "–"
                for row in records(shown)
            ],
            "Seeds": shown["seeds"].astype(str).to_list(),
            "Verdict": shown["verdict"].to_list(),
        },
        index=index,
    )
    return Table(
        cells=cells,
        bold=pd.DataFrame(False, index=index, columns=cells.columns),
        caption=(
            f"{' and '.join(shown['series'].unique())} minus other methods, paired by seed: mean ± half of the 95% "
            "Student-t interval; below 0 the hypernetwork is better. "
            "Better and worse: the interval excludes 0, with no correction for many comparisons."
            f"{aside} "
            f"{conditions(section)}"
        ),
        label=label,
        environment="longtable",
    )


def embedding_dims(section: Section, split: str, label: str) -> Table | None:
    """Each k of a method beside its best k at the same ε; None where no method ran with several k."""
    tasks = section.shown(split)
    values = section.every_k
    values = values[(values["metric"] == "frechet") & (values["split"] == split) & values["task"].isin(tasks)]
    decimals = digits(section.distances)
    found = []
    for _, place in values.groupby([column for column in POINT if column != "embedding_dim"]):
        several = [part for _, part in place.groupby("embedding_dim")]
        lead = min(several, key=lambda part: part["value"].mean())
        for part in several if len(several) > 1 else []:
            gap, mean = paired(part, lead), f"{part['value'].mean():.{decimals}f}"
            cell = mean if part is lead else f"{mean} (+ {number(gap.mean, gap.half, decimals)})"
            doubted, own = bool(part["doubted"].any()), part[POINT].iloc[0]
            bold = gap.seeds > 1 and gap.sign <= 0 and not doubted and own["selection"] != "unknown"
            found.append({**own, "cell": marked(cell, doubted), "bold": bold, "doubted": doubted})
    if not found:
        return None
    points = named(pd.DataFrame(found))
    points["place"] = points["task"].map(tasks.index)
    points["Task"] = [section.title(split, task) for task in points["task"]]
    points["Method"] = points["name"]
    cells, mask = _against_epsilon(
        points.sort_values("place", kind="stable"), ["Task", "Method"], sorted(points["epsilon"].unique())
    )
    return Table(
        cells=cells,
        bold=mask,
        caption=(
            f"{distance('frechet', section.extractor)} of the {split} tasks for each embedding dimension k: the mean "
            "over seeds, and how far it lies above the lowest of its method at the same ε, paired by seed, ± half of "
            "the 95% Student-t interval; n/a: one seed, no interval. Bold: the lowest and those whose difference to it "
            "has an interval that includes 0, with no correction for many comparisons or for the lowest having been "
            "picked; numbers of one seed are never bold. Private results show the best k and never choose it."
            f"{legend(points)} {conditions(section)}"
        ),
        label=label,
        environment="longtable",
    )


def noise_draws(section: Section, label: str) -> Table | None:
    """`aggregate.noise_quantiles` in print; None where no cell ran with several draws of its noise."""
    found = noise_quantiles(section)
    if found.empty:
        return None
    found, decimals = named(found), digits(section.distances)
    index = pd.MultiIndex.from_frame(
        pd.DataFrame(
            {"Task": found["task"], "Method": found["name"], "Budget": ["ε = " + epsilon(e) for e in found["epsilon"]]}
        )
    )
    titles = {"mean": "Mean", "q10": "10 %", "q50": "Median", "q90": "90 %", "worst": "Worst"}
    cells = pd.DataFrame(
        {title: [f"{value:.{decimals}f}" for value in found[column]] for column, title in titles.items()}, index=index
    )
    cells["Mean"] = [*map(marked, cells["Mean"], found["doubted"])]
    cells["Draws"] = found["draws"].astype(str).to_list()
    return Table(
        cells=cells,
        bold=pd.DataFrame(False, index=index, columns=cells.columns),
        caption=(
            f"{distance('frechet', section.extractor)} over draws of the privacy noise, on the same private records: "
            "quantiles of all draws after each seed's mean was moved to the common mean and deviations from the mean "
            "of m draws were widened by √(m / (m − 1)). A method that releases once stakes everything on one draw."
            f"{legend(found)} {conditions(section)}"
        ),
        label=label,
        environment="longtable",
    )


def cost(section: Section, label: str) -> Table:
    """Median seconds of each method: its public phase, once for all cells, and the adaptation to one private data set.

    The adaptation stands beside DP-SGD's, where that was run; "secret" where the number of private trials would show.
    """
    rows = named(section.rows)
    medians = rows.groupby("series", sort=False)[["seconds_public", "seconds_adapt"]].median()
    yardstick = rows.loc[rows["method"] == "dp_sgd", "seconds_adapt"].median()
    share = medians["seconds_adapt"] / yardstick
    cells = pd.DataFrame(
        {
            "Public phase": [f"{value:.0f} s" if value else "–" for value in medians["seconds_public"].fillna(0)],
            "Adaptation": ["secret" if np.isnan(value) else f"{value:.2f} s" for value in medians["seconds_adapt"]],
            "Of DP-SGD's": ["–" if np.isnan(value) else f"{100 * value:.1f} %" for value in share],
        },
        index=pd.Index(medians.index, name="Method"),
    )
    return Table(
        cells=cells,
        bold=pd.DataFrame(False, index=cells.index, columns=cells.columns),
        caption=(
            "Median wall time over cells, each on its worker's threads. The public phase is trained once for each "
            f"collection and embedding dimension. {conditions(section)}"
        ),
        label=label,
    )
