"""Memory that is asked for before it is taken: what is free, what a run will take, exports in parts. Every figure of
what is free is made up; what runs really take is measured by benchmarks/memory.py."""

import errno
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor, nn

from mnist3d.cli.parser import parse_command_line
from mnist3d.errors import ConfigError, ExportError, UserError, VolumeFileError, WriteError
from mnist3d.export import VOXEL_FORMATS, export_voxels, sampling, voxel_arrays
from mnist3d.export import video as video_module
from mnist3d.export.mesh import export_mesh
from mnist3d.export.page import page_html
from mnist3d.export.video import write_orbit
from mnist3d.geometry.rotations import turntable
from mnist3d.rendering import renderer as renderer_module
from mnist3d.rendering.pictures import contact_sheet
from mnist3d.rendering.renderer import AbsorptionRenderer, RendererOptions, render_views
from mnist3d.runs import building, memory
from mnist3d.runs.building import build_run
from mnist3d.runs.config import Config
from mnist3d.runs.loading import load_sculpture
from mnist3d.storage import memory as free
from mnist3d.storage.plain_files import size_in_words
from mnist3d.volumes import FourierMLP, HashGrid, SparseGrid, TriPlane, VMGrid, Volume, VoxelGrid, baking, resampling
from mnist3d.volumes.base import Field

CPU = torch.device("cpu")
GIB = 2**30
Room = Callable[[int | None], None]


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    """Sets the bytes that are free, and has even the smallest need looked at."""

    def set_to(most: int | None) -> None:
        monkeypatch.setattr(free, "free_memory", lambda device="cpu": most)
        monkeypatch.setattr(free, "NEVER_ASKED", 0)

    return set_to


def config(*flags: str) -> Config:
    return parse_command_line(["--run_dir", "never_made", *flags]).config


# What is free


def set_sources(monkeypatch: pytest.MonkeyPatch, machine: int | None, groups: list[int], process: list[int]) -> None:
    monkeypatch.setattr(free, "_of_machine", lambda: machine)
    monkeypatch.setattr(free, "_of_groups", lambda: iter(groups))
    monkeypatch.setattr(free, "_of_process", lambda: iter(process))


@pytest.mark.parametrize(
    ("machine", "groups", "process", "least"),
    [
        (5 * GIB, [], [], 5 * GIB),
        (5 * GIB, [3 * GIB, 4 * GIB], [], 3 * GIB),
        (5 * GIB, [3 * GIB], [2 * GIB], 2 * GIB),
        (None, [], [2 * GIB], 2 * GIB),
        (None, [], [], None),
        (5 * GIB, [-GIB], [], 0),  # a group that is beyond its limit
    ],
)
def test_the_least_of_all_limits_is_free(
    monkeypatch: pytest.MonkeyPatch, machine: int | None, groups: list[int], process: list[int], least: int | None
):
    set_sources(monkeypatch, machine, groups, process)
    assert free.free_memory() == least


def test_a_machine_gives_what_it_can_take_back_and_its_swap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=3 * GIB))
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(free=GIB))
    assert free._of_machine() == 4 * GIB

    def hidden() -> None:
        raise PermissionError("/proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", hidden)
    assert free._of_machine() is None


def group(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)


def test_a_control_group_of_version_2_and_those_around_it(tmp_path: Path):
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/slice/job/step\n")
    stat = "anon 5\ninactive_file 30\nactive_file 20\n"
    group(root, {})  # the root has no limit
    group(root / "slice", {"memory.max": "1000\n", "memory.current": "900\n", "memory.stat": stat})
    group(root / "slice/job", {"memory.max": "max\n", "memory.current": "700\n", "memory.stat": stat})
    group(root / "slice/job/step", {"memory.max": "800\n", "memory.current": "300\n", "memory.stat": stat})
    assert [*free._of_groups(root, own)] == [800 - 300 + 50, 1000 - 900 + 50]


def test_a_control_group_of_version_1_under_the_name_that_the_host_gave_it(tmp_path: Path):
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("11:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n")
    files = {"memory.limit_in_bytes": "500", "memory.usage_in_bytes": "450"}
    group(root / "memory", {**files, "memory.stat": "cache 9\ntotal_inactive_file 100\ntotal_active_file 1\n"})
    assert [*free._of_groups(root, own)] == [500 - 450 + 101]


