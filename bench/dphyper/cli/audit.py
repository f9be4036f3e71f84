"""``dphyper audit``: attack the mechanisms of methods, the last bits of their releases, or whole runs of them.

``dphyper audit METHOD`` attacks what the method declares to release, and the last bits of each release. ``dphyper audit
METHOD --sweep FILE`` attacks whole runs of the file's cells of that method. In place of a method may stand ``all``,
``bits`` (the former release beside the present one), ``faults`` with a sweep (planted in whole runs), or ``guards``
(planted in single releases and in methods). With ``--contract`` the method goes through the privacy checks of the
contract suite instead. Tables go to ``OUT``, a CSV and a Markdown file of each kind; a line that is measured
again replaces the former one. Noise comes from the operating system.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import norm

from dphyper.audits.bits import BitsAudit, audit_bits, former_noisy_sum
from dphyper.audits.bounds import Scores
from dphyper.audits.mechanism import Audit, attacked_parts, audit_mechanisms
from dphyper.audits.whole_run import WholeRunBound, WholeRuns, audit_whole_runs, whole_run_bounds
from dphyper.audits.whole_run_faults import FAULTS, SOUND, Fault
from dphyper.bench.catalog import METHODS
from dphyper.bench.method import Method
from dphyper.bench.runner import Runner
from dphyper.bench.store import Store
from dphyper.bench.tracking import Tracking
from dphyper.core.errors import UserError, unknown_name
from dphyper.core.files import whole_file
from dphyper.core.specs import Cell
from dphyper.privacy.accounting import calibrate
from dphyper.privacy.budget import Budget, Relation
from dphyper.privacy.mechanisms import BestOfTrials, GaussianMechanism, OneShotMean, PoissonGradientSteps
from dphyper.privacy.noise import NoiseSource
from dphyper.privacy.noisy_sum import noisy_sum

GROUPS = ("all", "bits", "faults", "guards")
N = 16  # records of each set in the attack on mechanisms, which hides nobody on purpose
BITS_DRAWS = 10_000
# (ε, k, records) of the table of bits; with records, of the mean gradient over a Poisson sample of a quarter of them.
BITS_SETTINGS = ((1.0, 32, 0), (0.1, 32, 0), (1.0, 4, 0), (16.0, 32, 0), (1.0, 1000, 128), (1.0, 1000, 100))
Line = dict[str, Any]


def audit(config: Any, read_sweep: Callable[[str], tuple[Any, list[Cell]]]) -> int:
    """Run the command; ``read_sweep`` reads a sweep file.

    Returns:
        The exit status: 1 if a planted bug was missed or a method breaks the contract.
        A bound above a claim is printed and is for people to judge.
    """
    out = Path(config.out)
    if config.method not in (*METHODS, *GROUPS):
        raise unknown_name("method", config.method, [*METHODS, *GROUPS])
    if config.method == "guards":
        return _guards()
    if config.contract and config.method in (*METHODS, "all"):
        return _contract(METHODS if config.method == "all" else [config.method])
    if config.method == "bits":
        _bits(out, config.draws or BITS_DRAWS)
    elif config.sweep:
        _whole_runs(config.method, *read_sweep(config.sweep), runs=config.runs, out=out)
    elif config.method == "faults":
        raise UserError("faults are planted in whole runs: name their sweep, as in --sweep sweeps/audit.yaml")
    else:
        budget = Budget(epsilon=config.epsilon, delta=config.delta, relation=Relation(config.relation))
        _mechanisms(config.method, budget, dimension=config.embedding_dim, draws=config.draws, out=out)
    return 0


def _guards() -> int:
    from dphyper.audits.planted import planted_methods, planted_releases, planted_table

    planted = [*planted_releases(), *planted_methods()]
    print(planted_table(planted))
    return int(not all(bug.caught for bug in planted))


def _contract(names: Iterable[str]) -> int:
    from dphyper.audits.contract import findings

    found = {name: list(findings(name)) for name in names}
    for name, lines in found.items():
        print("\n".join(f"{name}: {line}" for line in lines) or f"{name}: no finding", flush=True)
    return int(any(found.values()))


def audited_parts(name: str, budget: Budget) -> tuple[GaussianMechanism, ...]:
    """The releases of a method, at its default options, that are attacked under a budget.

    Raises:
        UserError: The method has no privacy, or releases nothing.
    """
    kind: type[Method] = METHODS[name]
    if not kind.private or math.isinf(budget.epsilon):
        raise UserError(f"method '{name}' at epsilon = {budget.epsilon} claims no ε to audit: choose a private method")
    mechanisms = kind.mechanisms(budget, kind.options_type())
    if not mechanisms:
        raise UserError(f"method '{name}' releases nothing of private records and claims no ε to audit")
    if any(isinstance(mechanism, BestOfTrials) for mechanism in mechanisms):
        print(f"{name}: one trial is attacked; that the best of many is released is accounted and not attacked")
    return attacked_parts(mechanisms)


def _mechanisms(name: str, budget: Budget, *, dimension: int, draws: int, out: Path) -> None:
    # Many methods release the same, and what comes afterwards plays no part.
    @functools.cache
    def attacked(parts: tuple[GaussianMechanism, ...]) -> tuple[Audit, float]:
        whole = audit_mechanisms(parts, budget, dimension=dimension, noise=NoiseSource.os(), n=N, draws=draws)
        bits = [_bits_of(part, budget, dimension, draws or BITS_DRAWS // 5).epsilon for part in dict.fromkeys(parts)]
        return whole, max(bits)

    for method in METHODS if name == "all" else [name]:
        try:
            parts = audited_parts(method, budget)
        except UserError as error:
            if name != "all":
                raise
            print(error)
            continue
        whole, bits = attacked(parts)
        line = {
            "method": method,
            "released": " + ".join(_brief(part) for part in parts),
            "relation": str(budget.relation),
            "claimed ε": whole.claimed_epsilon,
            "ε ≥ (Gaussian)": whole.gdp_epsilon,
            "ε ≥ (no assumption)": whole.clopper_pearson_epsilon,
            "ε ≥ (last bits)": bits,
            "releases": f"2 × {whole.draws}",
            "seconds": whole.seconds,
        }
        write_table(out / "mechanisms", [line], keys=("method", "relation", "claimed ε"))
        print(f"{method}: {whole}; from the last bits ε ≥ {bits:.3f}", flush=True)
        if name != "all":
            title = f"{name}: claimed ε = {whole.claimed_epsilon:.2f}, audited ε ≥ {whole.gdp_epsilon:.2f}"
            plot_scores(f"{title} at δ = {budget.delta:g}", whole.scores, out / f"{name}.png")
            print(f"plot: {out / name}.png")


def _brief(part: GaussianMechanism) -> str:
    times = f"{part.steps} × " if part.steps > 1 else ""
    sampled = f", q = {part.sampling_prob:g}" if part.sampling_prob < 1 else ""
    return f"{times}{type(part).__name__} (noise multiplier {part.noise_multiplier:.3g}{sampled})"


def _bits_of(part: GaussianMechanism, budget: Budget, dimension: int, draws: int) -> BitsAudit:
    denominator = part.sampling_prob * N if isinstance(part, PoissonGradientSteps) else 1.0
    return audit_bits(part, budget, dimension=dimension, noise=NoiseSource.os(), denominator=denominator, draws=draws)


def _bits(out: Path, draws: int) -> None:
    lines = []
    for epsilon, k, records in BITS_SETTINGS:
        budget = Budget(epsilon=epsilon, delta=1e-5, relation=Relation.ADD_OR_REMOVE_ONE)
        mechanism: GaussianMechanism = OneShotMean()
        if records:
            mechanism = PoissonGradientSteps(l2_clip_norm=0.03, sampling_prob=0.25, steps=30)
        (mechanism,) = calibrate(budget, mechanism)
        for name, release in (("former", former_noisy_sum), ("present", noisy_sum)):
            found = audit_bits(
                mechanism,
                budget,
                dimension=k,
                noise=NoiseSource.os(),
                release=release,
                denominator=mechanism.sampling_prob * records if records else 1.0,
                draws=draws // 5 if records else draws,
            )
            lines.append(
                {
                    "release": name,
                    "of": f"gradients, q n = {records / 4:g}" if records else "a mean embedding",
                    "k": k,
                    "claimed ε": epsilon,
                    "right guesses": found.right["sampler"],
                    "ε ≥ (no assumption)": found.epsilon,
                    "releases": f"2 × {found.draws}",
                }
            )
            print(", ".join(f"{key} {_shown(value)}" for key, value in lines[-1].items()), flush=True)
    write_table(out / "bits", lines, keys=("release", "of", "k", "claimed ε"))


def _whole_runs(name: str, sweep: Any, cells: Sequence[Cell], *, runs: int, out: Path) -> None:
    plan = _planned(name, sorted(cells, key=lambda cell: cell.epsilon), sweep.name)
    store = Store(sweep.store_path)
    runner = Runner(store, sweep.performance, Tracking("off", store.root, sweep.name), sweep.name)
    runner.check_data(cell for cell, _ in plan)
    for cell, fault in plan:
        attacked = WholeRuns(runner, cell, noise=NoiseSource.os(), fault=fault)
        seen = audit_whole_runs(attacked, pairs=runs, folder=store.root / "whole_runs")
        bounds = whole_run_bounds(attacked, seen)
        for bound in bounds:
            print(", ".join(f"{key} {_shown(value)}" for key, value in _whole_run_line(bound).items()), flush=True)
        stem = "faults" if fault.name else "whole_runs"
        write_table(out / stem, map(_whole_run_line, bounds), keys=("method", "fault", "claimed ε", "n", "score"))


def _planned(name: str, cells: Sequence[Cell], sweep: str) -> list[tuple[Cell, Fault]]:
    """Cells with faults: all of a method without one, or each fault in the cell of least ε of its method."""
    if name == "all":
        return [(cell, SOUND) for cell in cells]
    methods = [fault.method for fault in FAULTS] if name == "faults" else [name]
    for method in methods:
        if method not in {cell.method for cell in cells}:
            raise unknown_name(f"method in sweep '{sweep}'", method, {cell.method for cell in cells})
    if name != "faults":
        return [(cell, SOUND) for cell in cells if cell.method == name]
    first = {fault.method: next(cell for cell in cells if cell.method == fault.method) for fault in FAULTS}
    return [
        (dataclasses.replace(first[fault.method], options={**first[fault.method].options, **fault.options}), fault)
        for fault in FAULTS
    ]


def _whole_run_line(bound: WholeRunBound) -> Line:
    return {
        "method": bound.method,
        "fault": bound.fault,
        "claimed ε": bound.claimed_epsilon,
        "n": bound.n,
        "score": bound.score,
        "d′": bound.separation,
        "ε ≥ (Gaussian)": bound.gdp_epsilon,
        "ε ≥ (no assumption)": bound.clopper_pearson_epsilon,
        "above the claim": "yes" if bound.convicted else "no",
        "runs": f"2 × {bound.runs}",
        "seconds": bound.seconds,
    }


def write_table(stem: Path, lines: Iterable[Line], *, keys: Sequence[str]) -> None:
    """Put lines into ``stem.csv`` and write it to ``stem.md`` too; lines with the same keys are replaced.

    Args:
        stem: Path of both files without their suffix.
        lines: Of plain values, all with the same columns.
        keys: Columns that name a line.
    """
    frame, path = pd.DataFrame(lines), stem.with_suffix(".csv")
    if frame.empty:
        return
    # As the file holds them, or a line measured again would not be known again.
    for column in frame.select_dtypes("float"):
        frame[column] = frame[column].map(lambda value: float(f"{value:.4g}"))
    if path.exists():
        frame = pd.concat([pd.read_csv(path, keep_default_na=False), frame])
    frame = frame.drop_duplicates(list(keys), keep="last")
    stem.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        frame.to_csv(temporary, index=False)
    rows = [list(frame.columns), ["---"] * len(frame.columns)]
    rows += [[_shown(value) for value in line] for line in frame.itertuples(index=False)]
    with whole_file(stem.with_suffix(".md")) as temporary:
        temporary.write_text("".join(f"| {' | '.join(row)} |\n" for row in rows))


def _shown(value: object) -> str:
    if isinstance(value, float):
        return "∞" if math.isinf(value) else f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return str(value)


def plot_scores(title: str, scores: tuple[Scores, Scores], path: Path) -> None:
    """Draw the attacker's scores without and with the canary, each with the normal density of its moments.

    Args:
        title: Above the plot.
        scores: Without and with.
        path: Of a PNG or PDF; its folder is made when missing.
    """
    matplotlib.rcParams["pdf.fonttype"] = 42
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.subplots()
    low, high = np.quantile(np.concatenate(scores), [0.0005, 0.9995])
    grid = np.linspace(low, high, 300)
    bins = min(80, len(scores[0]) // 10 + 1)
    for part, label, colour in zip(scores, ("without the canary", "with it"), ("#0072B2", "#D55E00"), strict=True):
        axes.hist(part, bins=bins, range=(low, high), density=True, color=colour, alpha=0.35, label=label)
        axes.plot(grid, norm.pdf(grid, part.mean(), part.std()), color=colour)
    axes.set(xlabel="attacker's score", ylabel="density", yticks=[])
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
