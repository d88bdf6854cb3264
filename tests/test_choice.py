"""What "auto" takes: twins that are right, wrong, slow or broken, in a time that is handed in."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mnist3d.kernels import choice
from mnist3d.kernels.absorption import cases, implementations, render_grid, trilinear_numba
from mnist3d.kernels.choice import Case, Tolerance, Twins, Verdict, verdict

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is a process that has decided nothing yet."""
    monkeypatch.setattr(choice, "_verdicts", {})
    monkeypatch.setattr(choice, "_said", set())


def cubed(values: Tensor) -> Tensor:
    return values**3


def multiplied(values: Tensor) -> Tensor:
    """The same function and gradient, otherwise."""
    return values * values * values


def wrong_value(values: Tensor) -> Tensor:
    return values**3 + 2e-5


def wrong_gradient(values: Tensor) -> Tensor:
    return values**3 + 1e-3 * (values - values.detach())


def not_a_number(values: Tensor) -> Tensor:
    return values**3 * torch.nan


def wrong_shape(values: Tensor) -> Tensor:
    return (values**3)[..., :-1]


def broken(values: Tensor) -> Tensor:
    raise RuntimeError("no compiler\nwas found here")


def wrong_on_many(values: Tensor) -> Tensor:
    return values**3 + (0.1 if len(values) > 100 else 0.0)


def two_cases() -> Iterator[Case]:
    for label, rows in (("a few", 5), ("many", 200)):
        values = torch.linspace(-1.0, 1.0, 3 * rows, dtype=torch.float64, device="cpu")
        yield Case(label, (values.reshape(rows, 3),), ())


def twins(fast: Callable[[Tensor], Tensor]) -> Twins:
    return Twins(fast, cubed, two_cases, ("value", "gradient"), Tolerance(1e-5, 5e-5))


def decided(fast: Callable[[Tensor], Tensor], fast_seconds: float = 0.1, reference_seconds: float = 0.2) -> Verdict:
    """As on a GPU, by a clock that says so: the two take turns, the fast one first."""
    times = iter([fast_seconds, reference_seconds] * choice.ROUNDS)
    return choice._tried("it", lambda: twins(fast), CPU, torch.float32, True, True, lambda *_: next(times))


def test_the_faster_one_that_agrees_is_taken() -> None:
    found = decided(multiplied)
    assert found.taken
    assert found.reason == " on cpu: it agrees with the reference and takes 100 ms where the reference takes 200 (many)"


def test_a_slow_twin_is_not_taken() -> None:
    found = decided(multiplied, fast_seconds=0.2, reference_seconds=0.1)
    assert not found.taken
    assert found.reason == " on cpu: it agrees with it, but takes 200 ms where the reference takes 100 (many)"
    assert found.level == logging.INFO


def test_medians_decide_and_not_one_slow_round() -> None:
    times = iter([9.0, 0.2, *[0.1, 0.2] * (choice.ROUNDS - 1)])
    assert choice._tried("it", lambda: twins(multiplied), CPU, torch.float32, True, True, lambda *_: next(times)).taken


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (wrong_value, "value of a few is off by 2e-05, it must be <= 1e-05"),
        (wrong_gradient, "gradient of a few is off by 0.00"),
        (not_a_number, "value of a few is off by nan"),
        (wrong_shape, "value of a few is (5, 2), not (5, 3)"),
        (wrong_on_many, "value of many is off by 0.1"),
        (broken, "fails here (RuntimeError: no compiler was found here)"),
    ],
)
def test_a_wrong_twin_is_never_taken_however_fast(wrong: Callable[[Tensor], Tensor], said: str) -> None:
    found = decided(wrong, fast_seconds=1e-9)
    assert not found.taken
    assert said in found.reason
    assert "\n" not in found.reason
    assert found.level == logging.WARNING


def test_a_reference_that_fails_is_not_laid_at_the_door_of_the_fast_one() -> None:
    """Too little memory for both at once, say."""
    pair = Twins(multiplied, broken, two_cases, ("value", "gradient"), Tolerance(1e-5, 5e-5))
    found = choice._tried("it", lambda: pair, CPU, torch.float32, True, True, lambda *_: 1.0)
    said = ": it could not be compared, as the reference fails here (RuntimeError: no compiler was found here)"
    assert found == Verdict(False, said, True, logging.WARNING)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError("tried 8 GiB")])
