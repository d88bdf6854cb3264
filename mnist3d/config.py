"""All options in one place: the dataclasses put together, `config.yaml`, `load_run`.

What it is: the whole configuration of a run, and building the parts from it. What it is not: it holds no option
of its own beyond seed and device (each stands beside its part), and it parses no command line.
"""

import copy
import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from . import volumes
from .datasets import DataError, DataOptions
from .discriminator import DiscriminatorOptions
from .losses import LossOptions
from .poses import PoseOptions
from .renderer import AbsorptionRenderer, RendererOptions
from .run_directory import RunDirectory, RunError
from .score_hook import ScorecardOptions
from .targets import TargetOptions
from .trainer import TrainerOptions
from .viewer.options import ViewerOptions
from .volumes import Volume, VolumeFileError, class_path, load_volume, read_description
from .watchdog import WatchdogOptions

DEFAULT_VOLUME = "mnist3d.volumes.VoxelGrid"
# A run's own beside the class's: coarse until the pull to real pictures begins (`losses.nearest_from`), then finer.
DEFAULT_VOLUME_ARGUMENTS: dict[str, Any] = {"resolution": 64, "grow_at": [0.3]}
SECTIONS: dict[str, type] = {
    "data": DataOptions,
    "poses": PoseOptions,
    "renderer": RendererOptions,
    "discriminator": DiscriminatorOptions,
    "losses": LossOptions,
    "targets": TargetOptions,
    "trainer": TrainerOptions,
    "scorecard": ScorecardOptions,
    "watchdog": WatchdogOptions,
    "viewer": ViewerOptions,
}


class ConfigError(ValueError):
    """A key, value or file of the user's that is not allowed; the message is one line."""


MAX_CONFIG_VALUES = 100_000
USER_ERRORS = (ConfigError, DataError, RunError, VolumeFileError)


@dataclass
class Config:
    """A run, completely described.

    Args:
        seed: Of everything random, 0 to 2^63 - 1; the same seed, machine and CPU with max_steps give the same result to
            the bit.
        device: Where to compute: auto (a CUDA GPU where there is one), cpu or cuda.
        volume: Class path and arguments of the volume, {"class_path": ..., "init_args": {...}}.
    """

    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    volume: dict[str, Any] = field(
        default_factory=lambda: {"class_path": DEFAULT_VOLUME, "init_args": copy.deepcopy(DEFAULT_VOLUME_ARGUMENTS)}
    )
    data: DataOptions = field(default_factory=DataOptions)
    poses: PoseOptions = field(default_factory=PoseOptions)
    renderer: RendererOptions = field(default_factory=RendererOptions)
    discriminator: DiscriminatorOptions = field(default_factory=DiscriminatorOptions)
    losses: LossOptions = field(default_factory=LossOptions)
    targets: TargetOptions = field(default_factory=TargetOptions)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    scorecard: ScorecardOptions = field(default_factory=ScorecardOptions)
    watchdog: WatchdogOptions = field(default_factory=WatchdogOptions)
    viewer: ViewerOptions = field(default_factory=ViewerOptions)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed={self.seed}: allowed are whole numbers from 0 to 2^63 - 1")

    def to_yaml(self) -> str:
        """The text of `config.yaml`."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False)

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> "Config":
        """A configuration from what `config.yaml` holds, without importing the volume's class.

        Raises:
            ConfigError: an unknown key or a value out of range.
        """
        volume = values.get("volume", {})
        if not isinstance(volume, dict) or not isinstance(volume.get("init_args", {}), dict):
            raise ConfigError(f"volume={volume}: it must be a mapping of class_path and init_args")
        try:
            sections = {name: part(**values[name]) for name, part in SECTIONS.items() if name in values}
            return cls(**{**values, **sections})
        except (TypeError, ValueError) as error:
            raise ConfigError(" ".join(str(error).split())) from None


def import_volume_class(class_path: str) -> type[Volume]:
    """The class of a volume; imports the module that the path names, so the path must come from the user.

    Args:
        class_path: package.module.Class, or the bare name of one of our own.

    Raises:
        ConfigError: no volume class has that path, or its module cannot be imported; the message says why.
    """
    module, _, name = class_path.rpartition(".")
    if not all(part.isidentifier() for part in class_path.split(".")) or (not module and name not in own_volumes()):
        raise ConfigError(
            f"volume={class_path}: no such volume class; allowed are our own ({', '.join(own_volumes())}) "
            "or a class path package.Class"
        )
    if not module:
        return own_volumes()[name]
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # somebody else's module may fail in any way
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"volume={class_path}: no module named {error.name}; is it installed, or its folder on PYTHONPATH? "
                f"Our own volumes are {', '.join(own_volumes())}"
            ) from None
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"volume={class_path}: importing {module} failed ({reason})") from None
    if found is None:
        names = [key for key, value in vars(importlib.import_module(module)).items() if is_backend(value)]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f", did you mean {module}.{near[0]}?" if near else f"; it has {', '.join(names) or 'no volume class'}"
        raise ConfigError(f"volume={class_path}: no such volume class, {module} has no {name}{hint}")
    if not is_backend(found):
        flaw = "is abstract" if isinstance(found, type) and issubclass(found, Volume) else "is no Volume"
        raise ConfigError(f"volume={class_path}: {flaw}; it must be a subclass of mnist3d.Volume with a forward")
    return found


def is_backend(value: object) -> bool:
    """Whether this is a class of volumes that can be built."""
    return isinstance(value, type) and issubclass(value, Volume) and not inspect.isabstract(value)


def own_volumes() -> dict[str, type[Volume]]:
    """Our own backends by their short names."""
    return {name: value for name, value in sorted(vars(volumes).items()) if is_backend(value)}


def build_device(config: Config) -> torch.device:
    """The device that a configuration asks for.

    Raises:
        ConfigError: a GPU was asked for by name and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch sees no CUDA GPU here; allowed are cpu and auto")
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def build_volume(config: Config) -> Volume:
    """A fresh volume, on the CPU, from torch's own random generator.

    Raises:
        ConfigError: the class refuses its arguments.
    """
    volume_class = import_volume_class(config.volume["class_path"])
    try:
        return volume_class(**config.volume["init_args"])
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"volume.{' '.join(str(error).split())}") from None


