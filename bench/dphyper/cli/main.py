"""The command line: ``dphyper run | sweep plan | sweep run | report | merge | migrate | publish | check | audit | ls``.

Every option is also a YAML key of the same name, and both go through one schema, the dataclasses of
`dphyper.core.specs`. A user's mistake is answered by one line and exit status 2; a sweep that leaves cells
undone, or a check with findings, exits with 1; Ctrl-C with 130. Nothing heavy is imported before it is needed.
"""

import dataclasses
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from dphyper.bench.catalog import DATASETS, METHODS, canonical
from dphyper.bench.store import Store
from dphyper.core.errors import PrivacyError, UserError, unknown_name
from dphyper.core.specs import Cell, DataSpec, Performance, RelationName

if TYPE_CHECKING:
    from dphyper.sweeps.plan import Sweep

DESCRIPTION = """Benchmark differentially private hypernetworks against DP-SGD and public-data-guided methods.

A sweep file names a grid of cells; a store keeps one row for each; a report turns a store into curves and tables.
Start with:  dphyper sweep run sweeps/demo.yaml  and then  dphyper report --store runs/demo"""


def main(argv: list[str] | None = None) -> NoReturn:
    """Run one command and exit with its status."""
    sys.exit(_status(list(sys.argv[1:] if argv is None else argv)))


def _status(argv: list[str]) -> int:
    try:
        return _dispatch(argv)
    except (UserError, PrivacyError) as error:
        print(f"dphyper: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("dphyper: stopped; finished cells are kept, the same command goes on", file=sys.stderr)
        return 130
    return 2


def _dispatch(argv: list[str]) -> int:
    # `sweep run FILE` reads better than `sweep run --config FILE`, and is the same.
    if argv[:2] in (["sweep", "run"], ["sweep", "plan"]) and len(argv) > 2 and not argv[2].startswith("-"):
        argv = [*argv[:2], "--config", *argv[2:]]
    parser = _parser()
    config = parser.instantiate(_parse(lambda: parser.parse_args(argv or ["--help"]), _known(argv)))
    commands: dict[str, Callable[[Any], int]] = {
        "run": _run,
        "sweep": _sweep,
        "report": _report,
        "merge": _merge,
        "migrate": _migrate,
        "publish": _publish,
        "check": _check,
        "audit": _audit,
        "ls": _ls,
    }
    return commands[config.command](config[config.command])


def _known(argv: list[str]) -> list[str]:
    """Keys that the command of ``argv`` takes."""
    match argv[:1]:
        case ["run"]:
            return [
                "config",
                "store",
                "wandb",
                "searches",
                *_keys(Cell),
                "performance",
                *_keys(Performance, "performance."),
            ]
        case ["sweep"]:
            from dphyper.sweeps.plan import Sweep

            return ["config", *_keys(Sweep)]
        case _:
            return [
                "store",
                "file",
                "out",
                "searches",
                "source",
                *_keys(DataSpec, "data."),
                "epsilon",
                "delta",
                "relation",
                "embedding_dim",
                "contract",
                "draws",
                "sweep",
                "runs",
            ]


_SEARCHES = "recorded searches that options come from: folders of stores or rows.parquet files, on tuning tasks alone"


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="dphyper", description=DESCRIPTION, exit_on_error=False)
    commands = parser.add_subcommands(dest="command")
    commands.add_subcommand("run", _run_parser(), help="run one cell and store its row")
    commands.add_subcommand("sweep", _sweep_parser(), help="plan or run a grid of cells")
    report = ArgumentParser(exit_on_error=False, description="Turn a store into curves, tables and one HTML page.")
    report.add_argument("--store", type=str, required=True, help="folder of results, for instance runs/demo")
    report.add_argument("--out", type=str, default="", help="folder of the report (default: STORE/report)")
    commands.add_subcommand("report", report, help="figures, tables and an HTML page from a store")
    merge = ArgumentParser(
        exit_on_error=False, description="Take finished rows of another store over, so that a sweep goes on from there."
    )
    merge.add_argument("file", type=str, help="the rows.parquet of a store, for instance one under docs/results")
    merge.add_argument("--store", type=str, required=True, help="folder of results that takes them")
    commands.add_subcommand("merge", merge, help="take over the rows of another store's rows.parquet")
    migrate = ArgumentParser(exit_on_error=False, description="Bring rows of the former schema to the present one.")
    migrate.add_argument("store", type=str, help="folder of results, or a rows.parquet; rewritten in place")
    migrate.add_argument("--searches", nargs="*", default=[], help=_SEARCHES)
    commands.add_subcommand("migrate", migrate, help="rewrite a store, or a rows.parquet, of a former version")
    publish = ArgumentParser(exit_on_error=False, description="Copy what of a store may leave the house.")
    publish.add_argument("store", type=str, help="folder of results")
    publish.add_argument(
        "--out", type=str, required=True, help="folder that takes the copy; must not exist or be empty"
    )
    commands.add_subcommand("publish", publish, help="copy what of a store may leave the house")
    check = ArgumentParser(exit_on_error=False, description="Derive every row's ε again, by two accountants.")
    check.add_argument("--store", type=str, required=True, help="folder of results")
    commands.add_subcommand("check", check, help="find what a hostile reviewer would find in a store")
    commands.add_subcommand("audit", _audit_parser(), help="attack a method's releases or whole runs of it")
    listing = ArgumentParser(exit_on_error=False, description="List what there is.")
    listing.add_argument("what", choices=["methods", "data", "tasks", "cells"], help="what to list")
    listing.add_argument("--source", type=str, default="", help="of tasks: short for --data.source")
    listing.add_class_arguments(DataSpec, "data")
    listing.add_argument("--store", type=str, default="runs/demo", help="of cells: the folder of results")
    commands.add_subcommand("ls", listing, help="list methods, data sources, a source's tasks, a store's cells")
    return parser


