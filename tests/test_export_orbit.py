"""Orbits: closed ways, and files that other programs play."""

import importlib.util
import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnist3d.errors import ExportError, WriteError
from mnist3d.export.frames import FrameStyle, orbit_frames
from mnist3d.export.paths import CAMERA_PATHS, camera_path
from mnist3d.export.video import write_orbit
from mnist3d.geometry.rotations import euler_matrix, sample_rotations, turntable
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.volumes.base import Volume
from mnist3d.volumes.occupancy import occupied_cells
from mnist3d.volumes.voxel_grid import VoxelGrid
from tests.conftest import need

FPS = 12


@pytest.fixture(scope="module")
def frames():
    """Thirteen frames of an odd size; a bright square moves, so first and last can be told apart."""
    images = np.zeros((13, 41, 37), np.uint8)
    for k, image in enumerate(images):
        image[10:22, 2 + k : 14 + k] = 230
        image[-6:, :] = 90
    return images


def angle(a, b):
    """Between two rotations, radians."""
    return math.acos(max(-1.0, min(1.0, (float(torch.trace(a.mT @ b)) - 1.0) / 2.0)))


@pytest.fixture
def keyframes(tmp_path):
    path = tmp_path / "keys.yaml"
    path.write_text("- {azimuth: 350}\n- {azimuth: 100, elevation: 20}\n- {azimuth: 200, roll: 10}\n")
    return path


@pytest.mark.parametrize("name", [*CAMERA_PATHS, "keyframes"])
def test_the_last_frame_leads_into_the_first_as_smoothly_as_any_other(name, keyframes):
    rotations = camera_path(str(keyframes) if name == "keyframes" else name, 240, elevation=0.1, seed=3)
    assert torch.allclose(rotations @ rotations.mT, torch.eye(3).expand(240, 3, 3), atol=1e-5)
    steps = [angle(rotations[k], rotations[(k + 1) % 240]) for k in range(240)]
    assert 1e-4 < steps[-1] < 2.0 * max(steps[-6:-1])
    assert steps[-1] < 0.25


def test_turntable_and_keyframes_pass_where_they_should(keyframes):
    assert torch.equal(camera_path("turntable", 8, elevation=0.2), turntable(8, 0.2))
    rotations = camera_path(str(keyframes), 30)
    for frame, (azimuth, elevation, roll) in ((0, (350, 0, 0)), (10, (100, 20, 0)), (20, (200, 0, 10))):
        wanted = euler_matrix(torch.tensor([elevation, azimuth, roll]).deg2rad())
        torch.testing.assert_close(rotations[frame], wanted, rtol=0, atol=1e-5)
    # From 350 to 100 degrees the shorter way leads through 45, not through 225.
    assert angle(rotations[5], euler_matrix(torch.tensor([0.17, math.radians(45), 0.0]))) < 0.4


def test_a_seed_walk_passes_the_views_of_its_law():
    views = sample_rotations(8, torch.Generator().manual_seed(5))
    walk = camera_path("seed_walk", 80, seed=5)
    torch.testing.assert_close(walk[::10], views, rtol=0, atol=1e-5)
    assert not torch.allclose(walk, camera_path("seed_walk", 80, seed=6))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- {azimuth: 10}\n", "two or more"),
        ("azimuth: 3\n", "no list"),
        ("- {azimuth: 10}\n- {azimut: 20}\n", "azimut"),
        ("- {azimuth: 10}\n- {azimuth: far}\n", "no angle"),
        ("- {azimuth: .nan}\n- {azimuth: 1}\n", "no angle"),
        ("[", "not valid YAML"),
    ],
)
def test_bad_keyframes_are_one_line(tmp_path, content, words):
    (tmp_path / "k.yaml").write_text(content)
    with pytest.raises(ExportError, match=words) as failed:
        camera_path(str(tmp_path / "k.yaml"), 10)
    assert "\n" not in str(failed.value)


def test_unknown_paths_name_the_known():
    with pytest.raises(ExportError, match=r"turntable, tilt, seed_walk, figure_eight or a file"):
        camera_path("spiral", 10)
    with pytest.raises(ExportError, match="cannot be read"):
        camera_path("nowhere.yaml", 10)


