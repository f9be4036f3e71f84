"""The command line: ``dphyper run | sweep | status | report | merge | pull | migrate | publish | check | …``.

Each command is one module beside this one, with ``HELP``, ``parser()`` and ``execute(config)``; a new command is such a
file and its name in `COMMANDS`. Every option is also a YAML key of the same name, and both go through one schema, the
dataclasses of `dphyper.core.specs`. A user's mistake, or a disk that fails, is answered by one line and exit status 2;
a sweep that leaves cells undone, or a check with findings, exits with 1; Ctrl-C with 130, and another signal that ends
it with 128 and its number. A command imports what is heavy when it is executed, so that help comes at once and needs no
torch.
"""

import os
import sys
from importlib import import_module
from importlib.metadata import version
from typing import NoReturn

from jsonargparse import ArgumentParser

from dphyper.core.errors import PrivacyError, UserError
from dphyper.core.parsing import parse
from dphyper.core.stopping import Stopped, stoppable

COMMANDS = ("run", "sweep", "status", "report", "merge", "pull", "migrate", "publish", "check", "reset", "audit", "ls")
DESCRIPTION = """Benchmark differentially private hypernetworks against DP-SGD and public-data-guided methods.

A sweep file names a grid of cells; a store keeps one row for each; a report turns a store into curves and tables.
Start with:  dphyper sweep run sweeps/demo.yaml  and then  dphyper report --store runs/demo"""


def main(argv: list[str] | None = None) -> NoReturn:
    """Run one command and exit with its status."""
    # As for the workers of a sweep (`dphyper.sweeps.work`); torch reads it when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(_status(list(sys.argv[1:] if argv is None else argv)))


def _status(argv: list[str]) -> int:
    try:
        with stoppable():
            return _execute(argv)
    except (UserError, PrivacyError) as error:
        print(f"dphyper: {error}", file=sys.stderr)
    except Stopped as stopped:
        print(f"dphyper: stopped by {stopped}; finished cells are kept, the same command goes on", file=sys.stderr)
        return stopped.status
    except BrokenPipeError:
        # Whoever reads has seen enough, as `head` does. Python flushes stdout at its end and must find it open.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A full or read-only disk, a file where a folder is needed: the system's own words say it best.
        where = f" '{error.filename}'" if error.filename else ""
        print(f"dphyper: {error.strerror or error}{where}: nothing that was finished is lost", file=sys.stderr)
    return 2


def _execute(argv: list[str]) -> int:
    # `sweep run FILE` reads better than `sweep run --config FILE`, and is the same.
    if argv[:1] == ["sweep"] and len(argv) > 2 and not argv[2].startswith("-"):
        argv = [*argv[:2], "--config", *argv[2:]]
    modules = {name: import_module(f"dphyper.cli.{name}") for name in COMMANDS}
    parsers: dict[str, ArgumentParser] = {name: module.parser() for name, module in modules.items()}
    parser = ArgumentParser(prog="dphyper", description=DESCRIPTION, exit_on_error=False, version=version("dphyper"))
    commands = parser.add_subcommands(dest="command")
    for name, module in modules.items():
        commands.add_subcommand(name, parsers[name], help=module.HELP)
    config = parse(parser, argv or ["--help"], command=parsers.get(argv[0]) if argv else None)
    status: int = modules[config.command].execute(config[config.command])
    return status
