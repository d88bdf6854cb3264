"""A stranger's run directory describes a run and does nothing: no page, no download, no reading elsewhere, no hours.

What Python opens, lists, binds and connects to is seen by an audit hook, so nothing is taken on trust here.
"""

import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

import mnist3d
from mnist3d.cli import orbit, plot, score, view, voxels
from mnist3d.cli.parser import parse_command_line
from mnist3d.errors import ConfigError, DataError, RunError, UserError
from mnist3d.rendering.renderer import RendererOptions
from mnist3d.runs.config import read_config
from mnist3d.runs.gallery import Gallery
from mnist3d.runs.session import sculpt
from mnist3d.runs.trust import MOST_SAMPLES, check_work_is_trusted, command_to_score, flags_to_go_on
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.viewer.options import ViewerOptions
from mnist3d.volumes import VoxelGrid

TINY = ["--trainer.views", "4", "--data.limit", "40", "--volume.resolution", "8", "--trainer.max_steps", "3"]
STOPPED = [*TINY, "--trainer.stop_after", "2", "--scorecard.every", "0"]
REACHES_OUT = ("socket.bind", "socket.connect", "socket.getaddrinfo", "urllib.Request", "subprocess.Popen")
EVENTS: list[tuple[str, str]] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir", *REACHES_OUT):
        EVENTS.append((event, " ".join(map(repr, arguments))))


sys.addaudithook(_note)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that is not complete, without a page."""
    arguments = [*STOPPED, "--viewer.enabled", "false", "--run_dir", str(tmp_path_factory.mktemp("trust") / "run")]
    return sculpt(parse_command_line(arguments))


@pytest.fixture
def hostile(stopped, tmp_path, monkeypatch):
    """Makes that run a stranger's: what its config.yaml is to say, as nested values, on top of what it says."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(stopped, tmp_path / "run")
    (tmp_path / "secret" / "x y").mkdir(parents=True)
    (tmp_path / "run" / "stats.jsonl").write_text('{"step": 1, "volume_loss": 1.0}')

    def make(**sections):
        path = tmp_path / "run" / "config.yaml"
        values = yaml.safe_load(path.read_text())
        for section, changed in sections.items():
            values[section] = {**values[section], **changed} if isinstance(changed, dict) else changed
        path.write_text(yaml.safe_dump(values))
        EVENTS.clear()
        return "run"

    return make


def touched():
    """What was read in the secret folder, and who was talked to, since the run was made a stranger's."""
    return [(event, said) for event, said in EVENTS if event in REACHES_OUT or re.search("secret|'data['/]", said)]


IN_FILES = {"rings": [{"images": ["secret/a.png", "secret/b.png"]}]}
ACTS = [
    (
        {"data": {"name": "images", "path": "secret"}},
        ["data.path is secret, and going on reads the images in the folder secret", "--data.path secret or --trust"],
    ),
    ({"data": {"name": "idx", "path": "secret/x y"}}, ["--data.path 'secret/x y' or --trust"]),
    ({"data": {"name": "kmnist"}}, ["data.name is kmnist", "downloads", "--data.name kmnist or --trust"]),
    ({"data": {"name": "mnist", "path": "secret"}}, ["--data.name mnist --data.path secret or --trust"]),
    ({"targets": IN_FILES}, ["targets.rings is secret/a.png", "reads the file secret/a.png", "add --trust"]),
    ({"targets": {"views": [{"image": "secret/a.png"}]}}, ["targets.views is secret/a.png", "add --trust"]),
]


@pytest.mark.parametrize(("sections", "words"), ACTS)
def test_going_on_reads_and_downloads_nothing_that_the_user_has_not_said(hostile, sections, words):
    path = hostile(**sections)
    with pytest.raises(RunError) as refused:
        parse_command_line(["--resume", path])
    assert [word for word in ["resume=run: its ", *words] if word not in str(refused.value)] == []
    assert touched() == []
    trusted = parse_command_line(["--resume", path, "--trust"]).config
    assert flags_to_go_on(trusted) == ["--trust"]


