"""Configuration: YAML round trip, and reading runs without trusting them."""

import pytest
import torch
import yaml

from mnist3d import load_run
from mnist3d.errors import ConfigError, RunError, VolumeFileError
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.runs.building import build_device, build_volume
from mnist3d.runs.config import Config
from mnist3d.runs.loading import load_sculpture
from mnist3d.training.trainer import TrainerOptions
from mnist3d.volumes import volume_bytes
from mnist3d.volumes.voxel_grid import VoxelGrid


def test_yaml_round_trip():
    config = Config(seed=7, trainer=TrainerOptions(max_steps=3, views=8))
    assert Config.from_mapping(yaml.safe_load(config.to_yaml())) == config


@pytest.mark.parametrize("values", [{"colour": 1}, {"trainer": {"speed": 2}}, {"trainer": {"views": -3}}])
def test_bad_mappings_are_one_line(values):
    with pytest.raises(ConfigError) as error:
        Config.from_mapping(values)
    assert "\n" not in str(error.value)


def test_volume_arguments_that_the_class_refuses_name_the_key():
    with pytest.raises(ConfigError, match=r"volume\.resolution=0"):
        build_volume(Config(volume={"class_path": "mnist3d.volumes.VoxelGrid", "init_args": {"resolution": 0}}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks what is said where there is no GPU")
def test_a_gpu_that_is_not_there():
    with pytest.raises(ConfigError, match=r"device=cuda.*cpu and auto"):
        build_device(Config(device="cuda"))
    assert build_device(Config()).type == "cpu"


def test_load_run(tmp_path):
    volume = VoxelGrid(6)
    (tmp_path / "config.yaml").write_text(Config(seed=3).to_yaml())
    (tmp_path / "volume.safetensors").write_bytes(volume_bytes(volume))
    run = load_run(tmp_path)
    assert isinstance(run.volume, VoxelGrid)
    assert torch.equal(run.volume.dense(), volume.dense())
    assert run.config.seed == 3
    assert run.renderer(run.volume, torch.eye(3)).shape == (1, 1, 28, 28)


def test_a_lone_volume_file_is_rendered_as_its_sculptor_saw_it(tmp_path):
    path = tmp_path / "shared.safetensors"
    renderer = AbsorptionRenderer(20, 9)
    path.write_bytes(volume_bytes(VoxelGrid(6), {"renderer": {"image_size": 20, "samples_per_ray": 9}}))
    assert load_sculpture(path).renderer.options == renderer.options


def test_a_run_directorys_config_never_causes_an_import(tmp_path):
    """Its volume's class path is read as text; only the volume file's class, if it is ours, is built."""
    config = Config(volume={"class_path": "antigravity.Volume", "init_args": {}})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    (tmp_path / "volume.safetensors").write_bytes(volume_bytes(VoxelGrid(4)))
    assert load_run(tmp_path).config.volume["class_path"] == "antigravity.Volume"
    (tmp_path / "config.yaml").write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(RunError, match="damaged"):
        load_run(tmp_path)


def test_missing_and_damaged_runs(tmp_path):
    with pytest.raises(RunError, match=r"no run lies there"):
        load_run(tmp_path / "nothing")
    (tmp_path / "config.yaml").write_text("seed: [")
    with pytest.raises(RunError, match="damaged"):
        load_run(tmp_path)
    (tmp_path / "config.yaml").write_text(Config().to_yaml())
    with pytest.raises(VolumeFileError, match="no such volume file"):
        load_run(tmp_path)
