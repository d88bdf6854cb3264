"""Sets in idx form: what is dark on white, what is not square, and what is no set."""

import struct

import numpy as np
import pytest
import torch

from mnist3d.data.ground import ground_of_all
from mnist3d.data.images import load_images
from mnist3d.data.options import DataOptions

WHITE = np.full((28, 28), 255, np.uint8)
WHITE[7:21, 13:16] = WHITE[13:16, 7:21] = 0  # a cross
CROSS = torch.from_numpy(255 - WHITE).float() / 255


def idx_bytes(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def idx_options(path, **others):
    return DataOptions(name="idx", path=str(path), held_out=0.0, **others)


def test_idx_files_are_inverted_all_or_none(tmp_path):
    white = np.stack([WHITE] * 3 + [255 - WHITE])
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(white))
    images = load_images(idx_options(tmp_path), 28)
    assert torch.equal(images.images[:, 0], torch.stack([CROSS] * 3 + [1 - CROSS]))
    assert "dark on white, inverted; --data.invert false" in images.remarks[0]
    assert load_images(idx_options(tmp_path, invert=False), 28).images[0, 0, 0, 0] == 1
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(255 - white))
    images = load_images(idx_options(tmp_path), 28)
    assert torch.equal(images.images[:, 0], torch.stack([CROSS] * 3 + [1 - CROSS]))
    assert images.remarks == ()
    assert load_images(idx_options(tmp_path, invert=True), 28).images[0, 0, 0, 0] == 1


def test_idx_images_that_are_not_square_are_not_stretched(tmp_path):
    bright = np.full((3, 10, 20), 255, np.uint8)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(bright))
    image = load_images(idx_options(tmp_path), 20).images[0, 0]
    assert image[5:15].min() == 1
    assert image[:5].max() == image[15:].max() == 0


def test_the_training_set_decides_for_the_test_set(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(np.stack([WHITE] * 3)))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.stack([255 - WHITE] * 3)))
    assert torch.equal(load_images(idx_options(tmp_path), 28, "held_out").images[0, 0], 1 - CROSS)


def test_a_set_of_noise_has_no_ground():
    assert ground_of_all(np.random.default_rng(0).integers(0, 256, (9, 28, 28), dtype=np.uint8)) is None


@pytest.mark.parametrize("flat", [True, False])
def test_folders_and_hidden_files_are_no_second_set(tmp_path, flat):
    """Kaggle's archive of MNIST holds each file, and a folder with the file once more."""
    content, labels = idx_bytes(np.full((6, 28, 28), 7)), idx_bytes(np.arange(6))
    for name, data in (("train-images", content), ("train-labels", labels)):
        kind = "idx3" if "images" in name else "idx1"
        (tmp_path / f"{name}-{kind}-ubyte").mkdir()
        (tmp_path / f"{name}-{kind}-ubyte" / f"{name}-{kind}-ubyte").write_bytes(data)
        if flat:
            (tmp_path / f"{name}.{kind}-ubyte").write_bytes(data)
    (tmp_path / "._train-images.idx3-ubyte").write_bytes(b"\0\5\x16\7" + bytes(78))
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "other-images-idx3-ubyte").write_bytes(content)
    images = load_images(idx_options(tmp_path), 28)
    assert len(images.images) == 6
    assert images.labels is not None
    assert images.labels.tolist() == [0, 1, 2, 3, 4, 5]
