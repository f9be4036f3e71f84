"""What a Fréchet distance may be called: its name says whose features it was computed on.

Guarantees that only Inception's features give a "FID". Imports no torch, so that reports can name what they show;
it computes nothing.
"""

from dphyper.bench.errors import unknown_name

_LABELS = {
    "inception": "FID",
    "clip": "CLIP-FID",
    "efficientnet_lite0": "FD (EfficientNet-Lite0)",
}


def distance_label(extractor: str) -> str:
    """Name of the Fréchet distance on an extractor's features, for axes and column heads.

    Args:
        extractor: As in `Protocol.extractor`.

    Raises:
        UserError: No such extractor.

    >>> distance_label("inception"), distance_label("efficientnet_lite0")
    ('FID', 'FD (EfficientNet-Lite0)')
    """
    if extractor not in _LABELS:
        raise unknown_name("extractor", extractor, _LABELS)
    return _LABELS[extractor]