def test_where_there_are_no_control_groups(tmp_path: Path):
    assert [*free._of_groups(tmp_path, tmp_path / "missing")] == []
    (tmp_path / "own").write_text("nonsense\n7:memory\n\n")
    assert [*free._of_groups(tmp_path, tmp_path / "own")] == []


def test_ulimit_leaves_its_limit_less_what_is_taken(monkeypatch: pytest.MonkeyPatch):
    resource = pytest.importorskip("resource", reason="Windows has no such limits")
    limits = {resource.RLIMIT_AS: 100, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], resource.RLIM_INFINITY))
    taken = SimpleNamespace(memory_info=lambda: SimpleNamespace(vms=30, data=20))
    monkeypatch.setattr(psutil, "Process", lambda: taken)
    assert [*free._of_process()] == [70]
    limits[resource.RLIMIT_DATA] = 60
    assert [*free._of_process()] == [70, 40]


def test_a_gpu_has_its_own_memory(monkeypatch: pytest.MonkeyPatch):
    set_sources(monkeypatch, 1, [], [])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7 * GIB, 8 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2 * GIB)
    assert free.free_memory(torch.device("cuda")) == 8 * GIB


def test_the_message_says_what_it_takes_what_there_is_and_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(free, "free_memory", lambda device: 3 * GIB)
    with pytest.raises(ExportError) as error:
        free.check_fits(4 * GIB, "resolution=812: the voxels take", "lower resolution", ExportError)
    assert f"{error.value}" == "resolution=812: the voxels take about 4 GiB, 3 GiB are free here; lower resolution"
    free.check_fits(3 * GIB, "it takes", "", ExportError)


def test_what_is_not_known_and_what_is_small_is_let_go_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(free, "free_memory", lambda device: None)
    free.check_fits(2**80, "it takes", "", ExportError)
    monkeypatch.setattr(free, "free_memory", lambda device: 0)
    free.check_fits(free.NEVER_ASKED - 1, "it takes", "", ExportError)
    with pytest.raises(UserError):
        free.check_fits(free.NEVER_ASKED, "it takes", "", ExportError)


# What a run will take


def part(parts: dict[tuple[str, ...], int], key: str) -> int:
    (found,) = [parts[keys] for keys in parts if keys[0] == key]
    return found


def test_a_grid_takes_its_weights_in_copies_and_its_activations():
    grid = 2 * 4 * 10**3
    flags = ("--volume.resolution", "10", "--volume.pyramid", "[]")
    threads = torch.get_num_threads()
    for more, copies, grids in (
        (("--watchdog", "off"), 5, 9),  # the weights, their gradient, two moments, the average
        (("--watchdog", "off", "--renderer.quadrature", "slices"), 5, 6),
        (("--watchdog", "rewind"), 5 + 4 * 4, 9),  # three snapshots and the one that is being taken
        (("--watchdog", "rewind", "--trainer.max_steps", "100"), 5 + 4 * 2, 9),  # at the first and the 91st
    ):
        told = memory.training_memory(config(*flags, *more), CPU)
        assert part(told, "volume.resolution") == (copies + grids + threads) * grid


@pytest.mark.parametrize(
    ("flags", "built"),
    [
        ("--volume.resolution 12", VoxelGrid(12)),
        ("--volume.resolution [4,6,8] --volume.grow_at [.2,.4]", VoxelGrid([4, 6, 8])),  # at its last size
        ("--volume VMGrid --volume.resolution 9 --volume.components 3", VMGrid(9, 3)),
        ("--volume HashGrid --volume.num_levels 3", HashGrid(num_levels=3)),
        ("--volume HashGrid --volume.num_levels 3 --volume.levels_at [.5]", HashGrid(num_levels=3)),
        ("--volume TriPlane --volume.resolution 9 --volume.channels 3", TriPlane(9, 3)),
        ("--volume FourierMLP --volume.hidden_dim 9", FourierMLP(hidden_dim=9)),
        ("--volume FourierMLP --volume.activation sine", FourierMLP("sine")),
    ],
)
def test_weights_are_counted_without_being_made(flags: str, built: Volume):
    shapes = memory._shapes_of_volume(config(*flags.split()))
    assert shapes is not None
    assert all(weight.is_meta for weight in shapes.parameters())
    assert memory._bytes_of(shapes) == sum(weight.nbytes for weight in built.parameters())


