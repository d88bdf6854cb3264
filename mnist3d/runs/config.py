"""All options in one place: the dataclasses put together, and `config.yaml`.

The whole configuration of a run as data. The options of a part stand beside that part; here are only those that
belong to none.
"""

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from ..callbacks.scores import ScorecardOptions
from ..data.options import DataOptions
from ..errors import ConfigError, RunError
from ..geometry.rotations import PoseOptions
from ..rendering.renderer import RendererOptions
from ..storage.plain_yaml import check_plain, read_yaml_file
from ..storage.run_directory import RunDirectory
from ..training.discriminator import DiscriminatorOptions
from ..training.objectives.adversarial import AdversarialOptions
from ..training.objectives.class_balance import ClassBalanceOptions
from ..training.objectives.diversity import DiversityOptions
from ..training.objectives.nearest_image import NearestImageOptions
from ..training.objectives.target_list import TargetOptions
from ..training.options import TrainerOptions
from ..viewer.options import ViewerOptions
from .validation import shown, validated
from .version_0_1 import moved_or_gone, translated

DEFAULT_VOLUME = "mnist3d.volumes.VoxelGrid"
SECTIONS: dict[str, type] = {
    "data": DataOptions,
    "poses": PoseOptions,
    "renderer": RendererOptions,
    "discriminator": DiscriminatorOptions,
    "adversarial": AdversarialOptions,
    "diversity": DiversityOptions,
    "class_balance": ClassBalanceOptions,
    "nearest_image": NearestImageOptions,
    "targets": TargetOptions,
    "trainer": TrainerOptions,
    "scorecard": ScorecardOptions,
    "viewer": ViewerOptions,
}


@dataclass
class Config:
    """A run, completely described.

    Args:
        seed: Random seed, 0 to 2^63 - 1. On the CPU of the same machine, the same seed and max_steps give the same
            result to the bit.
        device: Where to compute: auto takes a CUDA GPU if there is one, else the CPU.
        deterministic: Add in one order wherever torch can, so that two runs on a GPU are the same to the bit too;
            slower there. The first lines say what may still differ.
        start_from: Voxel file to start from (.npz, .npy, .nrrd, .nii.gz, .mrc, .map, .vti, .vdb and others);
            the volume must be able to take voxels. What is done with its values stands after a #:
            FILE#negative=clip,percentile=99. Or a run, or a .safetensors, with a volume of the same class and
            arguments; mnist3d convert makes one of another class.
        watchdog: What happens when a run goes wrong. warn: a message. rewind: also goes back to the last good state
            with smaller learning rates, and ends the run if that does not help. off: nothing is checked.
        volume: Class path and arguments of the volume, {"class_path": ..., "init_args": {...}}.
        objectives: Class path and arguments of each objective from another package.
    """

    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    deterministic: bool = False
    start_from: str | None = None
    watchdog: Literal["off", "warn", "rewind"] = "rewind"
    volume: dict[str, Any] = field(default_factory=lambda: {"class_path": DEFAULT_VOLUME, "init_args": {}})
    objectives: list[dict[str, Any]] = field(default_factory=list)
    data: DataOptions = field(default_factory=DataOptions)
    poses: PoseOptions = field(default_factory=PoseOptions)
    renderer: RendererOptions = field(default_factory=RendererOptions)
    discriminator: DiscriminatorOptions = field(default_factory=DiscriminatorOptions)
    adversarial: AdversarialOptions = field(default_factory=AdversarialOptions)
    diversity: DiversityOptions = field(default_factory=DiversityOptions)
    class_balance: ClassBalanceOptions = field(default_factory=ClassBalanceOptions)
    nearest_image: NearestImageOptions = field(default_factory=NearestImageOptions)
    targets: TargetOptions = field(default_factory=TargetOptions)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    scorecard: ScorecardOptions = field(default_factory=ScorecardOptions)
    viewer: ViewerOptions = field(default_factory=ViewerOptions)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed={self.seed}: must be in [0, 2^63 - 1]")
        self.volume = _class_and_arguments("volume", {"class_path": DEFAULT_VOLUME, **self.volume})
        self.objectives = [
            _class_and_arguments(f"objectives[{number}]", given) for number, given in enumerate(self.objectives)
        ]

    def to_yaml(self) -> str:
        """The text of `config.yaml`."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False)

    @classmethod
    def from_mapping(cls, values: Any) -> "Config":
        """A configuration from nested mappings of plain values, without importing a class that they name.

        Raises:
            ConfigError: an unknown key, a wrong type or a value out of range.
        """
        refuse_keys_of_0_1(_plain_mapping(values))
        return _config(values)


def refuse_keys_of_0_1(values: dict[Any, Any]) -> None:
    """Say what became of an option of version 0.1, which is no typing error.

    Raises:
        ConfigError: one of them is among the values.
    """
    volume = values.get("volume")
    class_path = volume.get("class_path", DEFAULT_VOLUME) if isinstance(volume, dict) else DEFAULT_VOLUME
    for key in flat(values):
        if message := moved_or_gone(key, f"{class_path}"):
            raise ConfigError(message)


def flat(values: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, whose keys are dotted."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return found


def written_config(values: Any) -> Config:
    """The configuration that this version or 0.1 wrote, into a run directory or beside a volume's weights.

    Args:
        values: what was read, however damaged.

    Raises:
        ConfigError: it is damaged.
    """
    return _config(translated(_plain_mapping(values))[0])


def read_values(run: RunDirectory, *, exactly: bool = False) -> dict[Any, Any]:
    """What the `config.yaml` of a run says, with the keys of this version; a run from Python may leave out defaults.

    Args:
        run: the directory.
        exactly: whether the run is to go on as it was, and not only to be looked at.

    Raises:
        RunError: it is missing or damaged; exactly: it was made with another value of what is a constant now.
    """
    try:
        values = read_yaml_file(run.config_path)
        written_config(values)
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{run.path}: no run lies there, {run.config_path.name} is missing") from None
    except OSError as error:
        raise RunError(f"{run.config_path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        reason = " ".join(str(error).split())[:300]
        raise RunError(f"{run.config_path}: damaged, or of another version ({reason})") from None
    values, differing = translated(values)
    if exactly and differing:
        raise RunError(f"resume={run.path}: {differing[0]}; go on with version 0.1, or start a new run")
    return values


def read_config(run: RunDirectory, *, exactly: bool = False) -> Config:
    """The configuration of a run directory; imports nothing that the file names. As `read_values`."""
    return _config(read_values(run, exactly=exactly))


def _plain_mapping(values: Any) -> dict[Any, Any]:
    check_plain(values)
    if not isinstance(values, dict):
        raise ConfigError(f"{shown(values)}: must be a mapping, {{KEY: VALUE, ...}}")
    return values


def _config(values: dict[Any, Any]) -> Config:
    volume = values.get("volume", {})
    if not isinstance(volume, dict):
        raise ConfigError(f"volume={shown(volume)}: must be a mapping of class_path and init_args")
    return validated(Config, values, "")


def _class_and_arguments(key: str, given: dict[str, Any]) -> dict[str, Any]:
    """A class path and its arguments, complete.

    Raises:
        ConfigError: they are something else.
    """
    path, arguments = given.get("class_path"), given.get("init_args", {})
    named = isinstance(arguments, dict) and all(isinstance(name, str) for name in arguments)
    if not isinstance(path, str) or not named or given.keys() - {"class_path", "init_args"}:
        raise ConfigError(f"{key}={shown(given)}: must be a mapping of class_path and init_args")
    return {"class_path": path, "init_args": copy.deepcopy(arguments)}
