"""What people share: a file that rebuilds the volume and cannot carry code."""

import json
import math
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import mnist3d
from mnist3d.errors import VolumeFileError, WriteError
from mnist3d.volumes import (
    FourierMLP,
    HashGrid,
    TriPlane,
    VMGrid,
    Volume,
    VoxelGrid,
    load_volume,
    read_description,
    volume_bytes,
)
from mnist3d.volumes.files import arguments_of_0_1


class Sphere(Volume):
    """A third-party backend, as small as one can be."""

    def __init__(self, radius: float = 0.5):
        super().__init__()
        self.radius = torch.nn.Parameter(torch.tensor(radius))

    def forward(self, points):
        return (points.norm(dim=-1) < self.radius).to(points.dtype), torch.zeros_like(points[..., 0])


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "volume.safetensors"
    path.write_bytes(volume_bytes(VoxelGrid(6, pyramid=[0.5]), {"step": 12}))
    return path


def dense(volume):
    grid = volume.dense()
    assert grid is not None
    return grid


def rewrite(path, **changes):
    """The same file with some of its description changed."""
    description = {**read_description(path), **changes}
    save_file(load_file(path), path, metadata={"mnist3d": json.dumps(description)})


def test_round_trip_is_exact(tmp_path):
    volume = VoxelGrid([3, 4, 5], pyramid=[0.5])
    path = tmp_path / "volume.safetensors"
    path.write_bytes(volume_bytes(volume, {"step": 12}))
    again = load_volume(path)
    assert torch.equal(dense(again), dense(volume))
    assert again.init_args == volume.init_args
    description = read_description(path)
    assert description["class_path"] == "mnist3d.volumes.VoxelGrid"
    assert description["step"] == 12


FIELD: dict[str, Any] = {"num_levels": 2, "log2_hashmap_size": 6, "max_resolution": 8, "hidden_dim": 8}


@pytest.mark.parametrize(
    "volume",
    [
        VoxelGrid([3, 4, 5]),
        VoxelGrid(8, grow_at=[0.5]),
        VMGrid([3, 4, 5], 2),
        HashGrid(**FIELD),
        HashGrid(**FIELD, bake_resolution=6, grow_at=[3], levels_at=[5]),
        FourierMLP("relu", num_frequencies=4, hidden_dim=8, bake_resolution=6, grow_at=[3]),
        FourierMLP("sine", hidden_dim=8),
        TriPlane(5, 3, "product", bake_resolution=6),
    ],
    ids=lambda volume: f"{type(volume).__name__}{volume.init_args.get('grow_at')}",
)
def test_a_volume_is_saved_and_loaded_by_the_names_of_the_package(volume, tmp_path):
    path = volume.save(str(tmp_path / "new" / "mine.safetensors"), {"step": 12})
    assert path == tmp_path / "new" / "mine.safetensors"
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing temporary is left
    again = mnist3d.load_volume(path)
    assert type(again) is type(volume)
    assert again.init_args == volume.init_args
    assert again.state_dict().keys() == volume.state_dict().keys()
    assert all(torch.equal(weight, volume.state_dict()[key]) for key, weight in again.state_dict().items())
    assert read_description(path)["step"] == 12
    assert path.read_bytes() == volume_bytes(volume, {"step": 12})


def test_a_volume_of_another_package_is_saved_under_its_own_name(tmp_path):
    path = Sphere(0.25).save(tmp_path / "sphere.safetensors")
    assert read_description(path)["class_path"] == f"{__name__}.Sphere"
    assert mnist3d.load_volume(path, trusted=[Sphere]).init_args == {"radius": 0.25}


@pytest.mark.parametrize(("name", "given"), [("mine.pt", ".pt"), ("mine", r"\(none\)"), ("mine.nrrd", ".nrrd")])
def test_another_suffix_is_refused_before_anything_is_written(name, given, tmp_path):
    with pytest.raises(VolumeFileError, match=rf"{name}: suffix {given}; must be \.safetensors.*export_voxels"):
        VoxelGrid(2).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_opened_again_is_not_saved(tmp_path):
    path = VoxelGrid(2).save(tmp_path / "mine.safetensors", {"renderer": {"image_size": 28}})
    before = path.read_bytes()
    broken = VoxelGrid(2)
    with torch.no_grad():
        next(broken.parameters()).view(-1)[-1] = math.nan
    with pytest.raises(VolumeFileError, match=r"mine\.safetensors: \S+ holds weights that are not a number"):
        broken.save(path)
    with pytest.raises(ValueError, match="extra: class_path, format_version must not be among its names"):
        VoxelGrid(2).save(path, {"class_path": "os.system", "format_version": 99, "step": 3})
    assert path.read_bytes() == before


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = VoxelGrid(2).save(tmp_path / "mine.safetensors")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mnist3d.storage.atomic.os.replace", full)
    with pytest.raises(WriteError, match="No space left"):
        VoxelGrid(3).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_values_at_the_border_of_their_range_survive(tmp_path):
    volume = VoxelGrid.from_array(torch.zeros(2, 2, 2, 2))  # raw -inf
    path = tmp_path / "volume.safetensors"
    path.write_bytes(volume_bytes(volume))
    assert torch.equal(dense(load_volume(path)), dense(volume))


