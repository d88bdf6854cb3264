"""What a SPEC.yaml of `mnist3d sweep` says: a run to begin with, what varies, how many at once, when to stop.

Plain values -> `SweepOptions`, checked. Which runs come of it stands in `plan`.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from ..errors import ConfigError, shown
from ..runs.validation import checked, validated
from ..storage.plain_yaml import read_yaml_file

MOST_RUNS = 10_000
SEEDS = 2**63  # that train takes, from 0 on
SCORES = ("balanced", "legible", "clean", "none")
NEWER = ("cores", "gpus", "at_once", "minutes", "keep")  # what may change when a sweep goes on: no run depends on it


@dataclass
class RandomOptions:
    """Configurations that are drawn at random.

    Args:
        count: How many, >= 0; 0: none.
        seed: Of the draws, >= 0.
        values: For each key a list to choose from, or {low: , high: , scale: linear or log}. Whole numbers where low
            and high are.
    """

    count: int = 0
    seed: int = 0
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.count <= MOST_RUNS:
            raise ConfigError(f"random.count={self.count}: must be in [0, {MOST_RUNS}]")
        if self.seed < 0:
            raise ConfigError(f"random.seed={self.seed}: must be >= 0")
        if bool(self.count) != bool(self.values):
            missing = "values" if self.count else "count"
            raise ConfigError(f"random.{missing}: is missing; random needs both, count and values")
        for key, given in self.values.items():
            if not isinstance(given, dict):
                _check_list(f"random.values.{key}", given)
                continue
            low, high = (_finite(given.get(name)) for name in ("low", "high"))
            scale = given.get("scale", "linear")
            unknown = given.keys() - {"low", "high", "scale"}
            if unknown or low is None or high is None or not low < high or _finite(high - low) is None:
                wanted = "a list of values, or {low: NUMBER, high: a larger one, scale: linear or log}"
                raise ConfigError(f"random.values.{key}={shown(given)}: must be {wanted}")
            if scale not in ("linear", "log") or (scale == "log" and low <= 0):
                wanted = "linear, or log where low > 0"
                raise ConfigError(f"random.values.{key}.scale={shown(scale)}: must be {wanted}")
            self.values[key] = {**given, "low": low, "high": high}


@dataclass
class HalvingOptions:
    """Early stopping of the hopeless: asynchronous successive halving.

    Args:
        rungs: Progress at which runs are compared, ascending, each in (0, 1); none: no run is stopped. Needs
            trainer.max_steps.
        eta: At each rung the upper 1/eta go on, >= 1.5.

    Source:
        Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", algorithm 2.
    """

    rungs: list[float] = field(default_factory=list)
    eta: float = 3.0

    def __post_init__(self) -> None:
        ascending = all(low < high for low, high in zip(self.rungs, self.rungs[1:], strict=False))
        if not ascending or not all(0.0 < rung < 1.0 for rung in self.rungs):
            raise ConfigError(f"halving.rungs={shown(self.rungs)}: must be ascending, each progress in (0, 1)")
        if not 1.5 <= self.eta < math.inf:
            raise ConfigError(f"halving.eta={self.eta:g}: must be >= 1.5; the upper 1/eta of the runs go on")


@dataclass
class SweepOptions:
    """A sweep.

    Args:
        base: What all runs have in common: keys of train, and under config a preset or YAML file, or a list of them.
        grid: For each key a list of values; all combinations are run.
        random: Configurations that are drawn.
        configurations: Configurations one by one, each a mapping of keys.
        seeds: How many seeds each configuration is run with, from 0 on, or a list of them.
        score: What runs are compared by, as the classifiers for selection read their views. balanced: legible times
            effective classes / classes; legible, clean: the share alone; none: nothing is compared.
        keep: all, or best: once all is done, the other runs' checkpoints are removed, and their volumes stay.
        cores: Processor cores a run, >= 1.
        gpus: GPUs a run, whole, or in [1/MOST_RUNS, 1): 0 computes without one, .5 lets two runs share one.
        at_once: Runs at the same time, in [1, MOST_RUNS]; default as many as there are cores and GPUs for.
        minutes: After which all runs are stopped and saved, > 0; default no limit.
        halving: Early stopping.
    """

    base: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    random: RandomOptions = field(default_factory=RandomOptions)
    configurations: list[dict[str, Any]] = field(default_factory=list)
    seeds: int | list[int] = 1
    score: Literal["balanced", "legible", "clean", "none"] = "balanced"
    keep: Literal["all", "best"] = "all"
    cores: int = 1
    gpus: float = 0.0
    at_once: int | None = None
    minutes: float | None = None
    halving: HalvingOptions = field(default_factory=HalvingOptions)

    def __post_init__(self) -> None:
        given = [name for name in ("grid", "random", "configurations") if self._varies(name)]
        if len(given) > 1:
            raise ConfigError(f"{given[0]} and {given[1]}: only one of grid, random and configurations can be given")
        for key, values in self.grid.items():
            _check_list(f"grid.{key}", values)
        many = isinstance(self.seeds, int) and self.seeds > MOST_RUNS
        seeds = [*range(0 if many else self.seeds)] if isinstance(self.seeds, int) else self.seeds
        one_each = 0 < len({*seeds}) == len(seeds) <= MOST_RUNS
        if not one_each or not all(0 <= seed < SEEDS for seed in seeds):
            wanted = f"a number in [1, {MOST_RUNS}], or a list of different seeds in [0, 2^63 - 1]"
            raise ConfigError(f"seeds={shown(self.seeds)}: must be {wanted}")
        self.seeds = seeds
        # What there is room for is made before the first run begins, so it must not be endless.
        shared = 1.0 / MOST_RUNS <= self.gpus < 1.0
        whole = 0.0 <= self.gpus < math.inf and self.gpus % 1.0 == 0.0
        checks = {
            "cores": (self.cores >= 1, ">= 1"),
            "gpus": (shared or whole, f"whole, or in [{1.0 / MOST_RUNS}, 1)"),
            "at_once": (self.at_once is None or 1 <= self.at_once <= MOST_RUNS, f"in [1, {MOST_RUNS}]"),
            "minutes": (self.minutes is None or 0.0 < self.minutes < math.inf, "finite and > 0"),
        }
        for name, (valid, wanted) in checks.items():
            if not valid:
                raise ConfigError(f"{name}={getattr(self, name):g}: must be {wanted}")
        for needs, said in ((self.halving.rungs, "halving.rungs"), (self.keep == "best", "keep=best")):
            if needs and self.score == "none":
                raise ConfigError(f"score=none: {said} compares runs; must be one of {', '.join(SCORES[:-1])}")

    def _varies(self, name: str) -> bool:
        value = getattr(self, name)
        return bool(value.count if isinstance(value, RandomOptions) else value)

    def to_yaml(self) -> str:
        """The text of `sweep.yaml`: all that was said, and the defaults."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False)

    def differing(self, other: "SweepOptions") -> list[str]:
        """The keys in which two sweeps would not have the same runs."""
        one, two = dataclasses.asdict(self), dataclasses.asdict(other)
        return [key for key in one if one[key] != two[key] and key not in NEWER]


