"""What a training run will take, told from its configuration before anything of it is built.

Numbers of weights are exact; what a step holds besides is a sum of its largest tensors, measured on a CPU:
benchmarks/memory.py compares it with what runs take.
"""

import dataclasses
import importlib.util
import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..callbacks.watchdog import SNAPSHOTS, WINDOW
from ..data.nearest import BLURRED_AT_ONCE
from ..errors import ConfigError, VolumeFileError, shown
from ..rendering.renderer import FIELD_SAMPLES
from ..storage.memory import check_fits
from ..training.discriminator import Discriminator
from ..training.objectives.adversarial import AdversarialOptions
from ..training.objectives.nearest_image import COPIES, MOST_PIXELS
from ..training.processes import ALONE, Processes
from ..volumes import OWN_VOLUMES, BakedField, SparseGrid, Volume
from ..volumes.base import class_path
from .class_paths import import_volume_class
from .config import Config, flat

FLOAT = 4  # bytes
UNCOUNTABLE = 2**63  # bytes: where torch itself can no longer count
FIXED = 224 * 2**20  # what is compiled and imported on the way: between what it holds alone and with files' pages
IN_BALL = (11, 21)  # pi / 6, the share of a ball in the cube around it, for whole numbers of any size
# Copies of the weights: themselves, their gradients, Adam's two moments, and for the volume the average.
COPIES_OF_VOLUME, COPIES_OF_DISCRIMINATOR = 5, 4
SAVED_OF_VOLUME, SAVED_OF_DISCRIMINATOR = 4, 3  # those in a state: no gradients
# Copies of a grid's two channels while a step goes forth and back: its activations, what the kernel reads and what it
# hands back; and one for each thread, whose gradients are summed at the end.
GRIDS = {"trilinear": 9, "slices": 6}
# Of the weights of a volume that is built, and of one that takes those of another of its class, measured.
COPIES_WHILE_BUILT, COPIES_WHILE_TAKEN = 3, 9
VIEWS_OF_A_FIT = 8  # at a time
GRIDS_OF_A_VIEW = 5  # the same where nothing learns
# Of a grid of blocks, bytes of one of them in such a step, and of its gradient in each further thread: raw values and
# what they give, the gradients to both, and what the C library keeps of it.
OF_BLOCK, OF_BLOCK_A_THREAD = 20_000, 4_200
# The same at a growth, of all blocks among which it then chooses: new levels, raw values and what they give, without
# gradients or moments; 18,500 to 20,400 were measured.
OF_BLOCK_CHOSEN_FROM = 20_000
CHANNELS = 2
# Bytes of a sample in the reference implementations, which keep all that lies between two operations.
OF_SAMPLE = 80
OF_SAMPLE_IN_ORDER = 260  # in `kernels.absorption.sampling`, of a deterministic run on a GPU
# Of views a few at a time: those, and what the few before have not given back to the system.
PARTS = 2
# Bytes of a point that a field is asked at: the point itself, what it answers, and each feature that is encoded there,
# forth and back.
OF_POINT, OF_FEATURE = 80, 8
# Copies of a discriminator's activations for real images and views: forth, back, and once more each for the penalty.
PASSES = 4
COPIES_OF_IMAGES = 2  # as they are read, in parts and joined
COPIES_OF_EXEMPLARS = 4  # tilted, blurred and in their order
COPIES_WHILE_BLURRED = 16  # one channel that is convolved becomes as many, of a part of the images at a time
# To train on, of sources with a name. Folders and idx files are counted when they are read.
IMAGES = {"mnist_5k": 3_500, "mnist": 60_000, "fashion_mnist": 60_000, "kmnist": 60_000, "emnist": 124_800}
SIZES = ("resolution", "components", "bake_resolution", "log2_hashmap_size")  # a volume's arguments that decide most


