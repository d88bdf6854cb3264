"""From a configuration to the parts of a run, built once, from top to bottom."""

import dataclasses
import difflib
import importlib
import inspect

import torch

from ..errors import ConfigError
from ..rendering.renderer import AbsorptionRenderer
from ..volumes import OWN_VOLUMES, Volume, class_path
from .config import Config


def import_volume_class(class_path: str) -> type[Volume]:
    """The class of a volume; imports the module that the path names, so the path must come from the user.

    Args:
        class_path: package.module.Class, or the bare name of one of our own.

    Raises:
        ConfigError: no volume class has that path, or its module cannot be imported; the message says why.
    """
    module, _, name = class_path.rpartition(".")
    if not all(part.isidentifier() for part in class_path.split(".")) or (not module and name not in OWN_VOLUMES):
        raise ConfigError(
            f"volume={class_path}: no such volume class; allowed are our own ({', '.join(OWN_VOLUMES)}) "
            "or a class path package.Class"
        )
    if not module:
        return OWN_VOLUMES[name]
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # somebody else's module may fail in any way
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"volume={class_path}: no module named {error.name}; is it installed, or its folder on PYTHONPATH? "
                f"Our own volumes are {', '.join(OWN_VOLUMES)}"
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
