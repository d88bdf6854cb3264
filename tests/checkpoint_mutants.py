"""A real `resume.pt` made wrong in one way each: what a stranger, a bad disk or another version may hand us.

Bytes -> bytes. Those in `TAKEN` change nothing that a run believes a file, so the run must go on as it would have.
"""

import copy
import io
import pickle
import random
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mnist3d.training.finite import each_value

Mutant = Callable[[bytes], bytes]
VOLUME, GRID = "volume", "levels.0"
MOMENTS = ("volume_optimiser", "state", 0)
DISCRIMINATOR = ("objectives", "adversarial._extra_state", "optimiser")
WEIGHT = ("objectives", "adversarial.discriminator.body.0.weight")
HUGE = 10 * 2**30  # bytes


class _Runs:
    """What a pickle with code in it looks like."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('a file ran code')",)


def read(content: bytes) -> Any:
    """The state in a checkpoint of ours."""
    return torch.load(io.BytesIO(content), weights_only=True)


def written(state: Any) -> bytes:
    """A checkpoint of a state, whatever it is."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def at(*path: Any, make: Callable[[Any], Any]) -> Mutant:
    """What stands at a place of the state, made anew of what it was."""

    def changed(content: bytes) -> bytes:
        state = read(content)
        holder = state
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = make(holder[path[-1]])
        return written(state)

    return changed


def without(*path: Any) -> Mutant:
    """The state without what stands at a place."""

    def changed(content: bytes) -> bytes:
        state = read(content)
        holder = state
        for key in path[:-1]:
            holder = holder[key]
        del holder[path[-1]]
        return written(state)

    return changed


