"""Libraries that single formats need, imported when such a file is read or written."""

import importlib
from pathlib import Path
from types import ModuleType

from ..errors import ExportError, VolumeFileError


def require(module: str, purpose: str, package: str | None = None) -> ModuleType:
    """An optional library.

    Args:
        module: import name.
        purpose: what needs it, for the message.
        package: its name on PyPI where that differs.

    Raises:
        ExportError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ExportError(f"{purpose} needs {package or module}: pip install -e '.[export]'") from None


def library(module: str, path: Path, package: str | None = None) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        remedy = "" if package and package.startswith("OpenVDB") else ": pip install " + (package or module)
        raise VolumeFileError(f"{path}: reading it needs {package or module}{remedy}") from None
