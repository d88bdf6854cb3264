"""What "auto" takes: a fast implementation proves on the machine that asks that it is right, and on a GPU also faster.

Knows no operation. `absorption` and `hash_encoding` say what is compared, on which inputs, and within which tolerance;
here it is compared once a process and remembered.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

Run = Callable[..., Tensor]
Clock = Callable[[Callable[[], object], torch.device], float]

ROUNDS = 5  # the two take turns so many times, and the medians decide
OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)
NEXT_TO_NOTHING = 1e-3  # a gradient whose largest element is below this is rounding, and is compared with this

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_verdicts: dict[Hashable, "Verdict"] = {}
_said: set[str] = set()


class Tolerance(NamedTuple):
    """How far an implementation may be from the reference in double precision."""

    value: float
    """Absolute."""
    gradient: float
    """Relative to the largest element of the reference's."""
    as_a_whole: bool = False
    """Whether gradients are compared by their root mean square, as in half precision, where here and there rounding
    takes a ReLU to its other side."""


# float32: its rounding (6e-8) times the some 100 operations a ray goes through and the slope of a hostile volume; a
# step or a factor gone wrong is 1e-3 or more. float64: the same operations, with room for another order of summation.
TOLERANCES = {torch.float32: Tolerance(1e-5, 5e-5), torch.float64: Tolerance(1e-12, 1e-11)}


class Case(NamedTuple):
    """One call that both implementations answer."""

    label: str
    inputs: tuple[Tensor, ...]
    """float64, on the CPU: what gradients go to."""
    rest: tuple[Any, ...]
    """The arguments after these."""


class Twins(NamedTuple):
    """A fast implementation and the reference, and what they are compared on."""

    run_fast: Run
    run_reference: Run
    cases: Callable[[], Iterable[Case]]
    """A small one first; the last one is of the size that a training step has, and is timed. Made as they are asked
    for, as a CPU needs the first only."""
    quantities: tuple[str, ...]
    """What the answer is called, then each of the inputs."""
    tolerance: Tolerance


class ReferenceFails(Exception):
    """The reference could not answer, so nothing is known of the fast one; the cause says why."""


class Verdict(NamedTuple):
    """Whether the fast one is taken, and why."""

    taken: bool
    reason: str
    gradients: bool
    """Whether they were compared too."""
    level: int = logging.INFO
    """How loudly to say so: that the fast one is wrong or fails is a warning."""


def seconds(step: Callable[[], object], device: torch.device) -> float:
    """How long a step takes on a device that has nothing else to do for us: what a training would wait."""
    _wait(device)
    start = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - start


def verdict(
    key: Hashable,
    fast: str,
    twins: Callable[[], Twins],
    device: torch.device,
    dtype: torch.dtype,
    *,
    gradients: bool = True,
    clock: Clock = seconds,
) -> Verdict:
    """Whether "auto" takes the fast one of two implementations; found out once a process for each key.

    On a GPU every case is compared, gradients too, and the faster one is taken. On a CPU a clock would let other
    programs decide which of two roundings a training gets, so there the first case is compared, which takes some
    hundredths of a second, and gradients are when a call first needs them.

    Neither torch's random numbers nor the caller's modes (no_grad, inference_mode, autocast) play a part. None is
    taken, nor is that remembered: inside a transform of torch.func, which a compiled one knows nothing of; where torch
    only works out shapes (`FakeTensorMode`), so that there is nothing to compare; and on a GPU while torch's
    deterministic algorithms are asked for, as a clock would decide and the fast ones there add in any order.

    Args:
        key: what the answer is remembered for, besides device and dtype.
        fast: what the fast one is called in messages.
        twins: makes the two; called when the answer is not known yet. What it raises counts as a failure of the fast
            one.
        device: of the tensors of the call.
        dtype: of these tensors.
        gradients: whether the call needs them.
        clock: seconds that a step takes on a device.
    """
    if torch._C._are_functorch_transforms_active():
        return Verdict(False, f": {fast} knows no transforms of torch.func", gradients)
    if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None:
        return Verdict(False, f": {fast} knows no tensors without numbers", gradients)
    by_time = device.type != "cpu"
    if by_time and torch.are_deterministic_algorithms_enabled():
        return Verdict(False, f" on {device}: deterministic algorithms are asked for, and {fast} is none", gradients)
    gradients = gradients or by_time
    key = (key, str(device), dtype)
    known = _remembered(key, gradients)  # without the lock: a training goes on while a page compiles something else
    if known is None:
        with _lock:
            known = _remembered(key, gradients)
            if known is None:
                with _neutral(device):
                    known = _verdicts[key] = _tried(fast, twins, device, dtype, gradients, by_time, clock)
    return known


def say_once(message: str, level: int = logging.INFO) -> None:
    """Log a line, the first time that it is to be said."""
    if message not in _said:
        _said.add(message)
        _log.log(level, message)


def announce(what: str, fast: str, reference: str, found: Verdict) -> None:
    """Say once what "auto" took and why."""
    say_once(f"{what} takes {fast if found.taken else reference}{found.reason}", found.level)


def _remembered(key: Hashable, gradients: bool) -> Verdict | None:
    """What is known already, if that is enough."""
    known = _verdicts.get(key)
    return None if known is not None and known.taken and gradients and not known.gradients else known


