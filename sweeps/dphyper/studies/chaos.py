"""A sweep whose workers are killed, whose database restarts and whose disk fills up, against one that is left alone.

``python -m dphyper.studies.chaos sweeps/chaos.yaml --out runs/chaos`` runs the file three times: undisturbed; on a
journal, with workers and the process that started them killed at random; and on a PostgreSQL server that is restarted
once, with one worker on a full disk and two on hosts of their own. These hosts are network namespaces in which file
locks do nothing, as on a network drive without them. In the end every cell must be done, once, with the same row.

Linux only. Hosts and the full disk need root; without it they are left out, and the table says so.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from optuna.trial import TrialState

from dphyper.audits.store_check import check_store
from dphyper.bench.store import Store
from dphyper.core.errors import UserError
from dphyper.studies.command import run_command
from dphyper.studies.postgres import Server, running_server
from dphyper.sweeps.plan import Sweep, read_sweep
from dphyper.sweeps.queue import ITEM, study_name
from dphyper.sweeps.storage import open_storage

Command = Sequence[str]

_MAIN = "from dphyper.cli.main import main; main()"
DPHYPER: Command = (sys.executable, "-W", "ignore", "-c", _MAIN)
# A file system whose locks no other host sees.
_NO_LOCKS: Command = (*DPHYPER[:-1], f"import fcntl; fcntl.flock = lambda *unused: None; {_MAIN}")
# What no two runs have in common.
_OF_ONE_RUN = ["seconds_public", "seconds_adapt", "seconds_evaluate", "provenance", "machine"]
_PARENT, _WORKER, _RESTART = "parents killed", "workers killed", "restarts of the database"
_FULL_DISK = "workers that ended on a full disk"


def main(file: str, out: str = "runs/chaos", pause: float = 5.0, seed: int = 0) -> None:
    """Run it and write ``chaos.csv``.

    Args:
        file: A sweep with reproducible noise.
        out: Folder of the stores, the logs and the table; emptied first.
        pause: Mean seconds between two kills. A worker has to come to a cell in between.
        seed: Of the kills.

    Raises:
        UserError: A run is not what the undisturbed one is; the message says how.
    """
    folder = Path(out)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    calm = variant(file, folder / "undisturbed.yaml")
    subprocess.run([*DPHYPER, "sweep", "run", calm], check=True)
    lines = []
    with running_server() as server:
        for name, address in (("journal", "journal"), ("postgresql", server.url())):
            disturbed, begin = variant(file, folder / f"{name}.yaml", storage=address), time.monotonic()
            with ExitStack() as stack:
                others = [] if name == "journal" else _others(stack, disturbed, server)
                toll = disturb(
                    disturbed, others, pause=pause, seed=seed, server=server if name == "postgresql" else None
                )
            findings = compare(disturbed, calm)
            lines.append(
                {"storage": name, "seconds": round(time.monotonic() - begin), **toll, "findings": len(findings)}
            )
            pd.DataFrame(lines).fillna(0).to_csv(folder / "chaos.csv", index=False)
            if findings:
                raise UserError(f"{name}: {'; '.join(findings)}")
    print(pd.DataFrame(lines).fillna(0).to_string(index=False))


def variant(file: str | Path, path: Path, **changes: Any) -> Path:
    """Write a sweep file with other keys, and with results beside it where nothing else is said; its path."""
    sweep = yaml.safe_load(Path(file).read_text())
    sweep["store"] = str(path.with_suffix(""))
    sweep["performance"] = {**sweep.get("performance", {}), "cache": str(path.with_name(f"{path.stem}-cache"))}
    path.write_text(yaml.safe_dump(sweep | changes))
    return path


def disturb(
    file: Path,
    others: Sequence[Command] = (),
    *,
    pause: float,
    seed: int,
    server: Server | None = None,
    command: Command = DPHYPER,
    most: int = 1000,
) -> Counter[str]:
    """Run a sweep to its end while its processes are killed, and started again.

    Args:
        file: The sweep.
        others: Commands of workers elsewhere, which are started again too, unless they ended for a mistake of theirs.
        pause: Mean seconds between two kills.
        seed: Of the kills.
        server: The database, restarted once when half of the cells are done.
        command: What ``dphyper`` is.
        most: Kills, after which the sweep is left alone.

    Returns:
        How often what happened.
    """
    chance, toll = random.Random(seed), Counter[str]()
    sweep, cells = read_sweep(str(file))
    rows = Store(sweep.store_path).root / "cells"
    elsewhere = [(other, _start(other)) for other in others]
    run = _start([*command, "sweep", "run", str(file)])
    try:
        while True:
            while run.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    run.wait(chance.expovariate(1 / pause))
                if server and not toll[_RESTART] and len([*rows.glob("*/row.json")]) >= len(cells) / 2:
                    server.control("restart", "-m", "immediate")
                    toll[_RESTART] += 1
                if run.poll() is None and toll[_PARENT] + toll[_WORKER] < most:
                    victims = [(_PARENT, run.pid), *((_WORKER, pid) for pid in _workers(run.pid))]
                    victims += [(_WORKER, process.pid) for _, process in elsewhere if process.poll() is None]
                    kind, pid = chance.choice(victims)
                    os.kill(pid, signal.SIGKILL)
                    toll[kind] += 1
                for place, (other, process) in enumerate(elsewhere):
                    if process.poll() == -signal.SIGKILL:
                        elsewhere[place] = (other, _start(other))
            if run.returncode in (0, 1):
                toll[_FULL_DISK] = sum(process.poll() == 2 for _, process in elsewhere)
                return +toll
            run = _start([*command, "sweep", "run", str(file)])
    finally:
        for process in [run, *(process for _, process in elsewhere)]:
            process.terminate()
            process.wait()


def compare(file: Path, calm: Path) -> list[str]:
    """What distinguishes a disturbed run from an undisturbed one; empty if nothing does."""
    (sweep, cells), (other, _) = read_sweep(str(file)), read_sweep(str(calm))
    store = Store(sweep.store_path)
    done = Counter(_completed(sweep, store))
    findings = [f"cell {cell.id} is {store.status(cell.id)}" for cell in cells if store.status(cell.id) != "done"]
    findings += [f"cell {cell.id} was completed {done[cell.id]} times" for cell in cells if done[cell.id] != 1]
    findings += check_store(store)
    left, right = (
        frame.drop(columns=_OF_ONE_RUN, errors="ignore") for frame in (store.rows(), Store(other.store_path).rows())
    )
    try:
        pd.testing.assert_frame_equal(left, right, check_exact=True)
    except AssertionError as error:
        findings.append(f"the rows differ: {' '.join(str(error).split())}")
    return findings


def _completed(sweep: Sweep, store: Store) -> list[str]:
    storage = open_storage(sweep.storage, store.root, sweep.performance.grace)
    trials = storage.trials(storage.study(study_name(sweep.name, store)))
    return [trial.user_attrs[ITEM] for trial in trials if trial.state == TrialState.COMPLETE]


def _start(command: Command) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, start_new_session=True)


def _workers(pid: int) -> list[int]:
    """The processes that a run of a sweep has started for its cells."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
        return []


