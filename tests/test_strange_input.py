"""Files of strangers that are no files, claim too much, unpack to too much, or hold text where a number belongs."""

import gzip
import io
import json
import os
import socket
import struct
import sys
import threading
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist3d.cli.parser import parse_command_line
from mnist3d.data.idx import MAX_BYTES, read_idx
from mnist3d.data.image_files import MAX_EDGE, read_image
from mnist3d.data.images import load_images
from mnist3d.data.options import DataOptions
from mnist3d.data.text import draw_text
from mnist3d.errors import ConfigError, DataError, RunError, UserError, one_line
from mnist3d.evaluation.classifiers import _restored
from mnist3d.export.paths import camera_path
from mnist3d.export.plots import plot_run
from mnist3d.runs.config import read_config
from mnist3d.storage import records
from mnist3d.storage.plain_yaml import MAX_BYTES as MAX_YAML
from mnist3d.storage.plain_yaml import read_yaml
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.training.objectives.target_list import TargetOptions
from mnist3d.training.objectives.targets import build_targets

HANGS = 60.0  # s: far beyond what a refusal takes on any machine; a reader that waits would wait for ever
TARGET_IMAGES = load_images(DataOptions(limit=10), 28)


def _read_target(path):
    build_targets(TargetOptions(views=[{"image": str(path)}]), TARGET_IMAGES, DataOptions())


def _read_set(name, file, path):
    load_images(DataOptions(name=name, path=str(path.parent)), 28, download=False)


# Each reader by the name that its file has.
READERS = {
    "config": ("mine.yaml", lambda path: parse_command_line(["--config", str(path)])),
    "keyframes": ("way.yaml", lambda path: camera_path(str(path), 4)),
    "target": ("a.png", _read_target),
    "pictures": ("b.png", lambda path: load_images(DataOptions(name="images", path=str(path.parent)), 28)),
    "idx": ("train-idx3", read_idx),
    "downloaded": (
        "MNIST/raw/train-images-idx3-ubyte",
        lambda path: load_images(DataOptions(name="mnist", path=str(path.parents[2])), 28, download=False),
    ),
    "run": ("config.yaml", lambda path: read_config(RunDirectory(path.parent))),
    "statistics": ("stats.jsonl", lambda path: RunDirectory(path.parent).read_stats()),
}


def _pipe(path):
    os.mkfifo(path)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


MAKERS = {
    "a named pipe": _pipe,
    "a folder": Path.mkdir,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_refused_without_waiting(reader, kind, tmp_path, monkeypatch):
    name, read = READERS[reader]
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(path.parent)
    MAKERS[kind](path)
    raised: list[BaseException] = []

    def call():
        try:
            read(path)
        except BaseException as error:  # whatever it is, the test looks at it
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(HANGS)
    assert not thread.is_alive(), "it waits for somebody to write"
    assert [type(each) for each in raised if isinstance(each, UserError)] != [], raised
    assert f"is {kind}" in str(raised[0]) or kind == "a folder"  # a subfolder can be a class of images


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_a_cache_that_is_a_pipe_is_done_without(tmp_path, caplog):
    os.mkfifo(tmp_path / "classifiers")
    assert _restored(tmp_path / "classifiers", 11) is None
    assert "is a named pipe" in caplog.text


def _laughs(inner, outer):
    """Ten of each in the next: 100,000 values of six lines; with more, nobody would see that a bound is gone."""
    first = f"a0: &a0 {inner}"
    return "\n".join([first, *(f"a{k}: &a{k} " + outer(", ".join([f"*a{k - 1}"] * 10)) for k in range(1, 6))])


TOO_MUCH = "more than 50000 values, or more than 50 in each other"
YAML_BOMBS = {
    "aliases": (_laughs("[x, x]", "[{}]".format), TOO_MUCH),
    "merge keys": (_laughs("{x: 1}", "{{<<: [{}]}}".format), TOO_MUCH),
    "pairs in pairs": ("{a: " * 5000, TOO_MUCH),
    "lists in lists": ("[" * 20_000, TOO_MUCH),
    "block lists in lists": ("- " * 5000 + "x", TOO_MUCH),
    "many values": ("[" + "x," * 50_000 + "]", TOO_MUCH),
    "one in itself": ("a: &a [*a]", TOO_MUCH),
    "a number to base 60": (":".join(["1"] * 300_000), "a number of more than 400 characters"),
    "that with a point": (":".join(["1"] * 500) + ".5", "a number of more than 400 characters"),
    "many digits": ("9" * 5000, "a number of more than 400 characters"),
    "half a character": ('a: "\\ud800"', "half of a character"),
    "a zero byte": ('a: "\\0"', "holds a zero byte"),
    "a date": ("a: 2001-01-01", "is a date"),
    "a set": ("a: !!set {b}", "is a set"),
    "bytes": ("a: !!binary aGk=", "is a bytes"),
    "a class": ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    "no number": ("a: !!float ''", ""),
}


@pytest.mark.parametrize("bomb", YAML_BOMBS)
def test_yaml_is_bounded_before_it_is_expanded(bomb, tmp_path):
    """Also in a file that the user names."""
    text, words = YAML_BOMBS[bomb]
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"^config=.*mine\.yaml: .*{words}") as refused:
        parse_command_line(["--config", str(tmp_path / "mine.yaml")])
    assert len(str(refused.value)) < 2100


