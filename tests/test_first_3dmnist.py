"""Importing the first 3DMNIST's `volume.pt`: the same image, and no code from the file."""

import math
import os
import pickle
import zipfile

import pytest
import torch

from mnist3d.errors import VolumeFileError
from mnist3d.geometry.rotations import euler_matrix
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.runs.loading import load_sculpture
from mnist3d.volumes import load_volume
from mnist3d.volumes.voxel_grid import VoxelGrid


def logits(shape=(28, 28, 28, 1), seed=0):
    generator = torch.Generator().manual_seed(seed)
    attenuation = torch.randn(shape, generator=generator) * 2.0 - 2.0
    return {"absorbance": torch.randn(shape, generator=generator), "attenuation": attenuation}


def original_image(stored, rows_columns_depth, emits="1 - absorbance"):
    """The first 3DMNIST's `_ray_march` on voxels already turned to (rows, columns, depth): front to back."""
    attenuation, absorbance = (rows_columns_depth(stored[name][..., 0]).sigmoid() for name in sorted(stored)[::-1])
    reached = torch.cumprod(torch.cat([torch.ones_like(attenuation[..., :1]), 1 - attenuation[..., :-1]], -1), -1)
    return (reached * attenuation * (1 - absorbance if emits == "1 - absorbance" else absorbance)).sum(-1)


@pytest.fixture
def stored(tmp_path):
    content = logits()
    torch.save(content, tmp_path / "volume.pt")
    return tmp_path / "volume.pt", content


