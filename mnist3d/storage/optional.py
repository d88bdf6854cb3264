"""Libraries that single formats need, imported when such a file is read or written."""

import importlib
from types import ModuleType

from ..errors import ExportError, UserError


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
        remedy: how it is installed; default by pip.
        error: the kind to raise: `VolumeFileError` where a file is read.

    Raises:
        UserError: of that kind; it is not installed, and the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        remedy = remedy or f"pip install {package or module} (the extra export of mnist3d brings all of them)"
        raise error(f"{purpose} needs {package or module}: {remedy}") from None
