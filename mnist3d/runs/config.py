"""All options in one place: the dataclasses put together, `config.yaml`, `load_run`.

What it is: the whole configuration of a run, and building the parts from it. What it is not: it holds no option
of its own beyond seed and device (each stands beside its part), and it parses no command line.
"""

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from ..callbacks.scores import ScorecardOptions
from ..callbacks.watchdog import WatchdogOptions
from ..data.options import DataOptions
from ..errors import ConfigError, RunError
from ..geometry.rotations import PoseOptions
from ..rendering.renderer import RendererOptions
from ..storage.run_directory import RunDirectory
from ..training.discriminator import DiscriminatorOptions
from ..training.gan_losses import LossOptions
from ..training.objectives.target_list import TargetOptions
from ..training.trainer import TrainerOptions
from ..viewer.options import ViewerOptions

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
MAX_CONFIG_VALUES = 100_000


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