def read_options(path: Path) -> SweepOptions:
    """The sweep that a YAML file describes.

    Raises:
        ConfigError: one line about the file or a key in it.
    """
    try:
        values = read_yaml_file(path)
        if not isinstance(values, dict):
            raise ConfigError("is empty or no mapping; write lines KEY: VALUE, such as seeds: 8")
        return validated(SweepOptions, _with_plain_keys(values), "")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _with_plain_keys(values: dict[Any, Any]) -> dict[Any, Any]:
    """Nested keys of a run as dotted ones, as a person may write either."""
    found = dict(values)
    for name in ("base", "grid"):
        if isinstance(found.get(name), dict):
            found[name] = _dotted(name, found[name])
    drawn = found.get("random")
    if isinstance(drawn, dict) and isinstance(drawn.get("values"), dict):
        found["random"] = {**drawn, "values": _dotted("random.values", drawn["values"])}
    if isinstance(found.get("configurations"), list):
        each = found["configurations"]
        found["configurations"] = [_dotted("configurations", one) if isinstance(one, dict) else one for one in each]
    return found


def _dotted(name: str, values: dict[Any, Any]) -> dict[str, Any]:
    """Nested mappings as one.

    Raises:
        ConfigError: a key is given twice, in both ways.
    """
    found: dict[str, Any] = {}
    for key, value in _leaves(values, ranges=name == "random.values"):
        if key in found:
            raise ConfigError(f"{name}.{shown(key)}: is given twice, dotted and nested; leave one out")
        found[key] = value
    return found


def _leaves(values: dict[Any, Any], ranges: bool, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; {low: , high: } is a value where there may be ranges."""
    for key, value in values.items():
        if isinstance(value, dict) and not (ranges and {"low", "high"} & value.keys()):
            yield from _leaves(value, ranges, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _finite(value: Any) -> int | float | None:
    """A number, also one that YAML reads as text, such as 1e-3; else None."""
    try:
        number = checked(int | float, value, "")
        return number if math.isfinite(number) else None
    except (ConfigError, OverflowError):
        return None


def _check_list(key: str, values: Any) -> None:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{key}={shown(values)}: must be a list of one value or more")
