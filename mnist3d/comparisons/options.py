"""What `mnist3d compare` compares: volumes, values of any keys, seeds, and how long each run is.

Text as somebody typed it -> `CompareOptions`, checked, and the same as `comparison.yaml`.
"""

import dataclasses
import math
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ..errors import ConfigError, RunError, shown
from ..runs.validation import validated
from ..storage.plain_yaml import read_yaml_file
from ..sweeps.options import MOST_RUNS, SEEDS

SPEC_FILE = "comparison.yaml"
DEFAULT_MINUTES, DEFAULT_SEEDS = 3.0, (0, 1, 2)
PLACES = ("cores", "gpus", "at_once")  # where runs are made
# Of these, what may change when a comparison goes on. In equal time a run makes more steps on more cores.
NEWER = {"minutes": ("at_once",), "steps": PLACES}
YAML = (".yaml", ".yml")  # in small or capital letters


@dataclass
class CompareOptions:
    """A comparison.

    Args:
        volumes: Volumes of our own, class paths, presets and YAML files.
        vary: For each key of train the values that are compared, as they are typed.
        set: Keys of train that all runs have, as they are typed.
        config: Preset or YAML file that all runs begin with, in place of each volume's own preset.
        minutes: Training time of each run, > 0; None where steps count.
        steps: Of each run, >= 1; None where time counts.
        seeds: Of each variant.
        cores: Processor cores a run, >= 1.
        gpus: GPUs a run.
        at_once: Runs at the same time; default as many as there are cores and GPUs for.
    """

    volumes: list[str] = field(default_factory=list)
    vary: dict[str, list[str]] = field(default_factory=dict)
    set: dict[str, str] = field(default_factory=dict)
    config: str | None = None
    minutes: float | None = None
    steps: int | None = None
    seeds: list[int] = field(default_factory=lambda: [*DEFAULT_SEEDS])
    cores: int = 1
    gpus: float = 0.0
    at_once: int | None = None

    def __post_init__(self) -> None:
        if not self.volumes and not self.vary:
            raise ConfigError("volumes and vary: one of the two must be given, such as --volumes VoxelGrid,HashGrid")
        values = [value for each in self.vary.values() for value in each]
        if not all(isinstance(text, str) for text in (*self.volumes, *self.vary, *values, *self.set.values())):
            raise ConfigError("volumes, vary and set: hold something else than text")  # in a file that was edited
        if self.minutes is not None and self.steps is not None:
            raise ConfigError("minutes and steps: runs are as long as one of the two; give only one")
        if self.minutes is None and self.steps is None:
            self.minutes = DEFAULT_MINUTES
        if self.minutes is not None and not 0.0 < self.minutes < math.inf:
            raise ConfigError(f"minutes={self.minutes:g}: must be finite and > 0")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps={self.steps}: must be >= 1")
        check_seeds(self.seeds)
        for name, listed in (("volumes", self.volumes), *((f"vary {key}", each) for key, each in self.vary.items())):
            twice = [text for text, count in Counter(listed).items() if count > 1]
            if twice:
                raise ConfigError(f"{name}: {shown(twice[0])} is given {listed.count(twice[0])} times; leave it once")
        for key in self.vary.keys() & self.set.keys():
            raise ConfigError(f"vary and set: both have {key}; leave it out of one of the two")

    @property
    def length(self) -> str:
        """How long each run is, in words."""
        return f"{self.minutes:g} minutes" if self.minutes is not None else f"{self.steps:,} steps"

    def to_yaml(self) -> str:
        """The text of `comparison.yaml`."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False)

    def differing(self, other: "CompareOptions") -> list[str]:
        """The keys in which two comparisons would not have the same runs."""
        one, two = dataclasses.asdict(self), dataclasses.asdict(other)
        newer = NEWER["steps" if self.minutes is None else "minutes"]
        return [key for key in one if one[key] != two[key] and key not in newer]

    def words(self) -> list[str]:
        """What to type behind `mnist3d compare` to say the same again."""
        length = ["--minutes", _exact(self.minutes)] if self.minutes is not None else ["--steps", f"{self.steps}"]
        given = ["--volumes", ",".join(self.volumes)] if self.volumes else []
        for key, values in self.vary.items():
            given += ["--vary", f"{key}={','.join(values)}"]
        given += [*length, "--seeds", ",".join(map(str, self.seeds))]
        given += [] if self.config is None else ["--config", self.config]
        for key, value in self.set.items():
            given += ["--set", f"{key}={value}"]
        given += [] if self.cores == 1 else ["--cores", f"{self.cores}"]
        given += [] if self.gpus == 0.0 else ["--gpus", _exact(self.gpus)]
        given += [] if self.at_once is None else ["--at_once", f"{self.at_once}"]
        return given

    @property
    def places_in_words(self) -> str:
        """What a run has: "1 core", "2 cores and 1 GPU"."""
        cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        return cores if self.gpus == 0.0 else f"{cores} and {self.gpus:g} GPU{'s' if self.gpus > 1.0 else ''}"

    def as_typed(self) -> str:
        """The same as one command line."""
        return shlex.join(["mnist3d", "compare", *self.words()])


def check_seeds(seeds: Sequence[int]) -> None:
    """Fail on no seeds, two that are the same, and what no run takes.

    Raises:
        ConfigError: they are that.
    """
    one_each = 0 < len({*seeds}) == len(seeds) <= MOST_RUNS
    if not one_each or not all(0 <= seed < SEEDS for seed in seeds):
        given = ",".join(map(str, seeds))
        raise ConfigError(f"seeds={shown(given)}: must be different whole numbers in [0, 2^63 - 1], such as 0,1,2")


def read_options(path: Path) -> CompareOptions:
    """The comparison that a folder says it holds.

    Raises:
        RunError: one line about the file.
    """
    try:
        return validated(CompareOptions, read_yaml_file(path), "")
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise RunError(f"{path}: damaged ({error}); begin the comparison anew") from None


def volume_names(text: str) -> list[str]:
    """Likewise the names of volumes; a YAML file that lies there is one, whatever commas its name has."""
    found, parts = [], [*_parts(text)]
    while parts:
        names = {count: ",".join(parts[:count]).strip() for count in range(len(parts), 0, -1)}
        count = next((count for count, name in names.items() if is_yaml(name) and os.path.isfile(name)), 1)
        found.append(names[count])
        parts = parts[count:]
    return [*filter(None, found)]


def is_yaml(name: str) -> bool:
    """Whether a name is that of a YAML file."""
    return Path(name).suffix.lower() in YAML


def comma_separated(text: str) -> list[str]:
    """Values as they are typed in one word: a,b,[c,d] are three. Empty ones are left out.

    Args:
        text: commas within brackets and quotes belong to a value.
    """
    return [value for value in map(str.strip, _parts(text)) if value]


def _exact(value: float) -> str:
    """A number in as few digits as say it."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _parts(text: str) -> Iterator[str]:
    depth, quote, begin = 0, "", 0
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in ")}]":
            depth -= 1
        elif letter == "," and depth <= 0:
            yield text[begin:place]
            begin = place + 1
    yield text[begin:]