def test_a_grid_of_blocks_takes_those_of_the_ball_until_it_is_pruned():
    flags = ("--volume", "SparseGrid", "--volume.resolution", "64", "--volume.grow_at", "[.3]", "--watchdog", "warn")
    of_weights = 5 * 2 * 4 * (8**3 + 4**3 + 2**3)
    of_each = of_weights + 20_000 + 4_200 * (torch.get_num_threads() - 1)
    for more, blocks, before, then in (
        ((), 408, 0, 0),  # of 8^3 in a cube of 64^3
        (("--volume.prune_at", "[.5]"), 408, 0, 0),
        (("--volume.prune_at", "[.2]"), round(0.4 * 408), round(0.4 * 64), 408),  # grown out of the 64 of 32^3
        (("--volume.prune_at", "[.3]"), round(0.4 * 408), round(0.4 * 64), 408),  # pruned first
        (("--volume.prune_at", "[.2]", "--volume.keep_at_most", ".2"), 102, 12, 408),  # of 512 and 64: rounded down
        (("--volume.prune_at", "[.2]", "--volume.keep_at_most", ".01"), 64, 1, 64),
        (("--volume.prune_at", "[.2]", "--volume.keep_at_most", ".05"), 64, 3, 192),
        (("--volume.prune_at", "[.2]", "--volume.keep_at_most", ".75"), 384, 48, 408),
        (("--volume.prune_at", "[.2]", "--volume.keep_at_most", ".9"), 408, 57, 408),  # no more than in the ball
    ):
        told = memory.training_memory(config(*flags, *more), CPU)
        growing = before * of_weights + then * 20_000
        assert part(told, "volume.resolution") == max(blocks * of_each, growing), more
    whole = memory.training_memory(config(*flags, "--renderer.quadrature", "slices"), CPU)
    assert part(whole, "volume.resolution") > 6 * 8 * 64**3


def test_a_number_of_blocks_that_stays_is_what_a_grid_of_blocks_takes():
    flags = ("--volume", "SparseGrid", "--volume.resolution", "64", "--watchdog", "warn", "--volume.blocks", "20")
    of_each = 5 * 2 * 4 * (8**3 + 4**3 + 2**3) + 20_000 + 4_200 * (torch.get_num_threads() - 1)
    assert part(memory.training_memory(config(*flags), CPU), "volume.resolution") == 20 * of_each


def test_more_blocks_than_a_first_stage_has_are_refused_by_name():
    asked = config("--volume", "SparseGrid", "--volume.blocks", "100", "--volume.grow_at", "[.5]")
    memory.check_memory(asked, CPU)
    with pytest.raises(ConfigError, match=r"^volume.blocks=100: must be in \[1, 64\], or null"):
        building.build_volume(asked)


def test_a_field_takes_its_points():
    told = memory.training_memory(config("--volume", "HashGrid", "--trainer.views", "3"), CPU)
    points = 3 * 28 * 28 * 64 * math.pi / 6
    of_each = 80 + 8 * 16  # 8 levels of 2 features
    # 11/21 is pi / 6 to three digits
    assert told["trainer.views", "renderer.image_size", "renderer.samples_per_ray"] == pytest.approx(
        points * of_each, rel=1e-3
    )


