"""A plot of an attacker's scores without and with the canary: how far apart they lie is what the audit saw."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm

from dphyper.audits.bounds import Scores

# Blue and vermilion of Okabe and Ito, which the common colour blindnesses tell apart.
_COLOURS = ("#0072B2", "#D55E00")


def plot_scores(title: str, scores: tuple[Scores, Scores], path: Path) -> None:
    """Draw the attacker's scores without and with the canary, each with the normal density of its moments.

    Args:
        title: Above the plot.
        scores: Without and with.
        path: Of a PNG or PDF; its folder is made when missing.
    """
    matplotlib.rcParams["pdf.fonttype"] = 42  # text as text, which publishers ask for
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.subplots()
    # All but the outermost thousandth of the scores, so that no single one decides the scale.
    low, high = np.quantile(np.concatenate(scores), [0.0005, 0.9995])
    grid = np.linspace(low, high, 300)
    bins = min(80, len(scores[0]) // 10 + 1)
    for part, label, colour in zip(scores, ("without the canary", "with it"), _COLOURS, strict=True):
        axes.hist(part, bins=bins, range=(low, high), density=True, color=colour, alpha=0.35, label=label)
        axes.plot(grid, norm.pdf(grid, part.mean(), part.std()), color=colour)
    axes.set(xlabel="attacker's score", ylabel="density", yticks=[])
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
