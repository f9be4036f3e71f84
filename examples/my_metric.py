"""A metric of your own: how much of the real data the generated images cover (Naeem et al. 2020, arXiv:2002.09797)."""

import numpy as np

from dphyper.metrics.metric import Evidence, Metric, pair_of_features


class Coverage(Metric):
    """Share of real records with a generated one nearer than their k-th real neighbour."""

    label = "Coverage"
    higher_is_better = True  # plots, verdicts and bold numbers follow from this
    needs = frozenset({"features"})  # what `compute` reads; with features alone, real against real is computed too
    neighbours = 5

    @classmethod
    def compute(cls, given: Evidence) -> float:
        """Between 0 and 1."""
        generated, real = pair_of_features(given)  # as float64; refuses shapes that have no distance
        between_real = np.sort(distances(real, real), axis=1)
        radius = between_real[:, min(cls.neighbours, len(real) - 1)]  # column 0 is the record itself
        return float((distances(real, generated).min(axis=1) <= radius).mean())


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, M) Euclidean distances of (N, d) and (M, d) features."""
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
    return np.sqrt(squares.clip(0))
