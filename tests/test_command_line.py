"""What a person at a terminal meets: every key in --help, every mistake one line."""

import dataclasses
import json
import math
import os
import runpy
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch
import yaml

from mnist3d.cli import orbit
from mnist3d.cli.parser import parse_command_line
from mnist3d.cli.program import run_command_line
from mnist3d.errors import ConfigError
from mnist3d.runs.building import CommandLine, build_volume
from mnist3d.runs.config import SECTIONS, Config
from mnist3d.runs.session import sculpt
from mnist3d.training.objectives.nearest_image import NearestImageOptions
from mnist3d.volumes import Volume, VoxelGrid

ROOT = Path(__file__).parent.parent
TINY = ["--trainer.views", "4", "--volume.resolution", "12", "--data.limit", "40", "--trainer.max_steps", "4"]


def outcome(arguments, capsys):
    """Exit code and stderr of train.py's main, in this process."""
    old = sys.argv
    sys.argv = ["train.py", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as ended:
            run_command_line(lambda rest: sculpt(parse_command_line(rest)))
    finally:
        sys.argv = old
    return ended.value.code, capsys.readouterr().err


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    sculpt(parse_command_line([*TINY, "--run_dir", str(path)]))
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sed", "1"], ["sed: no such key, did you mean seed?", "--help"]),
        (["--seed", "1", "hash_grid"], ["hash_grid: must follow a flag, as in --config hash_grid"]),
        (["my own.yaml"], ["my own.yaml: must follow a flag, as in --config my own.yaml"]),
        (["--trainer.view", "8"], ["trainer.view: no such key, did you mean trainer.views?"]),
        (["--trainer.view=8"], ["trainer.view: no such key, did you mean trainer.views?"]),
        (["--trainer", "{view: 8}"], ["trainer.view: no such key, did you mean trainer.views?"]),
        (["--volume.resoluton", "48"], ["volume.resoluton: no such key, did you mean volume.resolution?"]),
        (["--seed"], ["seed: no value follows"]),
        (["--seed", ""], ["seed=: must be a whole number"]),
        (["--seed", "x"], ["seed=x", "a whole number"]),
        (["--seed", "-1"], ["seed=-1", "in [0, "]),
        (["--seed", "9" * 30], ["seed=999", "2^63 - 1"]),
        (["--config", str(ROOT / "configs")], ["config=", "is a folder"]),
        (["--trainer.views", "1.5"], ["trainer.views=1.5", "a whole number"]),
        (["--trainer.views", "1"], ["trainer.views=1", "must be >= 2"]),
        (["--trainer.max_minutes", "nan"], ["trainer.max_minutes=nan", "must be finite"]),
        (["--device", "tpu"], ["device=tpu", "auto, cpu, cuda"]),
        (["--poses.name", "helix"], ["poses.name=helix", "euler_normal, sphere, ring, so3"]),
        (["--data.name", "cifar"], ["data.name=cifar", "mnist_5k"]),
        (["--data.name", "images"], ["data.path", "--data.path FOLDER"]),
        (["--data.name", "images", "--data.path", "nowhere"], ["data.path=nowhere", "no such folder"]),
        (["--renderer.image_size", "0"], ["renderer.image_size=0", "in [1, 4096]"]),
        (["--renderer.image_size", "4"], ["image_size=4", "8 pixels"]),
        (["--volume", "json.JSONDecoder"], ["volume=json.JSONDecoder", "subclass of mnist3d.Volume"]),
        (["--volume", "Nope"], ["volume=Nope", "VoxelGrid"]),
        (["--volume", "mnist3d.VoxelGrid", "--volume.pyramd", "[]"], ["did you mean volume.pyramid"]),
        (["--volume.resolution", "abc"], ["volume.resolution=abc", "a whole number"]),
        (["--volume.resolution", "0"], ["volume.resolution=0", "in [1, 1024]"]),
        (["--volume.grow_at", "[.inf]"], ["volume.grow_at=[inf]", "ascending steps"]),
        (["--volume.grow_at", "[0.2,a]"], ["volume.grow_at[1]=a: must be a number"]),
        (["--volume.resolution", "1", "--volume.grow_at", "[0.3]"], ["volume.grow_at=[0.3]", "at most 0 times"]),
        (
            ["--volume", "HashGrid", "--volume.levels_at", "[1,2,3,4,5,6,7,8]"],
            ["volume.levels_at=[1, 2", "at most 7 times"],
        ),
        (["--volume", "HashGrid", "--volume.per_level_scale", "1e50"], ["per_level_scale=1e+50", "in [1, 1024]"]),
        (["--discriminator.channels", "[]"], ["discriminator.channels=[]", "each >= 1"]),
        (["--adversarial.penalty", "-1"], ["adversarial.penalty=-1", ">= 0"]),
        (["--adversarial.pairing", "hnge"], ["adversarial.pairing=hnge", "relativistic, non_saturating, hinge"]),
        (["--nearest_image.start", "1"], ["nearest_image.start=1", "must be >= 0 and < 1"]),
        (["--watchdog", "act"], ["watchdog=act: must be one of off, warn, rewind"]),
        (["--losses.nearest", "1"], ["losses.nearest: is nearest_image.weight since version 0.2"]),
        (["--losses.nearest_quantile", "1"], ["losses.nearest_quantile: is no option since version 0.2", ".58"]),
        (["--watchdog.act=false"], ["watchdog.act: is watchdog, with off, warn or rewind, since version 0.2"]),
        (["--volume.init", "v.npz"], ["volume.init: is start_from since version 0.2"]),
        (["--volume", "HashGrid", "--volume.table_rate", "2"], ["volume.table_rate: is no option", "1.0"]),
        (["--start_from", "nowhere.npz"], ["start_from=nowhere.npz", "no such file"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml", "no such preset or file; presets are counter"]),
        (["--config", "countr"], ["config=countr: no such preset or file, did you mean counter?"]),
        (["--data.path", "mine"], ["data.path=mine: is not used by data.name=mnist_5k; add --data.name images for"]),
        (["--data.name", "image", "--data.path", "mine"], ["data.name=image: must be one of", "did you mean images?"]),
        (["--config", "x" * 300], ["config=xxx", "cannot be read (File name too long)"]),
        (["--config", str(ROOT / "docs/turntable.png")], ["config=", "cannot be read, it is no UTF-8 text"]),
        (["--resume", "nowhere"], ["resume=nowhere", "nothing to resume"]),
        (["--run_dir", ""], ["run_dir is empty: must be the folder of the new run"]),
        (["stray"], ["stray", "no such key"]),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, error = outcome(arguments, capsys)
    assert code == 2
    assert error.count("\n") == 1, error
    assert all(word in error for word in words), error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pose:\n  name: ring\n", ["pose.name", "no such key"]),
        ("trainer:\n  views: many\n", ["trainer.views=many"]),
        ("trainer:\n  views: -1\n", ["trainer.views=-1"]),
        ("seed: [\n", ["not valid YAML"]),
        ("- 1\n- 2\n", ["config=mine.yaml: the file is empty or no mapping"]),
        ("", ["config=mine.yaml: the file is empty or no mapping"]),
        ("trainer:\n", ["trainer=null: must be a mapping"]),
        ("config: other.yaml\n", ["config: no such key"]),
        ("data: {path: 2024}\n", ["data.path=2024: must be text or null", "in quotes"]),
        ("losses: {diversity: 1}\n", ["losses.diversity: is diversity.weight since version 0.2"]),
        ("volume: {init_args: {init: v.npz}}\n", ["volume.init: is start_from since version 0.2"]),
        ("volume:\n  class_path: no.such.Volume\n", ["volume=no.such.Volume"]),
        ("volume:\n", ["volume=null: must be a class path"]),
        ("volume: {class_path: VMGrid, init_args: 3}\n", ["volume.init_args=3: must be a mapping"]),
        ("objectives: my.Objective\n", ["objectives=my.Objective: must be a list of class paths"]),
        ("resume: nowhere\n", ["resume=nowhere: nothing to resume"]),
    ],
)
def test_a_mistake_in_a_file_is_one_line(text, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    code, error = outcome(["--config", "mine.yaml"], capsys)
    assert code == 2
    assert error.count("\n") == 1, error
    assert all(word in error for word in words), error


def test_a_used_folder_is_refused_and_unchanged(finished_run, capsys):
    before = {path: path.read_bytes() for path in finished_run.rglob("*") if path.is_file()}
    code, error = outcome([*TINY, "--run_dir", finished_run], capsys)
    assert code == 2
    assert "not empty" in error
    assert before == {path: path.read_bytes() for path in finished_run.rglob("*") if path.is_file()}


def test_resuming_what_is_complete_or_damaged_or_other(finished_run, capsys, tmp_path):
    code, error = outcome(["--resume", finished_run], capsys)
    assert code == 2
    assert "complete" in error
    assert "--trainer.max_steps" in error
    code, error = outcome(["--resume", finished_run, "--volume.resolution", "16"], capsys)
    assert code == 2
    assert "volume.init_args.resolution=16" in error
    code, error = outcome(["--resume", finished_run, "--run_dir", tmp_path / "new"], capsys)
    assert code == 2
    assert "only one of the two" in error
    for name in ("config.yaml", "resume.pt"):
        (tmp_path / name).write_bytes((finished_run / name).read_bytes())
    (tmp_path / "resume.pt").write_bytes(b"damaged")
    code, error = outcome(["--resume", tmp_path, "--trainer.max_steps", "9"], capsys)
    assert code == 2
    assert "resume.pt: damaged" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("volume", ["VoxelGrid", "[]", "{class_path: VoxelGrid, init_args: 3}"])
def test_a_run_whose_volume_is_no_mapping_is_one_line(volume, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(f"volume: {volume}\n")
    (tmp_path / "resume.pt").touch()
    code, error = outcome(["--resume", tmp_path], capsys)
    assert code == 2
    assert error.count("\n") == 1, error
    assert "config.yaml: damaged" in error
    assert "class_path" in error


def test_a_run_resumes_with_another_implementation_and_nothing_else(tmp_path, capsys):
    begun = parse_command_line(["--volume", "HashGrid", "--volume.hidden_dim", "16"])
    (tmp_path / "config.yaml").write_text(begun.config.to_yaml())
    (tmp_path / "resume.pt").touch()
    resume = ["--resume", str(tmp_path)]
    chosen = ["--volume.implementation", "torch", "--volume.full_precision", "true"]
    arguments = parse_command_line([*resume, *chosen]).config.volume["init_args"]
    assert (arguments["implementation"], arguments["full_precision"], arguments["hidden_dim"]) == ("torch", True, 16)
    code, error = outcome([*resume, "--volume.hidden_dim", "32"], capsys)
    assert code == 2
    assert "hidden_dim=32: a resumed run keeps its volume.init_args.hidden_dim=16" in error


def test_an_option_newer_than_the_run_can_be_told_when_it_resumes(tmp_path, capsys):
    text = parse_command_line(["--class_balance.weight", "0.1"]).config.to_yaml()
    (tmp_path / "resume.pt").touch()
    arguments = ["--resume", str(tmp_path), "--class_balance.weight", "0.5"]
    (tmp_path / "config.yaml").write_text(text)
    code, error = outcome(arguments, capsys)
    assert code == 2
    assert "a resumed run keeps its class_balance.weight=0.1" in error
    older = yaml.safe_load(text)
    del older["class_balance"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(older))
    assert parse_command_line(arguments).config.class_balance.weight == 0.5
    assert parse_command_line(arguments[:2]).config.class_balance.weight == 0.0
    # of the volume nothing is guessed: its shape must be what the weights have; and what began is over
    del older["volume"]["init_args"]["initial_noise"], older["start_from"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(older))
    for more in (["--volume.initial_noise", "0.1"], ["--start_from", "other.npz"]):
        code, error = outcome([*arguments[:2], *more], capsys)
        assert code == 2
        assert "a resumed run keeps its" in error


def test_what_watches_a_run_may_change_when_it_resumes(tmp_path):
    (tmp_path / "config.yaml").write_text(Config(start_from="gone.npz").to_yaml())
    (tmp_path / "resume.pt").touch()
    more = {"watchdog": "off", "scorecard.every": 7, "viewer.port": 1234, "trainer.max_minutes": 3.0, "device": "cpu"}
    flags = [f"--{key}={value}" for key, value in more.items()]
    command = parse_command_line(["--resume", str(tmp_path), *flags])
    config = command.config
    assert (command.resume, command.run_dir) == (str(tmp_path), None)
    assert (config.watchdog, config.scorecard.every, config.viewer.port) == ("off", 7, 1234)
    assert (config.trainer.max_minutes, config.device, config.start_from) == (3.0, "cpu", "gone.npz")


def test_a_volume_that_fails_in_its_arithmetic_is_one_line(monkeypatch):
    monkeypatch.setattr(VoxelGrid, "_levels", lambda self: 1 / 0)
    with pytest.raises(ConfigError, match="division by zero"):
        build_volume(Config())


def test_a_foreign_class_in_a_runs_config_is_not_imported_on_resume(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("volume:\n  class_path: antigravity.Volume\n")
    (tmp_path / "resume.pt").touch()
    code, error = outcome(["--resume", tmp_path], capsys)
    assert code == 2
    assert "to trust it, add --volume antigravity.Volume" in error
    assert "antigravity" not in sys.modules


def test_help_shows_every_key_with_default(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_command_line(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    keys = ["--config", "--print_config", "--run_dir", "--resume", "--seed", "--device", "--start_from", "--watchdog"]
    keys += ["--objectives.add", *(f"--volume.{name}" for name in VoxelGrid().init_args)]
    keys += [f"--{name}.{field.name}" for name, part in SECTIONS.items() for field in dataclasses.fields(part)]
    assert [key for key in keys if key not in text] == []
    text = " ".join(text.split())
    assert "--trainer.views VIEWS Number of views in a step, and of real images, >= 2. (type: int, default: 40)" in text
    assert "The length, the saves and the learning rates of a run (--trainer)" in text
    assert "Voxels along each edge" in text
    assert "at the start, >= 0. (type: float, default: 0.3)" in text  # what follows `Args:` in a docstring is no help
    assert "null is [0.3]. (type: list[int | float] | null, default: null)" in text
    assert "--device {auto,cpu,cuda} Where to compute" in text
    assert "In the progress line D, V and T are the losses of discriminator, volume and targets." in text


def test_a_run_grows_unless_told_otherwise():
    """Coarse at first: the same from the command line and in Python; no other class is asked for it."""
    for config in (parse_command_line([]).config, Config()):
        volume = build_volume(config)
        assert isinstance(volume, VoxelGrid)
        assert volume.resolution == (32, 32, 32)
        assert volume.grow(0, NearestImageOptions().start)
        assert volume.resolution == (64, 64, 64)
    for arguments in (["--volume.resolution", "64"], ["--config", "counter"]):
        volume = build_volume(parse_command_line(arguments).config)
        assert isinstance(volume, VoxelGrid)
        assert not volume.grow(10**6, 1.0)
    assert "grow_at" not in parse_command_line(["--volume", "VMGrid"]).config.volume["init_args"]


@pytest.mark.parametrize("preset", ["counter", "letters", "two_rings", "counter_gan", "pure_gan"])
@pytest.mark.parametrize("volume", ["VMGrid", "HashGrid", "VoxelGrid"])
def test_a_preset_goes_with_another_volume(preset, volume):
    arguments = ["--config", str(ROOT / "configs" / f"{preset}.yaml"), "--volume", volume]
    assert build_volume(parse_command_line(arguments).config).__class__.__name__ == volume


def test_a_run_writes_down_what_its_volume_was_built_with(tmp_path):
    config = parse_command_line([*TINY, "--trainer.max_steps", "2"]).config
    config = dataclasses.replace(config, volume={**config.volume, "init_args": {"resolution": 8}})
    run = sculpt(CommandLine(config, str(tmp_path / "run"), None, "digits"))
    assert yaml.safe_load((run / "config.yaml").read_text())["volume"]["init_args"] == VoxelGrid(8).init_args


def test_presets_hold_differences_only_and_parse():
    presets = sorted((ROOT / "configs").glob("*.yaml"))
    assert presets
    for path in presets:
        command = parse_command_line(["--config", str(path)])
        assert command.preset == path.stem
        assert parse_command_line(["--config", path.stem]) == command  # by its name, from anywhere
        assert len(path.read_text().splitlines()) <= 40, path


def test_print_config_can_be_used_as_config(capsys, tmp_path):
    with pytest.raises(SystemExit):
        parse_command_line(["--trainer.views", "12", "--volume.resolution", "16", "--print_config"])
    (tmp_path / "again.yaml").write_text(capsys.readouterr().out)
    config = parse_command_line(["--config", str(tmp_path / "again.yaml")]).config
    assert config.trainer.views == 12
    assert config.volume["init_args"]["resolution"] == 16


def test_a_run_leaves_what_the_readme_promises(finished_run):
    names = {str(path.relative_to(finished_run)) for path in finished_run.rglob("*") if path.is_file()}
    assert names >= {
        "config.yaml",
        "environment.json",
        "stats.jsonl",
        "volume.safetensors",
        "resume.pt",
        "pictures/reals.png",
        "pictures/views.png",
        "pictures/turntable.png",
    }
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    assert config["volume"] == {
        "class_path": "mnist3d.volumes.VoxelGrid",
        "init_args": {**config["volume"]["init_args"], "resolution": 12},
    }


def test_a_run_can_be_repeated_from_its_config_alone(finished_run, tmp_path):
    again = sculpt(
        parse_command_line(["--config", str(finished_run / "config.yaml"), "--run_dir", str(tmp_path / "b")])
    )
    assert (again / "volume.safetensors").read_bytes() == (finished_run / "volume.safetensors").read_bytes()


def test_stop_after_then_resume_is_the_whole_run_to_the_bit(finished_run, tmp_path):
    half = sculpt(parse_command_line([*TINY, "--trainer.stop_after", "2", "--run_dir", str(tmp_path / "half")]))
    assert (half / "volume.safetensors").read_bytes() != (finished_run / "volume.safetensors").read_bytes()
    sculpt(parse_command_line(["--resume", str(half), "--trainer.stop_after", "null"]))
    assert (half / "volume.safetensors").read_bytes() == (finished_run / "volume.safetensors").read_bytes()


def run_program(*arguments, **options):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=120, **options
    )


def test_ctrl_c_stops_after_the_step_saves_and_says_how_to_go_on(tmp_path):
    arguments = [*TINY[:-1], "100000", "--run_dir", tmp_path / "run"]
    process = subprocess.Popen(
        [sys.executable, "train.py", *map(str, arguments)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "step 1 " in line:
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert f"go on with: {sys.executable} train.py --resume" in error
    assert "The sculpture lies in" in out
    assert (tmp_path / "run" / "volume.safetensors").is_file()
    assert (tmp_path / "run" / "resume.pt").is_file()


def test_inference_writes_the_views_and_prints_their_path(finished_run, tmp_path, capsys):
    done = run_program("inference.py", finished_run, "--snapshot", tmp_path / "v.png")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "v.png") in done.stdout
    assert (tmp_path / "v.png").read_bytes().startswith(b"\x89PNG")
    for wrong in ([tmp_path / "nothing"], [finished_run, "--snapshot", "v.jpg"], [finished_run, "--port", "70000"]):
        code, _, error = run_tool("inference", wrong, capsys)
        assert code == 2
        assert error.count("\n") == 1, error


def test_inference_serves_a_page_until_it_is_told_to_end(finished_run):
    # A shell's background job inherits a Ctrl-C that is ignored, and so would the program: these tests may run in one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command = [sys.executable, "inference.py", str(finished_run), "--port", "0"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            url = next(word for word in line.split() if word.startswith("http"))
            with urllib.request.urlopen(url, timeout=20) as answer:
                assert answer.read().startswith(b"<!doctype html>")
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert error == ""


@pytest.mark.parametrize("suffix", ["mp4", "gif", "webp", "png"])
def test_orbits(finished_run, tmp_path, capsys, suffix):
    import imageio.v3 as iio
    import imageio_ffmpeg

    output = tmp_path / f"orbit.{suffix}"
    wanted = [finished_run, "--output", output, "--frames", 6, "--size", 33]
    code, out, error = run_tool("tools/render_orbit", wanted, capsys)
    assert code == 0, error
    assert str(output) in out
    assert sorted(os.listdir(tmp_path)) == [output.name, f"{output.name}.json"]
    told = json.loads((tmp_path / f"{output.name}.json").read_text())
    assert (told["run"], told["step"], told["frames"]) == (finished_run.name, 4, 6)
    assert told["command"][0] == "render_orbit.py"
    assert told["config"]["trainer"]["max_steps"] == 4
    if suffix == "png":
        assert iio.imread(output).shape == (33, 6 * 33)
    elif suffix == "mp4":
        frames, _ = imageio_ffmpeg.count_frames_and_secs(str(output))
        assert frames == 6
        probe = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(output)]
        said = subprocess.run(probe, capture_output=True, text=True, check=False).stderr
        assert "h264" in said
        assert "yuv420p" in said
        assert "34x34" in said  # padded to even, not rescaled
    else:
        assert [frame.shape[:2] for frame in iio.imiter(output)] == [(33, 33)] * 6


def test_orbit_mistakes(finished_run, tmp_path, capsys):
    for arguments, words in (
        (["--output", tmp_path / "orbit.avi"], [".avi", ".mp4, .webm, .gif, .webp, .apng, .png"]),
        (["--output", tmp_path / "no" / "orbit.mp4"], ["does not exist"]),
        (["--frames", "1"], ["--frames", "2 to 3600"]),
        (["--size", "huge"], ["--size", "huge"]),
        (["--elevation", "90.5"], ["--elevation", "90.5", "-90.0 to 90.0"]),
        (["--path", "spiral"], ["path=spiral", "figure_eight"]),
        (["--background", "transparent"], ["not with .mp4"]),
        (["--fram", "6"], ["--fram"]),
    ):
        code, _, error = run_tool("tools/render_orbit", [finished_run, *arguments], capsys)
        assert code == 2
        assert error.count("\n") == 1, error
        assert all(word in error for word in words), error
    assert list(tmp_path.iterdir()) == []


def test_an_orbits_elevation_is_typed_in_degrees(finished_run, tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(orbit, "camera_path", lambda *_, elevation, **__: asked.append(elevation) or torch.eye(3)[None])
    for degrees in ("-90", "30", "90"):
        arguments = [finished_run, "--output", tmp_path / "o.png", "--frames", 2, "--size", 8, "--elevation", degrees]
        assert run_tool("tools/render_orbit", arguments, capsys)[0] == 0
    assert asked == [-math.pi / 2, math.pi / 6, math.pi / 2]


def run_tool(name, arguments, capsys):
    """Exit code and output of a program, in this process."""
    path = ROOT / f"{name}.py"
    old = sys.argv
    sys.argv = [str(path), *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.argv = old
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


@pytest.mark.parametrize(
    ("name", "file", "words"),
    [
        ("export_voxels", "s.vti", ["opens in ParaView"]),
        ("export_mesh", "s.stl", ["watertight", "thinnest wall", "opens in every slicer"]),
        ("plot_run", "s.svg", ["opens in browsers"]),
    ],
)
def test_exports_say_what_opens_them_and_where_they_come_from(finished_run, tmp_path, capsys, name, file, words):
    for source in (finished_run, finished_run / "volume.safetensors"):
        code, out, error = run_tool(f"tools/{name}", [source, "--output", tmp_path / file], capsys)
        assert code == 0, error
        assert out.splitlines()[-1].startswith(str(tmp_path / file))
        assert all(word in out for word in words), out
        told = json.loads((tmp_path / f"{file}.json").read_text())
        assert (told["run"], told["step"]) == (source.name, 4)
        assert told["config"]["volume"]["init_args"]["resolution"] == 12
        assert told["command"][0] == f"{name}.py"


@pytest.mark.parametrize("name", ["export_voxels", "export_mesh", "plot_run", "render_orbit"])
def test_export_mistakes_are_one_line_and_leave_nothing(finished_run, tmp_path, capsys, name, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config_only").mkdir()
    (tmp_path / "config_only" / "config.yaml").write_bytes((finished_run / "config.yaml").read_bytes())
    before = sorted(tmp_path.rglob("*"))
    good = {"export_voxels": "s.npz", "export_mesh": "s.stl", "plot_run": "s.png", "render_orbit": "s.gif"}[name]
    for arguments, words in (
        ([tmp_path / "empty", "--output", tmp_path / good], ["no run lies there"]),
        ([tmp_path / "config_only", "--output", tmp_path / good], ["no such volume file"]),
        ([finished_run, "--output", tmp_path / "s.doc"], [".doc", "must be one of"]),
        ([finished_run, "--output", tmp_path / "nowhere" / good], ["does not exist"]),
        ([finished_run, "--output", "/proc/" + good], ["cannot be written"]),
        ([finished_run, "--outptu", good], ["--outptu"]),
        ([finished_run, "--outp", good], ["--outp"]),
        ([], ["runs: holds no finished run; sculpt one first"]),
    ):
        code, _, error = run_tool(f"tools/{name}", arguments, capsys)
        assert code == 2, (arguments, error)
        assert error.count("\n") == 1, error
        assert all(word in error for word in words), error
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_can_start_from_another_tools_volume_and_resume_without_it(finished_run, tmp_path, capsys):
    assert run_tool("tools/export_voxels", [finished_run, "--output", tmp_path / "s.npz"], capsys)[0] == 0
    start = [*TINY, "--start_from", str(tmp_path / "s.npz"), "--volume.grow_at", "[0.5]"]
    capsys.readouterr()
    run = sculpt(parse_command_line([*start, "--run_dir", str(tmp_path / "run"), "--trainer.stop_after", "2"]))
    assert "volume.grow_at is not used" in capsys.readouterr().err
    (tmp_path / "s.npz").unlink()
    sculpt(parse_command_line(["--resume", str(run), "--trainer.stop_after", "null"]))
    capsys.readouterr()
    code, error = outcome([*start, "--run_dir", tmp_path / "new"], capsys)
    assert code == 2
    assert error.count("\n") == 1
    assert "start_from=" in error
    assert "no such file" in error
    assert not (tmp_path / "new").exists()


class Flat(Volume):
    """A volume of somebody else's, with an argument that the default one has too."""

    def __init__(self, initial_noise: float = 5.0) -> None:
        super().__init__()

    def forward(self, points):
        return points[..., 0], points[..., 1]


@pytest.mark.parametrize("arguments", [["--volume", "{}"], ["--volume.class_path={}"], ["--config", "preset.yaml"]])
def test_another_volume_begins_with_its_own_defaults(arguments, tmp_path, monkeypatch):
    """Not with those of the default volume's arguments of the same name."""
    monkeypatch.chdir(tmp_path)
    name = f"{Flat.__module__}.Flat"
    (tmp_path / "preset.yaml").write_text(f"volume:\n  class_path: {name}\n")
    config = parse_command_line([argument.format(name) for argument in arguments]).config
    assert config.volume == {"class_path": name, "init_args": {"initial_noise": 5.0}}


def test_a_later_volume_drops_what_was_said_of_an_earlier_one(tmp_path):
    (tmp_path / "grid.yaml").write_text("volume: {class_path: mnist3d.VoxelGrid, init_args: {resolution: 20}}")
    of_file = ["--config", str(tmp_path / "grid.yaml")]
    for arguments, name, expected in (
        (["--volume", "VMGrid", "--volume.components", "3", "--volume", "VoxelGrid"], "VoxelGrid", None),
        (["--volume", "VMGrid", "--volume.resolution", "30", "--volume", "VoxelGrid"], "VoxelGrid", None),
        ([*of_file, "--volume", "VMGrid"], "VMGrid", 48),
        ([*of_file, "--volume", "mnist3d.volumes.VoxelGrid"], "VoxelGrid", 20),  # the same class by another path
        ([*of_file, "--volume", "VMGrid", *of_file], "VoxelGrid", 20),
        (["--volume.resolution", "30", "--volume", "VMGrid"], "VMGrid", 30),  # nothing was named before
        (["--volume", "{class_path: VMGrid, init_args: {resolution: 9}}", "--volume.components=2"], "VMGrid", 9),
        (["--volume.class_path", "VMGrid", "--volume.init_args.resolution", "10"], "VMGrid", 10),
    ):
        volume = parse_command_line(arguments).config.volume
        assert volume["class_path"] == f"mnist3d.volumes.{name}"
        assert volume["init_args"]["resolution"] == expected, arguments
    with pytest.raises(ConfigError, match=r"volume\.components: no such key"):
        parse_command_line(["--volume.components", "3"])


def test_files_and_flags_win_in_the_order_in_which_they_are_given(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("seed: 1\ntrainer: {views: 10, max_steps: 10}\ndiscriminator: {channels: [1, 2]}\nrun_dir: here\n")
    second.write_text("seed: 2\ntrainer: {views: 20}\ndiscriminator: {channels: [3]}\n")
    files = [f"--config={first}", "--config", str(second)]
    command = parse_command_line(["--trainer.views", "5", *files])
    assert (command.config.seed, command.config.discriminator.channels) == (2, [3])  # lists replace
    assert (command.config.trainer.views, command.config.trainer.max_steps) == (20, 10)  # mappings merge
    assert (command.preset, command.run_dir) == ("second", "here")
    assert parse_command_line([*files, "--trainer.views=5"]).config.trainer.views == 5
    assert parse_command_line([*files, "--trainer", "{views: 6}"]).config.trainer.max_steps == 10


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("trainer.views: 8\nvolume.resolution: 9\nvolume.init_args: {pyramid: []}", None),
        ("trainer: {views: 8}\nvolume: {resolution: 9, init_args: {pyramid: []}}", None),
        ("trainer.views: 8\nvolume.init_args.resolution: 9\nvolume.class_path: VoxelGrid\nvolume.pyramid: []", None),
        ("trainer.view: 8", r"^trainer\.view: no such key, did you mean trainer\.views"),
        ("losses.nearest: 8", r"^losses\.nearest: is nearest_image\.weight"),
    ],
)
def test_a_file_may_have_dotted_keys_as_flags_do(text, key, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    arguments = ["--config", str(tmp_path / "mine.yaml")]
    if key is not None:
        with pytest.raises(ConfigError, match=key):
            parse_command_line(arguments)
        return
    config = parse_command_line(arguments).config
    assert config.trainer.views == 8
    assert (config.volume["init_args"]["resolution"], config.volume["init_args"]["pyramid"]) == (9, [])


@pytest.mark.parametrize(
    ("arguments", "key", "expected"),
    [
        (["--data.name", "idx", "--data.path", "2024"], "path", "2024"),
        (["--data.name", "idx", "--data.path", "[a"], "path", "[a"),
        (["--data.path=null"], "path", None),
        (["--data.name=mnist", "--data.path=-x"], "path", "-x"),
        (["--data.class_names", "[010, a]"], "class_names", ["010", "a"]),
        (["--data.class_names", "null"], "class_names", None),
        (["--data.limit", "null"], "limit", None),
        (["--data.scale", "1e-3"], "scale", 1e-3),
        (["--data.resize", "yes"], "resize", True),
    ],
)
def test_text_stays_as_it_is_typed_and_the_rest_is_yaml(arguments, key, expected):
    assert getattr(parse_command_line(arguments).config.data, key) == expected
