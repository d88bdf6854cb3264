"""A trainer's state from a file of anybody, compared with what the trainer holds before anything computes with it.

Name, kind, shape, precision and layout of each tensor. A fused optimiser reads as many numbers as its parameter has,
whatever it was handed: a shorter tensor is memory of somebody else.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .finite import each_value

MAX_VALUES = 1_000_000  # of a whole state, tensors counted as one
MODULES = ("volume", "averaged", "objectives")
GENERATORS = ("generator", "torch_rng")
MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam; with amsgrad the largest of the second too
LARGEST_STEP = 2**53  # beyond, not every whole number is a float


def check_state(state: Any, own: Mapping[str, Any]) -> None:
    """Everything but shapes of weights, which a volume that grows decides itself, and optimisers: see `load_adam`.

    Args:
        state: what was read.
        own: what the trainer holds, of `Trainer.state_dict`.

    Raises:
        ValueError: one line about the first part that is something else.
    """
    if not isinstance(state, dict):
        raise ValueError(f"is {_kind(state)}, no state of a run")
    if missing := [name for name in own if name not in state]:
        raise ValueError(f"{missing[0]} is missing")
    expected = dict(each_value(dict(own)))
    found = dict(each_value({name: state[name] for name in own}, most=MAX_VALUES))
    for name, value in found.items():
        if isinstance(value, Tensor):
            _check_plain(name, value, expected.get(name))
            if value.isnan().any():
                raise ValueError(f"{name} holds NaN")
    _check_own_memory(found, expected)
    for part in MODULES:
        _check_module(part, state[part], own[part])
    for part in GENERATORS:
        _check_generator(part, state[part], own[part])
    if not isinstance(state["cuda_rng"], list):
        raise ValueError("cuda_rng must be a list")
    for place, value in enumerate(state["cuda_rng"]):
        _check_generator(f"cuda_rng.{place}", value, own["cuda_rng"][0] if own["cuda_rng"] else None)
    steps = state["steps_done"]
    if type(steps) is not int or not 0 <= steps < LARGEST_STEP:
        raise ValueError(f"steps_done={_kind(steps)}: must be a whole number >= 0")
    _check_number("seconds_done", state["seconds_done"])
    _check_number("rate_scale", state["rate_scale"], most=1.0)
    if state["rate_scale"] == 0.0:
        raise ValueError("rate_scale=0: must be > 0, or nothing would learn")


def load_module(module: nn.Module, state: Mapping[str, Any]) -> None:
    """`load_state_dict` of the names and values alone: what else a state from a file has to say is not listened to.

    Raises:
        RuntimeError: a name or a shape is another.
    """
    # As a plain mapping: the `_metadata` of an OrderedDict can ask torch to put the file's tensors in place of the own.
    module.load_state_dict(dict(state))


def load_adam(optimiser: torch.optim.Optimizer, state: Any, name: str) -> None:
    """Go on from the state of an Adam of the same parameters.

    The moments are copied into tensors that lie in memory as their parameters do. Rates, betas and flags stay the
    optimiser's own: a run sets them, no file does.

    Args:
        optimiser: of the parameters as they are now; its state is replaced.
        state: of its `state_dict`, from a file.
        name: what messages call it.

    Raises:
        ValueError: one line about the first part that does not fit.
    """
    own = optimiser.state_dict()
    if not isinstance(state, dict) or not isinstance(state.get("state"), dict):
        raise ValueError(f"{name} is {_kind(state)}, no state of an optimiser")
    _check_groups(name, state.get("param_groups"), own["param_groups"])
    parameters = [(each, group) for group in optimiser.param_groups for each in group["params"]]
    fresh: dict[int, dict[str, Tensor]] = {}
    for place, entry in state["state"].items():
        if type(place) is not int or not 0 <= place < len(parameters):
            raise ValueError(f"{name}.state.{_kind(place)}: there are {len(parameters)} parameters")
        parameter, group = parameters[place]
        fresh[place] = _checked_entry(f"{name}.state.{place}", entry, parameter, bool(group.get("amsgrad")))
    optimiser.load_state_dict({"state": fresh, "param_groups": own["param_groups"]})


def _checked_entry(name: str, entry: Any, parameter: Tensor, amsgrad: bool) -> dict[str, Tensor]:
    """What Adam keeps for one parameter, as copies."""
    moments = (*MOMENTS, "max_exp_avg_sq") if amsgrad else MOMENTS
    if not isinstance(entry, dict) or entry.keys() != {"step", *moments}:
        given = sorted(map(str, entry)) if isinstance(entry, dict) else _kind(entry)
        raise ValueError(f"{name} must hold step, {', '.join(moments)}; is {given}")
    step = entry["step"]
    _check_tensor(f"{name}.step", step, torch.float32, ())
    if not 0.0 <= float(step) < LARGEST_STEP:
        raise ValueError(f"{name}.step={float(step):g}: must be a number of steps >= 0")
    copies = {"step": step.clone()}
    for moment in moments:
        value = entry[moment]
        _check_tensor(f"{name}.{moment}", value, parameter.dtype, tuple(parameter.shape))
        numbers = torch.view_as_real(value) if value.is_complex() else value
        if not numbers.isfinite().all() or (moment != "exp_avg" and (numbers < 0.0).any()):
            raise ValueError(f"{name}.{moment} must be finite{'' if moment == 'exp_avg' else ' and >= 0'}")
        copies[moment] = torch.zeros_like(parameter, memory_format=torch.preserve_format, requires_grad=False)
        copies[moment].copy_(value)
    return copies


def _check_groups(name: str, groups: Any, own: list[dict[str, Any]]) -> None:
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise ValueError(f"{name}.param_groups is {_kind(groups)}, no list of mappings")
    if [group.get("params") for group in groups] != [group["params"] for group in own]:
        raise ValueError(f"{name}.param_groups are of other parameters")
    for place, group in enumerate(groups):
        where = f"{name}.param_groups.{place}"
        for key in ("lr", "eps", "weight_decay"):
            _check_number(f"{where}.{key}", group.get(key))
        betas = group.get("betas")
        if not isinstance(betas, list | tuple) or len(betas) != 2:
            raise ValueError(f"{where}.betas={_kind(betas)}: must be two numbers")
        for beta in betas:
            _check_number(f"{where}.betas", beta, below=1.0)


def _check_module(part: str, state: Any, own: Mapping[str, Any]) -> None:
    if not isinstance(state, dict):
        raise ValueError(f"{part} is {_kind(state)}, no mapping of tensors")
    for name, value in own.items():
        if isinstance(value, Tensor) and name in state:
            _check_tensor(f"{part}.{name}", state[name], value.dtype, None)


def _check_generator(name: str, value: Any, own: Tensor | None) -> None:
    _check_tensor(name, value, torch.uint8, None if own is None else tuple(own.shape))
    if value.ndim != 1 or not value.is_contiguous():
        raise ValueError(f"{name} must be a row of bytes")


def _check_tensor(name: str, value: Any, dtype: torch.dtype, shape: tuple[int, ...] | None) -> None:
    """Args: shape: None where another place decides it."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} is {_kind(value)}, must be a tensor")
    if value.dtype != dtype:
        raise ValueError(f"{name} is {_kind(value.dtype)}, must be {_kind(dtype)}")
    if shape is not None and tuple(value.shape) != shape:
        raise ValueError(f"{name} is of shape {tuple(value.shape)}, must be {shape}")


