"""The registries: every method and data source by name.

A new method or source is one new file and one line here; a package outside this repository uses the entry
point groups instead. Nothing is imported until a name is looked up.
"""

from dphyper.bench.registry import Registry

METHODS = Registry(
    "method",
    {
        "hypernetwork": "dphyper.methods.hypernetwork:Hypernetwork",
        "hypernetwork_sigma0": "dphyper.methods.hypernetwork:HypernetworkSigma0",
        "public_mean": "dphyper.methods.hypernetwork:PublicMean",
        "dp_sgd": "dphyper.methods.dp_sgd:DPSGD",
        "public_only": "dphyper.methods.public_only:PublicOnly",
        "nonprivate_lora": "dphyper.methods.nonprivate_lora:NonprivateLoRA",
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