@pytest.mark.parametrize("which", ["fast", "reference"])
def test_too_little_memory_to_compare_is_the_fault_of_neither(which: str, error: Exception) -> None:
    def full(values: Tensor) -> Tensor:
        raise error

    pair = twins(multiplied)._replace(**{f"run_{which}": full})
    found = choice._tried("it", lambda: pair, CPU, torch.float32, True, True, lambda *_: 1.0)
    said = f": there is too little memory to compare it with it ({type(error).__name__}: {error})"
    assert found == Verdict(False, said, True, logging.WARNING)


def test_what_is_known_is_said_while_something_else_is_found_out() -> None:
    """A training goes on while a page compiles; and who asks for the same waits for the one answer."""
    made, known = [], []

    def asked(key: str, more: Callable[[], None] = lambda: None) -> Verdict:
        def make() -> Twins:
            made.append(key)
            more()
            return twins(multiplied)

        return verdict(key, "it", make, CPU, torch.float32)

    def others_ask() -> None:
        threads = [threading.Thread(target=lambda key=key: known.append(asked(key)), daemon=True) for key in "ab"]
        for thread in threads:
            thread.start()
        threads[0].join(20.0)
        assert [thread.is_alive() for thread in threads] == [False, True]
        waiting.append(threads[1])

    waiting: list[threading.Thread] = []
    asked("a")
    found = asked("b", others_ask)
    assert found.taken
    waiting[0].join(20.0)
    assert made == ["a", "b"]
    assert known == [found, found]


def test_a_gradient_next_to_nothing_is_not_compared_with_nothing() -> None:
    def almost_flat(values: Tensor) -> Tensor:
        return 0.0 * values + 1e-8 * (values - values.detach())

    pair = Twins(almost_flat, lambda values: 0.0 * values, two_cases, ("value", "gradient"), Tolerance(1e-5, 5e-5))
    assert verdict("key", "it", lambda: pair, CPU, torch.float32).taken


def test_both_run_once_before_the_clock_does() -> None:
    """The first call compiles."""
    calls = []
    pair = twins(lambda values: calls.append("fast") or multiplied(values))
    pair = pair._replace(run_reference=lambda values: calls.append("reference") or cubed(values))
    before: list[list[str]] = []
    choice._tried("it", lambda: pair, CPU, torch.float32, True, True, lambda *_: before.append(calls[-2:]) or 1.0)
    assert before[0] == ["fast", "reference"]


