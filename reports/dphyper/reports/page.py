"""The report: every figure and table of a store as files, and one HTML page that shows them all.

The page opens with the network off: plotly.js, images and downloads are inside it, and its content security policy
forbids loading anything else. It is made from the store alone, without torch, and the same store gives the same page.
Rows that differ in protocol, n, relation or δ never share a section.
"""

import base64
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from plotly.offline import get_plotlyjs

from dphyper.bench.store import Store
from dphyper.core.errors import UserError
from dphyper.core.specs import content_hash
from dphyper.metrics.metric import HEADLINE
from dphyper.reports import figures
from dphyper.reports.aggregate import aggregate
from dphyper.reports.ceilings import warnings
from dphyper.reports.chart import chart
from dphyper.reports.differences import differences
from dphyper.reports.measures import metric_label, metric_title
from dphyper.reports.samples import strips
from dphyper.reports.sections import SEEDS, Section, load, sections, support
from dphyper.reports.style import add_names, budget, count_range, epsilon, file_name, look, number_format
from dphyper.reports.table import in_page_order, spread
from dphyper.reports.verdict import verdict

MEDIA_TYPES = {
    ".csv": "text/csv", ".md": "text/markdown", ".pdf": "application/pdf", ".png": "image/png", ".tex": "text/x-tex",
}  # fmt: skip


def write_report(store: Store, out: Path) -> Path:
    """Write all figures, tables and the page.

    Args:
        store: Where the rows are.
        out: Folder, created when missing; files of an earlier report in it are overwritten.

    Returns:
        The path of ``index.html``. Beside it stand ``rows.csv`` and one folder for each section.

    Raises:
        UserError: The store has no row, or ``out`` is a file.
    """
    if out.is_file():
        raise UserError(f"report folder '{out}' is a file: name a folder")
    rows = load(store)
    out.mkdir(parents=True, exist_ok=True)
    rows.to_csv(out / "rows.csv", index=False)
    failed = rows[rows["status"] == "failed"]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(resources.files("dphyper.reports").joinpath("page.html.j2").read_text("utf-8"))
    page = template.render(
        sections=[_section(store, section, out) for section in sections(rows)],
        done=len(rows) - len(failed),
        support=support(rows),
        failed=failed.to_dict("records"),
        sweeps=sorted(rows["sweep"].unique()),
        provenance=_provenance(rows),
        rows=_link(out / "rows.csv"),
        plotly=get_plotlyjs(),
        epsilon=epsilon,
    )
    (out / "index.html").write_text(page, encoding="utf-8")
    return out / "index.html"


def _link(path: Path) -> dict[str, str]:
    """Name and data URI of a written file."""
    content = base64.b64encode(path.read_bytes()).decode()
    return {"name": path.name, "uri": f"data:{MEDIA_TYPES[path.suffix]};base64,{content}"}


def _section(store: Store, section: Section, out: Path) -> dict[str, Any]:
    """Write the files of one section and gather what the template shows of it."""
    key = section.key
    name = f"{file_name(key['collection'])}_n{key['n']}_{content_hash(key)[:6]}"
    folder = out / name
    folder.mkdir(exist_ok=True)
    add_names(aggregate(section.values)).assign(**key).to_csv(folder / "numbers.csv", index=False)
    differences(section).assign(**key).to_csv(folder / "differences.csv", index=False)
    tables = _tables(section, folder)
    downloads = ["numbers", "differences", *(table["name"] for table in tables if table["numbers"])]
    return {
        "id": name,
        "title": f"{key['collection']}, n = {key['n']}",
        "facts": _facts(section),
        "notes": _notes(section),
        "warnings": warnings(section),
        "verdict": verdict(section),
        "chart": json.dumps(chart(section)).replace("<", "\\u003c"),
        "figures": _figures(section, folder),
        "tables": tables,
        "tasks": _tasks(section),
        "galleries": _galleries(store, section, folder),
        "statements": _statements(section),
        "downloads": [_link(folder / f"{file}.csv") for file in downloads],
        "metric": metric_title(HEADLINE, section.extractor),
        "metric_label": metric_label(HEADLINE, section.extractor),
    }


def _facts(section: Section) -> list[tuple[str, str]]:
    rows, key = section.rows, section.key
    return [
        ("Metric", metric_title(HEADLINE, section.extractor)),
        ("Budgets ε", ", ".join(map(epsilon, section.epsilons))),
        ("δ", f"{key['delta']:g}"),
        ("Relation", key["relation"].replace("_", " ")),
        ("Private records n", str(key["n"])),
        ("Tasks", f"{len(section.tasks('private'))} private, {len(section.tasks('tuning'))} tuning"),
        ("Seeds", str(rows["seed"].nunique())),
        ("Trainings", str(rows["training"].nunique())),
        ("Intervals", spread(section)),
        ("Images", f"{count_range(rows['num_images'])} against {count_range(rows['num_reference'])}"),
        ("Real versus real at", f"{count_range(rows['num_real'])} images"),
        ("Sampling steps", str(key["sampling_steps"])),
        ("Protocol", key["protocol"]),
    ]