def holding(place: int, value: float) -> Callable[[Tensor], Tensor]:
    """The tensor with another number at one place."""

    def made(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[place] = value
        return tensor

    return made


def _turned(tensor: Tensor) -> Tensor:
    """The same numbers, the last axis first in memory."""
    return tensor.movedim(-1, 0).contiguous().movedim(0, -1)


def _quantized(tensor: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch will not have them for long, files may
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


def _asking_to_be_taken(state: Any) -> Any:
    found = OrderedDict(state)
    found["adversarial.discriminator.score.weight"] = found["adversarial.discriminator.score.weight"].T.contiguous().T
    names = ["", "adversarial", "adversarial.discriminator", "adversarial.discriminator.score"]
    found._metadata = {name: {"assign_to_params_buffers": True} for name in names}  # pyright: ignore[reportAttributeAccessIssue]
    return found


def _deep(_: Any) -> Any:
    value: Any = 1.0
    for _ in range(300):
        value = [value]
    return value


def _loop(state: Any) -> Any:
    state = dict(state)
    state["itself"] = state
    return state


def entries_of(content: bytes) -> dict[str, bytes]:
    """The files in the archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive_of(entries: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _pickle_of(content: bytes) -> str:
    return next(name for name in entries_of(content) if name.endswith("/data.pkl"))


def _largest(entries: dict[str, bytes]) -> str:
    return max((name for name in entries if "/data/" in name), key=lambda name: len(entries[name]))


def _moved_table(content: bytes) -> bytes:
    """The end record says that the table of contents lies four bytes later; so everything else lies four earlier."""
    plain = archive_of(entries_of(content))
    (offset,) = struct.unpack("<I", plain[-6:-2])
    return plain[:-6] + struct.pack("<I", offset + 4) + plain[-2:]


def cut_tensor(content: bytes) -> bytes:
    """The pickle claims as many numbers as before, the archive holds four bytes of them."""
    entries = entries_of(content)
    entries[_largest(entries)] = b"\0\0\0\0"
    return archive_of(entries)


def missing_tensor(content: bytes) -> bytes:
    entries = entries_of(content)
    del entries[_largest(entries)]
    return archive_of(entries)


def other_pickle(pickled: bytes) -> Mutant:
    """Another data.pkl beside the same tensors."""

    def changed(content: bytes) -> bytes:
        entries = entries_of(content)
        name = next(name for name in entries if name.endswith("/data.pkl"))
        return archive_of({**entries, name: pickled})

    return changed


def inflating(content: bytes) -> bytes:
    """A hundred megabytes of nothing in a hundred kilobytes."""
    del content
    return archive_of({"archive/data.pkl": bytes(100 * 2**20)}, zipfile.ZIP_DEFLATED)


def flipped(content: bytes, places: list[int]) -> bytes:
    """Other bits at some places."""
    wrong = bytearray(content)
    for place in places:
        wrong[place] ^= 0xFF
    return bytes(wrong)


def _flipped_number(content: bytes) -> bytes:
    """One bit of the largest tensor: the archive is whole but for its checksum."""
    entry = entries_of(content)
    return flipped(content, [content.index(entry[_largest(entry)]) + 10])


REFUSED: dict[str, Mutant] = {
    "no volume": without("volume"),
    "no optimiser": at("volume_optimiser", make=lambda _: None),
    "no generator": without("generator"),
    "a volume of no tensors": at("volume", make=lambda _: [1, 2]),
    "a shorter grid": at(VOLUME, GRID, make=lambda x: x[:, :2]),
    "a longer grid": at(VOLUME, GRID, make=lambda x: torch.cat([x, x])),
    "a grid of float64": at(VOLUME, GRID, make=lambda x: x.double()),
    "a grid of whole numbers": at(VOLUME, GRID, make=lambda x: x.long()),
    "a complex grid": at(VOLUME, GRID, make=lambda x: x.to(torch.complex64)),
    "a grid of one number": at(VOLUME, GRID, make=lambda x: torch.zeros(1).expand(x.shape)),
    "a sparse grid": at(VOLUME, GRID, make=lambda x: x.to_sparse()),
    "a quantized grid": at(VOLUME, GRID, make=_quantized),
    "a grid without numbers": at(VOLUME, GRID, make=lambda x: x.to("meta")),
    "a grid with NaN": at(VOLUME, GRID, make=holding(3, float("nan"))),
    "an average with NaN": at("averaged", GRID, make=holding(3, float("nan"))),
    "text for a grid": at(VOLUME, GRID, make=lambda _: "grid"),
    "a weight of another shape": at(*WEIGHT, make=lambda x: x[:1]),
    "a weight that requires a gradient": at(*WEIGHT, make=lambda x: x.clone().requires_grad_()),
    "a moment of another shape": at(*MOMENTS, "exp_avg", make=lambda x: x.flatten()[:3]),
    "an empty moment": at(*MOMENTS, "exp_avg_sq", make=lambda x: x.new_zeros(0)),
    "a moment that would spread over the others": at(*MOMENTS, "exp_avg", make=lambda x: x[:1].clone()),
    "a moment of float64": at(*MOMENTS, "exp_avg_sq", make=lambda x: x.double()),
    "a moment of one number": at(*MOMENTS, "exp_avg_sq", make=lambda x: x.new_zeros(1).expand(x.shape)),
    "an infinite moment": at(*MOMENTS, "exp_avg", make=holding(0, float("inf"))),
    "a negative second moment": at(*MOMENTS, "exp_avg_sq", make=holding(0, -1.0)),
    "two moments in one memory": at(*MOMENTS, make=lambda x: {**x, "exp_avg": x["exp_avg_sq"]}),  # of which none is < 0
    "no step": without(*MOMENTS, "step"),
    "an infinite step": at(*MOMENTS, "step", make=lambda x: x + float("inf")),
    "a negative step": at(*MOMENTS, "step", make=lambda x: -x),
    "a step that is no tensor": at(*MOMENTS, "step", make=lambda x: float(x)),
    "many steps": at(*MOMENTS, "step", make=lambda x: x.expand(4).clone()),
    "one more moment": at(*MOMENTS, make=lambda x: {**x, "max_exp_avg_sq": x["exp_avg"].clone()}),
    "a parameter too many": at("volume_optimiser", "state", make=lambda x: {**x, 99: copy.deepcopy(x[0])}),
    "no groups": at("volume_optimiser", "param_groups", make=lambda _: []),
    "groups of other parameters": at("volume_optimiser", "param_groups", 0, "params", make=lambda x: [7, *x[1:]]),
    "nonsense betas": at("volume_optimiser", "param_groups", 0, "betas", make=lambda _: (float("nan"), 2.0)),
    "one beta": at("volume_optimiser", "param_groups", 0, "betas", make=lambda _: 0.9),
    "an infinite epsilon": at("volume_optimiser", "param_groups", 0, "eps", make=lambda _: float("inf")),
    "a negative decay": at("volume_optimiser", "param_groups", 0, "weight_decay", make=lambda _: -1.0),
    "a rate that is text": at("volume_optimiser", "param_groups", 0, "lr", make=lambda _: "fast"),
    "the discriminator's moment cut off": at(*DISCRIMINATOR, "state", 1, "exp_avg", make=lambda x: x[:0]),
    "the discriminator's optimiser gone": at(*DISCRIMINATOR, make=lambda _: None),
    "the discriminator's state gone": at("objectives", "adversarial._extra_state", make=lambda _: None),
    "a penalty of NaN": at("objectives", "adversarial._extra_state", "last_penalty", make=lambda _: float("nan")),
    "a short generator": at("generator", make=lambda x: x[:100]),
    "a generator of float": at("torch_rng", make=lambda x: x.float()),
    "a generator of noise": at("generator", make=lambda x: torch.full_like(x, 255)),
    "generators of no list": at("cuda_rng", make=lambda _: 5),
    "negative steps": at("steps_done", make=lambda _: -1),
    "steps of text": at("steps_done", make=lambda _: "three"),
    "endless seconds": at("seconds_done", make=lambda _: float("inf")),
    "a rate scale of NaN": at("rate_scale", make=lambda _: float("nan")),
    "a rate scale above 1": at("rate_scale", make=lambda _: 2.0),
    "an endless state": at("objectives", make=_loop),
    "a state of text": lambda content: written("state"),
    "nothing": lambda content: b"",
    "half of it": lambda content: content[: len(content) // 2],
    "no archive": lambda content: b"resume" * 100,
    "another bit in a tensor": _flipped_number,
    "a tensor cut off": cut_tensor,
    "a tensor missing": missing_tensor,
    "bytearray of no end": lambda content: archive_of(
        {**entries_of(content), _pickle_of(content): b"\x80\x05\x96" + (2**62).to_bytes(8, "little") + b"."}
    ),
    "compressed": lambda content: archive_of(entries_of(content), zipfile.ZIP_DEFLATED),
    "inflating": inflating,
    "an entry before its beginning": _moved_table,
    "code": other_pickle(pickle.dumps(_Runs(), 2)),
    "memory for a memo": other_pickle(b"\x80\x02Nr" + struct.pack("<I", 2**31 - 1) + b"."),
    "an empty stack": other_pickle(b"\x80\x02\x85\x85."),
}
TAKEN: dict[str, Mutant] = {
    "as it was": lambda content: content,
    "a grid in another order": at(VOLUME, GRID, make=_turned),
    "a moment in another order": at(*MOMENTS, "exp_avg_sq", make=_turned),
    "the discriminator's moments in another order": at(*DISCRIMINATOR, "state", 0, "exp_avg_sq", make=_turned),
    "another rate": at("volume_optimiser", "param_groups", 0, "lr", make=lambda _: 7.0),
    "flags of its own": at(
        "volume_optimiser",
        "param_groups",
        0,
        make=lambda x: {**x, "fused": False, "amsgrad": True, "maximize": True, "capturable": True, "foreach": True},
    ),
    "asks to be taken instead of copied": at("objectives", make=_asking_to_be_taken),
    "a part of a later version": lambda content: written({**read(content), "later": [1, "two", None]}),
    "nested lists in it": lambda content: written({**read(content), "later": _deep(None)}),
}


def at_random(content: bytes, seed: int) -> tuple[str, bytes]:
    """One of endless ways: a value anywhere in the state made another, or other bytes; and what it is called."""
    draw = random.Random(seed)
    if draw.random() < 0.3:
        places = sorted(draw.randrange(len(content)) for _ in range(draw.choice([1, 1, 2, 8])))
        return f"bits at {places}", flipped(content, places)
    if draw.random() < 0.1:
        length = draw.randrange(len(content))
        return f"cut at {length}", content[:length]
    state = read(content)
    paths = list(_paths(state))
    path, value = draw.choice(paths)
    choices: list[Callable[[Any], Any]] = [
        lambda _: None,
        lambda _: draw.choice([float("nan"), float("inf"), -1, -1.5, 10**30, True, 0]),
        lambda _: draw.choice(["", "text", b"bytes", [], {}, (1, 2), [[]], {"step": 1}]),
        lambda _: draw.choice(paths)[1],
    ]
    if isinstance(value, Tensor):
        choices += [
            lambda x: x.flatten()[: draw.randrange(x.numel() + 1)],
            lambda x: torch.cat([x.flatten(), x.flatten()]),
            lambda x: x.to(draw.choice([torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64])),
            lambda x: x.new_zeros(()).expand(x.shape),
            lambda x: x[None],
            lambda x: x.T if x.ndim == 2 else _turned(x) if x.ndim else x[None],
            lambda x: holding(0, draw.choice([float("nan"), float("inf"), -1e30]))(x) if x.is_floating_point() else ~x,
        ]
    make = draw.choice(choices)
    return f"{'.'.join(map(str, path))} no. {choices.index(make)}", at(*path, make=make)(content)


def _paths(state: Any, path: tuple[Any, ...] = ()) -> Any:
    """Every place of a state below its first level, mappings and lists too."""
    inner = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    for key, value in inner:
        yield (*path, key), value
        yield from _paths(value, (*path, key))


def same(state: Any, other: Any) -> bool:
    """Whether two states hold the same, to the bit, wherever it lies in memory."""
    one, two = (dict(each_value({**given, "seconds_done": 0.0})) for given in (state, other))
    return one.keys() == two.keys() and all(
        torch.equal(value, two[name]) if isinstance(value, Tensor) else value == two[name]
        for name, value in one.items()
    )