def test_naming_the_same_is_trusting_it_by_flag_or_in_a_file(hostile, tmp_path):
    path = hostile(data={"name": "images", "path": "secret"}, targets=IN_FILES)
    with pytest.raises(RunError, match=r"targets\.rings"):
        parse_command_line(["--resume", path, "--data.path", "secret"])
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"targets": IN_FILES}))
    said = ["--data.path", "secret", "--config", "mine.yaml"]
    assert parse_command_line(["--resume", path, *said]).config.data.path == "secret"
    with pytest.raises(ConfigError, match=r"data\.path=other: a resumed run keeps its data\.path=secret"):
        parse_command_line(["--resume", path, "--data.path", "other", "--config", "mine.yaml"])


def test_the_page_is_the_users_own(hostile, capsys):
    """Neither host nor port of the file; what was typed holds, and is typed for the next time."""
    path = hostile(viewer={"enabled": True, "host": "0.0.0.0", "port": 9, "share": 1.0})
    assert parse_command_line(["--resume", path, "--trust"]).config.viewer == ViewerOptions()
    sculpt(parse_command_line(["--resume", path, "--viewer.port", "0", "--trainer.stop_after", "1"]))
    assert [said for event, said in EVENTS if event == "socket.bind" and "127.0.0.1" not in said] == []
    assert "going on at step 2 until step 3" in capsys.readouterr().err
    assert flags_to_go_on(parse_command_line(["--viewer.host", "::1", "--viewer.enabled", "no"]).config) == [
        *("--viewer.enabled", "false"),
        *("--viewer.host", "::1"),
    ]


def test_a_run_with_a_folder_that_nothing_reads_still_opens_and_goes_on(hostile):
    """A new run with one is refused."""
    path = hostile(data={"path": "secret"})
    with pytest.raises(ConfigError, match=r"data\.path=secret: is not used by data\.name=mnist_5k"):
        parse_command_line(["--data.path", "secret"])
    assert mnist3d.load_run(path).config.data.path == "secret"
    assert parse_command_line(["--resume", path]).config.data.path == "secret"


@pytest.mark.parametrize(
    ("sections", "flags"),
    [
        ({}, ""),
        ({"data": {"name": "kmnist"}}, " --trust"),
        ({"data": {"name": "images", "path": "secret"}}, " --trust"),
        ({"volume": {"class_path": "beads.Beads", "init_args": {}}}, " --volume beads.Beads"),
    ],
)
def test_the_command_that_scores_a_run_of_ones_own_works_as_it_stands(hostile, sections, flags):
    path = Path(hostile(**sections))
    assert command_to_score(path, read_config(RunDirectory(path))) == f"mnist3d score run{flags}"


def test_the_line_at_a_stop_is_all_that_it_takes_to_go_on(tmp_path, monkeypatch, capsys):
    import imageio.v3 as iio
    import numpy as np

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for number in range(8):
        iio.imwrite(f"mine/{number}.png", np.random.default_rng(number).integers(0, 255, (28, 28), np.uint8))
    own = ["--data.name", "images", "--data.path", "mine", "--viewer.enabled", "false"]
    sculpt(parse_command_line([*STOPPED, *own, "--run_dir", "run"]))
    said = capsys.readouterr().err
    typed = said.partition("go on with: mnist3d train ")[2].splitlines()[0].split()
    assert typed == ["--resume", "run", "--trust", "--viewer.enabled", "false"]
    sculpt(parse_command_line([*typed, "--trainer.stop_after", "null"]))
    assert "go on with" not in capsys.readouterr().err