def _tried(
    fast: str,
    twins: Callable[[], Twins],
    device: torch.device,
    dtype: torch.dtype,
    gradients: bool,
    by_time: bool,
    clock: Clock,
) -> Verdict:
    try:
        pair, last = twins(), None
        for case in islice(pair.cases(), None if by_time else 1):
            last = case
            if wrong := _difference(pair, case, device, dtype, gradients):
                return Verdict(False, f": {fast} {wrong}", gradients, logging.WARNING)
        if not by_time or last is None:
            return Verdict(True, " on the CPU", gradients)
        ours, theirs = _times(pair, last, device, dtype, clock)
    except Exception as error:  # whatever a compiler, a driver or somebody else's library raises
        cause = error.__cause__ if isinstance(error, ReferenceFails) else error
        if isinstance(cause, OUT_OF_MEMORY):  # the fault of neither
            reason = f": there is too little memory to compare {fast} with it ({_one_line(cause)})"
        elif isinstance(error, ReferenceFails):  # such as of an operator that the caller has forbidden
            reason = f": {fast} could not be compared, as the reference fails here ({_one_line(cause)})"
        else:
            reason = f": {fast} fails here ({_one_line(error)})"
        return Verdict(False, reason, gradients, logging.WARNING)
    times = f"takes {1e3 * ours:.3g} ms where the reference takes {1e3 * theirs:.3g} ({last.label})"
    if ours < theirs:
        return Verdict(True, f" on {device}: it agrees with the reference and {times}", gradients)
    return Verdict(False, f" on {device}: {fast} agrees with it, but {times}", gradients)


def _difference(pair: Twins, case: Case, device: torch.device, dtype: torch.dtype, gradients: bool) -> str:
    """What is wrong with the fast one's answer, or nothing.

    Where rounding in the precision of the call takes the reference itself further than the tolerance, as it may in a
    sum over a million samples, twice as far will do.
    """
    try:
        exact = _answers(pair.run_reference, case, device, torch.float64, gradients)
        rounded = _answers(pair.run_reference, case, device, dtype, gradients)
    except Exception as error:
        raise ReferenceFails from error
    found = _answers(pair.run_fast, case, device, dtype, gradients)
    for index, (name, truth) in enumerate(zip(pair.quantities, exact, strict=False)):
        if found[index].shape != truth.shape:
            return f"is wrong here: {name} of {case.label} is {tuple(found[index].shape)}, not {tuple(truth.shape)}"
        size = _root_mean_square if index and pair.tolerance.as_a_whole else _largest
        rounding, error = size(rounded[index].double() - truth), size(found[index].double() - truth)
        relative = max(size(truth), NEXT_TO_NOTHING)
        allowed = max(pair.tolerance.gradient * relative if index else pair.tolerance.value, 2.0 * rounding)
        if not error <= allowed:  # NaN fails too
            return f"is wrong here: {name} of {case.label} is off by {error:.3g}, it must be <= {allowed:.3g}"
    return ""


def _largest(values: Tensor) -> float:
    return values.abs().max().item()


def _root_mean_square(values: Tensor) -> float:
    return values.square().mean().sqrt().item()


def _answers(run: Run, case: Case, device: torch.device, dtype: torch.dtype, gradients: bool) -> list[Tensor]:
    """The value, and its gradient to each input for an upstream gradient of both signs that is not contiguous."""
    inputs = [tensor.detach().to(device, dtype).requires_grad_(gradients) for tensor in case.inputs]
    value = run(*inputs, *case.rest)
    if not gradients:
        return [value]
    weights = torch.arange(value.numel(), dtype=torch.float64, device="cpu").sin().to(value).reshape(value.mT.shape)
    # handed an upstream gradient, autograd.grad would first import a library for symbols, which takes a second
    return [value.detach(), *torch.autograd.grad((value.mT * weights).sum(), inputs)]


def _times(pair: Twins, case: Case, device: torch.device, dtype: torch.dtype, clock: Clock) -> tuple[float, float]:
    """Medians of a forward and backward pass, the fast one's and the reference's."""
    inputs = [tensor.detach().to(device, dtype).requires_grad_() for tensor in case.inputs]

    def step(run: Run) -> Callable[[], object]:
        return lambda: run(*inputs, *case.rest).sum().backward(inputs=inputs)

    both = step(pair.run_fast), step(pair.run_reference)
    for each in both:  # the comparison has compiled the fast one, and the reference has run in another precision
        each()
    found = [[clock(each, device) for each in both] for _ in range(ROUNDS)]
    return median(fast for fast, _ in found), median(reference for _, reference in found)


@contextmanager
def _neutral(device: torch.device) -> Iterator[None]:
    """As if the caller had set no mode, and no hooks on what autograd keeps: `torch.utils.checkpoint` would compute the
    caller's part again for a gradient that is only compared."""
    plain = torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False)
    with ExitStack() as stack:
        for mode in (*plain, torch.autograd.graph.saved_tensors_hooks(Tensor.detach, lambda kept: kept)):
            stack.enter_context(mode)
        yield


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _one_line(error: BaseException | None) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _forget_the_lock() -> None:
    """A thread that held it is not in the child."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_lock)
