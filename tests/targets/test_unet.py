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


def test_an_old_pipeline_keeps_its_model_and_its_schedule_at_the_top(tmp_path: Path) -> None:
    base = UNetBase.untrained(SPEC, **SHAPE)
    base.unet.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="so that nothing says what its model predicts"):
        UNetBase.load(tmp_path, **SHAPE)
    DDPMScheduler(prediction_type="sample").save_pretrained(tmp_path)
    found = UNetBase.load(tmp_path, **SHAPE)
    assert found.scheduler.config["prediction_type"] == "sample"
    assert torch.equal(found.unet.conv_in.weight, base.unet.conv_in.weight)


@pytest.mark.parametrize("image_size", [18, 30])
def test_images_that_do_not_halve_evenly_are_refused(image_size: int, tmp_path: Path) -> None:
    spec = BaseSpec(block_out_channels=(16, 16, 32))
    with pytest.raises(UserError, match=f"data.image_size = {image_size} with 3 levels in base.block_out_channels"):
        UNetBase.untrained(spec, image_size=image_size, channels=1)
    unet = UNetBase.untrained(spec, image_size=16, channels=1).unet
    unet.register_to_config(sample_size=image_size)
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=f"{image_size} with 3 levels in the pretrained model: expected a multiple of 4"
    ):
        UNetBase.load(tmp_path, image_size=image_size, channels=1)
