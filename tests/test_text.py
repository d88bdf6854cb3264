"""Names of any script in files and on terminals, and text files of any encoding."""

import ast
import contextlib
import functools
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mnist3d.cli import view
from mnist3d.cli.parser import parse_command_line
from mnist3d.cli.program import run_command, run_command_line
from mnist3d.cli.score import table
from mnist3d.errors import ConfigError, ExportError, RunError
from mnist3d.evaluation import ImageScore, Scorecard
from mnist3d.export import MESH_FORMATS, VOXEL_FORMATS, export_mesh, export_voxels
from mnist3d.export.frames import FrameStyle, orbit_frames
from mnist3d.export.notebook_cell import notebook_cell
from mnist3d.export.page import page_html
from mnist3d.export.paths import camera_path
from mnist3d.export.plots import PLOT_FORMATS, plot_run
from mnist3d.export.video import ORBIT_FORMATS, write_orbit
from mnist3d.formats import READERS, read_voxels
from mnist3d.geometry.rotations import turntable
from mnist3d.rendering.renderer import AbsorptionRenderer, RendererOptions
from mnist3d.runs.config import Config, read_config
from mnist3d.storage.labels import ascii_label, printable
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.volumes import VoxelGrid, load_volume
from tests.conftest import need

ROOT = Path(__file__).parent.parent
UNDECODABLE = "bytes_\udcff\udce4"  # how Python names a file whose name is no text
NAMES = {
    "european": "größe_τρία",
    "other scripts": "三_ثلاثة_e\u0301_😀_👨‍👩‍👧",
    "undecodable": UNDECODABLE,
    "hostile": "$x_{$:%d\n\x1b[2J<&'\">",  # a formula that is none, and what means something to others
}
CUBE = np.zeros((2, 6, 6, 6), np.float32)
CUBE[0, 1:5, 2:5, 1:5], CUBE[1, :, :, :3] = 9.0, 0.5
FRAMES = [np.full((16, 16), grey, np.uint8) for grey in (0, 250)]


def voxels(path: Path, name: str) -> None:
    """Written, and read again where we read that format."""
    export_voxels(CUBE, path, description={"run": name, "step": 3})
    suffix = next(suffix for suffix in VOXEL_FORMATS if path.name.endswith(suffix))
    if suffix in READERS and suffix not in (".vdb", ".vti"):  # their readers are heavy libraries
        np.testing.assert_allclose(read_voxels(path), CUBE, atol=1e-6)
    else:
        assert path.stat().st_size > 100


def mesh(path: Path, name: str) -> None:
    """Written, and read by trimesh."""
    import trimesh

    export_mesh(CUBE, path, level=4.0, description={"run": name, "step": 3})
    content = io.BytesIO(path.read_bytes())  # trimesh itself takes no path that is no text
    assert len(trimesh.load_mesh(content, file_type=path.suffix[1:]).faces) > 10


def orbit(path: Path, name: str) -> None:
    """Written, and read by Pillow; a video by its first bytes."""
    write_orbit(path, iter(FRAMES), 5, {"run": name, "step": 3})
    if path.suffix in (".mp4", ".webm"):
        assert path.read_bytes()[:12].startswith((b"\x1aE\xdf\xa3", b"\0\0\0 ftypisom"))
    else:
        with Image.open(path) as image:
            assert image.height == 16


def plot(path: Path, name: str) -> None:
    """Written, with the name as title and as a class."""
    record = {"step": 1, "legible": 0.5, "clean": 0.4, "histogram": {name: 0.5, "b": 0.5}}
    plot_run(path, [record] if path.suffix == ".png" else [], name, np.zeros((8, 8, 3), np.uint8), (), {"run": name})
    if path.suffix == ".svg":
        ElementTree.parse(path)
    else:
        assert path.read_bytes().startswith((b"\x89PNG", b"%PDF"))


