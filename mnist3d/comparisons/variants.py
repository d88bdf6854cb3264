"""The variants that are compared: which settings each has, what it is called, and the runs of a sweep that come of it.

Names -> settings. No class is imported here: what a name means is checked where its runs are.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, shown
from ..runs.validation import did_you_mean
from ..sweeps.options import MOST_RUNS, SweepOptions
from ..sweeps.plan import OF_THE_SWEEP
from ..volumes import OWN_VOLUMES
from .options import CompareOptions, is_yaml

# The preset in which each of our own volumes was tuned; research/log.md has the figures.
TUNED = {
    "VoxelGrid": "digits",
    "HashGrid": "hash_grid",
    "VMGrid": "tensorf",
    "TriPlane": "triplane",
    "FourierMLP": "fourier_mlp",
    "SparseGrid": "sparse_grid",
}
SCORES, OFTEN = 20, 10.0  # in a run at most, and seconds between two of them at least: a point of a learning curve each
OF_THE_COMPARISON = {  # keys of `train` that a comparison says itself
    **{key: why.replace("halving.rungs", "minutes or steps") for key, why in OF_THE_SWEEP.items()},
    "volume": "by volumes",
    "volume.class_path": "by volumes",
    "config": "by config, or by a preset among the volumes",
    "trainer.max_steps": "by steps",
    "trainer.max_minutes": "by minutes",
    "scorecard.every": "for its learning curves",
}
DEFAULTS = "defaults"  # in place of a preset
OURS = ("mnist3d", "mnist3d.volumes")  # where our own volumes stand


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Args:
        label: what it is called.
        preset: what its runs begin with, in words; `DEFAULTS` without a preset.
        settings: keys of `train`, and config.
    """

    label: str
    preset: str
    settings: dict[str, Any]


def variants_of(options: CompareOptions, presets: Sequence[str]) -> list[Variant]:
    """All variants: each volume with all combinations of the values.

    Args:
        options: what is compared.
        presets: the names of all presets.

    Raises:
        ConfigError: a name means nothing, a key is set by the comparison itself, or there are too many runs.
    """
    for flag, key in (*(("vary", key) for key in options.vary), *(("set", key) for key in options.set)):
        if key in OF_THE_COMPARISON:
            raise ConfigError(f"{flag} {key}: the comparison sets it, {OF_THE_COMPARISON[key]}; leave it out")
    count = math.prod([len(options.volumes) or 1, len(options.seeds), *map(len, options.vary.values())])
    if count > MOST_RUNS:
        raise ConfigError(f"vary: {count:,} runs; must be {MOST_RUNS:,} at most, so leave out values or seeds")
    volumes = [_of_a_name(name, options.config, presets) for name in options.volumes]
    volumes = _with_different_labels(volumes, options.volumes) or [_of_the_default(options.config)]
    keys = _short_names([*options.vary])
    found = []
    for volume, values in itertools.product(volumes, itertools.product(*options.vary.values())):
        said = [f"{short} {value}" for short, value in zip(keys, values, strict=True)]
        label = ", ".join(filter(None, [volume.label, *said]))
        settings = {**volume.settings, **dict(zip(options.vary, values, strict=True))}
        found.append(Variant(label, volume.preset, settings))
    return found


def swept(options: CompareOptions, variants: Sequence[Variant]) -> SweepOptions:
    """The sweep whose runs are those of a comparison.

    Raises:
        ConfigError: cores, gpus or at_once is out of range.
    """
    # Both, as the preset or file that a run begins with may have a limit of the other kind.
    length: dict[str, Any] = {"trainer.max_steps": options.steps, "trainer.max_minutes": None}
    every: int | str = max(1, (options.steps or 1) // SCORES)
    if options.minutes is not None:
        length = {"trainer.max_steps": None, "trainer.max_minutes": options.minutes}
        every = f"{max(60.0 * options.minutes / SCORES, min(OFTEN, 7.5 * options.minutes), 0.01):.6g}s"
    return SweepOptions(
        base={**options.set, **length, "scorecard.every": every},
        configurations=[variant.settings for variant in variants],
        seeds=[*options.seeds],
        score="none",
        cores=options.cores,
        gpus=options.gpus,
        at_once=options.at_once,
    )


def _of_a_name(name: str, config: str | None, presets: Sequence[str]) -> Variant:
    """A volume, or a preset or file that has one.

    Raises:
        ConfigError: it is neither.
    """
    place, _, last = name.rpartition(".")
    if last in OWN_VOLUMES and place in ("", *OURS):
        preset = config or TUNED.get(last)
        if preset is None or (config is None and preset not in presets):
            return Variant(last, DEFAULTS, {"volume": last})
        return Variant(last, _in_words(preset), {"config": preset, "volume": last})
    if name in presets or is_yaml(name):
        return Variant(Path(name).stem, _in_words(name), {"config": [*_listed(config), name]})
    if place and all(part.isidentifier() for part in name.split(".")):
        base = {} if config is None else {"config": config}
        return Variant(last, DEFAULTS if config is None else _in_words(config), {**base, "volume": name})
    meant = did_you_mean(last if place in OURS else name, [*OWN_VOLUMES, *presets])
    wanted = f"one of {', '.join(OWN_VOLUMES)}, a class path package.Class, a preset or a YAML file"
    raise ConfigError(f"volumes={shown(name)}: no such volume or preset{meant}{'' if meant else f'; must be {wanted}'}")


def _of_the_default(config: str | None) -> Variant:
    """Where only values of keys are compared."""
    return Variant("", _in_words(config or TUNED["VoxelGrid"]), {"config": config or TUNED["VoxelGrid"]})


def _listed(config: str | None) -> list[str]:
    return [] if config is None else [config]


def _in_words(config: str) -> str:
    return Path(config).name


def _with_different_labels(found: list[Variant], names: Sequence[str]) -> list[Variant]:
    """Two classes, or files, of one name go by their whole paths."""
    labels = [variant.label for variant in found]
    return [
        variant if labels.count(variant.label) == 1 else Variant(name, variant.preset, variant.settings)
        for variant, name in zip(found, names, strict=True)
    ]


def _short_names(keys: Sequence[str]) -> list[str]:
    """The last part of each key where that is enough to tell them apart."""
    last = [key.rpartition(".")[2] for key in keys]
    return [short if last.count(short) == 1 else key for key, short in zip(keys, last, strict=True)]
