"""The report: every figure and table of a store as files, and one HTML page that shows them all.

The page opens with the network off: plotly.js, images and downloads are inside it, and its content security policy
forbids loading anything else. It is made from the store alone, without torch, and the same store gives the same
page. Sections with different protocols, n, relations or δ are never mixed.
"""

import base64
import json
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from plotly.offline import get_plotlyjs

from dphyper.bench.store import Store
from dphyper.core.errors import UserError
from dphyper.core.specs import content_hash
from dphyper.reports import figures, tables
from dphyper.reports.aggregate import Section, aggregate, load, sections, support
from dphyper.reports.chart import chart
from dphyper.reports.gap import gain_table, gains, gap_closed, gap_table
from dphyper.reports.samples import strips
from dphyper.reports.style import digits, distance, epsilon, look, named
from dphyper.reports.verdict import differences, verdict

KINDS = {
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
    return {"name": path.name, "uri": f"data:{KINDS[path.suffix]};base64,{content}"}


def _section(store: Store, section: Section, out: Path) -> dict[str, Any]:
    """Write the files of one section and gather what the template shows of it."""
    key = section.key
    name = f"{key['collection']}_n{key['n']}_{content_hash(key)[:6]}".replace("/", "-")
    folder = out / name
    folder.mkdir(exist_ok=True)
    gaps = differences(section)
    named(aggregate(section.values)).assign(**key).to_csv(folder / "numbers.csv", index=False)
    gaps.assign(**key).to_csv(folder / "differences.csv", index=False)
    gained, closed = gains(section), gap_closed(section)
    downloads = ["numbers", "differences"]
    for name, frame in (("gains", gained), ("gap_closed", closed)):
        if len(frame):
            named(frame).assign(**key).to_csv(folder / f"{name}.csv", index=False)
            downloads.append(name)
    return {
        "id": name,
        "title": f"{key['collection']}, n = {key['n']}",
        "facts": _facts(section),
        "notes": _notes(section),
        "verdict": verdict(section, gaps),
        "chart": json.dumps(chart(section)).replace("<", "\\u003c"),
        "figures": _figures(section, folder),
        "tables": _tables(section, gaps, gained, closed, folder),
        "tasks": _tasks(section),
        "galleries": _galleries(store, section, folder),
        "statements": _statements(section),
        "downloads": [_link(folder / f"{file}.csv") for file in downloads],
        "metric": distance("frechet", section.extractor),
    }


def _facts(section: Section) -> list[tuple[str, str]]:
    rows, key = section.rows, section.key
    budgets = [epsilon(value) for value in section.epsilons]
    return [
        ("Distance", distance("frechet", section.extractor)),
        ("Budgets ε", ", ".join(budgets)),
        ("δ", f"{key['delta']:g}"),
        ("Relation", key["relation"].replace("_", " ")),
        ("Private records n", str(key["n"])),
        ("Tasks", f"{len(section.tasks('private'))} private, {len(section.tasks('tuning'))} tuning"),
        ("Seeds", str(rows["seed"].nunique())),
        ("Images", f"{tables.counts(rows['num_images'])} against {tables.counts(rows['num_reference'])}"),
        ("Real versus real at", f"{tables.counts(rows['num_real'])} images"),
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
    metric = distance("frechet", section.extractor)
    made = [
        (f"{metric} against ε, private tasks", "fid_vs_epsilon",
         figures.distance_vs_epsilon(section, "private", folder / "fid_vs_epsilon")),
        (f"{metric} against ε, tuning tasks", "fid_vs_epsilon_tuning",
         figures.distance_vs_epsilon(section, "tuning", folder / "fid_vs_epsilon_tuning")),
        (f"{metric} against the embedding dimension k", "fid_vs_embedding_dim",
         figures.distance_vs_embedding_dim(section, folder / "fid_vs_embedding_dim")),
        ("The embedding dimension k against ε", "embedding_dim_heat_map",
         figures.embedding_dim_heat_map(section, folder / "embedding_dim_heat_map")),
    ]  # fmt: skip
    missing = "Not drawn: no method ran with more than one k (the map: and more than one ε) on private tasks."
    return [
        {"title": title, "links": [_link(folder / f"{file}.png"), _link(folder / f"{file}.pdf")], "missing": ""}
        if drawn
        else {"title": title, "links": [], "missing": missing if "dim" in file else "Not drawn: no finished row."}
        for title, file, drawn in made
    ]


def _tables(
    section: Section, gaps: pd.DataFrame, gained: pd.DataFrame, closed: pd.DataFrame, folder: Path
) -> list[dict[str, Any]]:
    made = []
    for split in ("private", "tuning"):
        shown = section.shown(split)
        label = f"tab:{folder.name}-{split}"
        if shown:
            table = tables.results(section, split, shown[:1], f"{label}-main")
            made.append((section.title(split, shown[0]), f"{split}_main", table))
        if shown[1:]:
            table = tables.results(section, split, shown[1:], f"{label}-tasks")
            made.append((f"Each {split} task", f"{split}_tasks", table))
        if ((gaps["split"] == split) & (gaps["metric"] == "frechet")).any():
            table = tables.versus(section, gaps, split, f"{label}-differences")
            made.append((f"The hypernetwork minus other methods, {split} tasks", f"{split}_differences", table))
        if dims := tables.embedding_dims(section, split, f"{label}-k"):
            made.append((f"Each embedding dimension k, {split} tasks", f"{split}_embedding_dims", dims))
    if draws := tables.noise_draws(section, f"tab:{folder.name}-noise"):
        made.append(("Draws of the privacy noise", "noise_draws", draws))
    if len(gained):
        table = gain_table(section, gained, f"tab:{folder.name}-gains")
        made.append(("Each method minus public only: where one does harm", "gains", table))
    if len(closed):
        table = gap_table(section, closed, f"tab:{folder.name}-gap")
        made.append(("Share of the gap between public data and no privacy that is closed", "gap_closed", table))
    made.append(("What each method costs", "cost", tables.cost(section, f"tab:{folder.name}-cost")))
    written = []
    for title, file, table in made:
        (folder / f"{file}.tex").write_text(table.to_latex(), encoding="utf-8")
        (folder / f"{file}.md").write_text(table.to_markdown(), encoding="utf-8")
        links = [_link(folder / f"{file}.tex"), _link(folder / f"{file}.md")]
        written.append(
            {
                "title": title, "html": table.to_html(), "caption": table.caption, "links": links,
                "open": file == "private_main",
            }
        )  # fmt: skip
    return written


def _tasks(section: Section) -> list[dict[str, Any]]:
    """What is known of each task without any method."""
    rows = section.rows
    decimals = digits(section.distances)
    return [
        {
            "task": section.title(str(split), str(task)), "split": split, "family": part["family"].iloc[0],
            "distance": part["distance"].iloc[0],
            "reference": tables.counts(part["num_reference"]),
            "shift": f"{part['public_shift'].mean():.{decimals}f}" if part["public_shift"].notna().any() else "–",
            "floor": f"{part.drop_duplicates('seed')['real_frechet'].mean():.{decimals}f}",
        }
        for (split, task), part in rows.groupby(["split", "task"])
    ]  # fmt: skip


def _galleries(store: Store, section: Section, folder: Path) -> list[dict[str, Any]]:
    found = []
    for split in ("private", "tuning"):
        for task in section.tasks(split):
            shown = strips(store, section, task)
            if not shown:
                continue
            sheet = folder / f"samples_{task.replace('/', '-')}"
            figures.contact_sheet(shown, sheet)
            samples = [
                {"title": strip.title, "samples": [(caption, _link(path)["uri"]) for caption, path in strip.samples]}
                for strip in shown
            ]
            link = _link(sheet.with_suffix(".png"))
            title = section.title(split, task)
            found.append({"task": title, "split": split, "strips": samples, "link": link, "open": split == "private"})
    return found


def _statements(section: Section) -> list[dict[str, Any]]:
    """Privacy statements of the private tasks, each text once for each method, with the ε it was made for."""
    rows = named(section.rows[section.rows["statement"].notna()].sort_values("seed"))
    return [
        {
            "series": series,
            "texts": [
                (", ".join(f"ε = {epsilon(value)}" for value in sorted(same["epsilon"].unique())), text)
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