EXPORTERS = {
    **dict.fromkeys(VOXEL_FORMATS, voxels),
    **dict.fromkeys(MESH_FORMATS, mesh),
    **dict.fromkeys(ORBIT_FORMATS, orbit),
    **{f"_plot{suffix}": plot for suffix in PLOT_FORMATS},
}


@pytest.mark.parametrize("ending", EXPORTERS)
@pytest.mark.parametrize("kind", NAMES)
def test_every_exporter_writes_whatever_a_run_is_called(kind, ending, tmp_path):
    """Into a folder and a file of that name; the .json beside holds the name itself."""
    if os.name != "posix":
        need(kind not in ("undecodable", "hostile"), "this system has no such file names")
    name = NAMES[kind]
    path = tmp_path / name / f"{name}{ending}"
    path.parent.mkdir()
    EXPORTERS[ending](path, name)
    assert json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))["run"] == name
    assert all(each.name.startswith(name) for each in path.parent.iterdir())


@pytest.mark.parametrize("kind", NAMES)
def test_a_page_a_cell_and_a_caption_show_whatever_it_is_called(kind):
    name, grid = NAMES[kind], VoxelGrid.from_array(CUBE)
    page = page_html(grid, RendererOptions(), name).encode().decode()
    assert "\x1b" not in page
    if kind == "european":
        assert f"<title>{name}</title>" in page
    cell = notebook_cell(grid, title=name, caption=f"{name}\nsecond line").encode().decode()
    assert "second line" in cell
    style = FrameStyle(size=64)
    named, escaped, blank = (
        next(orbit_frames(grid, AbsorptionRenderer(16), turntable(1), style, [caption]))
        for caption in (name, printable(name), "")
    )
    assert (named != blank).any()
    np.testing.assert_array_equal(named, escaped)


@pytest.mark.parametrize("kind", NAMES)
def test_a_run_directory_and_a_volume_file_take_any_name(kind, tmp_path):
    name = NAMES[kind]
    run = RunDirectory.create(tmp_path / name, tmp_path, "digits")
    run.append_stats({"step": 1, "histogram": {name: 0.5}})
    run.write("config.yaml", Config(data=Config().data.__class__(class_names=[name, "b"])).to_yaml())
    assert run.read_stats() == [{"step": 1, "histogram": {name: 0.5}}]
    assert read_config(run).data.class_names == [name, "b"]
    VoxelGrid.from_array(CUBE).save(run.volume_path)
    loaded = load_volume(run.volume_path)
    assert isinstance(loaded, VoxelGrid)
    np.testing.assert_allclose(loaded.to_array(), CUBE, atol=1e-6)
    run.release()


def test_an_mrc_label_is_ascii_and_keeps_the_step(tmp_path):
    import mrcfile

    for name, wanted in (("größe", r"run gr\xf6\xdfe, step 3"), ("三" * 40, ", step 3")):
        export_voxels(CUBE, tmp_path / "a.mrc", description={"run": name, "step": 3})
        with mrcfile.open(tmp_path / "a.mrc") as mrc:
            assert mrc.header is not None
            label = bytes(mrc.header.label[2]).decode("ascii").rstrip("\0 ")
        assert label.endswith(wanted)
        assert len(label) <= 80


def test_labels_are_escaped_and_cut_between_letters():
    assert ascii_label("größe\n", 80) == r"gr\xf6\xdfe\n"
    assert ascii_label("三" * 4, 24) == r"\u4e09" * 4
    assert ascii_label("三" * 5, 24) == r"\u4e09" * 3 + "..."
    assert ascii_label(UNDECODABLE, 80) == r"bytes_\udcff\udce4"
    assert printable("größe 三 👨‍👩‍👧 ثلاثة") == "größe 三 👨‍👩‍👧 ثلاثة"
    assert printable("a\n\x1b\x85\u2028\udcff") == r"a\n\x1b\x85\u2028\udcff"
    assert printable("gif\u202egnp\u2066") == r"gif\u202egnp\u2066"  # shown in another order, they lie


ENCODINGS = ["ascii", "cp1252", "cp437", "cp932", "utf-8"]
TINY = "--trainer.views 4 --volume.resolution 8 --trainer.max_steps 2 --viewer.enabled false --data.name images"