@pytest.mark.parametrize(
    ("flags", "along_rays", "baked"),
    [
        ("--volume TriPlane --volume.channels 5 --volume.hidden_dim 7", 3 * 5 + 2 * (7 + 2), 3 * 5 + 2 * (7 + 2)),
        ("--volume FourierMLP --volume.num_frequencies 5 --volume.hidden_dim 7", 2 * (10 + 7 + 2), 2 * (7 + 2)),
    ],
)
def test_of_a_network_all_points_take_their_layers_or_where_that_is_much_only_a_few(
    flags: str, along_rays: int, baked: int, monkeypatch: pytest.MonkeyPatch
):
    asked = "trainer.views", "renderer.image_size", "renderer.samples_per_ray"
    points = 40 * 28 * 28 * 64 * math.pi / 6
    for most, counted in ((2**30, points), (2**10, 2**13)):
        monkeypatch.setattr(baking, "MOST_KEPT", most)
        told = memory.training_memory(config(*flags.split()), CPU)
        assert told[asked] == pytest.approx(80 * points + 8 * counted * along_rays, rel=1e-3)
    monkeypatch.setattr(baking, "MOST_KEPT", 2**30)
    large, small = (
        sum(memory.training_memory(config(*flags.split(), "--volume.bake_resolution", edge), CPU).values())
        for edge in ("50", "10")
    )
    grids = (9 + torch.get_num_threads()) * 8
    each = grids + (80 + 8 * baked) * math.pi / 6
    assert large - small == pytest.approx(each * (50**3 - 10**3), rel=1e-3)


def test_views_at_a_time_are_counted_and_the_random_numbers_of_all():
    told = memory.training_memory(config("--volume", "HashGrid", "--trainer.views_at_once", "3"), CPU)
    points = 28 * 28 * 64 * math.pi / 6
    found = told["trainer.views_at_once", "renderer.image_size", "renderer.samples_per_ray"]
    assert found == pytest.approx(points * (2 * 3 * (80 + 8 * 16) + (40 - 3) * 4), rel=1e-3)  # as above
    told = memory.training_memory(config("--volume", "HashGrid", "--trainer.views_at_once", "50"), CPU)
    assert ("trainer.views", "renderer.image_size", "renderer.samples_per_ray") in told


def test_a_run_that_could_be_made_in_parts_says_so(room: Room):
    room(2**20)
    asked = "--trainer.views", "4000"
    with pytest.raises(ConfigError, match=r"lower trainer.views, .*; or set trainer.views_at_once$"):
        memory.check_memory(config(*asked), CPU)
    with pytest.raises(ConfigError, match="free here; lower ") as error:
        memory.check_memory(config(*asked, "--trainer.views_at_once", "10"), CPU)
    assert "or set" not in f"{error.value}"


def test_without_a_fast_kernel_every_sample_is_kept(monkeypatch: pytest.MonkeyPatch):
    asked = config("--volume.resolution", "10", "--trainer.views", "3")
    assert ("trainer.views", "renderer.image_size", "renderer.samples_per_ray") not in memory.training_memory(
        asked, CPU
    )
    by_name = config("--volume.resolution", "10", "--trainer.views", "3", "--renderer.impl", "reference")
    told_by_name = memory.training_memory(by_name, CPU)
    monkeypatch.setattr(memory, "_has_fast_kernel", lambda device: False)
    told = memory.training_memory(asked, CPU)
    assert told == told_by_name
    samples, grids = 3 * 28 * 28 * 10, 3 * 8 * 10**3
    assert told["trainer.views", "renderer.image_size", "renderer.samples_per_ray"] == 80 * samples + grids
    told = memory.training_memory(config("--volume.resolution", "10", "--trainer.views_at_once", "3"), CPU)
    assert told["trainer.views_at_once", "renderer.image_size", "renderer.samples_per_ray"] == 80 * 2 * samples + grids


def test_a_discriminator_takes_its_weights_and_activations():
    flags = "--discriminator.channels [3,5] --discriminator.features 7 --renderer.image_size 16 --watchdog off"
    told = memory.training_memory(config(*flags.split(), "--trainer.views", "2"), CPU)
    convolutions = 3 * (16 + 1) + 5 * (3 * 16 + 1)  # 4 x 4, each with a bias: 16 -> 8 -> 4 pixels an edge
    linear = 7 * (5 * 16 + 1) + (7 + 1) + 10 * (7 + 1)
    assert part(told, "discriminator.channels") == 4 * 4 * (convolutions + linear)
    activations = 2 * (3 * 64 + 5 * 16)  # before and after the leaky ReLU
    assert told["trainer.views", "renderer.image_size", "discriminator.channels"] == 4 * 2 * 2 * 4 * activations
    shorter = ("--trainer.views", "9", "--trainer.views_at_once", "2", "--trainer.precision", "bfloat16")
    told = memory.training_memory(config(*flags.split(), *shorter), CPU)
    assert told["trainer.views_at_once", "renderer.image_size", "discriminator.channels"] == 4 * 2 * 2 * 2 * activations


