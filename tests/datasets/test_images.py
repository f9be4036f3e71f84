"""Images of every mode come out in one size and one number of channels."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dphyper.datasets.folder import Folder


def test_images_of_every_mode_are_read(tmp_path: Path, write: Any, digits: Any) -> None:
    spec = write["folder"](tmp_path)
    grey = Image.fromarray(digits.families["0"][0])
    for mode in ("1", "LA", "P", "RGBA", "CMYK"):
        grey.convert(mode).save(tmp_path / "0" / f"mode-{mode}.{'jpg' if mode == 'CMYK' else 'png'}")
    Image.fromarray(np.full((20, 10), 65535, np.uint16)).save(tmp_path / "1" / "deep.png")
    Image.new("RGBA", (9, 9)).save(tmp_path / "2" / "clear.png")
    assert Folder.load(spec).records.shape == (len(digits.images) + 3, 8, 8, 1)
    # "LA", "P" and "RGBA" equal their original, both white images each other: equal images count once.
    assert Folder.load(replace(spec, channels=3)).records.shape[-1] == 3