@pytest.fixture(scope="module")
def named_run(tmp_path_factory):
    """A run whose folder and whose classes have names beyond every terminal's encoding but UTF-8."""
    folder = tmp_path_factory.mktemp("text")
    for k, name in enumerate(("größe", "三", "ثلاثة")):
        (folder / "data" / name).mkdir(parents=True)
        for number in range(6):
            picture = np.zeros((28, 28), np.uint8)
            picture[4 + 5 * k : 9 + 5 * k, 6 + number : 20] = 255
            Image.fromarray(picture).save(folder / "data" / name / f"{number}.png")
    run = folder / "größe_三_ثلاثة"
    code, _ = on_terminal("ascii", "train", *TINY.split(), "--data.path", folder / "data", "--run_dir", run)
    assert code == 0
    return run


def on_terminal(encoding, command, *arguments):
    """Exit code, and what a terminal of an encoding shows, which refuses what it lacks."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, errors="strict", write_through=True) for _ in range(2))
    run = functools.partial(run_command_line, command, [], "mnist3d")
    if not callable(command):
        run = functools.partial(run_command, command, [*map(str, arguments)])
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        run()
    return ended.value.code, [stream.buffer.getvalue().decode(encoding) for stream in (out, err)]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_terminal_makes_a_failure_of_success(encoding, named_run, tmp_path):
    commands = [
        ("view", named_run, "--snapshot", tmp_path / "größe_三.png"),
        ("orbit", named_run, "--frames", 2, "--size", 16, "--output", tmp_path / "größe_三.gif"),
        ("voxels", named_run, "--output", tmp_path / "größe_三.mrc"),
    ]
    for command in commands:
        code, (out, _) = on_terminal(encoding, *command)
        assert (code, out.count("\n")) == (0, 1)
        assert command[-1].exists()
        assert ("größe_三" if encoding == "utf-8" else "_") in out
    code, (_, err) = on_terminal(encoding, "orbit", f"{named_run}_nein", "--output", tmp_path / "a.gif")
    assert (code, err.count("\n")) == (2, 1)
    assert "no run lies there" in err
    score = ImageScore(3, histogram={"größe": 0.5, "三": 0.5})
    card = Scorecard({"sphere": score}, score, ["größe", "三"], "1")
    code, (out, _) = on_terminal(encoding, lambda _: print(table(card)))
    assert code == 0
    assert ("größe" if encoding == "utf-8" else r"\u4e09" if encoding in ("ascii", "cp437", "cp1252") else "三") in out


def test_a_whole_run_in_a_locale_of_ascii(named_run, tmp_path):
    """A process of its own: there file names are ASCII too, and the progress line has other blocks."""
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "mnist3d", "train", *TINY.split(), "--data.path", str(named_run.parent / "data")]
    done = subprocess.run(
        [*command, "--run_dir", str(tmp_path / "größe")], capture_output=True, env={**os.environ, **locale}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert done.stderr.isascii()
    assert (tmp_path / "größe" / "volume.safetensors").is_file()


TEXT = "# größe: τρία\ntrainer: {views: 6}\n"
MARKED = ["utf-8-sig", "utf-16", "utf-32", "utf-8"]
UNMARKED = {"cp1252": ("cp1252", "byte 0xf6 in line 1"), "utf-16-le": ("utf-16-le", "zero bytes, as UTF-16 does")}


@pytest.mark.parametrize("encoding", MARKED)
def test_yaml_is_read_in_every_encoding_that_can_be_told(encoding, tmp_path):
    path = tmp_path / "größe.yaml"
    path.write_bytes(TEXT.encode(encoding))
    assert parse_command_line(["--config", str(path)]).config.trainer.views == 6
    run = RunDirectory(tmp_path)
    run.config_path.write_bytes(TEXT.encode(encoding))
    assert read_config(run).trainer.views == 6
    path.write_bytes("# größe\n- {azimuth: 0}\n- {azimuth: 90}\n".encode(encoding))
    assert camera_path(str(path), 4).shape == (4, 3, 3)


@pytest.mark.parametrize("kind", UNMARKED)
def test_another_encoding_is_one_line_that_says_what_to_do(kind, tmp_path):
    encoding, reason = UNMARKED[kind]
    path, run = tmp_path / "mine.yaml", RunDirectory(tmp_path)
    for each in (path, run.config_path):
        each.write_bytes("# größe\nseed: 3\n".encode(encoding))
    readers = {
        ConfigError: lambda: parse_command_line(["--config", str(path)]),
        ExportError: lambda: camera_path(str(path), 4),
        RunError: lambda: read_config(run),
    }
    for error, read in readers.items():
        with pytest.raises(error) as told:
            read()
        message = str(told.value)
        assert "\n" not in message
        assert ("config.yaml" if error is RunError else "mine.yaml") in message
        assert all(part in message for part in (reason, "no UTF-8 text", "save it as UTF-8")), message


def test_a_cut_utf_16_file_is_one_line(tmp_path):
    (tmp_path / "mine.yaml").write_bytes("seed: 3".encode("utf-16")[:-1])
    with pytest.raises(ConfigError, match=r"mine.yaml: cannot be read, it is no UTF-16-LE text \(cut short\)"):
        parse_command_line(["--config", str(tmp_path / "mine.yaml")])


def test_damaged_bytes_in_the_statistics_cost_their_line_alone(tmp_path):
    (tmp_path / "stats.jsonl").write_bytes(b'{"step": 1}\n{"step": \xff}\n\xff\n{"step": 3}\n')
    assert RunDirectory(tmp_path).read_stats() == [{"step": 1}, {"step": 3}]


def calls(path):
    """Each call in a file: the name that is called, the module or object before it, positional and named arguments."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
            yield name, owner, node.args, {keyword.arg: keyword.value for keyword in node.keywords}


