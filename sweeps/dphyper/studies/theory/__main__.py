"""The theory as an experiment: ``python -m dphyper.studies.theory --out docs/results/theory``.

Runs every point of `dphyper.studies.theory.points` that is not finished, then writes tables, figures and LaTeX. Each
finished point is a file in the store, so the same command goes on where it was stopped.
"""

import dataclasses
import multiprocessing
import sys
import time
from pathlib import Path

import pandas as pd

from dphyper.studies.command import run_command
from dphyper.studies.theory.experiment import path_of_runs, run_into
from dphyper.studies.theory.laws import predict_risks
from dphyper.studies.theory.points import Point, plan_points
from dphyper.studies.theory.report import write_report


def main(
    out: Path = Path("docs/results/theory"), store: Path = Path("runs/theory"), workers: int = 2, limit: int = 0
) -> None:
    """Run the theory study and write its tables, figures and LaTeX.

    Args:
        out: Folder of tables and figures.
        store: Folder of the runs, one file a point; finished points are skipped.
        workers: Processes, one core each.
        limit: Run at most so many new points and then report on what there is; 0 for all.
    """
    begin = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    store.mkdir(parents=True, exist_ok=True)
    plan = [*plan_points()]
    paths = {point: path_of_runs(store, point) for _, point in plan}
    jobs = sorted(((p, path) for p, path in paths.items() if not path.exists()), key=_size, reverse=True)
    spent = _run_all(jobs[: limit or None], workers)
    points = pd.DataFrame(
        [
            {"axis": axis, **dataclasses.asdict(point), **predict_risks(point)}
            for axis, point in plan
            if paths[point].exists()
        ]
    )
    runs = pd.concat([pd.read_parquet(path) for path in paths.values() if path.exists()], ignore_index=True)
    print(write_report(runs, points, out))
    wall = time.perf_counter() - begin
    print(f"{len(runs)} runs in the store; this call took {wall:.0f} s, and {spent:.0f} s of its workers' processors")


def _size(job: tuple[Point, Path]) -> tuple[float, ...]:
    """Neighbours in this order share public data and tuning. The largest come first: no worker ends alone with them."""
    point, _ = job
    return point.d, point.k, point.public_tasks, point.public_size, point.n, point.epsilon


def _run_all(jobs: list[tuple[Point, Path]], workers: int) -> float:
    """Run the jobs and return the seconds of the workers' processors."""
    spent = 0.0
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        # A stretch at a time: a worker keeps what neighbours share.
        for number, (rows, seconds) in enumerate(pool.imap_unordered(run_into, jobs, chunksize=4), 1):
            spent += seconds
            print(f"{number}/{len(jobs)} points, {rows} runs in {seconds:.1f} s", file=sys.stderr, flush=True)
    return spent


if __name__ == "__main__":
    run_command(main)