def test_yaml_as_people_write_it_is_read_as_ever():
    assert read_yaml("a: &a {b: 1_000}\nc: {<<: *a, d: 1:30}\ne: .inf\nf: [*a, *a]") == {
        "a": {"b": 1000},
        "c": {"b": 1000, "d": 90},
        "e": float("inf"),
        "f": [{"b": 1000}, {"b": 1000}],
    }
    assert read_yaml("[08, yes, 1]", numbers=False) == ["08", "yes", "1"]
    beside = "a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, <<: *a, x: 3, '3': 4, 3: 5}"  # not twice the same
    assert read_yaml(beside)["c"] == {"x": 3, "3": 4, 3: 5}


def test_a_long_file_is_no_configuration(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"#" * (MAX_YAML + 1))
    with pytest.raises(ConfigError, match="holds more than 1 MiB"):
        parse_command_line(["--config", str(tmp_path / "a.yaml")])


def _idx(shape, body=b""):
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + body


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_idx((2**31, 2**31, 2**31)), "its header claims .* at most 1 GiB are read"),
        (_idx((MAX_BYTES + 1,)), "at most 1 GiB are read"),
        (_idx((2, 28, 28), bytes(1567)), "or cut short"),
        (gzip.compress(_idx((2, 28, 28), bytes(2**26))), "holds more than its header claims"),
        (_idx((1,) * 255, b"0"), "not a readable idx file"),
        (b"\x1f\x8b", "not a readable idx file"),
        (b"", "not a readable idx file"),
    ],
)
def test_an_idx_file_is_read_as_far_as_its_header_says(content, words, tmp_path):
    """2^26 bytes in 65 KiB are not unpacked: no more than the claim and a piece of 1 MiB, doubled while it grows."""
    (tmp_path / "a-idx3").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(DataError, match=words):
        read_idx(tmp_path / "a-idx3")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22


@pytest.mark.parametrize(("shape", "words"), [((3, 0, 28), "0 pixels|28x0"), ((2, 1, 2**20), "each edge must be in")])
def test_idx_images_that_are_lines_are_refused(shape, words, tmp_path):
    (tmp_path / "train-idx3").write_bytes(_idx(shape, bytes(int(np.prod(shape)))))
    with pytest.raises(DataError, match=words):
        load_images(DataOptions(name="idx", path=str(tmp_path)), 28)


def _png(width, height, *chunks):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    body = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def _saved(kind, size=(MAX_EDGE + 1, 1), **options):
    buffer = io.BytesIO()
    Image.new("L", size).save(buffer, kind, **options)
    return buffer.getvalue()


