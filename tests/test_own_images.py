"""A folder of somebody's own images: what is dark on white, which sizes fit, what is no image and no class."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from benchmarks.drawings import LETTERS, write_drawings
from mnist3d.cli.parser import parse_command_line
from mnist3d.data.ground import ground_of, most_common
from mnist3d.data.image_files import ImageFile
from mnist3d.data.images import load_images, reduced
from mnist3d.data.options import DataOptions
from mnist3d.errors import ConfigError, DataError
from mnist3d.runs.config import written_config
from mnist3d.runs.session import sculpt
from mnist3d.training.objectives.target_list import TargetOptions
from mnist3d.training.objectives.targets import build_targets


def drawn(paper, ink, size=(28, 28)):
    """A cross of ink on paper."""
    image = Image.new("L", size, paper)
    pen, (width, height) = ImageDraw.Draw(image), size
    pen.line([(width // 2, height // 4), (width // 2, 3 * height // 4)], ink, 3)
    pen.line([(width // 4, height // 2), (3 * width // 4, height // 2)], ink, 3)
    return image


def icon(ink, size=(28, 28)):
    """The same in ink of one colour, on nothing."""
    image = Image.new("RGBA", size, (*ink, 0))
    image.putalpha(drawn(0, 255, size))
    return image


def write(folder, *images):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        image.save(folder / f"{number:02d}.png")


def load(folder, size=28, **options):
    return load_images(DataOptions(name="images", path=str(folder), held_out=0.0, **options), size)


CROSS = torch.from_numpy(np.array(drawn(0, 255))).float() / 255


def test_dark_on_white_is_inverted_and_said(tmp_path):
    write(tmp_path, *[drawn(255, 0)] * 3)
    images = load(tmp_path)
    assert torch.equal(images.images, CROSS.expand(3, 1, 28, 28))
    (line,) = images.remarks
    assert (
        line == f"data.path={tmp_path}: 3 images, dark on white: inverted; --data.invert false keeps them as they are"
    )


def test_bright_on_black_stays_to_the_bit_and_says_so(tmp_path):
    random = np.random.default_rng(0)
    stored = np.zeros((4, 28, 28), np.uint8)
    stored[:, 5:23, 5:23] = random.integers(0, 256, (4, 18, 18))
    write(tmp_path, *map(Image.fromarray, stored))
    images = load(tmp_path)
    assert torch.equal(images.images, torch.from_numpy(stored).float()[:, None] / 255)
    assert "bright on black: not inverted; --data.invert true" in images.remarks[0]


@pytest.mark.parametrize("invert", [True, False])
def test_who_says_so_decides_alone(tmp_path, invert):
    write(tmp_path, drawn(255, 0), drawn(0, 255), Image.new("L", (28, 28), 99))
    images = load(tmp_path, invert=invert)
    white = torch.stack([1 - CROSS, CROSS, torch.full((28, 28), 99 / 255)])[:, None]
    expected = 1 - white if invert else white
    assert torch.allclose(images.images, expected, atol=1e-6)  # 255 - x and x / 255 round apart
    assert images.remarks[0].endswith(f"3 images, {'inverted' if invert else 'not inverted'} (data.invert)")


def test_mixed_images_each_by_its_own_border_and_the_others_as_most(tmp_path):
    unclear = Image.fromarray(np.tile(np.arange(28, dtype=np.uint8) * 9, (28, 1)))
    write(tmp_path, drawn(255, 0), drawn(255, 0), drawn(0, 255), unclear)
    images = load(tmp_path)
    assert torch.equal(images.images[:3], CROSS.expand(3, 1, 28, 28))
    assert torch.allclose(images.images[3, 0, 0], 1 - torch.arange(28) * 9 / 255)
    assert "3 of 4 images are dark on white: inverted; the others are not" in images.remarks[0]
    (tmp_path / "00.png").unlink()
    assert torch.allclose(load(tmp_path).images[2, 0, 0], torch.arange(28) * 9 / 255)  # one of each: no majority


def test_photographs_stay_and_the_line_says_that_nothing_was_plain(tmp_path):
    random = np.random.default_rng(0)
    photos = [Image.fromarray(random.integers(0, 256, (28, 28), dtype=np.uint8)) for _ in range(3)]
    write(tmp_path, *photos, drawn(255, 0))
    images = load(tmp_path)
    assert torch.equal(images.images[0, 0], torch.from_numpy(np.array(photos[0])).float() / 255)
    assert torch.equal(images.images[3, 0], CROSS)
    write(tmp_path / "alone", *photos)
    assert "neither a plain white nor a plain black border: not inverted" in load(tmp_path / "alone").remarks[0]


def test_grey_paper_becomes_black(tmp_path):
    write(tmp_path, drawn(200, 0), drawn(200, 100))
    images = load(tmp_path).images[:, 0]
    assert images[:, 0].max() == 0
    assert torch.equal(images[0], CROSS)
    # 100 on paper of 200 is half as bright as the paper; to the next of 255 levels
    assert images[1].max().item() == pytest.approx(0.5, abs=1 / 255)


@pytest.mark.parametrize(
    ("images", "brightness"),
    [
        ([icon((0, 0, 0))] * 2, 1.0),  # black ink on nothing would be an all-black image
        ([icon((30, 30, 30))] * 2, 1 - 30 / 255),
        ([icon((255, 255, 255))] * 2, 1.0),
        ([icon((200, 200, 200))] * 2, 200 / 255),
        ([icon((100, 100, 100))] * 2, 100 / 255),  # neither dark nor bright: what is nothing is black, and no more
        ([drawn(255, 0).convert("RGBA")] * 2, 1.0),  # opaque all over: the paper counts
    ],
)
def test_what_stands_on_nothing_is_seen(tmp_path, images, brightness):
    write(tmp_path, *images)
    given = load(tmp_path).images[0, 0]
    assert torch.allclose(given, CROSS * brightness, atol=1.01 / 255)  # one level of 8 bits


def test_an_icon_of_neither_shade_follows_the_others(tmp_path):
    write(tmp_path, icon((0, 0, 0)), icon((0, 0, 0)), icon((100, 100, 100)))
    assert load(tmp_path).images[2].max().item() == pytest.approx(155 / 255)


@pytest.mark.parametrize(
    ("image", "ground"),
    [
        (drawn(255, 0), "white"),
        (drawn(160, 0), "white"),
        (drawn(128, 0), None),
        (drawn(150, 255), None),  # white on light blue
        (drawn(200, 40), "white"),
        (drawn(100, 255), "black"),
        (Image.new("L", (28, 28), 255), None),  # nothing is drawn, and inverted it were as black
        (Image.new("L", (28, 28)), None),
        (Image.new("L", (1, 1), 255), None),
        (Image.fromarray(np.tile(np.linspace(80, 255, 28).astype(np.uint8), (28, 1))), None),  # bright, not plain
    ],
)
def test_the_ground_of_an_image(image, ground):
    assert ground_of(ImageFile(image, None)) == ground


def test_an_image_with_nothing_in_it_has_no_ground():
    assert ground_of(ImageFile(drawn(255, 0), Image.new("L", (28, 28)))) is None


def test_an_icon_may_touch_its_transparent_border():
    """A black bar on nothing covers 28 + 2 * 7 of the 108 outermost pixels."""
    opacity = Image.new("L", (28, 28))
    opacity.paste(255, (0, 0, 28, 8))
    assert ground_of(ImageFile(Image.new("L", (28, 28)), opacity)) == "white"


def test_strokes_may_touch_the_border():
    image = drawn(255, 0)
    image.paste(0, (0, 0, 28, 5))
    assert ground_of(ImageFile(image, None)) is None
    image = drawn(255, 0)
    image.paste(0, (0, 0, 3, 8))
    assert ground_of(ImageFile(image, None)) == "white"


def test_most_of_the_images_decide():
    assert most_common(["white", "white", "black", None]) == "white"
    assert most_common(["black", "black", "white", None]) == "black"
    assert most_common(["white", "black"]) is None
    assert most_common(["white", None, None]) is None
    assert most_common(["white", "white", None, None]) == "white"


def test_no_bars_around_what_is_not_square(tmp_path):
    wide = drawn(255, 0, (56, 28))
    write(tmp_path, wide, wide)
    inverted = load(tmp_path).images[0, 0]
    assert inverted[:9].max() == 0
    assert inverted[14].max() == 1
    kept = load(tmp_path, invert=False).images[0, 0]
    assert kept[:9].min() == 1
    write(tmp_path / "grey", drawn(240, 0, (56, 28)), drawn(20, 255, (56, 28)))
    grey = load(tmp_path / "grey").images[:, 0]
    assert grey[0, :9].max() == 0
    assert torch.allclose(grey[1, :9], torch.tensor(20 / 255))  # its own ground, no frame around it


def test_several_sizes_are_fitted_and_said(tmp_path):
    write(tmp_path, drawn(255, 0, (40, 40)), drawn(255, 0, (28, 14)), drawn(255, 0, (50, 40)))
    given = load(tmp_path)
    assert given.images.shape == (3, 1, 28, 28)
    assert any(
        line.endswith(
            "sizes from 28x14 to 50x40: each image is fitted into a square of 28x28; "
            "--data.resize false refuses them instead"
        )
        for line in given.remarks
    ), given.remarks
    assert torch.equal(load(tmp_path, resize=True).images, given.images)
    assert len(load(tmp_path, resize=True).remarks) == len(given.remarks) - 1
    with pytest.raises(DataError, match=r"40x40 \(00.png\), 28x14 \(01.png\); without --data\.resize false"):
        load(tmp_path, resize=False)


def test_one_square_size_is_not_fitted_without_need(tmp_path):
    write(tmp_path, drawn(0, 255, (40, 40)), drawn(0, 255, (40, 40)))
    assert torch.equal(load(tmp_path).images, load(tmp_path, resize=False).images)
    assert len(load(tmp_path, 40).remarks) == 1


def test_what_is_larger_than_the_views_is_reduced_and_said(tmp_path):
    write(tmp_path, drawn(0, 255, (40, 40)), drawn(0, 255, (40, 40)))
    line = load(tmp_path).remarks[-1]
    assert line.startswith("renderer.image_size=28: images of up to 40x40 are reduced to 28x28 pixels; ")
    write(tmp_path, drawn(0, 255, (40, 90)))
    assert "up to 40x90 are" in load(tmp_path).remarks[-1]
    assert not any("reduced" in line for line in load(tmp_path, 90).remarks)
    assert load_images(DataOptions(limit=10), 28).remarks == ()


def test_litter_is_neither_an_image_nor_a_class(tmp_path):
    """Jupyter, macOS, archives of macOS, Windows, Synology, and whatever is hidden."""
    for name in ("a", "b"):
        write(tmp_path / name, drawn(0, 255), drawn(0, 255))
    for folder in (".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir"):
        write(tmp_path / folder, drawn(0, 255))
        write(tmp_path / "a" / folder, drawn(0, 255))
    (tmp_path / "a" / "._00.png").write_bytes(b"\0\5\x16\7" + bytes(78))
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "labels.csv"):
        (tmp_path / "b" / name).write_bytes(b"\0")
    (tmp_path / "b" / "folder.png").mkdir()
    (tmp_path / "nothing in it").mkdir()
    images = load(tmp_path)
    assert images.class_names == ["a", "b"]
    assert len(images.images) == 4
    assert len(images.remarks) == 1


def test_what_is_left_out_is_said(tmp_path):
    write(tmp_path / "a", drawn(0, 255), drawn(0, 255))
    write(tmp_path, drawn(0, 255))
    drawn(0, 255).save(tmp_path / "a" / "02.gif", save_all=True, append_images=[drawn(255, 0)])
    remarks = load(tmp_path).remarks
    assert any("1 animations or files of several pages; the first image of each" in line for line in remarks)
    assert any("1 images beside the subfolders belong to no class; left out" in line for line in remarks)
    assert not any("not read" in line for line in remarks)
    for name in ("a/photo.HEIC", "a/photo.svg", "b.heic", ".hidden.heic"):
        (tmp_path / name).write_bytes(b"\0")
    assert any(
        line.endswith("3 files of kinds that are not read (.heic, .svg); left out") for line in load(tmp_path).remarks
    )


def test_one_size_that_is_not_square_is_said_once(tmp_path):
    write(tmp_path, drawn(255, 0, (40, 20)), drawn(255, 0, (40, 20)))
    assert any(": all 40x20: each image is fitted into a square" in line for line in load(tmp_path).remarks)


def test_sets_with_names_are_inverted_on_demand_only():
    plain, turned = (load_images(DataOptions(limit=20, invert=invert), 28) for invert in ("auto", True))
    assert torch.allclose(turned.images, 1 - plain.images, atol=1e-6)  # 255 - x and x / 255 round apart
    assert plain.remarks == ()


# targets, and what a run says


def targets_of(path, **options):
    real = load_images(DataOptions(limit=20), 28)
    return build_targets(TargetOptions(views=[{"image": str(path)}]), real, DataOptions(**options))


def test_image_files_of_targets_by_the_same_rules(tmp_path):
    drawn(255, 0, (56, 28)).save(tmp_path / "dark.png")
    drawn(0, 255, (56, 28)).save(tmp_path / "bright.png")
    icon((0, 0, 0), (56, 28)).save(tmp_path / "icon.png")
    dark, bright, black = (targets_of(tmp_path / f"{name}.png") for name in ("dark", "bright", "icon"))
    assert dark is not None
    assert bright is not None
    assert black is not None
    assert torch.equal(dark.images, bright.images)
    assert torch.equal(black.images, bright.images)
    assert "dark.png: dark on white, inverted; --data.invert false" in dark.remarks[0]
    assert "dark.png: renderer.image_size=28: images of up to 56x28 are reduced" in dark.remarks[1]
    assert len(bright.remarks) == 1
    kept = targets_of(tmp_path / "dark.png", invert=False)
    assert kept is not None
    assert kept.images[0, 0, :6].min() == 1


def test_a_run_says_once_what_was_decided(tmp_path, capfd):
    write(tmp_path / "images", *[drawn(255, 0)] * 4)
    drawn(255, 0).save(tmp_path / "target.png")
    words = ["--data.name", "images", "--data.path", str(tmp_path / "images"), "--volume.resolution", "8"]
    words += ["--targets.views", f"[{{image: {tmp_path / 'target.png'}}}]", "--trainer.max_steps", "1"]
    words += ["--viewer.enabled", "false", "--run_dir", str(tmp_path / "run")]
    sculpt(parse_command_line(words))
    lines = capfd.readouterr().err.splitlines()
    assert sum("4 images, dark on white: inverted" in line for line in lines) == 1
    assert sum("target.png: dark on white, inverted" in line for line in lines) == 1


@pytest.mark.parametrize("key", ["invert", "resize"])
def test_what_these_options_may_be(key):
    for text, taken in (("auto", "auto"), ("true", True), ("false", False)):
        assert getattr(parse_command_line([f"--data.{key}", text]).config.data, key) is taken
    with pytest.raises(ConfigError, match=rf"data\.{key}=maybe: must be auto or true or false"):
        parse_command_line([f"--data.{key}", "maybe"])


def test_a_run_of_version_0_1_goes_on_with_images_that_are_not_inverted():
    old = {"name": "images", "path": "somewhere", "held_out": 0.3, "resize": True, "limit": None, "scale": 1.0}
    assert written_config({"data": old}).data.invert is False
    assert written_config({"data": {**old, "invert": "auto"}}).data.invert == "auto"
    assert written_config({}).data.invert == "auto"


@pytest.mark.parametrize("letters", [False, True])
def test_the_drawings_of_the_benchmark_need_no_option(tmp_path, letters):
    write_drawings(tmp_path, 2, seed=0, letters=letters)
    images = load(tmp_path, 64)
    assert images.class_names == (list(LETTERS) if letters else ["fish", "house", "tree"])
    assert "dark on white: inverted" in images.remarks[0]
    assert "each image is fitted into a square of 64x64" in images.remarks[1]
    # JPEG leaves a few levels of 255 beside a stroke, and a stroke is nearly white
    assert images.images[..., [0, -1], :].max() <= 10 / 255
    assert images.images.flatten(1).amax(1).min() > 0.6


@pytest.mark.parametrize(("size", "advised"), [(28, True), (64, False), (96, False)])
def test_a_preset_of_64_pixels_is_advised_to_whom_it_helps(size, advised):
    (line,) = reduced(200, 100, size)
    assert ("--config drawings" in line) == advised
    assert reduced(size, size, size) == []
