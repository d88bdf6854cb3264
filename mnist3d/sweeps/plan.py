"""Which runs a sweep has: names, settings, and the words of the command line that says each.

The same options always give the same runs in the same order, so a sweep that goes on knows its own.
"""

import itertools
import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, shown
from .options import MOST_RUNS, SweepOptions

KEY = r"[A-Za-z_][A-Za-z0-9_.]*"  # an = would end it on the command line, and hide another
LONGEST = 40  # letters of the settings in a name, which is that of a folder
DIGITS = 4  # of a number that is drawn from a wide range
FIRST = ("volume", "volume.class_path")  # said before the options of a volume: another class drops what was said before
OF_THE_SWEEP = {  # keys of `train` that a sweep says itself
    "seed": "by seeds",
    "run_dir": "below its own folder",
    "resume": "for a run that has a checkpoint",
    "trainer.stop_after": "by halving.rungs",
    "viewer.enabled": "as each page would want a port",
    "print_config": "as it trains",
    "trust": "as its runs are its own",
    "help": "as it trains",
}


@dataclass(frozen=True)
class Planned:
    """A run of a sweep.

    Args:
        name: of its folder.
        settings: what distinguishes it, its seed included; by key.
        words: of the command line of `train`, without a folder.
    """

    name: str
    settings: dict[str, Any]
    words: list[str]


def planned(options: SweepOptions, labels: Sequence[str] = ()) -> list[Planned]:
    """All runs: each configuration with the first seed, then with the next.

    Args:
        options: of the sweep.
        labels: of each configuration, for the names of its runs; default its settings.

    Raises:
        ConfigError: more runs than a sweep may have, two that are the same, or a key that is none or that the sweep
            sets itself.
    """
    for name, key in ((name, key) for name, keys in _keys(options).items() for key in keys):
        if not re.fullmatch(KEY, key):
            raise ConfigError(f"{name}.{shown(key)}: no such key; one has letters, digits, _ and dots")
        if key in OF_THE_SWEEP:
            raise ConfigError(f"{name}.{key}: the sweep sets it, {OF_THE_SWEEP[key]}; leave it out")
    for key, values in options.grid.items():
        text, count = Counter(map(as_text, values)).most_common(1)[0]
        if count > 1:
            raise ConfigError(f"grid.{key}: {shown(text)} is given {count} times, for equal runs; leave it once")
    assert isinstance(options.seeds, list)
    # None of a million combinations is made before that is known to be too many.
    total = math.prod([len(values) for values in options.grid.values()]) * len(options.seeds)
    if max(total, len(options.seeds) * (options.random.count or len(options.configurations))) > MOST_RUNS:
        raise ConfigError(f"grid: {total:,} runs; must be {MOST_RUNS:,} at most, so leave out values or seeds")
    runs = []
    for seed, (place, settings) in itertools.product(options.seeds, enumerate(configurations(options))):
        label = labels[place] if labels else _settings_in_words(settings)
        settings = {**settings, "seed": seed}
        files = [*_files(options.base), *_files(settings)]  # first, so that single keys win
        said = {**options.base, **settings}
        keys = sorted((key for key in said if key != "config"), key=lambda key: key not in FIRST)  # else as they are
        words = [*(f"--config={file}" for file in files), *(f"--{key}={as_text(said[key])}" for key in keys)]
        runs.append(Planned(_name(len(runs) + 1, label, seed), settings, words))
    return runs


def _files(settings: dict[str, Any]) -> list[str]:
    given = settings.get("config", [])
    return [as_text(each) for each in (given if isinstance(given, list) else [given])]


def _keys(options: SweepOptions) -> dict[str, list[str]]:
    """All keys of a run that are given, by where they stand."""
    listed = [key for each in options.configurations for key in each]
    return {
        "base": [*options.base],
        "grid": [*options.grid],
        "random.values": [*options.random.values],
        "configurations": listed,
    }


def configurations(options: SweepOptions) -> list[dict[str, Any]]:
    """What varies, without the seeds."""
    if options.grid:
        values = itertools.product(*options.grid.values())
        return [dict(zip(options.grid, each, strict=True)) for each in values]
    if options.random.count:
        return [*_drawn(options)]
    return options.configurations or [{}]


def _drawn(options: SweepOptions) -> Iterator[dict[str, Any]]:
    """Of Python's generator only `random` is used, which gives the same numbers in every version."""
    generator = random.Random(options.random.seed)
    for _ in range(options.random.count):
        drawn: dict[str, Any] = {}
        for key, given in options.random.values.items():
            share = generator.random()
            if isinstance(given, list):
                drawn[key] = given[int(share * len(given))]
                continue
            low, high = given["low"], given["high"]
            whole = isinstance(low, int) and isinstance(high, int)
            if given.get("scale", "linear") == "log":
                value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
            else:
                value = low + share * (high - low)
            value = round(value) if whole else float(f"{value:.{_digits(low, high)}g}")
            drawn[key] = type(value)(min(high, max(low, value)))
        yield drawn


def _digits(low: int | float, high: int | float) -> int:
    """More in a narrow range, whose numbers have their first digits in common; 17 tell all numbers apart."""
    return min(DIGITS + int(math.log10(max(abs(low), abs(high), high - low) / (high - low))), 17)


def as_text(value: Any) -> str:
    """A value as it is typed behind a flag: JSON is YAML."""
    return value if isinstance(value, str) else json.dumps(value)


def _settings_in_words(settings: dict[str, Any]) -> str:
    """The last part of each key and its value."""
    return "-".join(f"{key.rpartition('.')[2]}_{_short(value)}" for key, value in settings.items())


def _name(number: int, label: str, seed: int) -> str:
    """001-resolution_32-seed_0: only what every file system takes."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", label)[:LONGEST].strip("._-")
    return "-".join(filter(None, [f"{number:03d}", safe, f"seed_{seed}"]))


def _short(value: Any) -> str:
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else as_text(value)