def _audit_parser() -> ArgumentParser:
    parser = ArgumentParser(
        exit_on_error=False, description="Attack releases or whole runs: a lower bound on ε beside the claim."
    )
    parser.add_argument("method", type=str, help="a registered method, or all, bits, faults (with --sweep), guards")
    parser.add_argument("--epsilon", type=float, default=1.0, help="claimed ε")
    parser.add_argument("--delta", type=float, default=1e-5, help="δ of the claim")
    parser.add_argument("--relation", type=RelationName, default="add_or_remove_one", help="neighbouring relation")
    parser.add_argument("--embedding_dim", type=int, default=32, help="k, numbers of each release")
    parser.add_argument("--contract", action="store_true", help="try the method, or all, against the contract instead")
    parser.add_argument("--draws", type=int, default=0, help="releases from each data set (0: about half a minute)")
    parser.add_argument("--sweep", type=str, default="", help="sweep file: attack whole runs of its cells instead")
    parser.add_argument("--runs", type=int, default=100, help="with --sweep: runs on each of the two data sets")
    parser.add_argument("--out", type=str, default="runs/audit", help="folder of tables and plots")
    return parser


def _run_parser() -> ArgumentParser:
    parser = ArgumentParser(
        exit_on_error=False, description="Adapt one method to one private draw, judge it, and store the row."
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the keys below")
    parser.add_argument("--store", type=str, default="runs/single", help="folder of results")
    parser.add_argument("--wandb", choices=["auto", "online", "offline", "off"], default="auto", help="W&B mode")
    parser.add_argument("--searches", nargs="*", default=[], help=_SEARCHES)
    parser.add_class_arguments(Cell)
    parser.add_class_arguments(Performance, "performance")
    return parser


def _sweep_parser() -> ArgumentParser:
    from dphyper.sweeps.plan import Sweep

    parser = ArgumentParser(
        exit_on_error=False,
        usage="dphyper sweep {plan,run} FILE [options]",
        description="FILE is YAML with the keys below; options override it.",
    )
    parser.add_argument(
        "action",
        choices=["plan", "run"],
        help="plan reads the data and prints every cell with its state; run runs what is not done, and resumes",
    )
    parser.add_argument("--config", action="config", help="the same as FILE")
    parser.add_class_arguments(Sweep)
    return parser


def _parse(parse: Callable[[], Namespace], known: Iterable[str]) -> Namespace:
    """Parse, turning the parser's errors into one line with the nearest known key."""
    try:
        return parse()
    except ArgumentError as error:
        message = error.message
    unknown = re.search(
        r"unrecognized arguments: --([\w.-]+)|Option '([\w.-]+)' is not|does not accept option '([\w.-]+)'", message
    )
    if unknown:
        key = next(filter(None, unknown.groups()))
        group = re.search(r"Group '([\w.]+)' does not accept", message)
        raise unknown_name("key", f"{group[1]}.{key}" if group else key, known)
    for pattern, plain in ((r'Parser key "([^"]*)":', r"\1:"), (r"<class '(\w+)'>", r"\1"), (r"typing\.", "")):
        message = re.sub(pattern, plain, message)
    raise UserError(" ".join(message.split()))


def _keys(spec: type[Any], prefix: str = "") -> list[str]:
    """Every key of a spec, dotted where it is nested."""
    keys = []
    for field in dataclasses.fields(spec):
        keys.append(prefix + field.name)
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            keys += _keys(field.type, f"{prefix}{field.name}.")
    return keys


def _cell(plain: Mapping[str, Any]) -> Cell:
    """A cell from nested plain data, through the one schema."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Cell)
    # YAML reads a task called 8 as a number, and "inf" as a word.
    given = {key: str(value) if key in ("task", "method") else value for key, value in plain.items()}
    if given.get("epsilon") == "inf":
        given["epsilon"] = math.inf
    values = parser.instantiate(_parse(lambda: parser.parse_object(given), _keys(Cell)))
    return Cell(**{name: values[name] for name in Cell.__dataclass_fields__})


def _run(config: Namespace) -> int:
    from dphyper.bench.runner import Runner
    from dphyper.bench.searches import RecordedSearch
    from dphyper.bench.tracking import Tracking

    cell = canonical(Cell(**{name: config[name] for name in Cell.__dataclass_fields__}))
    store = Store(config.store)
    store.require_current()
    searches = [RecordedSearch.read(path) for path in config.searches]
    runner = Runner(store, config.performance, Tracking(config.wandb, store.root, "single"), "single", searches)
    runner.check([cell])
    row = runner.run(cell)
    print("\n".join(f"{key:18} {value}" for key, value in row.items() if key not in ("versions", "statement")))
    print(f"stored in {store.directory(cell.id)}")
    return int(row["status"] != "done")


def _as_sweep(config: Namespace) -> "Sweep":
    from dphyper.sweeps.plan import Sweep

    return Sweep(**{name: config[name] for name in Sweep.__dataclass_fields__})


def read_sweep(path: str) -> tuple["Sweep", list[Cell]]:
    """A sweep file and its cells.

    Raises:
        UserError: The file is missing or says something wrong.
    """
    parser = _sweep_parser()
    parsed = _parse(lambda: parser.parse_args(["run", "--config", path]), _known(["sweep"]))
    sweep = _as_sweep(parser.instantiate(parsed))
    return sweep, sweep.cells(_cell)


def _sweep(config: Namespace) -> int:
    from dphyper.bench.runner import Runner
    from dphyper.bench.searches import RecordedSearch
    from dphyper.bench.tracking import Tracking
    from dphyper.sweeps.work import run_sweep, states

    sweep = _as_sweep(config)
    cells = sweep.cells(_cell)
    if config.action == "plan":
        store = Store(sweep.store_path)
        store.require_current()
        for path in sweep.searches:
            RecordedSearch.read(path)
        Runner(store, sweep.performance, Tracking("off", Path(), sweep.name), sweep.name).check_data(cells)
        frame = states(cells, store)
        print(frame.to_string(index=False))
        print(f"{len(cells)} cells: " + ", ".join(f"{n} {s}" for s, n in frame["state"].value_counts().items()))
        return 0
    return int(run_sweep(sweep, cells) > 0)


def _report(config: Namespace) -> int:
    from dphyper.reports.page import write_report

    page = write_report(Store(config.store), Path(config.out or f"{config.store}/report"))
    print(f"report: {page}")
    return 0


def _merge(config: Namespace) -> int:
    taken = Store(config.store).merge(config.file)
    print(f"{taken} rows of {config.file} taken into {config.store}")
    return 0


def _migrate(config: Namespace) -> int:
    from dphyper.bench.migration import migrate_file, migrate_store
    from dphyper.bench.searches import RecordedSearch

    path, searches = Path(config.store), [RecordedSearch.read(search) for search in config.searches]
    counts = migrate_file(path, searches) if path.is_file() else migrate_store(Store(path), searches)
    print("\n".join(f"{count:6} {what}" for what, count in counts.items()) or f"{path}: nothing to migrate")
    return 0


def _publish(config: Namespace) -> int:
    from dphyper.bench.publishing import publish

    store = Store(config.store)
    copied, left = publish(store, Path(config.out))
    print(f"{copied} rows of {store.root} copied to {config.out}; left behind:")
    print("\n".join(f"{count:6} {what}" for what, count in left.items()) or "  nothing")
    return 0


def _check(config: Namespace) -> int:
    from dphyper.audits.store_check import check_store

    findings = check_store(Store(config.store))
    print("\n".join(findings) or f"{config.store}: no finding")
    return int(bool(findings))


def _audit(config: Namespace) -> int:
    from dphyper.cli.audit import audit

    return audit(config, read_sweep)


def _ls(config: Namespace) -> int:
    match config.what:
        case "methods":
            for name in METHODS:
                kind = METHODS[name]
                print(f"{name:20} {kind.role:8} {(kind.__doc__ or '').splitlines()[0]}")
        case "data":
            for name in DATASETS:
                print(f"{name:12} {(sys.modules[DATASETS[name].__module__].__doc__ or '').splitlines()[0]}")
        case "tasks":
            spec = dataclasses.replace(config.data, **({"source": config.source} if config.source else {}))
            collection = DATASETS[spec.scheme].load(spec)
            for task in collection.tasks:
                print(f"{task.split:8} {len(task):6} {task.id}{' (development)' if task.development else ''}")
            for line in collection.passed_over:
                print(f"data: {line}")
        case "cells":
            print(
                Store(config.store)
                .rows()[["cell", "status", "method", "task", "epsilon", "seed", "frechet"]]
                .to_string()
            )
    return 0
