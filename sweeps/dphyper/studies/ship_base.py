"""Put a base model into the package: ``python -m dphyper.studies.ship_base SWEEP``, or ``make base``.

A newcomer then begins where most users of diffusion models begin, at a pretrained one. A shipped model is used only
where data, spec and versions are those that it was trained from: it lies in a folder of the name of their hash. Beside
it stand the hash of each file and where it comes from.
"""

import importlib.metadata
import shutil
from pathlib import Path

from dphyper.bench.provenance import provenance
from dphyper.bench.public_work import SHIPPED, PublicWork
from dphyper.bench.tracking import Tracking
from dphyper.core.files import write_json
from dphyper.studies.command import run_command
from dphyper.sweeps.plan import read_sweep

ORIGIN = "origin.json"


def main(sweep: str) -> None:
    """Train the base model of a sweep's first cell, if the cache lacks it, and copy it into the package.

    Args:
        sweep: Sweep file.
    """
    plan, cells = read_sweep(sweep)
    work = PublicWork(plan.performance, Tracking("off", Path(plan.store_path), plan.name))
    data, base = cells[0].data, cells[0].base
    collection = work.collection(data)
    place = SHIPPED / work.base_key(data, base)
    if place.exists():
        print(f"{place} is there already")
        return
    shutil.copytree(work.base_folder(data, base), place)
    origin = {
        "data": collection.name,
        "licence": collection.licence,
        "public_fingerprint": collection.public_fingerprint,
        "base": base.__dict__,
        "torch": importlib.metadata.version("torch"),
        **provenance(),
    }
    write_json(place / ORIGIN, origin)
    print(f"{place}: {sum(path.stat().st_size for path in place.rglob('*')) / 1e6:.1f} MB")


if __name__ == "__main__":
    run_command(main)
