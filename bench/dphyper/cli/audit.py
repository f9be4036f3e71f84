"""``dphyper audit``: attack the mechanisms of methods, the last bits of their releases, or whole runs of them.

``dphyper audit METHOD`` attacks what the method declares to release, and the last bits of each release. ``dphyper audit
METHOD --sweep FILE`` attacks whole runs of the file's cells of that method. In place of a method may stand ``all``,
``bits`` (the former release beside the present one), ``faults`` with a sweep (planted in whole runs), or ``guards``
(planted in single releases and in methods). With ``--contract`` the method goes through the privacy checks of the
contract suite instead. Tables go to ``OUT``, a CSV and a Markdown file of each kind; a line that is measured
again replaces the former one. Noise comes from the operating system.

A bound above a claim is printed and is for people to judge; only a planted bug that is missed, or a method that breaks
the contract, gives the exit status 1.
"""

import functools
from collections.abc import Iterable
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt

from dphyper.bench.catalog import METHODS
from dphyper.core.errors import UserError, unknown_name
from dphyper.core.specs import RelationName

HELP = "attack a method's releases or whole runs of it"
GROUPS = ("all", "bits", "faults", "guards")


def parser() -> ArgumentParser:
    """What is attacked, how often, and where the tables go."""
    made = ArgumentParser(
        exit_on_error=False, description="Attack releases or whole runs: a lower bound on ε beside the claim."
    )
    made.add_argument("method", type=str, help="a registered method, or all, bits, faults (with --sweep), guards")
    made.add_argument("--epsilon", type=float, default=1.0, help="claimed ε")
    made.add_argument("--delta", type=float, default=1e-5, help="δ of the claim")
    made.add_argument("--relation", type=RelationName, default="add_or_remove_one", help="neighbouring relation")
    made.add_argument("--embedding_dim", type=PositiveInt, default=32, help="k, numbers of each release")
    made.add_argument("--contract", action="store_true", help="try the method, or all, against the contract instead")
    made.add_argument(
        "--draws", type=NonNegativeInt, default=0, help="releases from each data set (0: about half a minute)"
    )
    made.add_argument("--sweep", type=str, default="", help="sweep file: attack whole runs of its cells instead")
    made.add_argument("--runs", type=PositiveInt, default=100, help="with --sweep: runs on each of the two data sets")
    made.add_argument("--out", type=str, default="runs/audit", help="folder of tables and plots")
    return made


def execute(config: Namespace) -> int:
    """Attack what is named; 1 if a planted bug was missed or a method breaks the contract."""
    name, out = config.method, Path(config.out)
    if name not in (*METHODS, *GROUPS):
        raise unknown_name("method", name, [*METHODS, *GROUPS])
    if name == "guards":
        return _guards()
    if config.contract and name in (*METHODS, "all"):
        return _contract(METHODS if name == "all" else [name])
    if name == "bits":
        _bits(out, config.draws)
    elif config.sweep:
        _whole_runs(name, config.sweep, config.runs, out)
    elif name == "faults":
        raise UserError("faults are planted in whole runs: name their sweep, as in --sweep sweeps/audit.yaml")
    else:
        _mechanisms(config, out)
    return 0


def _guards() -> int:
    from dphyper.audits.planted import planted_methods, planted_releases, planted_table

    planted = [*planted_releases(), *planted_methods()]
    print(planted_table(planted))
    return int(not all(bug.caught for bug in planted))


def _contract(names: Iterable[str]) -> int:
    from dphyper.audits.contract import findings

    broken = False
    for name in names:
        lines = list(findings(name))
        print("\n".join(f"{name}: {line}" for line in lines) or f"{name}: no finding", flush=True)
        broken |= bool(lines)
    return int(broken)


def _bits(out: Path, draws: int) -> None:
    from dphyper.audits.bits import compared_releases
    from dphyper.audits.tables import BITS, bits_line, in_words

    lines = []
    for compared in compared_releases(draws):
        lines.append(bits_line(compared))
        print(in_words(lines[-1]), flush=True)
    BITS.write(out, lines)


def _whole_runs(name: str, path: str, runs: int, out: Path) -> None:
    from dphyper.audits.tables import FAULTS, WHOLE_RUNS, in_words, whole_run_line
    from dphyper.audits.whole_run import WholeRuns, audit_whole_runs, whole_run_bounds
    from dphyper.audits.whole_run_faults import plan_whole_runs
    from dphyper.bench.runner import Runner
    from dphyper.bench.store import Store
    from dphyper.bench.tracking import Tracking
    from dphyper.privacy.noise import NoiseSource
    from dphyper.sweeps.plan import read_sweep

    sweep, cells = read_sweep(path)
    plan = plan_whole_runs(name, cells, sweep.name)
    store = Store(sweep.store_path)
    runner = Runner(store, sweep.performance, Tracking("off", store.root, sweep.name), sweep.name)
    runner.check_data(cell for cell, _ in plan)
    for cell, fault in plan:
        attack = WholeRuns(runner, cell, noise=NoiseSource.os(), fault=fault)
        observations = audit_whole_runs(attack, pairs=runs, folder=store.root / "whole_runs")
        lines = [whole_run_line(bound) for bound in whole_run_bounds(attack, observations)]
        print("\n".join(map(in_words, lines)), flush=True)
        (FAULTS if fault.name else WHOLE_RUNS).write(out, lines)


def _mechanisms(config: Namespace, out: Path) -> None:
    from dphyper.audits.bits import largest_bits_bound
    from dphyper.audits.declared import attackable_releases
    from dphyper.audits.mechanism import NUM_RECORDS, Audit, attacked_parts, audit_mechanisms
    from dphyper.audits.score_plot import plot_scores
    from dphyper.audits.tables import MECHANISMS, mechanism_line
    from dphyper.privacy.budget import Budget, Relation
    from dphyper.privacy.mechanisms import BestOfTrials, GaussianMechanism
    from dphyper.privacy.noise import NoiseSource

    budget = Budget(epsilon=config.epsilon, delta=config.delta, relation=Relation(config.relation))
    dimension, draws, name = config.embedding_dim, config.draws, config.method

    # Many methods release the same, and what comes afterwards plays no part.
    @functools.cache
    def attack(parts: tuple[GaussianMechanism, ...]) -> tuple[Audit, float]:
        noise = NoiseSource.os()
        audit = audit_mechanisms(parts, budget, dimension=dimension, noise=noise, draws=draws)
        return audit, largest_bits_bound(parts, budget, dimension=dimension, noise=noise, n=NUM_RECORDS, draws=draws)

    for method in METHODS if name == "all" else [name]:
        try:
            releases = attackable_releases(method, budget)
        except UserError as error:
            if name != "all":
                raise
            print(error)
            continue
        if any(isinstance(release, BestOfTrials) for release in releases):
            print(f"{method}: one trial is attacked; that the best of many is released is accounted and not attacked")
        parts = attacked_parts(releases)
        audit, bits = attack(parts)
        MECHANISMS.write(out, [mechanism_line(method, str(budget.relation), parts, audit, bits)])
        print(f"{method}: {audit}; from the last bits ε ≥ {bits:.3f}", flush=True)
        if name != "all":
            title = f"{name}: claimed ε = {audit.claimed_epsilon:.2f}, audited ε ≥ {audit.gdp_epsilon:.2f}"
            plot_scores(f"{title} at δ = {budget.delta:g}", audit.scores, out / f"{name}.png")
            print(f"plot: {out / name}.png")
