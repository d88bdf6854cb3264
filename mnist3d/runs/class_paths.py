"""A class of a volume or of an objective by its path, such as `my_package.Beads`.

The one place that imports what a configuration names. Whoever calls it vouches that the path comes from the user; one
in a run directory or in a volume file does not.
"""

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Mapping
from typing import Any, TypeGuard, TypeVar

from ..errors import ConfigError
from ..training.objectives.base import Objective
from ..volumes import OWN_VOLUMES, Volume, class_path
from ..volumes.files import OWN_PACKAGE

Base = TypeVar("Base", bound=type)


def import_volume_class(path: str) -> type[Volume]:
    """The class of a volume: `package.module.Class`, or the bare name of one of our own.

    Raises:
        ConfigError: as `import_class`.
    """
    return import_class("volume", path, Volume, OWN_VOLUMES)


def import_objective_class(path: str) -> type[Objective]:
    """The class of somebody else's objective, `package.module.Class`.

    Raises:
        ConfigError: as `import_class`, or its `name` is invalid as the name of its options.
    """
    found = import_class("objectives", path, Objective, {})
    name = getattr(found, "name", None)
    if not isinstance(name, str) or re.fullmatch("[a-z][a-z_0-9]*", name) is None:
        raise ConfigError(
            f"objectives={path}: its name is {name!r}; the class needs an attribute such as name = 'total_variation', "
            "of lower-case letters, digits and _"
        )
    return found


def import_class(key: str, path: str, base: type[Any], own: Mapping[str, type[Any]]) -> type[Any]:
    """A class that can be built; imports the module that the path names, so the path must come from the user.

    Args:
        key: of the configuration, for messages.
        path: package.module.Class, or one of the names of `own`.
        base: what it must be a subclass of.
        own: classes that go by their bare name.

    Raises:
        ConfigError: no such class has that path, or its module cannot be imported; the message says why.
    """
    kind = base.__name__.lower()
    ours = f"one of our own ({', '.join(own)}) or a class path package.Class" if own else "a class path package.Class"
    module, _, name = path.rpartition(".")
    if not all(part.isidentifier() for part in path.split(".")) or (not module and name not in own):
        raise ConfigError(f"{key}={path}: no such {kind} class; must be {ours}")
    if not module:
        return own[name]
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (Exception, SystemExit) as error:  # somebody else's module may fail in any way
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            also = f" Our own {kind}s are {', '.join(own)}" if own else ""
            raise ConfigError(
                f"{key}={path}: no module named {error.name}; is it installed, or its folder on PYTHONPATH?{also}"
            ) from None
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{key}={path}: importing {module} failed ({reason})") from None
    if found is None:
        names = [key for key, value in vars(sys.modules[module]).items() if is_buildable(value, base)]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f", did you mean {module}.{near[0]}?" if near else f"; it has {', '.join(names) or f'no {kind} class'}"
        raise ConfigError(f"{key}={path}: no such {kind} class, {module} has no {name}{hint}")
    if not is_buildable(found, base):
        flaw = "is abstract" if isinstance(found, type) and issubclass(found, base) else f"is no {base.__name__}"
        owed = " and a ".join(sorted(getattr(base, "__abstractmethods__", ())))
        raise ConfigError(f"{key}={path}: {flaw}; it must be a subclass of {_public_path(base)} with a {owed}")
    return found


def is_buildable(value: object, base: Base) -> TypeGuard[Base]:
    """Whether this is a class, derived from `base`, that lacks nothing."""
    return isinstance(value, type) and issubclass(value, base) and not inspect.isabstract(value)


def full_path(found: type[Any]) -> str:
    """The path that a run directory names a class by; our own volumes under their public place."""
    return class_path(found) if issubclass(found, Volume) else f"{found.__module__}.{found.__qualname__}"


def _public_path(base: type[Any]) -> str:
    if getattr(sys.modules[OWN_PACKAGE], base.__name__, None) is base:
        return f"{OWN_PACKAGE}.{base.__name__}"
    return f"{base.__module__}.{base.__qualname__}"