def test_ctrl_c_in_the_middle_decides_nothing() -> None:
    def interrupted() -> Twins:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verdict("key", "it", interrupted, CPU, torch.float32)
    assert verdict("key", "it", lambda: twins(multiplied), CPU, torch.float32).taken


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_does_not_wait_for_a_thread_that_it_has_not() -> None:
    code = """
import os, signal, torch
from mnist3d.kernels import choice
with choice._lock:
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        choice.verdict("key", "it", lambda: None, torch.device("cpu"), torch.float32)
        os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120.0)
    assert done.stdout == "0\n", done.stderr


def test_inside_a_transform_of_torch_the_reference_answers_and_nothing_is_remembered() -> None:
    attenuation, absorbance, rotation = scene()

    def brightness(values: Tensor, impl: str = "auto") -> Tensor:
        return render_grid(values, absorbance, rotation, 6, 5, impl=impl).sum()

    brightness(attenuation, "reference").backward()
    found = torch.func.grad(brightness)(attenuation.detach())
    torch.testing.assert_close(found, attenuation.grad)  # of float32, which a transform sums in another order
    turned = rotation.expand(3, 1, 3, 3)
    views = torch.func.vmap(lambda one: render_grid(attenuation.detach(), absorbance, one, 6, 5))(turned)
    assert views.shape == (3, 1, 6, 6)
    assert not choice._verdicts
    assert brightness(attenuation).isfinite()
    assert [found.taken for found in choice._verdicts.values()] == [True]


def test_on_a_cpu_no_clock_decides_and_gradients_are_compared_when_needed() -> None:
    """Which of two roundings a training gets must not hang on what else the machine does."""

    def clock(*_: Any) -> float:
        raise AssertionError("asked for the time")

    def asked(fast: Callable[[Tensor], Tensor], key: str, gradients: bool) -> Verdict:
        return verdict(key, "it", lambda: twins(fast), CPU, torch.float32, gradients=gradients, clock=clock)

    assert asked(multiplied, "right", True).taken
    assert asked(wrong_on_many, "many", True).taken  # the large case is not tried: it would cost a second
    assert asked(wrong_gradient, "gradient", False).taken
    assert not asked(wrong_gradient, "gradient", True).taken
    assert not asked(multiplied, "gradient", False).taken, "found out once, remembered"


def test_it_is_found_out_once_for_each_key_device_and_precision() -> None:
    made = []

    def asked(key: str, dtype: torch.dtype) -> None:
        verdict(key, "it", lambda: made.append(key) or twins(multiplied), CPU, dtype)

    for key, dtype in (("a", torch.float32), ("a", torch.float32), ("b", torch.float32), ("a", torch.float64)):
        asked(key, dtype)
    assert made == ["a", "b", "a"]


def test_on_other_devices_gradients_and_all_cases_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(choice, "_tried", lambda *given: asked.append(given) or Verdict(True, "", True))
    monkeypatch.setattr(choice.torch, "autocast", lambda *_, **__: torch.no_grad())  # there is none for this device
    verdict("key", "it", lambda: twins(multiplied), torch.device("cuda", 1), torch.float32, gradients=False)
    assert asked[0][2:6] == (torch.device("cuda", 1), torch.float32, True, True)
    verdict("key", "it", lambda: twins(multiplied), torch.device("cuda", 0), torch.float32)
    assert len(asked) == 2, "two GPUs of a machine may be of two kinds"


@pytest.mark.parametrize("known", [True, False])
def test_on_a_gpu_in_one_order_no_clock_decides(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is what was found out before, by a page maybe: a training must not hang on that."""
    cuda, asked = torch.device("cuda"), list[object]()
    monkeypatch.setattr(choice, "_tried", lambda *given: asked.append(given) or Verdict(True, " by time", True))
    monkeypatch.setattr(choice.torch, "autocast", lambda *_, **__: torch.no_grad())  # there is none for this device
    if known:
        verdict("key", "it", lambda: twins(multiplied), cuda, torch.float32)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    found = verdict("key", "it", lambda: twins(multiplied), cuda, torch.float32, clock=lambda *_: 1 / 0)
    assert not found.taken
    assert found.reason == " on cuda: deterministic algorithms are asked for, and it is none"
    assert verdict("key", "it", lambda: twins(multiplied), CPU, torch.float32).taken, "numba adds in one order"
    assert len(asked) == 1 + known
    assert len(choice._verdicts) == 1 + known


