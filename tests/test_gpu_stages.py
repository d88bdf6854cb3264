"""The stages of `benchmarks/gpu.py`, small and on a CPU; what they make of programs that go wrong."""

import math
import re
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_tinycudann
import pytest
import test_golden
import torch

from mnist3d.cli.parser import parse_command_line
from mnist3d.kernels.hash_encoding import tiny_cuda_nn

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import _gpu_numbers as numbers  # pyright: ignore[reportMissingImports]
import _gpu_speed as speed  # pyright: ignore[reportMissingImports]
from _gpu_report import Done, Report, Setup  # pyright: ignore[reportMissingImports]


def small(folder: Path, device: str = "cpu", **asked: Any) -> Setup:
    return Setup(device, True, folder, **asked)


class AsOnAGpu(Setup):
    """What is said of a GPU, computed on the CPU."""

    on_gpu = True  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]


def right(report: Report) -> dict[str, bool]:
    return {each["what"]: each["right"] for each in report.checks}


# ---- right numbers


def test_the_golden_numbers(tmp_path: Path):
    report = Report()
    numbers.golden_numbers(report, small(tmp_path))
    assert right(report) == {"torch against tests/golden": True}
    assert report.checks[0]["said"] == "15 configurations"
    assert report.figures == {"torch, largest difference to torch on the CPU": 0.0}
    assert report.needs_a_gpu == ["tinycudann against tests/golden, and its recording"]


def test_an_encoder_that_is_off_is_found(tmp_path: Path, monkeypatch):
    report = Report()

    def off(points, table, levels):  # of 4 levels and of 12
        return numbers._by_torch(points, table, levels) + (1e-2 if levels.num_levels in (4, 12) else 0.0)

    monkeypatch.setattr(test_golden, "CONFIGURATIONS", 5)
    numbers._against_golden("it", off, 16, report, small(tmp_path))  # that of 12 levels of 2 is too wide to be asked
    assert right(report) == {"it against tests/golden": False}
    assert report.checks[0]["said"] == "configurations [2] are off"
    assert report.figures["it, largest difference to torch on the CPU"] == pytest.approx(1e-2, rel=1e-3)


@pytest.fixture
def stand_in(monkeypatch):
    """In place of tinycudann; it rounds as the real one does."""
    monkeypatch.setitem(sys.modules, "tinycudann", fake_tinycudann)
    monkeypatch.setattr(numbers, "tinycudann_obstacle", lambda: None)
    kept = tiny_cuda_nn._fused, tiny_cuda_nn._encoding
    for each in kept:
        each.cache_clear()
    yield
    for each in kept:
        each.cache_clear()


@pytest.mark.parametrize("recorded", [True, False])
def test_golden_numbers_where_tinycudann_can_be_imported(tmp_path: Path, monkeypatch, stand_in, recorded: bool):
    def record(words, seconds: float) -> Done:
        assert (numbers.ROOT / words[0]).exists()
        if recorded:
            Path(words[2]).touch()
        return Done(0, "half_precision: ...\n", 1.0)

    monkeypatch.setattr(test_golden, "CONFIGURATIONS", 2)
    report = Report()
    numbers.golden_numbers(report, AsOnAGpu("cpu", True, tmp_path, command=record))
    assert right(report) == {
        "torch against tests/golden": True,
        "tinycudann against tests/golden": True,
        "recording of tinycudann": recorded,
    }
    assert report.figures["recording of tinycudann"] == ["half_precision: ..."]
    assert report.remarks == ["copy tinycudann.npz to tests/golden/: a test waits for it"] * recorded


def test_gradients_of_tinycudann_where_it_can_be_imported(tmp_path: Path, monkeypatch, stand_in):
    monkeypatch.setattr(numbers, "FEW_POINTS", 100)
    report = Report()
    numbers.gradients(report, small(tmp_path))
    assert len(report.checks) == 12
    assert all(right(report).values()), report.checks
    assert not report.needs_a_gpu
    half, full = (report.figures[f"tinycudann, {name}, table"]["as a whole"] for name in ("half", "full"))
    assert 0.0 <= full < 1e-5 < half


