"""Configuration: YAML round trip, reading runs without trusting them, and those of version 0.1."""

import copy
import dataclasses

import pytest
import torch
import yaml

from mnist3d import load_run
from mnist3d.cli.parser import parse_command_line
from mnist3d.errors import ConfigError, RunError, VolumeFileError
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.runs.building import build_device, build_volume
from mnist3d.runs.config import SECTIONS, Config, read_config, read_values, written_config
from mnist3d.runs.loading import load_sculpture
from mnist3d.runs.version_0_1 import CONSTANTS, MOVED, moved_or_gone
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.training.options import TrainerOptions
from mnist3d.volumes import volume_bytes
from mnist3d.volumes.voxel_grid import VoxelGrid


def test_yaml_round_trip():
    volume = {"class_path": "glass.Beads", "init_args": {"sizes": [1, 2.5], "name": "08", "none": None}}
    objectives = [{"class_path": "glass.Smooth", "init_args": {"weight": 2.0}}]
    training = TrainerOptions(max_steps=3, views=8)
    config = Config(seed=7, watchdog="off", volume=volume, objectives=objectives, trainer=training)
    assert Config.from_mapping(yaml.safe_load(config.to_yaml())) == config


def test_what_is_left_out_is_the_default():
    assert Config.from_mapping({}) == Config()
    assert Config.from_mapping({"volume": {"init_args": {"resolution": 9}}}).volume == {
        "class_path": "mnist3d.volumes.VoxelGrid",
        "init_args": {"resolution": 9},
    }
    assert Config.from_mapping({"objectives": [{"class_path": "a.B"}]}).objectives == [
        {"class_path": "a.B", "init_args": {}}
    ]
    assert Config.from_mapping({"watchdog": False}).watchdog == "off"  # YAML 1.1 reads off so
    assert [field.name for field in dataclasses.fields(Config)][-len(SECTIONS) :] == [*SECTIONS]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": 1}, "colour: no such key; --help lists all"),
        ({"trainer": {"max_step": 2}}, "trainer.max_step: no such key, did you mean trainer.max_steps?"),
        ({"trainer": {"views": "abc"}}, "trainer.views=abc: must be a whole number"),
        ({"trainer": {"views": -3}}, "trainer.views=-3: must be >= 2"),
        ({"seed": -1}, "seed=-1: must be in [0, 2^63 - 1]"),
        ({"data": {"limit": 1}}, "data.limit=1: must be >= 2"),
        ({"volume": 3}, "volume=3: must be a mapping of class_path and init_args"),
        ({"volume": {"class_path": 3}}, "must be a mapping of class_path and init_args"),
        ({"volume": {"init_args": {1: 2}}}, "must be a mapping of class_path and init_args"),
        ({"volume": {"radius": 2}}, "must be a mapping of class_path and init_args"),
        ({"objectives": {}}, "objectives={}: must be a list of mappings"),
        ({"objectives": ["a.B"]}, "objectives[0]=a.B: must be a mapping"),
        ({"objectives": [{}]}, "objectives[0]={}: must be a mapping of class_path and init_args"),
        ([1], "[1]: must be a mapping"),
        ({"start_from": 3}, "start_from=3: must be text or null"),
        ({"volume": {"init_args": {"a": object()}}}, "is a object"),
        ({"losses": {"nearest": 3}}, "losses.nearest: is nearest_image.weight since version 0.2"),
        ({"watchdog": {"act": True}}, "watchdog.act: is watchdog, with off, warn or rewind, since version 0.2"),
        ({"volume": {"init_args": {"init": "f"}}}, "volume.init: is start_from since version 0.2"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)
