"""The tables of the audits: which columns each has, which of them name a line, and their files.

A table is a CSV, which holds the numbers, beside a Markdown file for people. A line that is measured again replaces the
former one, so that a table grows over many calls and never holds two answers to one question.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dphyper.audits.bits import ComparedRelease
from dphyper.audits.mechanism import Audit
from dphyper.audits.whole_run import WholeRunBound
from dphyper.core.files import whole_file
from dphyper.privacy.mechanisms import GaussianMechanism

Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Table:
    """One kind of table.

    Attributes:
        stem: Name of both files without their suffix.
        keys: Columns that name a line.
    """

    stem: str
    keys: tuple[str, ...]

    def write(self, folder: Path, lines: Iterable[Line]) -> None:
        """Put lines into the CSV and write the Markdown file anew; lines with the same keys are replaced.

        Args:
            folder: Made when missing.
            lines: Of plain values, all with the same columns.
        """
        frame, path = pd.DataFrame(lines), folder / f"{self.stem}.csv"
        if frame.empty:
            return
        # As the file holds them: a key with more digits than the file's would name another line.
        for column in frame.select_dtypes("float"):
            frame[column] = frame[column].map(lambda value: float(f"{value:.4g}"))
        if path.exists():
            frame = pd.concat([pd.read_csv(path, keep_default_na=False), frame])
        frame = frame.drop_duplicates(list(self.keys), keep="last")
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            frame.to_csv(temporary, index=False)
        rows = [list(frame.columns), ["---"] * len(frame.columns)]
        rows += [[_shown(value) for value in line] for line in frame.itertuples(index=False)]
        with whole_file(path.with_suffix(".md")) as temporary:
            temporary.write_text("".join(f"| {' | '.join(row)} |\n" for row in rows))


MECHANISMS = Table(stem="mechanisms", keys=("method", "relation", "claimed ε"))
BITS = Table(stem="bits", keys=("release", "of", "k", "claimed ε"))
WHOLE_RUNS = Table(stem="whole_runs", keys=("method", "fault", "claimed ε", "n", "score"))
FAULTS = Table(stem="faults", keys=WHOLE_RUNS.keys)


def mechanism_line(
    method: str, relation: str, parts: tuple[GaussianMechanism, ...], audit: Audit, bits_epsilon: float
) -> Line:
    """The line of a method whose releases were attacked.

    Args:
        method: Registered name.
        relation: Neighbouring relation of the claim.
        parts: The releases.
        audit: Of all of them together.
        bits_epsilon: Largest lower bound on ε from the last bits of one of them.
    """
    return {
        "method": method,
        "released": " + ".join(map(_brief, parts)),
        "relation": relation,
        "claimed ε": audit.claimed_epsilon,
        "ε ≥ (Gaussian)": audit.gdp_epsilon,
        "ε ≥ (no assumption)": audit.clopper_pearson_epsilon,
        "ε ≥ (last bits)": bits_epsilon,
        "releases": f"2 × {audit.draws}",
        "seconds": audit.seconds,
    }


def bits_line(compared: ComparedRelease) -> Line:
    """The line of a release whose last bits were attacked."""
    return {
        "release": compared.release,
        "of": f"gradients, q n = {compared.records / 4:g}" if compared.records else "a mean embedding",
        "k": compared.dimension,
        "claimed ε": compared.epsilon,
        "right guesses": compared.audit.right["sampler"],
        "ε ≥ (no assumption)": compared.audit.epsilon,
        "releases": f"2 × {compared.audit.draws}",
    }


def whole_run_line(bound: WholeRunBound) -> Line:
    """The line of one score on whole runs."""
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


def in_words(line: Mapping[str, Any]) -> str:
    """A line of a table as a line of output.

    >>> in_words({"method": "dp_sgd", "claimed ε": 7.99999, "ε ≥ (Gaussian)": math.inf})
    'method dp_sgd, claimed ε 8, ε ≥ (Gaussian) ∞'
    """
    return ", ".join(f"{key} {_shown(value)}" for key, value in line.items())


def _brief(part: GaussianMechanism) -> str:
    times = f"{part.steps} × " if part.steps > 1 else ""
    sampled = f", q = {part.sampling_prob:g}" if part.sampling_prob < 1 else ""
    return f"{times}{type(part).__name__} (noise multiplier {part.noise_multiplier:.3g}{sampled})"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return "∞" if math.isinf(value) else f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return str(value)