INFLATED_TEXT = (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**24)))
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
TOO_LARGE = f"must be at most {MAX_EDGE} along each edge"
PICTURES = {
    "50,000 x 50,000": (_png(50_000, 50_000), "exceeds limit"),
    "a line": (_png(MAX_EDGE + 1, 1), TOO_LARGE),
    "another size than it says": (_png(500, 500), "truncated|cannot|not enough"),
    "2^31 pixels": (_png(2**31 - 1, 2**31 - 1), "exceeds limit"),
    "a text that inflates": (_png(8, 8, INFLATED_TEXT), "too large"),
    "PostScript, which Pillow would hand to Ghostscript": (EPS, "no kind of file that is known"),
    **{kind: (_saved(kind), TOO_LARGE) for kind in ("BMP", "GIF", "TIFF", "JPEG", "WEBP")},
}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_that_claims_too_much_is_refused_before_it_is_unpacked(kind, tmp_path, monkeypatch):
    def no_program(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", no_program)
    content, words = PICTURES[kind]
    (tmp_path / "a.png").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(DataError, match=words):
        read_image(tmp_path / "a.png")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23


def test_a_large_picture_is_what_a_small_one_is(tmp_path):
    """Converted some rows at a time: the same as at once."""
    from mnist3d.data import image_files

    made = np.random.default_rng(0).integers(0, 256, (40, 30, 4), dtype=np.uint8)
    deep = np.random.default_rng(1).integers(0, 2**16, (40, 30), dtype=np.uint16)
    for image in (Image.fromarray(made), Image.fromarray(made).convert("P"), Image.fromarray(deep)):
        image.save(tmp_path / "a.png")
        whole = read_image(tmp_path / "a.png")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(image_files, "BAND", 70)  # two rows
            parts = read_image(tmp_path / "a.png")
        assert whole.grey.tobytes() == parts.grey.tobytes()
        assert (whole.opacity and whole.opacity.tobytes()) == (parts.opacity and parts.opacity.tobytes())


def test_more_pictures_than_memory_holds_are_refused_at_the_first(tmp_path, monkeypatch):
    for number in range(3):
        Image.new("L", (16, 16)).save(tmp_path / f"{number}.png")
    monkeypatch.setattr("mnist3d.storage.memory.NEVER_ASKED", 0)
    monkeypatch.setattr("mnist3d.storage.memory.free_memory", lambda device="cpu": 3 * (2 * 16**2 + 8 * 28**2) - 1)
    with pytest.raises(DataError, match=r"3 images of 16x16 pixels take about .* give fewer or smaller ones"):
        load_images(DataOptions(name="images", path=str(tmp_path)), 28)


def test_a_long_text_is_no_target():
    assert draw_text("W" * 30, 28).shape == (1, 28, 28)
    with pytest.raises(DataError, match="31 letters; must be 1 to 30"):
        draw_text("W" * 31, 28)
    assert draw_text("A", 2000).shape == (1, 2000, 2000)  # with eight times the pixels it took 256 MB


@pytest.mark.parametrize("rings", [[{"text": "A" * 1001}], [{"text": "A" * 600}, {"text": "B" * 600}]])
def test_a_thousand_targets_are_enough(rings):
    assert len(TargetOptions(rings=[{"text": "A" * 1000}]).listed()) == 1000
    with pytest.raises(ValueError, match=r"targets\.rings\[[01]\].*1000"):
        TargetOptions(rings=rings)


LINES = [
    '{"step": 1, "volume_loss": 0.5}',
    '{"step": "2", "volume_loss": 0.5}',
    '{"step": true}',
    '{"step": 1e999}',
    '{"step": ' + "9" * 400 + "}",
    '{"step": ' + "9" * 5000 + "}",
    '{"step": -1}',
    "[" * 100_000,
    '{"step": 3, "volume_loss": "0.5", "legible": "0.5", "histogram": [1]}',
    '{"step": 4, "volume_loss": NaN, "penalty": 1e999, "legible": 0.5, "histogram": {"0": "x", "1": '
    + "9" * 400
    + "}}",
    '{"step": 5, "legible": 0.5, "clean": [], "histogram": {"0": 0.5}}',
    "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
]


def test_statistics_with_text_where_a_number_belongs_are_drawn_and_cut(tmp_path):
    path = tmp_path / "stats.jsonl"
    path.write_text("\n".join(LINES), encoding="latin-1")
    run = RunDirectory(tmp_path)
    assert [record["step"] for record in run.read_stats()] == [1, 3, 4, 5]
    plot_run(tmp_path / "a.png", run.read_stats(), "damaged")
    many = [
        {
            "step": 1,
            "legible": 0.5,
            "histogram": {str(k): 1 for k in range(9999)},
            **{f"{k}_loss": 1 for k in range(9999)},
        }
    ]
    plot_run(tmp_path / "b.png", many, "much")
    run.cut_stats(3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 3]


def test_long_statistics_are_thinned_and_longer_ones_refused(tmp_path, monkeypatch):
    for name, value in (("MAX_LINE", 100), ("PARSED", 1000), ("MAX_FILE", 3000)):
        monkeypatch.setattr(records, name, value)
    run = RunDirectory(tmp_path)
    for step in range(100):
        run.append_stats({"step": step})
    run.append_stats({"step": 100, "text": "x" * 200})  # a line too long, and what begins within it is no line
    run.append_stats({"step": 101})
    size = (tmp_path / "stats.jsonl").stat().st_size
    every = 1 + size // 1000
    steps = [*range(100), 101]
    assert [record["step"] for record in run.read_stats()] == steps[::every]
    run.cut_stats(200)  # all that go on are kept, whatever is drawn
    assert [json.loads(line)["step"] for line in (tmp_path / "stats.jsonl").read_text().splitlines()] == steps
    (tmp_path / "stats.jsonl").write_bytes(bytes(3001))
    with pytest.raises(RunError, match=r"holds more than 2\.93 KiB"):
        run.read_stats()


def test_a_message_is_one_line_that_a_terminal_can_show():
    assert one_line("a\n\x1b]0;evil\x07\u202eb\ufeff\udcff\u200d") == "a \\x1b]0;evil\\x07\\u202eb\\ufeff\\udcff\u200d"
    assert len(str(ConfigError("x" * 100_000))) < 2100
