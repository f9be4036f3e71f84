"""A data source of your own: it makes a collection of tasks, each one dataset.

Here the images are drawn, so that the example needs no file: stripes of eight directions, one family each. Yours would
read them; then `spec.argument` holds what stands behind the colon of `data.source: stripes:PATH`.
"""

import numpy as np

from dphyper.bench.source import Source
from dphyper.bench.tasks import Collection, Task
from dphyper.core.specs import DataSpec

IMAGES = 1000  # of each family
SPLITS = {"0": "private", "1": "tuning"}  # all other families are public


class Stripes(Source):
    """Noisy stripes of eight directions, a family each."""

    @classmethod
    def load(cls, spec: DataSpec) -> Collection:
        """Draw the images; the size is the sweep file's, `data.image_size`."""
        rng = np.random.default_rng(0)
        rows, columns = np.mgrid[: spec.image_size, : spec.image_size]
        records, tasks = [], []
        for family in range(8):
            angle = np.pi * family / 8
            phases = rng.uniform(0, 2 * np.pi, (IMAGES, 1, 1))
            waves = np.sin(2 * (np.cos(angle) * rows + np.sin(angle) * columns) + phases)
            noisy = 127.5 + 100 * waves + 15 * rng.standard_normal(waves.shape)
            # Records are (N, height, width, channels), uint8.
            records.append(np.repeat(noisy.clip(0, 255).astype(np.uint8)[..., None], spec.channels, axis=-1))
            # A task names its rows of the pool. No record may lie in two splits: the collection refuses that.
            indices = np.arange(IMAGES) + family * IMAGES
            split = SPLITS.get(str(family), "public")
            tasks.append(Task(id=str(family), family=str(family), split=split, indices=indices))
        return Collection(
            name="stripes",
            records=np.concatenate(records),
            tasks=tuple(tasks),
            licence="Drawn by this file",
            show_reference=True,  # sheets may show images of private families: nobody is in them
        )