def test_exemplars_take_themselves_and_what_is_blurred_at_a_time():
    flags = ("--adversarial.weight", "1", "--data.limit")
    for images in (10, 3000):
        with_them, without = (
            memory.training_memory(config(*flags, f"{images}", "--nearest_image.weight", weight), CPU)
            for weight in ("1", "0")
        )
        key = ("renderer.image_size", "data.limit")
        assert with_them[key] - without[key] == 4 * 28**2 * (4 * 3 * images + 16 * min(images, 1024))


def test_without_an_adversarial_loss_there_is_no_discriminator():
    told = memory.training_memory(config("--config", "two_rings"), CPU)
    assert not [keys for keys in told if "discriminator.channels" in keys]


# A billion billion billion views: a number that no float holds exactly, and no tensor counts.
ABSURD = {
    "volume.resolution": "--volume.resolution 1000",
    "trainer.views": f"--trainer.views 1{'0' * 300}",
    "discriminator.channels": "--discriminator.channels [10000000,10000000,10000000]",
    "discriminator.features": "--discriminator.features 1000000000000000000000",
    "renderer.image_size": "--renderer.image_size 4096",
    # Of few images the network's last layer is the largest part, and its own keys have their usual values.
    "renderer.image_size of few": "--renderer.image_size 4096 --trainer.views 2 --data.limit 2",
    "volume.components": "--volume VMGrid --volume.resolution 1024 --volume.components 1024",
    "renderer.samples_per_ray": "--volume HashGrid --renderer.samples_per_ray 4096 --renderer.image_size 64",
}


@pytest.mark.parametrize("key", ABSURD)
def test_what_cannot_fit_is_refused_before_anything_is_there(
    key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, room: Room
):
    room(20 * GIB)
    for name in ("load_images", "build_volume", "build_objectives"):
        monkeypatch.setattr(building, name, lambda *_, **__: pytest.fail("it was begun"))
    command = parse_command_line(["--run_dir", f"{tmp_path}/run", *ABSURD[key].split()])
    key = key.split()[0]
    with pytest.raises(ConfigError, match=f"^{re.escape(key)}=.* takes about .*, 20 GiB are free here; lower {key}"):
        build_run(command)
    assert not [*tmp_path.iterdir()]


def test_a_run_that_just_fits_is_not_refused(room: Room):
    asked = config("--volume.resolution", "10")
    needed = memory.FIXED + sum(memory.training_memory(asked, CPU).values())
    room(needed)
    memory.check_memory(asked, CPU)
    room(needed - 1)
    with pytest.raises(ConfigError):
        memory.check_memory(asked, CPU)
    room(None)
    memory.check_memory(asked, CPU)


class Foreign(Volume):
    """Somebody else's, whose constructor says all."""

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return points[..., 0] * 0 + self.weight.sum(), points[..., 0] * 0


class Peculiar(Foreign):
    """One that cannot be built without its numbers."""

    def __init__(self, width: int = 5) -> None:
        super().__init__(width)
        self.largest = float(self.weight.detach().max())


def test_of_a_class_from_elsewhere_the_weights_count_if_they_can_be_told(room: Room):
    def spec_of(kind: type[Volume]) -> Config:
        path = f"{kind.__module__}.{kind.__qualname__}"
        return Config(volume={"class_path": path, "init_args": {"width": 10**12}}, watchdog="off")

    def told(kind: type[Volume]) -> dict[tuple[str, ...], int]:
        return memory.training_memory(spec_of(kind), CPU)

    assert part(told(Foreign), "volume.width") == 5 * 4 * 10**12
    assert not [keys for keys in told(Peculiar) if keys[0].startswith("volume")]
    room(GIB)
    with pytest.raises(
        ConfigError, match=r"^volume.width=1000000000000: training takes about 18.2 TiB, .* lower volume.w"
    ):
        memory.check_memory(spec_of(Foreign), CPU)