@pytest.mark.parametrize("trust", [[], ["--trust"]])
def test_no_trust_imports_a_class(hostile, trust, tmp_path, monkeypatch):
    (tmp_path / "evil_beads.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = hostile(volume={"class_path": "evil_beads.Beads", "init_args": {}})
    with pytest.raises(RunError, match=r"its volume is a evil_beads\.Beads; to trust it, add --volume evil_beads"):
        parse_command_line(["--resume", path, *trust])
    assert "evil_beads" not in sys.modules


def test_trust_is_for_a_run_that_is_there():
    with pytest.raises(ConfigError, match="trust: is for a run that is there already"):
        parse_command_line(["--trust"])


@pytest.mark.parametrize(("sections", "words"), [each for each in ACTS if "data" in each[0]])
def test_tools_read_and_download_only_for_who_trusts(hostile, sections, words, monkeypatch):
    from torchvision.datasets import MNIST

    downloads = []
    monkeypatch.setattr(MNIST, "download", lambda self: downloads.append(self.root))
    path = hostile(**sections)
    for tool, arguments in ((score, []), (orbit, ["--caption", "--frames", "2", "--output", "a.png"])):
        with pytest.raises(RunError, match=r"run: its images are needed, its data\..* add --trust"):
            tool.main([path, *arguments])
    assert (touched(), downloads) == ([], [])
    with pytest.raises(DataError):  # nothing is there, but who trusts the run has it looked for
        score.main([path, "--trust"])
    assert touched() if sections["data"]["name"] in ("images", "idx") else downloads


def test_looking_at_a_strangers_run_touches_nothing_else(hostile, capsys):
    path = hostile(data={"name": "images", "path": "secret"}, targets=IN_FILES, viewer={"host": "0.0.0.0"})
    assert mnist3d.load_run(path).config.data.path == "secret"
    view.main([path, "--snapshot", "a.png"])
    voxels.main([path, "--output", "a.npz"])
    orbit.main([path, "--output", "b.png", "--frames", "2", "--size", "8"])
    plot.main([path, "--output", "c.png"])
    assert "run: the atlas comes without a map" in capsys.readouterr().err
    assert Gallery(".").open("run").reader is None
    assert touched() == []


def test_the_page_of_finished_runs_never_downloads(hostile, tmp_path):
    """A folder ./data is the user's own, where it holds that set; it is not filled."""
    hostile(data={"name": "mnist"})
    (tmp_path / "data").mkdir()
    assert Gallery(".").open("run").reader is None
    assert [said for event, said in EVENTS if event in REACHES_OUT] == []
    assert list((tmp_path / "data").rglob("*.gz")) == []


def test_no_tool_renders_for_hours_unless_it_is_trusted(hostile):
    path = hostile(renderer={"image_size": 4096, "samples_per_ray": 4096})
    for tool, arguments in ((view, ["--snapshot", "a.png"]), (score, []), (plot, ["--output", "a.png"])):
        with pytest.raises(RunError, match=r"renderer\.image_size=4096 and 4096 samples .* add --trust"):
            tool.main([path, *arguments])


def test_how_much_work_is_too_much():
    volume = VoxelGrid(resolution=16)
    check_work_is_trusted("run", RendererOptions(64), volume, MOST_SAMPLES // (64**2 * 16), False)
    with pytest.raises(RunError, match="16 samples"):
        check_work_is_trusted("run", RendererOptions(64), volume, MOST_SAMPLES // (64**2 * 16) + 1, False)
    check_work_is_trusted("run", RendererOptions(64), volume, MOST_SAMPLES, True)


@pytest.mark.parametrize("name", ["digits", "letters"])
def test_a_file_in_the_working_directory_is_no_preset(name, tmp_path, monkeypatch):
    """Whoever unpacks a stranger's folder and works in it still gets the presets; a path says otherwise."""
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("seed: 7")
    assert parse_command_line(["--config", name]).config.seed == 0
    assert parse_command_line(["--config", f"./{name}"]).config.seed == 7
    with pytest.raises(UserError, match=r"^preset: no such key; a preset is chosen with --config"):
        parse_command_line(["--preset", name])