# (rotation, the same turn of (y, x, z) voxels): at the identity rows are y, columns x, depth z; turned by
# Ry(90 degrees), x_camera = z and z_camera = -x; by Rx(90 degrees), y_camera = -z and z_camera = y.
TURNS = {
    "identity": ((0.0, 0.0), lambda voxels: voxels),
    "from the side": ((0.0, math.pi / 2), lambda voxels: voxels.permute(0, 2, 1).flip(2)),
    "from above": ((math.pi / 2, 0.0), lambda voxels: voxels.permute(2, 1, 0).flip(0)),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("emits", ["1 - absorbance", "absorbance"])
def test_the_image_is_the_originals(stored, turn, emits):
    path, content = stored
    (elevation, azimuth), turned = TURNS[turn]
    # 50 voxels: the ball then holds the whole cube of 28 (28 * sqrt(3) = 48.5), so nothing is cut off.
    volume = VoxelGrid.from_3dmnist(path, frame=50, emits=emits)
    rotation = euler_matrix(torch.tensor([elevation, azimuth, 0.0]))
    image = AbsorptionRenderer(50)(volume, rotation)[0, 0]
    expected = original_image(content, turned, emits)
    # float32: some 28 products and sums, and a rotation whose zeros are 4e-8
    torch.testing.assert_close(image[11:-11, 11:-11], expected, rtol=0, atol=1e-5)
    assert image[:11].max() < 1e-6


def test_in_the_originals_frame_only_what_leaves_the_ball_differs(stored):
    path, content = stored
    run = load_sculpture(path)
    assert run.renderer.options.image_size == 40
    image = run.renderer(run.volume, torch.eye(3))[0, 0, 6:-6, 6:-6]
    expected = original_image(content, lambda voxels: voxels)
    centre = torch.arange(28) - 13.5
    # columns that lie in the ball with a voxel to spare: the step that the sphere cuts is sampled off its centre
    whole = centre[:, None] ** 2 + centre**2 + 15**2 <= 20**2
    assert 500 < whole.sum() < 784
    torch.testing.assert_close(image[whole], expected[whole], rtol=0, atol=1e-5)
    assert isinstance(load_volume(path), VoxelGrid)


def test_any_size_and_precision(tmp_path):
    content = {name: value.double() for name, value in logits((5, 7, 3, 1)).items()}
    torch.save(content, tmp_path / "v.pth")
    assert VoxelGrid.from_3dmnist(tmp_path / "v.pth", frame=14).to_array().shape == (2, 14, 14, 14)
    with pytest.raises(ValueError, match=r"frame=6: must be in \[7, "):
        VoxelGrid.from_3dmnist(tmp_path / "v.pth", frame=6)
    with pytest.raises(ValueError, match=r"emits='light'"):
        VoxelGrid.from_3dmnist(tmp_path / "v.pth", emits="light")  # pyright: ignore[reportArgumentType]


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["torch", "plain pickle", "inside a tensor file"])
def test_no_code_is_run(tmp_path, how):
    trap, path = tmp_path / "trap", tmp_path / "volume.pt"
    if how == "torch":
        torch.save({**logits((4, 4, 4, 1)), "attenuation": Malicious(trap)}, path)
    elif how == "plain pickle":
        path.write_bytes(pickle.dumps(Malicious(trap)))
    else:
        torch.save(logits((4, 4, 4, 1)), tmp_path / "good.pt")
        with zipfile.ZipFile(tmp_path / "good.pt") as good, zipfile.ZipFile(path, "w") as bad:
            for name in good.namelist():
                content = pickle.dumps(Malicious(trap), 2) if name.endswith("data.pkl") else good.read(name)
                bad.writestr(name, content)
    for load in (load_volume, VoxelGrid.from_3dmnist, load_sculpture):
        with pytest.raises(VolumeFileError) as error:
            load(path)
        assert "\n" not in str(error.value)
        assert "code" in str(error.value)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Malicious(trap)))  # the trap itself works
    assert trap.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "holds"),
        ({"volume": {}, "averaged": {}}, r"holds averaged, volume.*volume\.safetensors"),
        ([torch.zeros(2)], "holds list"),
        ({**logits((4, 4, 4, 1)), "absorbance": 3}, "absorbance is no tensor"),
        ({**logits((4, 4, 4, 1)), "absorbance": torch.zeros(4, 4, 4, 1, dtype=torch.int32)}, "absorbance is no tensor"),
        ({**logits((4, 4, 4, 1)), "absorbance": torch.zeros(4, 4, 5, 1)}, r"\(4, 4, 4, 1\)"),
        (logits((4, 4, 4)), "it must be"),
        (logits((0, 4, 4, 1)), "it must be"),
        ({**logits((4, 4, 4, 1)), "attenuation": torch.full((4, 4, 4, 1), math.nan)}, "not a number"),
        ({**logits((4, 4, 4, 1)), "attenuation": torch.zeros(1).expand(1000, 1000, 1000, 1)}, "claims more"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_content_is_one_line(tmp_path, content, words):
    torch.save(content, tmp_path / "volume.pt")
    with pytest.raises(VolumeFileError, match=words) as error:
        load_volume(tmp_path / "volume.pt")
    assert "\n" not in str(error.value)


class Bytes:
    def __reduce__(self):
        return bytearray, (10**10,)


def test_what_would_fill_the_memory_is_refused_before_torch_sees_it(tmp_path, stored, monkeypatch):
    path, content = stored
    torch.save({**content, "absorbance": Bytes()}, tmp_path / "asks.pt")
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bad:
        for name in plain.namelist():
            bad.writestr(name, plain.read(name))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch was asked"))
    for name, words in (("asks.pt", "asks for code to be run"), ("packed.pt", "its members are packed")):
        with pytest.raises(VolumeFileError, match=words):
            load_volume(tmp_path / name)


def test_a_tensor_that_is_longer_than_its_numbers_is_refused(tmp_path, stored, monkeypatch):
    """Torch of some versions would read on in memory that is somebody else's; here it is made to."""
    path, content = stored
    longer = {name: torch.zeros(value.numel() + 1)[:-1].reshape(value.shape) for name, value in content.items()}
    monkeypatch.setattr(torch, "load", lambda *_, **__: longer)
    with pytest.raises(VolumeFileError, match="attenuation claims more numbers than the file holds"):
        load_volume(path)


def test_an_old_file_of_torch_opens(tmp_path):
    torch.save(logits((4, 4, 4, 1)), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert isinstance(load_volume(tmp_path / "old.pt"), VoxelGrid)


def test_damaged_and_missing(tmp_path, stored):
    path, _ = stored
    for content in (b"", b"abc", path.read_bytes()[:-100], path.read_bytes()[:500]):
        (tmp_path / "cut.pt").write_bytes(content)
        with pytest.raises(VolumeFileError, match=r"damaged|not read"):
            load_volume(tmp_path / "cut.pt")
    with pytest.raises(VolumeFileError, match="no such volume file"):
        load_volume(tmp_path / "nothing.pt")