def _notes(section: Section) -> list[str]:
    chosen = section.tuned_k.items()
    notes = [f"{look(method).label} is shown at k = {k}, chosen on tuning tasks." for method, k in chosen]
    if section.trials:
        notes.append(f"{section.trials} rows on tuning tasks only served a hyper-parameter search and are not shown.")
    if section.development:
        names = ", ".join(sorted(section.development))
        notes.append(
            f"Development: {names}. Results on these families have prompted decisions of the design, so that a method "
            "may have been made to do well on them; the others are the test."
        )
    return notes


def _figures(section: Section, folder: Path) -> list[dict[str, Any]]:
    metric = metric_title(HEADLINE, section.extractor)
    no_row = "Not drawn: no finished row."
    no_k = "Not drawn: no method ran with more than one k (the map: and more than one ε) on private tasks."
    plans: list[tuple[str, str, str, Callable[[Path], bool]]] = [
        (f"{metric} against ε, private tasks", "distance_vs_epsilon", no_row,
         lambda path: figures.distance_vs_epsilon(section, "private", path)),
        (f"{metric} against ε, tuning tasks", "distance_vs_epsilon_tuning", no_row,
         lambda path: figures.distance_vs_epsilon(section, "tuning", path)),
        (f"{metric} against the embedding dimension k", "distance_vs_embedding_dim", no_k,
         lambda path: figures.distance_vs_embedding_dim(section, path)),
        ("The embedding dimension k against ε", "embedding_dim_heat_map", no_k,
         lambda path: figures.embedding_dim_heat_map(section, path)),
    ]  # fmt: skip
    return [
        {"title": title, "links": [_link(folder / f"{stem}.png"), _link(folder / f"{stem}.pdf")], "missing": ""}
        if draw(folder / stem)
        else {"title": title, "links": [], "missing": missing}
        for title, stem, missing, draw in plans
    ]


def _tables(section: Section, folder: Path) -> list[dict[str, Any]]:
    """Write every registered table that has something to show, and its numbers."""
    written = []
    for name, kind, split in in_page_order():
        if not (table := kind.make(section, split)):
            continue
        stem = "_".join(part for part in (split, name) if part)
        label = "-".join(part for part in (f"tab:{folder.name}", split, kind.label) if part)
        (folder / f"{stem}.tex").write_text(table.to_latex(label), encoding="utf-8")
        (folder / f"{stem}.md").write_text(table.to_markdown(), encoding="utf-8")
        if table.numbers is not None:
            table.numbers.assign(**section.key).to_csv(folder / f"{stem}.csv", index=False)
        written.append(
            {
                "name": stem, "title": kind.title_of(section, split), "html": table.to_html(label),
                "caption": table.caption, "links": [_link(folder / f"{stem}.tex"), _link(folder / f"{stem}.md")],
                "numbers": table.numbers is not None, "open": kind.opened and split == "private",
            }
        )  # fmt: skip
    return written


def _tasks(section: Section) -> list[dict[str, Any]]:
    """What is known of each task without any method."""
    form, real = number_format(section), f"real_{HEADLINE}"
    return [
        {
            "task": section.title(str(split), str(task)), "split": split, "family": part["family"].iloc[0],
            "distance": part["distance"].iloc[0],
            "reference": count_range(part["num_reference"]),
            "shift": form.value(part["public_shift"].mean()) if part["public_shift"].notna().any() else "–",
            "real": form.value(part.drop_duplicates("seed")[real].mean()) if real in part else "–",
        }
        for (split, task), part in section.rows.groupby(["split", "task"])
    ]  # fmt: skip


def _galleries(store: Store, section: Section, folder: Path) -> list[dict[str, Any]]:
    found = []
    for split in ("private", "tuning"):
        for task in section.tasks(split):
            shown = strips(store, section, task)
            if not shown:
                continue
            sheet = folder / f"samples_{file_name(task)}.png"
            figures.contact_sheet(shown, sheet)
            samples = [
                {"title": strip.title, "samples": [(caption, _link(path)["uri"]) for caption, path in strip.samples]}
                for strip in shown
            ]
            link = _link(sheet)
            title = section.title(split, task)
            found.append({"task": title, "split": split, "strips": samples, "link": link, "open": split == "private"})
    return found


def _statements(section: Section) -> list[dict[str, Any]]:
    """Privacy statements of the private tasks, each text once for each method, with the ε it was made for."""
    rows = add_names(section.rows[section.rows["statement"].notna()].sort_values(SEEDS))
    return [
        {
            "series": series,
            "texts": [
                (", ".join(budget(value) for value in sorted(same["epsilon"].unique())), text)
                for text, same in part.groupby("statement", sort=False)
            ],
        }
        for series, part in rows.groupby("series", sort=False)
    ]


def _provenance(rows: pd.DataFrame) -> list[tuple[str, str]]:
    labels = {"commit": "Harness commit", "machine": "Machine", "protocol": "Protocols", "extractor": "Extractors"}
    told = {label: {*rows[column].dropna()} - {""} for column, label in labels.items()}
    for text in rows["versions"].dropna().unique():
        for package, version in sorted(json.loads(text).items()):
            told.setdefault(package, set()).add(version)
    return [(label, "; ".join(sorted(values))) for label, values in told.items()]