def _others(stack: ExitStack, disturbed: Path, server: Server) -> list[Command]:
    """Workers on two hosts without common locks, and one whose cache lies on a full disk; none without root."""
    if os.geteuid() != 0:
        return []
    commands: list[Command] = []
    for number in (1, 2):
        gate = stack.enter_context(_host(number))
        store = str(disturbed.with_suffix(""))
        own = variant(disturbed, disturbed.with_name(f"host-{number}.yaml"), storage=server.url(gate), store=store)
        shell = ("unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', f"host-{number}")
        commands.append(("ip", "netns", "exec", _space(number), *shell, *_NO_LOCKS, "sweep", "worker", str(own)))
    disk = stack.enter_context(_small_disk(disturbed.with_name("full")))
    commands.append((*DPHYPER, "sweep", "worker", str(disturbed), "--performance.cache", str(disk)))
    return commands


def _space(number: int) -> str:
    return f"dphyper-{number}"


@contextmanager
def _host(number: int) -> Iterator[str]:
    """A network namespace with one wire to here; the address of this end."""
    space, here, there = _space(number), f"10.77.{number}.1", f"10.77.{number}.2"
    inside = ("ip", "netns", "exec", space)
    try:
        for command in (
            ("ip", "netns", "add", space),
            ("ip", "link", "add", space, "type", "veth", "peer", "name", "eth0", "netns", space),
            ("ip", "addr", "add", f"{here}/24", "dev", space),
            ("ip", "link", "set", space, "up"),
            (*inside, "ip", "addr", "add", f"{there}/24", "dev", "eth0"),
            (*inside, "ip", "link", "set", "eth0", "up"),
        ):
            subprocess.run(command, check=True)
        yield here
    finally:
        subprocess.run(("ip", "netns", "delete", space), check=False)


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 100 kB."""
    folder.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)), check=True)
    try:
        yield folder
    finally:
        subprocess.run(("umount", "--lazy", str(folder)), check=True)


if __name__ == "__main__":
    run_command(main)