def _check_plain(name: str, value: Tensor, own: Any) -> None:
    """Whether a tensor is no more than its numbers, each in a place of its own."""
    complex_too = name.startswith("volume_optimiser.") or (isinstance(own, Tensor) and own.is_complex())
    refused = {
        type(value).__name__: type(value) not in (Tensor, nn.Parameter),
        "without numbers (meta)": value.is_meta,
        "sparse": value.layout != torch.strided,
        "quantized": value.is_quantized,
        "nested": value.is_nested,
        "complex": value.is_complex() and not complex_too,
        "a view of other numbers": value.is_conj() or value.is_neg(),
        "part of a computation": value.requires_grad,
    }
    if found := [kind for kind, is_so in refused.items() if is_so]:
        raise ValueError(f"{name} is {found[0]}, must be a plain tensor")
    span = 1
    for stride, size in sorted(zip(value.stride(), value.shape, strict=True)):
        if size > 1 and value.numel():
            if stride < span:
                raise ValueError(f"{name} has several numbers in one place (strides {value.stride()})")
            span += stride * (size - 1)


def _check_own_memory(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """No two tensors in one memory, unless they are so in the trainer, as tied weights."""
    places: list[tuple[int, int, str]] = []
    for name, value in found.items():
        if isinstance(value, Tensor) and value.numel():
            last = sum(stride * (size - 1) for stride, size in zip(value.stride(), value.shape, strict=True))
            start = value.data_ptr()
            places.append((start, start + (last + 1) * value.element_size(), name))
    places.sort()
    for (_, end, name), (start, _, other) in pairwise(places):
        first, second = expected.get(name), expected.get(other)
        tied = isinstance(first, Tensor) and isinstance(second, Tensor) and first.data_ptr() == second.data_ptr()
        if start < end and not tied:
            raise ValueError(f"{name} and {other} share their memory")


def _check_number(name: str, value: Any, most: float = math.inf, below: float = math.inf) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0.0 <= value <= most or value >= below:
        limit = f" and < {below:g}" if below < math.inf else f" and <= {most:g}" if most < math.inf else ""
        raise ValueError(f"{name}={_kind(value)}: must be a finite number >= 0{limit}")


def _kind(value: Any) -> str:
    """A value in a message, however odd."""
    if value is None or isinstance(value, int | float | torch.dtype):
        return f"{value}".removeprefix("torch.")[:40]
    return f"a {type(value).__name__}"