def spelt_out(config: Config, volume: Volume) -> Config:
    """The configuration with all arguments of its volume, so that a version with other defaults can repeat the run.

    Args:
        config: what the volume was built from.
        volume: just built.
    """
    arguments = {**volume.init_args, **config.volume["init_args"]}
    return dataclasses.replace(config, volume={"class_path": class_path(type(volume)), "init_args": arguments})


def build_renderer(config: Config) -> AbsorptionRenderer:
    """The renderer that a configuration describes."""
    options = config.renderer
    return AbsorptionRenderer(**dataclasses.asdict(options))


def read_config(run: RunDirectory) -> Config:
    """The configuration of a run directory; imports nothing that the file names.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        if run.config_path.exists() and not run.config_path.is_file():  # a pipe would be waited for
            raise ValueError("no plain file")
        values = yaml.safe_load(run.config_path.read_text(encoding="utf-8"))
        _check_small(values)
        return Config.from_mapping(values if isinstance(values, dict) else {"file": values})
    except FileNotFoundError:
        raise RunError(f"{run.path}: no run lies there, {run.config_path.name} is missing") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:300]
        raise RunError(f"{run.config_path}: damaged, or of another version ({reason})") from None


def _check_small(values: Any) -> None:
    """A few lines of YAML aliases can stand for more values than a message about them could hold."""
    left, count = [values], 0
    while left:
        value, count = left.pop(), count + 1
        if count > MAX_CONFIG_VALUES:
            raise ValueError(f"more than {MAX_CONFIG_VALUES} values")
        left.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())


@dataclass
class Run:
    """A finished or running run, as it lies on disk.

    Args:
        path: the run directory.
        config: what it was started with.
        volume: the averaged volume, on the CPU.
        renderer: makes the pictures that the discriminator saw.
        origin: name of the run or file, step (None: not said there) and as much of the configuration as was found, as
            JSON can hold it.
    """

    path: Path
    config: Config
    volume: Volume
    renderer: AbsorptionRenderer
    origin: dict[str, Any] = field(default_factory=dict)


def load_sculpture(path: str | Path, *, trusted: Sequence[type[Volume]] = ()) -> Run:
    """Read a run directory, or a volume file on its own.

    A lone volume file says itself how it is rendered; the rest of its configuration is the default.

    Raises:
        RunError, VolumeFileError, ConfigError: as `load_run`.
    """
    path = Path(path)
    if not path.is_file():
        return load_run(path, trusted=trusted)
    volume = load_volume(path, trusted=trusted)
    description = read_description(path)
    volume_spec = {"class_path": description["class_path"], "init_args": description["init_args"]}
    known = {"volume": volume_spec, "renderer": description.get("renderer", {})}
    config = Config.from_mapping(known)
    origin = {"run": path.name, "step": description.get("step"), "config": known}
    return Run(path.parent, config, volume.eval().requires_grad_(False), build_renderer(config), origin)


def load_run(path: str | Path, *, trusted: Sequence[type[Volume]] = ()) -> Run:
    """Read a run directory.

    Args:
        path: the folder.
        trusted: volume classes outside this package that may be built.

    Raises:
        RunError: no run lies there, or its configuration is damaged.
        VolumeFileError: it has no volume yet, a damaged one, or one of a class that is not trusted.
    """
    run = RunDirectory(path)
    config = read_config(run)
    volume = load_volume(run.volume_path, trusted=trusted)
    step = read_description(run.volume_path).get("step")
    origin = {"run": run.path.resolve().name, "step": step, "config": dataclasses.asdict(config)}
    return Run(run.path, config, volume.eval().requires_grad_(False), build_renderer(config), origin)
