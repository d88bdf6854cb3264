"""Libraries that single formats need, imported when such a file is read or written."""

import importlib
from types import ModuleType

from ..errors import ExportError, UserError
from ..invocation import CLONE


def require(
    module: str,
    purpose: str,
    package: str | None = None,
    *,
    remedy: str | None = None,
    error: type[UserError] = ExportError,
) -> ModuleType:
    """An optional library.

    Args:
        module: import name.
        purpose: what needs it, for the message.
        package: its name on PyPI where that differs.
        remedy: how it is installed; default by the extra export.
        error: the kind to raise: `VolumeFileError` where a file is read.

    Raises:
        UserError: of that kind; it is not installed, and the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise error(f"{purpose} needs {package or module}: {remedy or to_install('export')}") from None


def to_install(extra: str) -> str:
    """What to type for an extra of this package: in the clone that is installed, or for a wheel."""
    in_clone = (CLONE / "setup.py").is_file()
    return f'pip install -e ".[{extra}]"' if in_clone else f'pip install "mnist3d[{extra}]"'