def test_on_a_gpu_without_tinycudann_that_is_said(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(numbers, "tinycudann_obstacle", lambda: "tinycudann is not installed")
    report = Report()
    numbers.gradients(report, AsOnAGpu("cpu", True, tmp_path))
    assert len(report.checks) == 4
    assert report.remarks == [
        f"gradients of tinycudann, {name}: left out, as tinycudann is not installed" for name in ("half", "full")
    ]


@pytest.mark.parametrize("mistake", [lambda answer: 1.01 * answer, lambda answer: answer * math.nan])
def test_wrong_gradients_are_found(tmp_path: Path, monkeypatch, mistake):
    exact = numbers.encode_and_evaluate

    def wrong(points, *rest):
        answer = exact(points, *rest)
        return answer if points.dtype == torch.float64 else mistake(answer)

    monkeypatch.setattr(numbers, "encode_and_evaluate", wrong)
    report = Report()
    numbers.gradients(report, small(tmp_path))
    assert [*right(report).values()] == [False] * 4


def test_relative_errors():
    truth = torch.tensor([0.0, 1.0, -2.0, 4.0], dtype=torch.float64)
    errors = numbers.relative_errors(truth + torch.tensor([0.4, 0.1, -0.1, 0.0]), truth)
    assert errors["largest"] == pytest.approx(0.1)
    assert errors["median"] == pytest.approx(0.05)
    assert errors["as a whole"] == pytest.approx(math.sqrt(0.18 / 21.0))


# ---- launches and speed


def test_the_stage_of_speed(tmp_path: Path, monkeypatch):
    kept = ("default", "hash grid, tinycudann half")
    monkeypatch.setattr(speed, "TRAINERS", {name: speed.TRAINERS[name] for name in kept})
    report = Report()
    speed.speed(report, small(tmp_path))
    assert [*right(report).items()] == [("tiny, numba, agrees with the reference in double precision", True)]
    assert report.figures["default, steps/s"] > 0.0
    assert report.figures["default, launches of a step"]["operators, those within others too"] > 100
    assert {*report.figures["tiny, ms"]} == {"reference", "numba"}
    assert report.needs_a_gpu == [
        "default, waits of a step",
        "hash grid, tinycudann half",
        "tiny, triton and its memory",
    ]


def test_every_trainer_can_be_built_from_its_flags():
    for name, flags in speed.TRAINERS.items():
        config = parse_command_line([*flags, *speed.SMALLER.get(name, ()), "--device", "cpu"]).config
        assert config.device == "cpu"


def test_a_renderer_that_is_off_is_found_and_one_that_is_too_large_renders_a_view_at_a_time(tmp_path, monkeypatch):
    exact, setting = speed.render_grid, speed.TINY

    def render(grids, absorbance, rotation, size, samples, impl):
        if impl == "reference" and grids.dtype == torch.float32 and len(rotation) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        view = exact(grids, absorbance, rotation, size, samples, impl=impl)
        return view if impl == "reference" else view + 1e-4

    monkeypatch.setattr(speed, "render_grid", render)
    report = Report()
    speed._renderers("tiny", setting, report, small(tmp_path))
    assert report.remarks == ["tiny: reference does not fit into the memory"]
    assert {*report.figures["tiny, ms"]} == {"reference, a view at a time", "numba"}
    assert [*right(report).values()] == [False]


def test_views_one_at_a_time_have_the_gradients_of_all_at_once():
    grids, absorbance, rotation = speed.scene(speed.TINY)
    inputs = grids.detach().double().requires_grad_(), absorbance.detach().double().requires_grad_(), rotation.double()
    together, apart = (speed.answers(inputs, speed.TINY, "reference", at_once) for at_once in (None, 1))
    for ours, theirs in zip(together, apart, strict=True):
        assert (ours - theirs).abs().max() < 1e-12  # another order of the sum over two views


def test_waits_are_counted_by_where_they_are(monkeypatch):
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def step() -> None:
        for text in ("called a synchronizing CUDA operation", "called a synchronizing CUDA operation", "else"):
            warnings.warn(text, stacklevel=1)
        modes.append("step")

    (found,) = speed.waits(step).items()
    assert re.fullmatch(r"test_gpu_stages\.py:\d+", found[0])
    assert found[1] == 2
    assert modes == ["warn", "step", "default"]


@pytest.mark.parametrize(("each", "fine"), [(2, True), (3, False)])
def test_steps_that_wait_too_often_are_found(tmp_path: Path, monkeypatch, each: int, fine: bool):
    def step() -> None:
        for _ in range(each):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    monkeypatch.setattr(speed, "trainer_at_work", lambda *_: SimpleNamespace(step=step))
    monkeypatch.setattr(speed, "launches", lambda step, _: {"kernels": 0, "launches": 1200})
    for name in ("synchronize", "reset_peak_memory_stats", "set_sync_debug_mode"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    report = Report()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        speed._steps("default", (), report, AsOnAGpu("cpu", True, tmp_path))
    assert right(report) == {"default, waits of a step": fine}
    assert report.figures["default, peak MiB"] == 3.0
    assert report.figures["default, launches of a step"] == {"kernels": 0.0, "launches": 300.0}
    assert report.remarks == ["default: the profiler saw no kernel; CUPTI may be missing or forbidden here"]


def test_what_the_profiler_of_a_gpu_sees_is_told_apart(tmp_path: Path, monkeypatch):
    def event(name: str, device: str = "CPU", **more: Any) -> SimpleNamespace:
        return SimpleNamespace(name=name, device_type=SimpleNamespace(name=device), **more)

    seen = [
        *(event("draw", "CUDA"), event("sgemm", "CUDA"), event("Memcpy DtoH", "CUDA"), event("Memset", "CUDA")),
        event("Optimizer.step#Adam.step", "CUDA", is_user_annotation=True),
        *(event("cudaLaunchKernel"), event("cuLaunchKernel"), event("cudaStreamSynchronize"), event("aten::add")),
        event("cudaMalloc"),
    ]

    class Profile:
        def __init__(self, activities: list[Any]) -> None:
            assert len(activities) == 2

        def __enter__(self) -> SimpleNamespace:
            return SimpleNamespace(events=lambda: seen)

        def __exit__(self, *_: object) -> None:
            """Nothing was begun."""

    monkeypatch.setattr(speed, "profile", Profile)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert speed.launches(lambda: None, small(tmp_path, "cuda")) == {
        "kernels": 2,
        "copies": 2,
        "launches": 2,
        "synchronising calls, one of the measurement": 1,
        "operators, those within others too": 1,
    }