def test_a_small_file_that_asks_for_a_large_grid_is_not_looked_at(tmp_path: Path, room: Room):
    path = VMGrid(8, components=1).save(tmp_path / "v.safetensors")
    room(5 * 2 * 4 * 8**3)
    load_sculpture(path)
    room(5 * 2 * 4 * 8**3 - 1)
    with pytest.raises(VolumeFileError, match=r"^v.safetensors: its grid of 8x8x8 voxels takes about 20 KiB"):
        load_sculpture(path)
    with torch.device("meta"):
        largest = VMGrid(1024, components=1)
    with pytest.raises(VolumeFileError, match="1024x1024x1024 voxels takes about 40 GiB"):
        memory.check_opened("a run", largest)
    memory.check_opened("a run", HashGrid())  # no grid
    room(20 * 20_000)
    memory.check_opened("a run", SparseGrid(512, blocks=20))  # views need no more
    with pytest.raises(VolumeFileError, match="its grid of 21 blocks of 8\\^3 voxels takes about 410 KiB"):
        memory.check_opened("a run", SparseGrid(512, blocks=21))


# Views


def test_views_that_cannot_fit_are_refused_before_one_is_made(room: Room):
    room(20 * GIB)
    many = torch.eye(3).expand(2592, 3, 3)
    with pytest.raises(ConfigError, match=r"^renderer.image_size=4096: 2,592 views take about \d+ GiB, 20 GiB"):
        render_views(VoxelGrid(4), AbsorptionRenderer(4096), many)


class Counted(Field):
    """A field of a closed form that remembers how many points it was asked at once."""

    def __init__(self) -> None:
        self.most = 0

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        self.most = max(self.most, points[..., 0].numel())
        return 3.0 * (points[..., 0] + 1.0), 0.25 * (points[..., 1] + 1.0)


def test_of_a_large_view_of_a_field_few_rows_are_asked_at_once(monkeypatch: pytest.MonkeyPatch):
    renderer, rotations = AbsorptionRenderer(16, 32), turntable(8)
    usual = render_views(Counted(), renderer, rotations)
    for name in ("POINTS_AT_ONCE", "MOST_POINTS"):
        monkeypatch.setattr(renderer_module, name, 2 * 16 * 32)
    field = Counted()
    # each point for itself; places on rays are products of matrices, whose sums depend on how many there are
    assert torch.allclose(render_views(field, renderer, rotations), usual, rtol=0.0, atol=4e-6)
    assert 0 < field.most <= 2 * 16 * 32  # a row of two views


def test_a_contact_sheet_is_filled_image_by_image():
    images = torch.arange(3.0)[:, None, None, None].expand(3, 1, 2, 1) / 2.0
    sheet = contact_sheet(images, columns=2, magnify=2, gap=1)
    assert sheet.tolist() == [
        [40, 40, 40, 40, 40, 40, 40],
        *[[40, 0, 0, 40, 128, 128, 40]] * 4,
        [40, 40, 40, 40, 40, 40, 40],
        *[[40, 255, 255, 40, 40, 40, 40]] * 4,
        [40, 40, 40, 40, 40, 40, 40],
    ]


# Exports


VOLUMES: dict[str, Callable[[], Field]] = {
    "a grid": lambda: VoxelGrid([6, 9, 7]),
    "a grid of 16 bits": lambda: VoxelGrid(6).bfloat16(),
    "products": lambda: VMGrid(6),
    "a field": Counted,
}


