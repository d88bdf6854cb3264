"""`mnist3d convert`, and a run that starts from a volume file: copied, fitted, or refused in one line."""

import dataclasses
import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mnist3d.cli import convert
from mnist3d.cli.program import run_command
from mnist3d.distillation import FitOptions, Fitting, Source, fitting, psnr_of_views
from mnist3d.distillation.source import uniform_rotations
from mnist3d.errors import ConfigError, UserError
from mnist3d.geometry.grids import voxel_centres
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.runs.loading import load_sculpture
from mnist3d.runs.starting import start_from
from mnist3d.storage import memory as free
from mnist3d.volumes import HashGrid, VMGrid, VoxelGrid, load_volume, read_description
from mnist3d.volumes.same_class import take_weights

THIRD_PARTY = Path(__file__).parent / "third_party"
SIZE = 10
TINY_HASH: dict[str, Any] = {"num_levels": 2, "log2_hashmap_size": 6, "max_resolution": 8, "hidden_dim": 8}


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    quick = {"POINTS": 256, "VIEWS_OF_GRID": 2, "RATES": (3e-2,), "TRIAL_STEPS": 2, "JUDGED_STEPS": 1}
    for name, value in {**quick, "CHECKS": 3, "CHECKED_VIEWS": 6}.items():
        monkeypatch.setattr(fitting, name, value)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A volume file with a grey ball beside a black one."""
    axis = voxel_centres(SIZE)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    grey, black = (20.0 * torch.exp(-((x - a).square() + y.square() + z.square()) / 0.1) for a in (0.4, -0.4))
    grid = torch.stack([grey + black, (0.3 * grey + 0.9 * black) / (grey + black)])
    path = tmp_path_factory.mktemp("made") / "balls.safetensors"
    VoxelGrid.from_array(grid).save(path, {"renderer": dataclasses.asdict(AbsorptionRenderer(12).options), "step": 7})
    return path


def run(*words: object) -> None:
    convert.main([*map(str, words)])


def test_a_grid_becomes_a_sum_of_products_that_opens_by_itself(made: Path, capsys):
    run(made, "--volume", "VMGrid", "--volume.resolution", SIZE, "--volume.components", 3, "--steps", 40)
    said = capsys.readouterr().out
    psnr = float(said.split("PSNR of 100 views: ")[1].split()[0])
    opened = load_sculpture("converted.safetensors")
    assert isinstance(opened.volume, VMGrid)
    source = Source(load_volume(made), AbsorptionRenderer(12))
    assert psnr_of_views(source, opened.volume, 100, convert.SEED)[0] == pytest.approx(
        psnr, abs=0.006
    )  # two decimals are said
    torch.manual_seed(0)
    assert psnr > psnr_of_views(source, VMGrid(SIZE, 3), 100, convert.SEED)[0] + 3.0  # half of the error, in 40 steps
    # a view at a finite step depends on it, so it is kept
    assert opened.renderer.options.samples_per_ray == SIZE
    assert opened.renderer.options.image_size == 12
    described = read_description("converted.safetensors")
    assert described["step"] == 7
    assert described["converted_from"]["volume"] == "VoxelGrid"
    assert f"from VoxelGrid: {2 * SIZE**3:,} weights" in said
    assert f"({Path('converted.safetensors').stat().st_size:,} bytes)" in said


def test_what_the_same_class_holds_is_copied(made: Path, capsys):
    run(
        made,
        "--volume",
        "VoxelGrid",
        "--volume.resolution",
        SIZE,
        "--volume.pyramid",
        "[]",
        "--output",
        "a.safetensors",
    )
    assert "all 100 views are the same to the bit" in capsys.readouterr().out
    points = torch.rand(50, 3) - 0.5
    pairs = zip(load_volume("a.safetensors")(points), load_volume(made)(points), strict=True)
    assert all(torch.equal(found, wanted) for found, wanted in pairs)


def test_a_field_along_rays_learns_and_is_the_same_again(made: Path, capsys):
    words = [f"--volume.{name}={value}" for name, value in TINY_HASH.items()]
    said = []
    for output in ("a.safetensors", "b.safetensors"):
        run(made, "--volume", "HashGrid", *words, "--steps", 20, "--output", output)
        said.append(capsys.readouterr().out.split("from VoxelGrid")[0])
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()
    torch.manual_seed(0)
    source = Source(load_volume(made), AbsorptionRenderer(12))
    assert (
        float(said[0].split("PSNR of 100 views: ")[1].split()[0])
        > psnr_of_views(source, HashGrid(**TINY_HASH), 100, convert.SEED)[0] + 1.0
    )


def test_a_field_without_a_grid_becomes_voxels_and_a_grid_that_grows_is_at_its_end(made: Path):
    torch.manual_seed(0)
    source = Source(HashGrid(**TINY_HASH), AbsorptionRenderer(12, 8))
    volume = VoxelGrid(8, grow_at=[0.5])
    fit = Fitting(volume, source, FitOptions(steps=1))
    assert volume.resolution == (8, 8, 8)
    centre = torch.full((1, 3), 1.0 / 8.0)  # of a voxel
    for found, wanted in zip(volume(centre), source.field(centre), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-3)  # raw values within 8 are float32
    fit.run()
    fit.keep_best()
    assert not volume.training


def test_the_best_is_kept_and_the_limits_end_it(made: Path):
    source = Source(load_volume(made), AbsorptionRenderer(12))
    fit = Fitting(VMGrid(SIZE), source, FitOptions(steps=30, psnr=14.0))
    fit.run()
    assert 0 < fit.steps < 30
    assert fit.psnr >= 14.0
    fit = Fitting(VMGrid(SIZE), source, FitOptions(steps=None, seconds=1e-3))
    fit.run()
    assert fit.steps <= 1
    with torch.no_grad():
        for weight in fit.volume.parameters():
            weight.zero_()
    fit.keep_best()
    assert psnr_of_views(source, fit.volume, fitting.CHECKED_VIEWS, fitting.CHECK_SEED)[0] == fit.psnr


def test_the_rate_is_the_one_that_learns(made: Path, monkeypatch):
    monkeypatch.setattr(fitting, "RATES", (1e-9, 3e-2))
    fit = Fitting(VMGrid(SIZE), Source(load_volume(made), AbsorptionRenderer(12)), FitOptions(steps=1))
    fit.run()
    assert fit.rate == 3e-2


@pytest.mark.parametrize(
    ("step", "limit", "tried", "steps"),
    [
        (0.1, 5.87, 30, 29),  # 3 s of trials, 5 steps of each of six rates
        (1.0, 3.0, 2, 1),  # a step of two rates, which does not tell them apart: the likeliest
        (4.0, 3.0, 1, 0),  # whose only step is kept
    ],
)
def test_trials_of_rates_leave_time_to_fit(step: float, limit: float, tried: int, steps: int, made: Path, monkeypatch):
    def slow(self: Fitting, *rest: Any) -> float:
        nonlocal now
        now += step
        taken.append(self.steps)
        return whole(self, *rest)

    whole, now, taken = Fitting._step, 0.0, []
    monkeypatch.setattr(fitting, "RATES", (1e-2, 1e-9, 2e-9, 3e-9, 4e-9, 5e-9))
    monkeypatch.setattr(fitting, "TRIAL_STEPS", 30)
    monkeypatch.setattr(Fitting, "_step", slow)
    monkeypatch.setattr(fitting, "time", SimpleNamespace(monotonic=lambda: now))
    fit = Fitting(VMGrid(4), Source(load_volume(made), AbsorptionRenderer(12)), FitOptions(steps=None, seconds=limit))
    fit.run()
    assert fit.only_tried == (steps == 0)
    assert (len(taken), fit.steps) == (tried + steps, steps or tried)
    assert fit.rate == 1e-2
    assert fit.is_fit


def test_without_time_for_a_step_nothing_is_written(made: Path, monkeypatch):
    monkeypatch.setattr(fitting, "time", SimpleNamespace(monotonic=itertools.count(0.0).__next__))
    with pytest.raises(ConfigError, match=r"^minutes=0.001: .* nothing was written; give more --minutes$"):
        run(made, "--volume", "VMGrid", "--volume.resolution", SIZE, "--minutes", 0.001)
    assert not list(Path().iterdir())


def test_a_fit_whose_time_ends_in_the_trials_says_so(made: Path, monkeypatch, capsys):
    calls = itertools.chain([0.0] * 4, itertools.repeat(1.0))  # built, run, trials, the first step: then it is over
    monkeypatch.setattr(fitting, "time", SimpleNamespace(monotonic=calls.__next__))
    run(made, "--volume", "VMGrid", "--volume.resolution", SIZE, "--minutes", 0.001)
    assert "the time was over while learning rates were tried" in capsys.readouterr().err
    assert isinstance(load_volume("converted.safetensors"), VMGrid)


@pytest.mark.parametrize("seed", [convert.SEED, fitting.CHECK_SEED])
def test_what_is_compared_is_not_what_is_learned_from(seed: int):
    """Of a seed only the lowest 32 bits count."""
    seen = uniform_rotations(20, torch.Generator().manual_seed(seed))
    for small in range(100):
        assert not torch.equal(uniform_rotations(20, torch.Generator().manual_seed(small)), seen)


def test_weights_that_another_argument_shows_otherwise_are_where_the_fit_begins(made: Path, capsys):
    torch.manual_seed(1)
    saved = HashGrid(**TINY_HASH, bake_resolution=4)
    saved.save("hash.safetensors", {"renderer": dataclasses.asdict(AbsorptionRenderer(12).options)})
    words = [f"--volume.{name}={value}" for name, value in TINY_HASH.items()]
    for size, copied in ((4, True), (8, False)):
        baked = ["--volume.bake_resolution", size, "--output", f"{size}.safetensors"]
        run("hash.safetensors", "--volume", "HashGrid", *words, *baked, "--steps", 2)
        assert ("the same to the bit" in capsys.readouterr().out) == copied
        pairs = zip(load_volume(f"{size}.safetensors").parameters(), saved.parameters(), strict=True)
        assert all(torch.equal(found, wanted) for found, wanted in pairs) == copied
    assert load_volume("8.safetensors").init_args["bake_resolution"] == 8


@pytest.mark.parametrize(("room", "what"), [(2**20, "the volume"), (20 * 2**20, "the fit")])
def test_what_does_not_fit_into_the_memory_is_refused(room: int, what: str, made: Path, monkeypatch):
    monkeypatch.setattr(free, "NEVER_ASKED", 0)
    monkeypatch.setattr(free, "free_memory", lambda device="cpu": room)
    monkeypatch.setattr(convert, "Fitting", lambda *_: pytest.fail("it was begun"))
    with pytest.raises(ConfigError, match=rf"^volume.resolution=60: {what} takes about .* lower volume.resolution$"):
        run(made, "--volume", "VoxelGrid", "--volume.resolution", 60)
    assert not list(Path().iterdir())


def test_ctrl_c_writes_the_best_so_far(made: Path, monkeypatch, capsys):
    def step(self: Fitting, *rest: Any) -> float:
        if self.steps == stop_at:
            raise KeyboardInterrupt
        return whole(self, *rest)

    whole, stop_at = Fitting._step, 0
    monkeypatch.setattr(Fitting, "_step", step)
    words = (made, "--volume", "VMGrid", "--volume.resolution", SIZE, "--steps", 12)
    with pytest.raises(KeyboardInterrupt):
        run(*words)
    assert not Path("converted.safetensors").exists()  # nothing was fitted yet
    stop_at = 6
    with pytest.raises(KeyboardInterrupt):
        run(*words)
    assert "the fit was stopped; this is the best so far" in capsys.readouterr().err
    assert isinstance(load_volume("converted.safetensors"), VMGrid)


def test_the_psnr_is_that_of_the_squared_differences():
    grey = VoxelGrid.from_array(torch.stack([torch.full((4, 4, 4), 1e6), torch.full((4, 4, 4), 0.5)]))
    dark = VoxelGrid.from_array(torch.stack([torch.full((4, 4, 4), 1e6), torch.full((4, 4, 4), 0.6)]))
    source = Source(grey, AbsorptionRenderer(1, 4))
    # the one pixel lies in the middle of an opaque ball: .5 beside .4
    assert psnr_of_views(source, dark, 3, 0) == pytest.approx((20.0, 20.0), abs=1e-3)
    assert psnr_of_views(source, grey, 3, 0) == (math.inf, math.inf)


def test_classes_of_others_are_named_by_both_flags(made: Path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(THIRD_PARTY)
    beads = ["--volume", "glass_beads.Beads", "--volume.count", 5]
    run(made, *beads, "--steps", 2, "--output", "beads.safetensors")
    assert "view beads.safetensors --volume glass_beads.Beads" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"name it: --from_volume glass_beads\.beads\.Beads"):
        run("beads.safetensors", "--volume", "VMGrid")
    grid = ["--volume", "VoxelGrid", "--volume.resolution", 4, "--steps", 1]
    run("beads.safetensors", "--from_volume", "glass_beads.Beads", *grid, "--output", "grid.safetensors")
    assert load_volume("grid.safetensors").resolution == (4, 4, 4)


def test_help_shows_the_options_of_the_class(capsys):
    with pytest.raises(SystemExit):
        run("--volume", "VMGrid", "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "--volume.components" in text
    assert "Number of line-times-plane products" in text


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["FILE"], "volume: must be given: --volume with one of"),
        (["FILE", "--volume", "VMgrid"], "volume=VMgrid: no such volume class"),
        (["FILE", "--volume", "VMGrid", "--volume.componets", "3"], "did you mean --volume.components?"),
        (["FILE", "--volume", "VMGrid", "--volume.components", "0"], "volume.components=0: must be in [1, 1024]"),
        (["FILE", "--volume", "VMGrid", "--volume.components", "few"], "volume.components=few: must be a whole number"),
        (["FILE", "--volume", "VMGrid", "--steps", "0"], "must be a whole number from 1"),
        (["FILE", "--volume", "VMGrid", "--output", "a.npz"], "output=a.npz: suffix .npz; must be one of .safetensors"),
        (["FILE", "--volume", "VMGrid", "--output", "no/a.safetensors"], "the folder no does not exist"),
        (["none.safetensors", "--volume", "VMGrid"], "none.safetensors"),
        (["none.npz", "--volume", "VMGrid"], "none.npz: no such file"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(words: list[str], reason: str, made: Path, capsys):
    with pytest.raises(SystemExit) as end:
        run_command("convert", [str(made) if word == "FILE" else word for word in words])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.count("\n") == 1
    assert reason in said
    assert not list(Path().iterdir())


def test_a_run_starts_from_a_volume_of_its_class_and_arguments(tmp_path: Path):
    torch.manual_seed(1)
    saved = HashGrid(**TINY_HASH, grow_at=[], bake_resolution=4)
    saved.save("hash.safetensors")
    torch.manual_seed(2)
    volume = HashGrid(**TINY_HASH, grow_at=[0.5], bake_resolution=4, initial_opacity=0.5)
    assert start_from(volume, "hash.safetensors") == []
    points = torch.rand(9, 3) - 0.5
    assert all(torch.equal(a, b) for a, b in zip(volume(points), saved(points), strict=True))
    assert volume.bake_resolution == 4  # no growth is left


def test_a_start_of_infinite_weights_can_learn(made: Path):
    empty = VoxelGrid.from_array(torch.zeros(4, 4, 4))
    empty.save("empty.safetensors")
    volume = VoxelGrid(4, pyramid=[])
    start_from(volume, "empty.safetensors")
    assert all(weight.isfinite().all() for weight in volume.parameters())
    assert float(volume.dense()[0].detach().max()) < 1e-2


@pytest.mark.parametrize(
    ("volume", "reason"),
    [
        (lambda: VMGrid(SIZE), r"holds a VoxelGrid, .* is a VMGrid; fit one to it first: .*convert .* --volume VMGrid"),
        (lambda: VoxelGrid(8), r"other arguments; add --volume.resolution \"?\[10, 10, 10\]\"? --volume.pyramid \[\]"),
    ],
)
def test_a_volume_of_another_kind_is_refused(volume, reason: str, made: Path):
    with pytest.raises(ConfigError, match=rf"^start_from={made}: .*{reason}"):
        start_from(volume(), str(made))


def test_weights_that_fit_and_mean_something_else_are_refused():
    """Tables of one size, whose levels have other resolutions."""
    few = {**TINY_HASH, "log2_hashmap_size": 4}
    with pytest.raises(ValueError, match=r"add --volume.max_resolution 8$"):
        take_weights(HashGrid(**{**few, "max_resolution": 7}), HashGrid(**few))