@pytest.mark.parametrize(("suffix", "codec", "pixels"), [("mp4", "h264", "yuv420p"), ("webm", "vp9", None)])
def test_ffprobe_reads_videos(frames, tmp_path, suffix, codec, pixels):
    need(shutil.which("ffprobe"), "ffprobe is not installed (apt-get install ffmpeg)")
    path = tmp_path / f"o.{suffix}"
    assert write_orbit(path, iter(frames), FPS) == 13
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    told = json.loads(done.stdout)
    (stream,) = told["streams"]
    assert stream["codec_name"] == codec
    assert (stream["width"], stream["height"]) == (38, 42)  # padded to even, not rescaled
    assert stream["r_frame_rate"] == f"{FPS}/1"
    assert int(stream["nb_read_frames"]) == 13
    assert float(told["format"]["duration"]) == pytest.approx(13 / FPS, abs=0.01)
    if pixels:
        assert stream["pix_fmt"] == pixels
        content = path.read_bytes()
        assert content.index(b"moov") < content.index(b"mdat")  # faststart


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_chromium_plays_videos(frames, tmp_path, suffix, playwright, chromium_path):
    write_orbit(tmp_path / f"o.{suffix}", frames, FPS)
    (tmp_path / "page.html").write_text(f"<video id=v src='o.{suffix}' muted preload=auto></video>")
    look = """async time => {
        const video = document.getElementById('v');
        if (video.readyState < 2) await new Promise((done, fail) => {
            video.onloadeddata = done; video.onerror = () => fail(video.error.message); });
        // "seeked" may come before the frame that it is about; where that was there already, no frame is announced
        const shown = new Promise(done => { video.requestVideoFrameCallback(done); setTimeout(done, 1000); });
        await new Promise(done => { video.onseeked = done; video.currentTime = time; });
        await shown;
        const canvas = document.createElement('canvas');
        canvas.width = video.videoWidth; canvas.height = video.videoHeight;
        const context = canvas.getContext('2d');
        context.drawImage(video, 0, 0);
        const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
        return {duration: video.duration, width: canvas.width, height: canvas.height,
                grey: Array.from(pixels).filter((_, k) => k % 4 == 1)};
    }"""
    # a page of its own folder may read that folder's pixels
    flags = ["--no-sandbox", "--allow-file-access-from-files"]
    browser = playwright.chromium.launch(executable_path=chromium_path, args=flags)
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    seen = [page.evaluate(look, time) for time in (0.01, 13 / FPS - 0.02)]
    browser.close()
    for told, frame in zip(seen, frames[[0, -1]], strict=True):
        assert told["duration"] == pytest.approx(13 / FPS, abs=0.01)
        assert (told["width"], told["height"]) == (38, 42)
        shown = np.array(told["grey"]).reshape(42, 38)[:41, :37]
        # a lossy codec with colours at half the resolution; a wrong frame differs by 20 and more
        assert np.abs(shown - frame.astype(float)).mean() < 4.0
    assert np.abs(np.array(seen[0]["grey"]) - np.array(seen[1]["grey"])).mean() > 15.0


@pytest.mark.parametrize("suffix", ["gif", "webp", "apng"])
def test_pillow_reads_lossless_animations(frames, tmp_path, suffix):
    write_orbit(tmp_path / f"o.{suffix}", frames, FPS)
    with Image.open(tmp_path / f"o.{suffix}") as image:
        assert getattr(image, "n_frames", 1) == 13
        assert image.info.get("loop", 0) == 0
        times = []
        for k, frame in enumerate(frames):
            image.seek(k)
            image.load()
            times.append(image.info["duration"])
            assert np.array_equal(np.asarray(image.convert("L")), frame)
    assert sum(times) == pytest.approx(1000 * 13 / FPS, abs=10 if suffix == "gif" else 1)  # a gif's tick is 10 ms


def test_a_folder_of_frames_is_new_and_whole(frames, tmp_path):
    write_orbit(tmp_path / "frames", frames, FPS, {"run": "x"})
    names = sorted(os.listdir(tmp_path / "frames"))
    assert names == ["export.json", *(f"frame_{k:05d}.png" for k in range(13))]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "frames" / names[-1])), frames[-1])
    with pytest.raises(ExportError, match="new folder"):
        write_orbit(tmp_path / "frames", frames, FPS)


def test_transparent_frames_keep_their_transparency(tmp_path):
    frame = np.zeros((9, 8, 4), np.uint8)
    frame[2:5] = (200, 100, 50, 128)
    write_orbit(tmp_path / "o.webp", [frame, frame[::-1]], 5)
    with Image.open(tmp_path / "o.webp") as image:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    assert np.array_equal(alpha, frame[..., 3])


@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif", "webp", "apng", "png", ""])
def test_failures_halfway_leave_nothing(frames, tmp_path, suffix):
    def breaking():
        yield from frames[:5]
        raise OSError(28, "No space left on device")

    path = tmp_path / (f"o.{suffix}" if suffix else "o")
    with pytest.raises(WriteError, match=r"cannot be written \(.*No space left"):
        write_orbit(path, breaking(), FPS)
    assert os.listdir(tmp_path) == []