def test_bad_mappings_are_one_line(values, message):
    with pytest.raises(ConfigError) as error:
        Config.from_mapping(values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_volume_arguments_that_the_class_refuses_name_the_key():
    with pytest.raises(ConfigError, match=r"volume\.resolution=0"):
        build_volume(Config(volume={"class_path": "mnist3d.volumes.VoxelGrid", "init_args": {"resolution": 0}}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks what is said where there is no GPU")
def test_a_gpu_that_is_not_there():
    with pytest.raises(ConfigError, match=r"device=cuda.*must be cpu or auto"):
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
    for damaged in ("seed: [", "seed: !!bool maybe", "[" * 3000, "&a {b: *a}", "- 1", "", "volume: {init_args: 3}"):
        (tmp_path / "config.yaml").write_text(damaged)
        with pytest.raises(RunError, match=r"\A[^\n]*config\.yaml: damaged[^\n]*\Z"):
            load_run(tmp_path)
    (tmp_path / "config.yaml").write_text(Config().to_yaml())
    with pytest.raises(VolumeFileError, match="no such volume file"):
        load_run(tmp_path)


OF_0_1 = """
seed: 3
device: auto
volume:
  class_path: mnist3d.volumes.HashGrid
  init_args: {num_levels: 4, bake_resolution: 48, implementation: auto, table_rate: 1.0, grow_at: [0.15]}
data: {name: mnist_5k, path: null, held_out: 0.3, resize: false, limit: null, scale: 1.0, class_names: null}
poses: {name: ring, sphere_share: 0.25, elevation_spread: 0.2}
renderer: {image_size: 28, samples_per_ray: null, quadrature: slices, stratified: true}
discriminator: {channels: [24, 48, 96], features: 128}
losses:
  adversarial: hinge
  adversarial_weight: 0.5
  classification: 1.0
  penalty: 2.0
  penalty_every: 4
  diversity: 0.1
  diversity_everywhere: 0.2
  nearest: 12.0
  nearest_quantile: 0.58
  nearest_registration: 0.2
  nearest_from: 0.4
  nearest_focus: 6.0
targets: {views: null, rings: null, weight: 10.0, jitter: 10.0, views_per_step: 40, focus: 2.0}
trainer:
  max_steps: 40
  max_minutes: null
  stop_after: null
  views: 12
  volume_rate: 0.01
  discriminator_rate: 0.002
  decay_from: 0.5
  final_rate: 0.1
  average_decay: 0.98
  max_tilt: 45.0
  max_shift: 2
scorecard: {every: 100, train_judges: true}
watchdog: {enabled: true, act: false, window: 90, rate_scale: 0.5, max_rewinds: 3}
viewer: {enabled: true, port: 8328, host: 127.0.0.1, share: 0.02}
"""


def run_of_0_1(path, **changes):
    """A run directory of version 0.1; `changes` by dotted keys."""
    values = yaml.safe_load(OF_0_1)
    for key, value in changes.items():
        holder = values
        *places, name = key.split(".")
        for place in places:
            holder = holder[place]
        holder[name] = value
    (path / "config.yaml").write_text(yaml.safe_dump(values))
    (path / "resume.pt").touch()
    return RunDirectory(path)


@pytest.mark.parametrize("exactly", [True, False])
def test_a_configuration_of_0_1_is_read_as_what_it_has_become(tmp_path, exactly):
    config = read_config(run_of_0_1(tmp_path), exactly=exactly)
    assert config.discriminator.rate == 0.002
    assert dataclasses.astuple(config.adversarial) == ("hinge", 0.5, 2.0)
    assert (config.diversity.weight, config.class_balance.weight) == (0.1, 0.2)
    assert dataclasses.astuple(config.nearest_image) == (12.0, 0.4)
    assert (config.watchdog, config.start_from, config.objectives) == ("warn", None, [])
    assert (config.seed, config.trainer.views, config.poses.name, config.scorecard.every) == (3, 12, "ring", 100)
    assert "table_rate" not in config.volume["init_args"]
    assert config.volume["init_args"]["grow_at"] == [0.15]
    # every key of 0.1 is gone or moved, none of this version is missing
    flat = {f"{name}.{key}" for name in SECTIONS for key in dataclasses.asdict(getattr(config, name))}
    assert {new for new in MOVED.values() if "." in new} <= flat
    assert not {*MOVED, *CONSTANTS} & flat


@pytest.mark.parametrize(
    ("watchdog", "expected"),
    [
        ({"enabled": True, "act": True, "window": 90}, "rewind"),
        ({"enabled": True, "act": False}, "warn"),
        ({"enabled": False, "act": True}, "off"),
        ({}, "rewind"),
    ],
)
def test_what_the_watchdog_of_0_1_did(tmp_path, watchdog, expected):
    assert read_config(run_of_0_1(tmp_path, watchdog=watchdog)).watchdog == expected


def test_where_a_grid_of_0_1_had_started_from(tmp_path):
    arguments = {"resolution": 12, "init": "start.npz"}
    for name, start, kept in (
        ("mnist3d.volumes.VoxelGrid", "start.npz", {"resolution": 12}),
        ("my_package.Grid", None, arguments),  # its own argument
    ):
        run = run_of_0_1(tmp_path, volume={"class_path": name, "init_args": dict(arguments)})
        config = read_config(run, exactly=True)
        assert (config.start_from, config.volume["init_args"]) == (start, kept)


@pytest.mark.parametrize("key", CONSTANTS)
def test_a_run_of_0_1_with_another_constant_opens_and_does_not_resume(tmp_path, key):
    other = "x" if CONSTANTS[key] is True else 0.25
    run = run_of_0_1(tmp_path, **{key: other})
    assert read_config(run) == read_config(run_of_0_1(tmp_path))
    run = run_of_0_1(tmp_path, **{key: other})
    if key == "scorecard.train_judges":  # nothing that a run computes
        assert read_config(run, exactly=True).scorecard.every == 100
        return
    with pytest.raises(RunError, match=rf"^resume={tmp_path}: {key}={other}: is always") as error:
        read_config(run, exactly=True)
    with pytest.raises(RunError, match="start a new run"):
        parse_command_line(["--resume", str(tmp_path)])
    assert "\n" not in str(error.value)


def test_a_run_of_0_1_resumes_from_the_command_line(tmp_path):
    run = run_of_0_1(tmp_path)
    before = (tmp_path / "config.yaml").read_bytes()
    config = parse_command_line(["--resume", str(tmp_path), "--watchdog", "rewind"]).config
    assert config.volume["init_args"]["num_levels"] == 4
    assert config.watchdog == "rewind"
    for refused in (["--nearest_image.weight", "3"], ["--volume.num_levels", "5"], ["--start_from", "a.npz"]):
        with pytest.raises(ConfigError, match="a resumed run keeps its"):
            parse_command_line(["--resume", str(tmp_path), *refused])
    assert (tmp_path / "config.yaml").read_bytes() == before
    assert read_values(run, exactly=True)["adversarial"] == {"pairing": "hinge", "weight": 0.5, "penalty": 2.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"losses": 3},
        {"losses": {"nearest": "x"}},
        {"losses": {"unheard_of": 1}},
        {"watchdog": {"unheard_of": 1}},
        {"watchdog": 3},
        {"volume": 3},
        {"trainer": None},
        {"adversarial": 3},
    ],
    ids=str,
)
def test_damaged_runs_of_0_1_are_one_line(tmp_path, changes):
    with pytest.raises(RunError, match="damaged") as error:
        read_config(run_of_0_1(tmp_path, **changes))
    assert "\n" not in str(error.value)


def test_what_version_0_1_wrote_beside_a_volume_is_read_and_left_as_it_was():
    known = {
        "volume": {"class_path": "mnist3d.volumes.HashGrid", "init_args": {"num_levels": 2, "table_rate": 3.0}},
        "renderer": {"image_size": 20, "samples_per_ray": None, "quadrature": "slices", "stratified": False},
    }
    before = copy.deepcopy(known)
    config = written_config(known)
    assert config.volume["init_args"] == {"num_levels": 2}
    assert config.renderer.image_size == 20
    assert known == before
    for hostile in (None, [known], {"renderer": {"image_size": 1 << 5000}}, {"renderer": {"quadrature": [1]}}):
        with pytest.raises(ConfigError, match=r"\A[^\n]*\Z"):
            written_config(hostile)


def test_every_key_of_0_1_says_what_became_of_it():
    for key in (*MOVED, *CONSTANTS):
        volume = "mnist3d.volumes.HashGrid" if key.endswith("table_rate") else "mnist3d.volumes.VoxelGrid"
        message = moved_or_gone(key, volume)
        assert message is not None
        assert "since version 0.2" in message
        assert MOVED.get(key, "is no option") in message
    assert moved_or_gone("volume.init_args.init", "my_package.Grid") is None
    assert moved_or_gone("trainer.views", "mnist3d.volumes.VoxelGrid") is None
