"""`mnist3d project`, `reconstruct` and `fsc` from end to end on a small object, and what they refuse."""

import json
from pathlib import Path

import gemmi
import mrcfile
import numpy as np
import pytest
import torch

from mnist3d.cli import fsc, project, reconstruct, reconstruct_files, voxels
from mnist3d.cli.program import run_command
from mnist3d.cli.reconstruct_watch import Watch
from mnist3d.cli.tool_parser import open_sculpture
from mnist3d.errors import UserError
from mnist3d.reconstruction import gan_start, refinement
from mnist3d.reconstruction.stack_files import read_stack
from mnist3d.runs.at_work import AtWork
from mnist3d.storage import memory
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.viewer import Live, ViewerOptions
from mnist3d.volumes import VoxelGrid, load_volume

SIZE, COUNT = 16, 40
FILES = {"fsc.csv", "half1.mrc", "half2.mrc", "mask.mrc", "poses.csv", "poses.star", "report.json", "report.png"}
FILES |= {"state.safetensors", "volume.mrc", "volume.safetensors"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    for name, value in (("MOST_ROUNDS", 2), ("POLISH_STEPS", 4), ("FIRST_SPACING", 0.4), ("SPACING", 0.3)):
        monkeypatch.setattr(refinement, name, value)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a volume and a stack of it."""
    folder = tmp_path_factory.mktemp("made")
    axis = (2.0 * torch.arange(SIZE) + 1.0) / SIZE - 1.0
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    balls = ((0.3, 0.1, -0.2, 3.0), (-0.35, 0.2, 0.1, 2.0), (0.1, -0.35, 0.25, 1.0), (0.0, 0.2, 0.35, 2.5))
    values = sum(h * torch.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 0.06) for a, b, c, h in balls)
    VoxelGrid.from_array(torch.as_tensor(values)).save(folder / "true.safetensors")
    project.main([str(folder / "true.safetensors"), "--views", str(COUNT), "--output", str(folder / "stack.mrcs"),
                  "--max_shift", "1", "--pixel_size", "2"])  # fmt: skip
    return folder


def run(made: Path, output: str, *flags: str) -> None:
    """Reconstruct from the true volume, which needs no start from noise."""
    start = [] if {"--poses", "--start"} & {*flags} else ["--start", str(made / "true.safetensors"), "--max_shift", "1"]
    page = [] if any(flag.startswith("--viewer") for flag in flags) else ["--viewer.enabled", "false"]
    reconstruct.main([str(made / "stack.mrcs"), "--output", output, *start, *page, *flags])


def correlation_in(said: str) -> float:
    return float(said.split("correlation ")[1].split()[0])


def test_project_writes_a_stack_and_its_poses(made: Path, capsys):
    stack = read_stack(made / "stack.mrcs")
    assert stack.values.shape == (COUNT, SIZE, SIZE)
    assert stack.pixel_size == pytest.approx(2.0)
    assert len((made / "stack.csv").read_text().splitlines()) == COUNT + 1
    particles = gemmi.cif.read(str(made / "stack.star"))[1]
    assert len(particles.find(["_rlnAngleRot"])) == COUNT
    arguments = [str(made / "true.safetensors"), "--views", "3", "--size", "8", "--snr", "1", "--poses", "ring"]
    project.main([*arguments, "--output", "one.mrcs"])
    assert "3 line integrals of 8x8 pixels, noise " in capsys.readouterr().out
    project.main([*arguments, "--output", "two.mrcs"])
    assert Path("one.mrcs").read_bytes()[1024:] == Path("two.mrcs").read_bytes()[1024:]  # the header has the time
    project.main([*arguments, "--output", "other.mrcs", "--seed", "1"])
    assert Path("one.mrcs").read_bytes()[1024:] != Path("other.mrcs").read_bytes()[1024:]


def test_reconstruct_writes_what_others_and_the_commands_read(made: Path, capsys):
    run(made, "found")
    said = capsys.readouterr().out
    assert "input=line_integral, by the values from" in said
    assert "its hand is not determined" in said
    assert "half-maps' FSC 0.143: shell" in said
    found = Path("found")
    assert {path.name for path in found.iterdir()} - {".lock"} == FILES
    report = json.loads((found / "report.json").read_text())
    assert (report["images"], report["pixel_size"], report["unit"]) == (COUNT, 2.0, "angstrom")
    for name in ("volume", "half1", "half2", "mask"):
        with mrcfile.open(found / f"{name}.mrc") as mrc:
            assert mrc.is_volume()
            assert np.asarray(mrc.data).shape == (SIZE,) * 3
            assert float(mrc.voxel_size.x) == pytest.approx(2.0)
    assert float(mrcfile.read(found / "mask.mrc").max()) == pytest.approx(1.0, abs=1e-3)
    assert open_sculpture(found / "volume.safetensors").renderer.options.image_size == SIZE
    voxels.main([str(found / "volume.safetensors"), "--output", "found.npz"])
    fsc.main([str(found / "volume.mrc"), str(found / "volume.safetensors")])
    assert correlation_in(capsys.readouterr().out) == pytest.approx(1.0, abs=1e-4)
    fsc.main([str(found / "volume.mrc"), str(made / "true.safetensors"), "--align"])
    assert correlation_in(capsys.readouterr().out) > 0.9  # it began there
    fsc.main([str(found / "half1.mrc"), str(found / "half2.mrc"), "--pixel_size", "2", "--output", "curve.csv"])
    assert "FSC 0.5: shell" in capsys.readouterr().out
    shells = [line.split(",") for line in Path("curve.csv").read_text().splitlines()]
    assert shells[0] == ["shell", "cycles_per_unit", "fsc"]
    assert float(shells[-1][1]) == pytest.approx(1.0 / 4.0)  # Nyquist's: a cycle in two pixels of 2


def test_what_was_interrupted_goes_on_to_the_same_bit(made: Path, monkeypatch, capsys):
    monkeypatch.setattr(reconstruct_files, "figure_bytes", lambda drawn: None)
    run(made, "whole")
    write, left = RunDirectory.write, [2]

    def interrupted(self, name, content):
        path = write(self, name, content)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDirectory, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(made, "parts")
    assert "parts: keeps what is done; the same command with --resume goes on" in capsys.readouterr().err
    assert not Path("parts/volume.mrc").exists()
    with pytest.raises(UserError, match=r"output=parts: must be a new or empty folder; with --resume"):
        run(made, "parts")
    with pytest.raises(UserError, match="of other images or with other options"):
        run(made, "parts", "--resume", "--seed", "1")
    run(made, "parts", "--resume")
    assert Path("parts/poses.csv").read_text() == Path("whole/poses.csv").read_text()
    assert Path("parts/volume.safetensors").read_bytes() == Path("whole/volume.safetensors").read_bytes()


def test_a_discriminator_starts_any_volume_ends_it_and_a_page_shows_it(made: Path, monkeypatch, capsys):
    monkeypatch.setattr(reconstruct_files, "figure_bytes", lambda drawn: None)
    monkeypatch.setattr(gan_start, "STEPS", 2)
    shown: list[int] = []
    offer = Live.offer
    monkeypatch.setattr(Live, "offer", lambda self, weights, step: shown.append(step) or offer(self, weights, step))
    run(made, "found", "--start", "gan", "--seeds", "1", "--volume", "HashGrid", "--steps", "2", "--viewer.port", "0")
    said, error = capsys.readouterr()
    assert "watch it: http://127.0.0.1:" in error
    assert shown == [0, 1, 2]
    assert "HashGrid: held-out " in said
    report = json.loads(Path("found/report.json").read_text())
    assert (report["start"], report["volume"], len(report["unexplained_by_starts"])) == ("gan", "HashGrid", 1)
    assert type(open_sculpture("found/volume.safetensors").volume).__name__ == "HashGrid"
    assert "polishing" not in said


def test_the_page_pauses_and_stops_a_reconstruction(monkeypatch):
    watch = Watch(AtWork("nothing"), ViewerOptions(port=0), Path("found"), 8)
    try:
        watch.open()
        live, viewer = watch._live, watch._viewer
        assert live is not None
        assert viewer is not None
        watch.offer(torch.full((8, 8, 8), 1.5), 3)
        live.refresh()
        grid = live.scene.snapshot.volume.dense()
        assert grid is not None
        torch.testing.assert_close(grid[0], torch.full((8, 8, 8), 1.5))
        assert live.scene.snapshot.step == 3
        seen: list[int] = []
        for watched in (False, True, True):  # the third comes too soon
            live.watched = watched
            watch.glance(lambda: seen.append(1) or torch.ones(8, 8, 8))
        assert seen == [1]
        live.paused = True
        waits: list[str] = []

        def resumed(seconds: float) -> None:
            waits.append(live.scene.figures["state"] if live.scene.figures else "")
            live.paused = False

        monkeypatch.setattr("mnist3d.cli.reconstruct_watch.time.sleep", resumed)
        watch.tell(0.5, "refining")
        assert waits == ["paused"]
        assert live.scene.figures is not None
        assert (live.scene.figures["state"], live.scene.figures["progress"]) == ("training", 0.5)
        live.stop_asked = True
        with pytest.raises(KeyboardInterrupt):
            watch.tell(0.6, "refining")
    finally:
        monkeypatch.undo()
        watch.close()


@pytest.mark.parametrize("suffix", ["star", "csv"])
def test_known_directions(suffix: str, made: Path, capsys, monkeypatch):
    monkeypatch.setattr(reconstruct_files, "figure_bytes", lambda drawn: None)
    poses = str(made / f"stack.{suffix}")
    run(made, "known", "--poses", poses, "--steps", "20", "--refine_poses")
    said = capsys.readouterr().out
    assert "held-out views: PSNR" in said
    assert "no figures: they need matplotlib" in said
    report = json.loads(Path("known/report.json").read_text())
    assert (report["directions"], report["volume"]) == ("known, refined", "VoxelGrid")
    assert {path.name for path in Path("known").iterdir()} >= {"volume.mrc", "volume.safetensors", "poses.csv"}


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("HashGrid", ["--volume.bake_resolution", "16", "--volume.num_levels", "2"]),
        ("VoxelGrid", ["--volume.resolution", "12", "--volume.grow_at", "[0.4]"]),  # a growth of what absorbs nothing
        ("VoxelGrid", []),
    ],
)
def test_the_fitted_volume_has_the_arguments_that_were_given(name: str, flags: list[str], made: Path):
    run(made, "out", "--poses", str(made / "stack.csv"), "--volume", name, "--steps", "5", *flags)
    volume = load_volume(Path("out/volume.safetensors"))
    grid = volume.dense()
    assert type(volume).__name__ == name
    assert grid is not None
    assert grid.isfinite().all()
    expected = 12 if "12" in flags else SIZE
    assert grid.shape == (2, expected, expected, expected)
    if name == "VoxelGrid":
        assert not grid[1].any()


@pytest.mark.parametrize("name", ["VoxelGrid", "VMGrid", "SparseGrid"])
def test_a_grid_that_is_no_cube_is_brought_to_the_images(name: str, made: Path):
    flags = ["--volume", name, "--volume.resolution", "[16, 12, 8]", "--steps", "60"]
    run(made, "out", "--poses", str(made / "stack.csv"), *flags)
    assert json.loads(Path("out/report.json").read_text())["unexplained"] < 0.2  # turned or squeezed it would be .4
    assert mrcfile.read("out/volume.mrc").shape == (SIZE,) * 3


def test_the_mask_and_the_size_are_kept(made: Path, monkeypatch):
    monkeypatch.setattr(reconstruct_files, "figure_bytes", lambda drawn: None)
    half = torch.zeros(SIZE, SIZE, SIZE)
    half[:, :, SIZE // 2 :] = 1.0
    VoxelGrid.from_array(half).save("half.safetensors")
    run(made, "found", "--mask", "half.safetensors", "--size", "12", "--pixel_size", "3", "--unit", "nm")
    with mrcfile.open("found/volume.mrc") as mrc:
        data = np.asarray(mrc.data)
        assert data.shape == (12, 12, 12)
        assert float(mrc.voxel_size.x) == pytest.approx(4.0)
        assert float(data[:, :, :5].max()) == pytest.approx(0.0, abs=1e-6 * float(data.max()))
    assert "1 angstrom stands for 1 nm" in str(mrcfile.open("found/volume.mrc").get_labels())


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        (
            "reconstruct",
            ["none.mrcs", "--output", "out"],
            "stack=none.mrcs: cannot be read (No such file or directory)",
        ),
        ("reconstruct", [], "stack: must be given: a file (.mrcs,"),
        ("project", [], "volume: must be given"),
        ("fsc", ["TRUE"], "second: must be given"),
        ("reconstruct", ["STACK", "--output", "out", "--refine_poses"], "refine_poses: needs --poses"),
        ("reconstruct", ["STACK", "--output", "out", "--volume", "HashGird"], "HashGird"),
        (
            "reconstruct",
            ["STACK", "--output", "out", "--volume.bake_resolution", "64"],
            "volume.bake_resolution: needs --volume, the class",
        ),
        ("reconstruct", ["STACK", "--output", "out", "--volume", "HashGrid", "--volume.levels", "3"], "volume.levels"),
        (
            "reconstruct",
            ["STACK", "--output", "out", "--volume", "HashGrid", "--volume.num_levels", "99"],
            "volume.num_levels=99",
        ),
        (
            "reconstruct",
            ["STACK", "--output", "out", "--volume", "VoxelGrid", "--volume.resolution", "1024"],
            "volume.resolution=1024: the fit takes",
        ),
        ("reconstruct", ["STACK", "--output", "out", "--resume", "--poses", "p.csv"], "resume: not with --poses"),
        ("reconstruct", ["STACK", "--output", "out", "--poses", "p.csv", "--mask", "m.mrc"], "mask: not with --poses"),
        ("reconstruct", ["STACK", "--output", "out", "--poses", "p.csv", "--start", "gan"], "start: not with --poses"),
        ("reconstruct", ["STACK", "--output", "out", "--viewer.enabled", "no"], "must be one of true, false"),
        ("reconstruct", ["STACK", "--output", "out", "--viewer.port", "66000"], "from 0 to 65535"),
        ("reconstruct", ["STACK", "--output", "out", "--start", "nothing"], "nothing: no run lies there"),
        ("reconstruct", ["STACK", "--output", "out", "--size", "17"], "size=17: must be in [8, 16]"),
        ("reconstruct", ["STACK", "--output", "out", "--input", "transmission"], "hold values < 0"),
        ("reconstruct", ["STACK", "--output", "out", "--input", "xray"], "must be one of transmission, absorption"),
        ("reconstruct", ["STACK", "--output", "out", "--poses", "p.csv"], "poses=p.csv: no such file"),
        ("reconstruct", ["STACK", "--output", "out", "--mask", "EMPTY"], "no value is > 0.5"),
        ("reconstruct", ["STACK", "--output", "FULL"], "must be a new or empty folder"),
        ("reconstruct", ["STACK", "--output", "out", "--seeds", "0"], "must be a whole number from 1 to 100"),
        ("project", ["TRUE", "--output", "stack.tif"], "suffix .tif; must be one of .mrcs"),
        ("project", ["TRUE", "--poses", "cone"], "must be one of euler_normal, sphere, ring, so3"),
        ("project", ["SIGNED"], "holds values < 0; add #negative=clip"),
        ("project", ["none.safetensors"], "none.safetensors"),
        ("fsc", ["TRUE", "TRUE", "--mirror"], "mirror: needs --align"),
        ("fsc", ["TRUE", "none.mrc"], "none.mrc: no such file"),
        ("fsc", ["TRUE", "TRUE", "--output", "curve.txt"], "suffix .txt; must be one of .csv"),
    ],
)
def test_a_mistake_is_one_line(command: str, arguments: list[str], said: str, made: Path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device="cpu": 2**34)  # on any machine
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    Path("full").mkdir()
    Path("full/file").touch()
    np.save("signed.npy", np.linspace(-1.0, 1.0, 512, dtype=np.float32).reshape(8, 8, 8))
    VoxelGrid.from_array(torch.zeros(8, 8, 8)).save("empty.safetensors")
    names = {"STACK": made / "stack.mrcs", "TRUE": made / "true.safetensors", "FULL": "full", "SIGNED": "signed.npy"}
    names["EMPTY"] = "empty.safetensors"
    with pytest.raises(SystemExit) as ended:
        run_command(command, [str(names.get(argument, argument)) for argument in arguments])
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in error
    assert len(error.splitlines()) == 1, error
    assert not Path("out").exists()