def test_where_torch_works_out_shapes_only_nothing_is_compared_or_remembered() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    attenuation, absorbance, rotation = scene(gradients=False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert render_grid(attenuation + 0.0, absorbance, rotation, 6, 5).shape == (1, 6, 6)
    assert not choice._verdicts
    found = verdict("key", "it", lambda: twins(multiplied), CPU, torch.float32)
    assert found.taken


def test_the_callers_modes_and_random_numbers_play_no_part() -> None:
    grids, before = torch.rand(2, 2, 2, 2), torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu"), torch.device("meta"):
        found = verdict("key", "it", lambda: twins(multiplied), CPU, torch.float32)
        render_grid(grids[0], grids[1], torch.eye(3, device="cpu")[None], 2, 2)
    with torch.no_grad():
        assert verdict("another key", "it", lambda: twins(multiplied), CPU, torch.float32) == found
    assert found == Verdict(True, " on the CPU", True)
    assert len(choice._verdicts) == 3
    assert torch.equal(torch.get_rng_state(), before)


# ---- the renderer


def scene(gradients: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    grids = torch.rand(2, 4, 4, 4, generator=generator)
    return grids[0].requires_grad_(gradients), grids[1], torch.eye(3)[None]


def test_the_renderers_cases_agree_on_this_machine() -> None:
    """The large one too, which only a GPU is asked about: a right kernel in single precision must pass it."""
    for quadrature, several in (("trilinear", 2), ("slices", 1)):  # the slices' reference takes seconds for the large
        pair = implementations.twins("numba", quadrature, torch.float32)
        for case in list(pair.cases())[:several]:
            assert choice._difference(pair, case, CPU, torch.float32, True) == ""


@pytest.mark.parametrize("quadrature", ["trilinear", "slices"])
def test_auto_leaves_a_wrong_kernel_and_says_so(
    quadrature: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    load = implementations.load

    def sabotaged(impl: str, quadrature: str, *more: int | None) -> Callable[..., Tensor]:
        render = load(impl, quadrature)
        return (lambda *inputs: 1.001 * render(*inputs)) if impl == "numba" else render

    monkeypatch.setattr(implementations, "load", sabotaged)
    expected = render_grid(*scene(), 6, 5, impl="reference", quadrature=quadrature)
    with caplog.at_level("INFO", "mnist3d"):
        for _ in range(2):
            assert torch.equal(render_grid(*scene(), 6, 5, quadrature=quadrature), expected)
    assert len(caplog.records) == 1
    assert caplog.records[0].levelname == "WARNING"
    said = caplog.records[0].getMessage()
    assert said.startswith("render_grid: impl='auto' takes the reference: numba is wrong here: image of a small batch")


def test_auto_that_agrees_gives_numbas_bits() -> None:
    for quadrature in ("trilinear", "slices"):
        automatic, numba = (render_grid(*scene(), 6, 5, impl=i, quadrature=quadrature) for i in ("auto", "numba"))
        assert torch.equal(automatic, numba)
    keys = [(("render_grid", quadrature), "cpu", torch.float32) for quadrature in ("trilinear", "slices")]
    assert {key: found.taken for key, found in choice._verdicts.items()} == dict.fromkeys(keys, True)


def test_a_call_without_gradients_does_not_load_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export would otherwise compile it in vain."""
    monkeypatch.setattr(trilinear_numba.loops, "draw_backward", None)
    render_grid(*scene(gradients=False), 6, 5)
    with torch.no_grad():
        render_grid(*scene(), 6, 5)


class OnGpu(torch.Tensor):
    """What the choice sees of a tensor on a GPU."""

    device = torch.device("cuda")  # type: ignore[assignment]


def taken_on_a_gpu(quadrature: str = "trilinear") -> str:
    tensors = tuple(tensor.as_subclass(OnGpu) for tensor in scene(gradients=False))
    return implementations._automatic(quadrature, tensors, 28, False)


def test_on_a_gpu_triton_is_asked_and_slices_have_the_reference(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    obstacles: list[str | None] = [None, None, "a grid that is too large"]
    monkeypatch.setattr(implementations, "_obstacle", lambda *_: obstacles.pop(0))
    verdicts = [Verdict(True, " on cuda: it agrees", True), Verdict(False, " on cuda: triton is slower", True)]
    monkeypatch.setattr(implementations, "verdict", lambda *_, **__: verdicts.pop(0))
    with caplog.at_level("INFO", "mnist3d"):
        assert [taken_on_a_gpu() for _ in range(3)] == ["triton", "reference", "reference"]
        assert taken_on_a_gpu("slices") == "reference"
    assert [record.getMessage().removeprefix("render_grid: impl='auto' takes ") for record in caplog.records] == [
        "triton on cuda: it agrees",
        "the reference on cuda: triton is slower",
        "the reference: a grid that is too large",
        "the reference: nothing else renders slices on cuda",
    ]


def test_cases_are_small_enough_to_be_cheap_and_hostile_enough_to_tell() -> None:
    small, large = cases.cases()
    attenuation = small.inputs[0]
    assert attenuation.numel() < 200
    assert (attenuation == 0.0).any()
    assert (torch.expm1(-attenuation.float() * 2.0 / small.rest[1]) == -1.0).any(), "opacity of exactly 1"
    assert large.inputs[0].shape == (48, 48, 48)
    assert (len(large.inputs[2]), *large.rest) == (40, 28, 48)
