"""How near generated images come to the private records, and to as many held-out ones: the judge's look for memorising.

Images from a distribution lie as near to a sample that a model was fitted to as to one that it never saw. A distance to
the private records below that to held-out ones says that they were memorised. Nothing of this is covered by noise: both
metrics need `Evidence.private_features`, which the harness gives only where there is no privacy to lose.
"""

from typing import ClassVar

from dphyper.metrics.metric import Evidence, Features, Metric, Need, pair_of_features


class NearestPrivate(Metric):
    """Mean Euclidean distance of features from a generated image to the nearest of the n private records."""

    label = "distance to the nearest private record"
    needs: ClassVar[frozenset[Need]] = frozenset({"features", "private_features"})
    order = None  # a diagnosis, with a table of its own

    @classmethod
    def compute(cls, given: Evidence) -> float:
        """The distance; 0 where every generated image is a copy.

        Raises:
            UserError: The features have different widths, or are fewer than two, or not finite.
        """
        return _mean_nearest(given, private=True)


class NearestHeldOut(Metric):
    """The same to as many of the held-out records: what the distance would be without memorising."""

    label = "distance to the nearest held-out record"
    needs: ClassVar[frozenset[Need]] = frozenset({"features", "private_features"})
    order = None

    @classmethod
    def compute(cls, given: Evidence) -> float:
        """The distance; as `NearestPrivate.compute`."""
        return _mean_nearest(given, private=False)


def _mean_nearest(given: Evidence, *, private: bool) -> float:
    """Mean over generated features; of private and held-out records the same number are looked at, the first ones.

    A generated 0 is 1 away from the private records, and 2 from as many held-out ones, the third of which is not
    looked at:

    >>> import numpy as np
    >>> generated, members, rest = ([[0.0], [0.0]], [[1.0], [3.0]], [[2.0], [5.0], [0.0]])
    >>> found = Evidence(
    ...     generated_features=np.array(generated),
    ...     private_features=np.array(members),
    ...     reference_features=np.array(rest),
    ... )
    >>> _mean_nearest(found, private=True), _mean_nearest(found, private=False)
    (1.0, 2.0)
    """
    from scipy.spatial.distance import cdist

    generated, held_out = pair_of_features(given)
    assert given.private_features is not None
    count = min(len(given.private_features), len(held_out))
    records: Features = given.private_features if private else held_out
    return float(cdist(generated, records[:count]).min(axis=1).mean())
