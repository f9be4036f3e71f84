"""The U-Net target's base model: what folders of others it reads, and what it refuses."""

from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler

from dphyper.core.errors import UserError
from dphyper.core.specs import BaseSpec
from dphyper.targets.unet import UNetBase

SPEC = BaseSpec(block_out_channels=(16, 32))
SHAPE = {"image_size": 8, "channels": 1}


def test_a_pipeline_folder_is_read_with_its_own_schedule(tmp_path: Path) -> None:
    base = UNetBase.untrained(SPEC, **SHAPE)
    DDPMPipeline(unet=base.unet, scheduler=DDPMScheduler(prediction_type="epsilon")).save_pretrained(tmp_path)
    found = UNetBase.load(tmp_path, **SHAPE)
    assert found.scheduler.config["prediction_type"] == "epsilon"
    assert torch.equal(found.unet.conv_in.weight, base.unet.conv_in.weight)


def test_a_bare_unet_is_taken_to_predict_velocities(tmp_path: Path) -> None:
    UNetBase.untrained(SPEC, **SHAPE).unet.save_pretrained(tmp_path)
    assert UNetBase.load(tmp_path, **SHAPE).scheduler.config["prediction_type"] == "v_prediction"


def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a diffusers pipeline folder with unet/config\.json"):
        UNetBase.load(tmp_path, **SHAPE)
    UNetBase.untrained(SPEC, **SHAPE).save(tmp_path)
    with pytest.raises(UserError, match="makes images of size 8 with 1 channels, the data has 8 with 3") as caught:
        UNetBase.load(tmp_path, image_size=8, channels=3)
    assert "\n" not in str(caught.value)
    for file in tmp_path.glob("unet/*.safetensors"):
        file.unlink()
    with pytest.raises(UserError, match=r"cannot be read .*: export the model again"):
        UNetBase.load(tmp_path, **SHAPE)