def check_memory(config: Config, device: torch.device, processes: Processes = ALONE) -> None:
    """Refuse a run that would not fit into the memory that is free, before anything of it is built.

    Args:
        config: of the run; what is wrong with it in another way is left to those who build it.
        device: where it will be computed.
        processes: of the run: each takes this for its part of the views, on one machine and its CPU together.

    Raises:
        ConfigError: it would not fit; one line with what it would take, what there is, and what to lower.
    """
    on_cpu = device.type == "cpu"
    if processes.local_rank and on_cpu:  # the first on each machine has asked for all
        return
    views = -(-config.trainer.views // processes.count)
    parts = training_memory(replace(config, trainer=replace(config.trainer, views=max(views, 2))), device)
    together = processes.on_machine if on_cpu else 1
    total = min(together * (FIXED + sum(parts.values())), UNCOUNTABLE)
    given, usual = flat(_values(config)), flat(_values(Config()))
    most = sorted(parts, key=lambda keys: -parts[keys])
    lower = dict.fromkeys(key for keys in most if 10 * together * parts[keys] >= total for key in keys) or most[0]
    first = max(most[0], key=lambda key: _size(given.get(key)) / _size(usual.get(key)))
    *others, last = sorted(lower, key=lambda key: key != first)
    remedy = f"lower {', '.join(others)} or {last}" if others else f"lower {last}"
    if "trainer.views" in lower:
        remedy += "; or set trainer.views_at_once"
    takes = "training takes" if together == 1 else f"training takes on {together} processes"
    check_fits(total, f"{first}={shown(given.get(first))}: {takes}", remedy, ConfigError, device)


def check_opened(name: str, volume: Volume) -> None:
    """Refuse to look at a volume whose grid would not fit into the memory: a small file can ask for a large one.

    Of a `SparseGrid` views take only the blocks that are there; who asks for its whole grid, it refuses itself.

    Args:
        name: of its run or file, for the message.
        volume: its weights are there already.

    Raises:
        VolumeFileError: it would not fit.
    """
    grid = _grid(volume) or ()
    if isinstance(volume, SparseGrid):
        what, needed = f"{len(volume.places):,} blocks of 8^3", OF_BLOCK * len(volume.places)
    else:
        what, needed = "x".join(map(str, grid[::-1])), GRIDS_OF_A_VIEW * CHANNELS * FLOAT * math.prod(grid)
    check_fits(needed, f"{name}: its grid of {what} voxels takes", "look at it on a larger machine", VolumeFileError)


def check_fit(
    volume_class: type[Volume],
    arguments: dict[str, Any],
    copies: int | None = None,
    *,
    views: int = VIEWS_OF_A_FIT,
    image_size: int | None = None,
) -> None:
    """Refuse a volume that would not fit into the memory while it is fitted to another one, or to images.

    Args:
        volume_class: of the volume.
        arguments: of its constructor; what is wrong with them is left to who builds it.
        copies: of the weights, which are counted alone: `COPIES_WHILE_BUILT` or `COPIES_WHILE_TAKEN`. None: the fit.
        views: of a step of the fit.
        image_size: their edge, pixels. None: that of a run's defaults.

    Raises:
        ConfigError: it would not fit.
    """
    spec = {"class_path": class_path(volume_class), "init_args": arguments}
    config = Config(volume=spec, watchdog="off", adversarial=AdversarialOptions(weight=0.0))
    config = replace(config, trainer=replace(config.trainer, views=views))
    if image_size is not None:
        config = replace(config, renderer=replace(config.renderer, image_size=image_size))
    volume = _shapes_of_volume(config)
    if volume is None:
        return
    keys = _keys_of(volume)
    needed = training_memory(config, torch.device("cpu"))[keys] if copies is None else copies * _bytes_of(volume)
    first, what = keys[0], "the fit takes" if copies is None else "the volume takes"
    value = volume.init_args.get(first.removeprefix("volume."), volume_class.__name__)
    check_fits(needed, f"{first}={shown(value)}: {what}", f"lower {' or '.join(keys)}", ConfigError)


def training_memory(config: Config, device: torch.device) -> dict[tuple[str, ...], int]:
    """Bytes at the fullest moment of a run, beyond `FIXED`, by the keys that decide them.

    Args:
        config: of the run. A class of others counts with its weights, if they can be told without building them.
        device: where it will be computed.
    """
    volume = _shapes_of_volume(config)
    weights = 0 if volume is None else _bytes_of(volume)
    saved = _snapshots(config)  # a checkpoint takes none
    size, size_key, views = config.renderer.image_size, "renderer.image_size", config.trainer.views
    at_once = min(views, config.trainer.views_at_once or views)
    views_key = "trainer.views" if at_once == views else "trainer.views_at_once"
    parts: dict[tuple[str, ...], int] = {}
    if volume is not None:
        keys, grid = _keys_of(volume), _grid(volume)
        by_blocks = isinstance(volume, SparseGrid) and config.renderer.quadrature == "trilinear"
        copies = COPIES_OF_VOLUME + SAVED_OF_VOLUME * saved
        parts[keys] = _of_blocks(config, copies) if by_blocks else weights * copies + _bytes_of_grid(grid, config)
        samples = config.renderer.samples_per_ray or (FIELD_SAMPLES if grid is None else max(grid))
        asked = (views_key, size_key, "renderer.samples_per_ray")
        cube = (at_once if at_once == views else min(PARTS * at_once, views)) * size**2 * samples
        if isinstance(volume, BakedField):
            points = _in_ball(cube if grid is None else math.prod(grid))
            held = OF_POINT * points + OF_FEATURE * volume.numbers_held(points, device.type)
            if grid is None:
                # Random numbers are drawn for all views.
                drawn = FLOAT * _in_ball((views - at_once) * size**2 * samples)
                parts[asked] = held + drawn
            else:
                parts[keys] += held
        if grid is not None and (config.renderer.impl == "reference" or not _has_fast_kernel(device)):
            in_order = config.deterministic and device.type == "cuda" and config.renderer.quadrature == "trilinear"
            of_each = OF_SAMPLE_IN_ORDER if in_order or by_blocks else OF_SAMPLE
            parts[asked] = of_each * cube + (0 if by_blocks else at_once * CHANNELS * FLOAT * math.prod(grid))
    if config.adversarial.weight > 0.0:
        of_weights, of_image = _of_discriminator(config)
        copies = COPIES_OF_DISCRIMINATOR + SAVED_OF_DISCRIMINATOR * saved
        parts["discriminator.channels", "discriminator.features", size_key] = copies * of_weights
        parts[views_key, size_key, "discriminator.channels"] = PASSES * 2 * at_once * of_image
    images = min(IMAGES.get(config.data.name, 2), config.data.limit or UNCOUNTABLE)
    pixels = COPIES_OF_IMAGES * (images + views) * size**2
    if config.adversarial.weight > 0.0 and config.nearest_image.weight > 0.0:
        tilted = (1 + COPIES) * images * size**2
        pixels += COPIES_OF_EXEMPLARS * min(tilted, max(images * size**2, MOST_PIXELS))
        pixels += COPIES_WHILE_BLURRED * min(images, BLURRED_AT_ONCE) * size**2
    parts[size_key, "data.limit"] = FLOAT * pixels
    return parts


def _in_ball(count: int) -> int:
    part, whole = IN_BALL
    return count * part // whole


def _shapes_of_volume(config: Config) -> Volume | None:
    """The volume at its last size, without its numbers; None where that cannot be had."""
    volume_class, given = import_volume_class(config.volume["class_path"]), config.volume["init_args"]
    own = volume_class in OWN_VOLUMES.values()
    arguments = {**given, "grow_at": []} if own and given.get("grow_at") else given
    try:
        with torch.device("meta"):
            return volume_class(**arguments)
    except Exception:  # somebody else's class may fail in any way; ours says why when it is built
        return None


def _keys_of(volume: Volume) -> tuple[str, ...]:
    """The arguments that decide its size: those that ours have, else all of a class that are whole numbers."""
    given = {name: value for name, value in volume.init_args.items() if value is not None}
    numbers = [name for name, value in given.items() if type(value) is int]
    return tuple(f"volume.{name}" for name in [name for name in SIZES if name in given] or numbers) or ("volume",)


def _bytes_of(module: nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())


def _grid(volume: Volume) -> tuple[int, ...] | None:
    """The grid that one of our own volumes is rendered as, or None."""
    if isinstance(volume, BakedField):
        return None if volume.bake_resolution is None else (volume.bake_resolution,) * 3
    return getattr(volume, "resolution", None) if type(volume) in OWN_VOLUMES.values() else None


def _bytes_of_grid(grid: tuple[int, ...] | None, config: Config) -> int:
    if grid is None:
        return 0
    return (GRIDS[config.renderer.quadrature] + torch.get_num_threads()) * CHANNELS * FLOAT * math.prod(grid)


def _of_blocks(config: Config, copies: int) -> int:
    """Bytes of a SparseGrid in a step with the most blocks that it has, or, where that is more, at a growth: of the
    blocks among which it then chooses, beside the weights before.

    Args:
        config: of the run.
        copies: of the weights.
    """
    try:
        with torch.device("meta"):
            started = SparseGrid(**config.volume["init_args"])
    except Exception:  # such as more blocks than its first stage has: said when it is built
        return 0
    of_weights = copies * _bytes_of(started) // len(started.places)
    of_each = of_weights + OF_BLOCK + (torch.get_num_threads() - 1) * OF_BLOCK_A_THREAD
    in_a_step, before, then = started.most_blocks()
    return max(in_a_step * of_each, before * of_weights + then * OF_BLOCK_CHOSEN_FROM)


def _of_discriminator(config: Config) -> tuple[int, int]:
    """Bytes of its weights, and of what its layers hold of one image."""
    size = config.renderer.image_size
    try:
        with torch.device("meta"):
            discriminator = Discriminator(size, num_classes=10, options=config.discriminator)
    except ValueError:  # said when it is built
        return 0, 0
    except (RuntimeError, TypeError, OverflowError):  # a size that does not fit 64 bits
        return UNCOUNTABLE, 0
    pixels = 0
    for layer in discriminator.body:
        if isinstance(layer, nn.Conv2d):
            size = (size + 2 * int(layer.padding[0]) - layer.kernel_size[0]) // layer.stride[0] + 1
            pixels += 2 * layer.out_channels * size**2  # and once more behind the leaky ReLU
    return _bytes_of(discriminator), pixels * (FLOAT if config.trainer.precision == "float32" else FLOAT // 2)


def _snapshots(config: Config) -> int:
    """How many states the watchdog keeps, with the one that is being copied."""
    if config.watchdog != "rewind":
        return 0
    steps = math.inf if config.trainer.max_steps is None else config.trainer.max_steps
    return int(min(SNAPSHOTS + 1, 1 + steps // WINDOW))


def _has_fast_kernel(device: torch.device) -> bool:
    return device.type == "cpu" and importlib.util.find_spec("numba") is not None


def _size(value: Any) -> float:
    """A number, the largest of several, or 1 for what is no number, to tell what stands out."""
    numbers = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, int)]
    return float(min(max([1, *numbers]), UNCOUNTABLE))


def _values(config: Config) -> dict[str, Any]:
    """The configuration with all arguments of its volume, named as they are typed."""
    volume = _shapes_of_volume(config)
    arguments = config.volume["init_args"] if volume is None else volume.init_args
    return {**dataclasses.asdict(config), "volume": arguments or config.volume["class_path"]}