def names_no_encoding(path):
    """Calls that read or write text in the locale's encoding: another file on another machine."""
    wrong = []
    for name, owner, arguments, named in calls(path):
        modes = [each for each in [*arguments, named.get("mode")] if isinstance(each, ast.Constant)]
        binary = any(isinstance(each.value, str) and each.value[-1:] in ("b", "+") for each in modes)
        opens = (name == "open" and owner == "") or name in ("read_text", "write_text", "TextIOWrapper")
        text = name in ("run", "Popen", "check_output") and {"text", "universal_newlines"} & {*named}
        if "encoding" not in named and ((opens and not binary) or text):
            wrong.append(f"{path.name}: {name}")
    return wrong


def test_text_files_are_utf_8_whatever_the_locale():
    wrong = [each for path in (ROOT / "mnist3d").rglob("*.py") for each in names_no_encoding(path)]
    assert wrong == []


def test_there_is_one_reader_of_yaml():
    readers = {
        path.relative_to(ROOT / "mnist3d").as_posix()
        for path in (ROOT / "mnist3d").rglob("*.py")
        for name, owner, _, _ in calls(path)
        if owner == "yaml" and name.endswith("load")
    }
    assert readers == {"storage/plain_yaml.py"}


def test_the_check_of_encodings_sees_what_it_is_for(tmp_path):
    text = 'open("a")\nopen("a", "rb")\np.read_text()\np.write_text("", encoding="utf-8")\nrun([], text=True)\n'
    (tmp_path / "a.py").write_text(text, encoding="utf-8")
    assert names_no_encoding(tmp_path / "a.py") == ["a.py: open", "a.py: read_text", "a.py: run"]


def test_a_snapshot_says_the_name_of_a_stranger_without_its_escapes(tmp_path, capsys):
    path = VoxelGrid(6).save(tmp_path / "\x1b[2J.safetensors")
    view.main([str(path), "--snapshot", str(tmp_path / "views.png")])
    said = capsys.readouterr().out
    assert r"\x1b[2J.safetensors" in said
    assert "\x1b" not in said
