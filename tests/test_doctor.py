"""`mnist3d doctor`: what is here, what "auto" takes, what to install for more."""

import importlib.util
import shutil
import sys
import webbrowser

import pytest
import torch

from mnist3d.cli import doctor
from mnist3d.kernels import choice


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch):
    """As in a new process: what "auto" takes is said once in each."""
    monkeypatch.setattr(choice, "_said", set())


def test_one_screen_says_what_is_here_and_what_auto_takes(capsys: pytest.CaptureFixture[str]):
    doctor.main([])
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 130
    for part in (torch.__version__, "cores", "ffmpeg", "numba", "trilinear on cpu: numba", "hash grid   on cpu: numba"):
        assert part in said, said


def test_what_is_missing_comes_with_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    find = importlib.util.find_spec
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "trimesh" else find(name))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    doctor.main([])
    said = capsys.readouterr().out
    assert "numba       not installed" in said
    assert "the fast renderer and hash encoding on a CPU: pip install numba" in said
    assert '  meshes: pip install -e ".[export]"' in said
    assert ".mp4 and .webm: pip install imageio-ffmpeg" in said


def test_without_torch_it_still_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "torch", None)
    doctor.main([])
    said = capsys.readouterr().out
    assert "torch       not installed" in said
    assert "pip install --force-reinstall torch" in said


def test_a_broken_ffmpeg_is_none(monkeypatch: pytest.MonkeyPatch):
    def broken() -> str:
        raise ValueError("no such platform")

    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", broken)
    assert doctor._ffmpeg().here == "none"


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks a GPU that is not there")
def test_a_gpu_that_another_program_has_taken_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def busy(index: int) -> object:
        raise RuntimeError("all CUDA-capable devices\nare busy")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", busy)
    doctor.main([])
    said = capsys.readouterr().out
    assert "GPU         cannot be asked (all CUDA-capable devices are busy)" in said
    assert "trilinear on cuda: fails (" in said
    assert "hash grid   on cuda: fails (" in said


def test_a_library_that_breaks_while_it_is_imported_is_one_line():
    def broken() -> None:
        raise OSError("lib.so: undefined\nsymbol")

    found = doctor._library("numba", broken, "speed", "pip install numba")
    assert found == doctor.Finding("numba", "lib.so: undefined symbol", "speed: pip install numba")


@pytest.mark.parametrize(
    ("driver", "cuda", "here", "advice"),
    [
        (None, None, "a CPU is enough", ""),
        ("/usr/bin/nvidia-smi", None, "built without CUDA", "pip uninstall torch"),
        ("/usr/bin/nvidia-smi", "13.0", "torch sees no GPU", "driver must be new enough for CUDA 13.0"),
    ],
)
def test_a_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch, driver, cuda, here, advice):
    monkeypatch.setattr(shutil, "which", lambda name: driver)
    found = doctor._gpu(False, cuda)
    assert here in found.here
    assert advice in found.advice
    assert bool(advice) == bool(found.advice)


def test_a_machine_without_a_browser(monkeypatch: pytest.MonkeyPatch):
    def none(using: object = None) -> object:
        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(webbrowser, "get", none)
    assert "open the printed address elsewhere" in doctor._browser().here


def test_an_implementation_that_fails_is_said_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def broken(*arguments: object, **options: object) -> object:
        raise RuntimeError("no kernel\nfor this device")

    monkeypatch.setattr("mnist3d.rendering.AbsorptionRenderer.__call__", broken)
    doctor.main([])
    said = capsys.readouterr().out
    assert "trilinear on cpu: fails (no kernel for this device)" in said
    assert "hash grid   on cpu: numba" in said


def test_it_needs_no_argument(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        doctor.main(["--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) < 20