@pytest.mark.parametrize("kind", VOLUMES)
@pytest.mark.parametrize("resolution", [None, 4, 20])
def test_slabs_are_the_whole_to_the_bit(kind: str, resolution: int | None, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    volume = VOLUMES[kind]()
    whole = voxel_arrays(volume, resolution)
    for module in (sampling, resampling):
        monkeypatch.setattr(module, "POINTS_AT_ONCE", 1)
    assert np.array_equal(voxel_arrays(volume, resolution), whole)  # one slice at a time


def content(path: Path) -> dict[str, bytes]:
    """The files in a folder, without the minute in which they were written."""
    found = {each.name: each.read_bytes() for each in path.iterdir()}
    for name, written in found.items():
        if name.endswith(".gz"):
            found[name] = written[:4] + written[8:]
        written = re.sub(rb"# on \d{4}-.*\n", b"", written[:400]) + written[400:]
        found[name] = re.sub(rb"\d{4}-\d\d-\d\d +\d\d:\d\d:\d\d", b"", written) if name.endswith("mrc") else written
    return found


@pytest.mark.parametrize("suffix", [suffix for suffix, each in VOXEL_FORMATS.items() if not each.solid])
@pytest.mark.parametrize("voxel_size_mm", [None, 0.7])
def test_voxels_that_lie_in_a_file_are_written_as_those_in_memory(
    suffix: str, voxel_size_mm: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(0)
    volume = VoxelGrid([6, 9, 7])
    for limit, name in ((sampling.IN_A_FILE, "memory"), (0, "file")):
        monkeypatch.setattr(sampling, "IN_A_FILE", limit)
        (tmp_path / name).mkdir()
        export_voxels(volume, tmp_path / name / f"a{suffix}", resolution=20, voxel_size_mm=voxel_size_mm)
    assert content(tmp_path / "file") == content(tmp_path / "memory")  # and nothing is left beside them


def test_a_disk_without_room_for_the_voxels_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = tempfile.TemporaryFile

    def full(*args: Any, **kwargs: Any) -> Any:
        file = real(*args, **kwargs)
        file.close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sampling, "IN_A_FILE", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(WriteError, match="No space left"):
        export_voxels(VoxelGrid(4), tmp_path / "a.raw")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("suffix", VOXEL_FORMATS)
def test_voxels_that_cannot_fit_are_refused(suffix: str, tmp_path: Path, room: Room):
    resolution = 256 if suffix == ".vox" else 322  # below what would lie in a file
    of_each = 8 + VOXEL_FORMATS[suffix].bytes_of_a_voxel
    room(of_each * resolution**3 - 1)
    with pytest.raises(ExportError, match=rf"^resolution={resolution}: .* voxels take about .* lower resolution$"):
        export_voxels(Counted(), tmp_path / f"a{suffix}", resolution=resolution)
    assert not [*tmp_path.iterdir()]


def test_meshes_and_pages_that_cannot_fit_are_refused(tmp_path: Path, room: Room):
    room((8 + 12) * 200**3 - 1)
    with pytest.raises(ExportError, match=r"^resolution=200: 200x200x200 voxels take about 153 MiB"):
        export_mesh(Counted(), tmp_path / "a.stl", resolution=200)
    room((8 + 12) * 200**3 - 1)
    with pytest.raises(ExportError, match=r"^resolution=200: "):
        page_html(Counted(), RendererOptions(), "", 200)
    assert not [*tmp_path.iterdir()]


class Frames:
    """Frames that say how many they are; those that somebody still holds are counted."""

    def __init__(self, count: int) -> None:
        self.count, self.made = count, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(self.count):
            self.made += 1
            yield np.full((8, 8), number % 256, np.uint8)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".apng"])
def test_an_animation_that_cannot_fit_is_refused_at_its_first_frame(suffix: str, tmp_path: Path, room: Room):
    frames = Frames(100)
    room(2 * 100 * 64 - 1)
    with pytest.raises(
        ExportError, match=r"^frames=100: so many of 8x8 pixels take .* give the output the suffix .mp4"
    ):
        write_orbit(tmp_path / f"a{suffix}", frames, 24)
    assert frames.made == 1
    room(2 * 100 * 64)
    assert write_orbit(tmp_path / f"a{suffix}", frames, 24) == 100


def test_a_strip_keeps_only_the_frames_that_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shown: list[int] = []
    joined = np.concatenate
    monkeypatch.setattr(
        video_module.np, "concatenate", lambda kept, axis: shown.append(len(kept)) or joined(kept, axis)
    )
    write_orbit(tmp_path / "told.png", Frames(100), 24)
    write_orbit(tmp_path / "untold.png", iter(Frames(100)), 24)
    assert shown == [12, 12]
    assert (tmp_path / "told.png").read_bytes() == (tmp_path / "untold.png").read_bytes()


def test_sizes_of_any_length_are_said_in_four_digits():
    sizes = (1000 * 2**20, 2**50, 3 * 2**40, 2**63)
    assert [size_in_words(size) for size in sizes] == ["1000 MiB", "1 PiB", "3 TiB", "8 EiB"]