# imageio-ffmpeg leaves the broken pipe to the garbage collector, which says so.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_dead_encoder_is_one_line_and_leaves_nothing(frames, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", shutil.which("false") or "/bin/false")
    with pytest.raises(WriteError, match="cannot be written"):
        write_orbit(tmp_path / "o.mp4", frames, FPS)
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def half_and_half():
    """Left a bright block, right a black one, both opaque."""
    array = np.zeros((2, 16, 16, 16), np.float32)
    array[0, 4:12, 4:12, 3:13] = 200.0
    array[1, :, :, 8:] = 1.0
    return VoxelGrid.from_array(array)


def one(volume, **style):
    return next(orbit_frames(volume, AbsorptionRenderer(8), torch.eye(3)[None], FrameStyle(32, **style)))


def test_a_background_is_seen_where_nothing_is_and_black_matter_stays_black(half_and_half):
    plain = one(half_and_half)
    assert plain.shape == (32, 32)
    white = one(half_and_half, background="white")
    assert white.shape == (32, 32, 3)
    assert white[1, 16].tolist() == [255, 255, 255]
    assert white[16, 10].min() > 245  # bright matter
    assert white[16, 22].max() < 10  # black matter
    clear = one(half_and_half, background="transparent")
    assert clear.shape == (32, 32, 4)
    assert clear[1, 16, 3] == 0
    assert clear[16, 22].tolist()[3] > 245


def test_colormaps_and_captions(half_and_half):
    need(importlib.util.find_spec("matplotlib"), "colormaps are matplotlib's: pip install -e '.[export]'")
    warm = one(half_and_half, colormap="inferno")
    assert warm[1, 16].tolist() == [0, 0, 4]  # inferno's darkest
    style = FrameStyle(64)
    framed = next(orbit_frames(half_and_half, AbsorptionRenderer(8), torch.eye(3)[None], style, ["7  98%"]))
    assert framed.shape == (64 + 14, 64, 3)
    assert framed[64:].max() > 150
    for options, words in (
        ({"colormap": "nope"}, "colormap=nope"),
        ({"background": "nope"}, "background=nope"),
        ({"supersample": 999}, "must be <= 128"),
    ):
        with pytest.raises(ExportError, match=words):
            one(half_and_half, **options)


class Counted(Volume):
    """A ball as a field, or baked; counts how often it is."""

    def __init__(self, baked=False):
        super().__init__()
        self.baked, self.bakes, self.asked = baked, 0, 0

    def dense(self):
        self.bakes += 1
        return torch.full((2, 4, 4, 4), 0.5) if self.baked else None

    def forward(self, points):
        self.asked += points[..., 0].numel()
        return 5.0 * (points.norm(dim=-1) < 0.2), torch.zeros_like(points[..., 0])


def test_what_all_frames_share_is_found_once():
    baked = Counted(baked=True)
    style = FrameStyle(32, background="white")
    assert len(list(orbit_frames(baked, AbsorptionRenderer(8), turntable(5), style))) == 5
    assert baked.bakes == 1
    field, renderer, rotations = Counted(), AbsorptionRenderer(8, samples_per_ray=1), turntable(5)
    frames = list(orbit_frames(field, renderer, rotations, FrameStyle(184)))  # so fine that empty cells are looked for
    assert all(frame.max() > 0 for frame in frames)
    probes = occupied_cells(Counted()).probes
    assert probes < field.asked < 1.5 * probes


def test_supersampling_is_the_mean_of_a_finer_image(half_and_half):
    fine = next(orbit_frames(half_and_half, AbsorptionRenderer(8), torch.eye(3)[None], FrameStyle(64)))
    means = fine.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    assert np.abs(one(half_and_half, supersample=2) - means).max() <= 1.0  # each is rounded once


def test_too_fast_a_gif_says_so(tmp_path):
    with pytest.raises(ExportError, match="fps=60: a gif has at most 50"):
        write_orbit(tmp_path / "o.gif", [np.zeros((4, 4), np.uint8)], 60)
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize(("background", "ground", "ink"), [(None, 0, 230), ("black", 0, 230), ("white", 255, 0)])
def test_a_caption_can_be_read_on_its_ground(background, ground, ink, half_and_half):
    style = FrameStyle(512, background=background)  # large enough that a stroke is wider than its smooth edges
    (frame,) = orbit_frames(half_and_half, AbsorptionRenderer(16), turntable(1), style, ["8"])
    strip = frame[512:].reshape(-1, frame.shape[2] if frame.ndim == 3 else 1)
    assert {*np.unique(strip[(strip == strip[0]).all(1)])} == {ground}  # the corner, and most of the strip
    assert (strip == ink).all(1).any()