def test_another_packages_class_needs_trust(tmp_path):
    path = tmp_path / "sphere.safetensors"
    path.write_bytes(volume_bytes(Sphere(0.25)))
    with pytest.raises(VolumeFileError, match=r"Sphere, which mnist3d does not contain.*trust"):
        load_volume(path)
    again = load_volume(path, trusted=[Sphere])
    assert isinstance(again, Sphere)
    assert again.radius.item() == 0.25


@pytest.mark.parametrize("name", ["os.system", "mnist3d.volumes.Volume", "mnist3d.volumes.os", "torch.nn.Linear", "x"])
def test_a_file_never_causes_an_import(saved, name):
    rewrite(saved, class_path=name)
    with pytest.raises(VolumeFileError, match="does not contain"):
        load_volume(saved)


def test_a_few_bytes_cannot_ask_for_gigabytes(saved):
    init_args = {**read_description(saved)["init_args"], "resolution": 1024}
    rewrite(saved, init_args=init_args)
    with pytest.raises(VolumeFileError, match="do not fit"):
        load_volume(saved)


def test_unknown_arguments_newer_formats_and_nan(saved):
    rewrite(saved, init_args={"colour": "red"})
    with pytest.raises(VolumeFileError, match="colour"):
        load_volume(saved)
    rewrite(saved, format_version=99)
    with pytest.raises(VolumeFileError, match="format version 99"):
        load_volume(saved)


def test_weights_that_are_not_a_number_are_neither_written_nor_read(tmp_path):
    path, volume = tmp_path / "volume.safetensors", VoxelGrid(4)
    path.write_bytes(volume_bytes(volume))
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    with torch.no_grad():
        volume.levels[0].fill_(float("nan"))
    with pytest.raises(VolumeFileError, match="not a number"):
        volume_bytes(volume)
    save_file({name: weight.contiguous() for name, weight in volume.state_dict().items()}, path, metadata)
    with pytest.raises(VolumeFileError, match="not a number"):
        load_volume(path)


@pytest.mark.parametrize("content", [b"", b"abc", b"\x00" * 64])
def test_damaged_files(tmp_path, content):
    path = tmp_path / "volume.safetensors"
    path.write_bytes(content)
    with pytest.raises(VolumeFileError, match="damaged"):
        load_volume(path)


def test_cut_short_and_missing(saved, tmp_path):
    saved.write_bytes(saved.read_bytes()[:-10])
    with pytest.raises(VolumeFileError, match="damaged"):
        load_volume(saved)
    with pytest.raises(VolumeFileError, match="no such volume file"):
        load_volume(tmp_path / "nothing.safetensors")


def test_a_safetensors_of_somebody_else(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(VolumeFileError, match="not a volume file"):
        load_volume(path)


class Named(Sphere):
    """A third-party backend whose `init` is a word, and which hands its other options on."""

    def __init__(self, init: str = "random", **options):
        super().__init__(**options)
        self.init = init


def test_another_classes_init_and_keywords_are_its_own(tmp_path):
    path = tmp_path / "volume.safetensors"
    volume = Named(init="zeros", radius=0.25)
    assert volume.init_args == {"init": "zeros", "radius": 0.25}
    path.write_bytes(volume_bytes(volume))
    loaded = load_volume(path, trusted=[Named])
    assert isinstance(loaded, Named)
    assert loaded.init == "zeros"
    assert loaded.init_args == volume.init_args
    assert loaded.radius.item() == 0.25


def test_arguments_of_0_1_that_change_no_saved_volume_are_dropped():
    written = {"resolution": 6, "init": "gone.npz", "table_rate": 2.0, "grow_at": None}
    assert arguments_of_0_1(written) == {"resolution": 6, "grow_at": None}
    assert written["init"] == "gone.npz"  # the caller's own dictionary stays


def test_a_file_of_0_1_opens(saved, tmp_path):
    volume = load_volume(saved)
    rewrite(saved, init_args={**read_description(saved)["init_args"], "init": None})
    assert torch.equal(dense(load_volume(saved)), dense(volume))
    path = tmp_path / "hash.safetensors"
    field = HashGrid(num_levels=2, log2_hashmap_size=6, max_resolution=8, hidden_dim=8)
    path.write_bytes(volume_bytes(field))
    rewrite(path, init_args={**read_description(path)["init_args"], "table_rate": 0.5})
    again = load_volume(path)
    assert all(torch.equal(weight, field.state_dict()[key]) for key, weight in again.state_dict().items())
    assert "table_rate" not in again.init_args


def test_a_volume_file_cannot_make_us_read_another(saved):
    rewrite(saved, init_args={**read_description(saved)["init_args"], "init": "/etc/passwd.npz"})
    with pytest.raises(VolumeFileError, match=r"asks for another file \(init\); a volume file stands alone"):
        load_volume(saved)


def test_a_file_whose_arguments_overflow_is_one_error(saved):
    class Overflows(VoxelGrid):
        def __init__(self, **options):
            super().__init__(**options)
            math.exp(1e9)

    name = f"{Overflows.__module__}.{Overflows.__qualname__}"
    rewrite(saved, class_path=name)
    with pytest.raises(VolumeFileError, match="math range error"):
        load_volume(saved, trusted=[Overflows])
