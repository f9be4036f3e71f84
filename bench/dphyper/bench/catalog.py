"""The registries: every method and data source by name.

A new method or source is one new file and one line here; a package outside this repository uses the entry-point
groups instead. Nothing is imported until a name is looked up.
"""

import dataclasses
import math
from typing import Any

from dphyper.core.registry import Registry
from dphyper.core.specs import Cell

METHODS = Registry(
    "method",
    {
        "hypernetwork": "dphyper.methods.hypernetwork:Hypernetwork",
        "hypernetwork_sigma0": "dphyper.methods.hypernetwork:HypernetworkSigma0",
        "public_mean": "dphyper.methods.hypernetwork:PublicMean",
        "dp_sgd": "dphyper.methods.dp_sgd:DPSGD",
        "dp_sgd_tuned": "dphyper.methods.dp_sgd_tuned:DPSGDTuned",
        "pda_dpmd": "dphyper.methods.pda_dpmd:PDADPMD",
        "adadps": "dphyper.methods.adadps:AdaDPS",
        "dope_sgd": "dphyper.methods.dope_sgd:DOPESGD",
        "dpagg": "dphyper.methods.dpagg:DPAgg",
        "private_evolution": "dphyper.methods.private_evolution:PrivateEvolution",
        "privimage": "dphyper.methods.privimage:PrivImage",
        "dp_feta": "dphyper.methods.dp_feta:DPFETA",
        "dp_mepf": "dphyper.methods.dp_mepf:DPMEPF",
        "dp_merf": "dphyper.methods.dp_merf:DPMERF",
        "pdp_sgd": "dphyper.methods.pdp_sgd:PDPSGD",
        "gep": "dphyper.methods.gep:GEP",
        "b_gep": "dphyper.methods.gep:BiasedGEP",
        "rgp": "dphyper.methods.rgp:RGP",
        "pazo": "dphyper.methods.pazo:PAZO",
        "pe_sgd": "dphyper.methods.pe_sgd:PESGD",
        "public_only": "dphyper.methods.public_only:PublicOnly",
        "subspace_dp_sgd": "dphyper.methods.subspace:SubspaceDPSGD",
        "subspace_one_shot": "dphyper.methods.subspace:SubspaceOneShot",
        "nonprivate_lora": "dphyper.methods.nonprivate_lora:NonprivateLoRA",
        "nonprivate_full": "dphyper.methods.nonprivate_full:NonprivateFull",
    },
    group="dphyper.methods",
)

DATASETS = Registry(
    "data source",
    {
        "glyphs": "dphyper.datasets.glyphs:load",
        "digits8": "dphyper.datasets.digits8:load",
        "torchvision": "dphyper.datasets.torchvision:load",
        "parquet": "dphyper.datasets.parquet:load",
        "folder": "dphyper.datasets.folder:load",
        "npz": "dphyper.datasets.npz:load",
        "icons": "dphyper.datasets.icons:load",
    },
    group="dphyper.datasets",
)


def canonical(cell: Cell) -> Cell:
    """The cell with the axes that its method does not use set to one value, and its options complete.

    Cells that differ only in an unused axis (public_only at two ε) are one cell and run once.

    Raises:
        UserError: Unknown method or option.
    """
    method = METHODS[cell.method]
    changes: dict[str, Any] = {
        "options": dataclasses.asdict(method.options_type.parse(cell.method, cell.options)),
    }
    if "epsilon" not in method.uses:
        changes |= {"epsilon": math.inf, "noise_draw": 0}
    if "embedding_dim" not in method.uses:
        changes["embedding_dim"] = 0
    return dataclasses.replace(cell, **changes)
