"""The 1,797 handwritten 8×8 digits of scikit-learn: the smallest real collection, for tests and first tries.

Guarantees that it loads in well under a second and needs no file or network. Ten classes of about 180 images are too
few for a result worth reporting.
"""

import numpy as np
from sklearn.datasets import load_digits

from dphyper.core.specs import DataSpec
from dphyper.datasets._cut import Pool, PooledSource
from dphyper.datasets._families import by_label
from dphyper.datasets._images import fit_arrays


class Digits8(PooledSource):
    """The 1,797 handwritten 8×8 digits of scikit-learn, for tests and first tries."""

    @classmethod
    def read(cls, spec: DataSpec) -> Pool:
        """Read the digits; private by default 3 and 8, tuning 5. All are curved, so the other seven help."""
        digits = load_digits()
        # Ink goes from 0 to 16. Full ink is white.
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)
        return Pool(
            name="digits8",
            images=fit_arrays(images, spec),
            families=by_label(digits.target, [str(name) for name in digits.target_names]),
            private=("3", "8"),
            tuning=("5",),
            show_reference=True,
            licence="Optical Recognition of Handwritten Digits, Alpaydin and Kaynak 1998, UCI, CC BY 4.0, by "
            "scikit-learn",
        )
