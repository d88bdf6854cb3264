"""How a thing shows itself in a notebook: as HTML, and never with an exception.

A volume lies below what can draw it (`export`), so it cannot import that. What draws a volume is therefore set from
above: `mnist3d/__init__.py` does so, which Python runs before any other module of the package.
"""

import html
from collections.abc import Callable
from typing import Any

volume_html: Callable[[Any], str] | None = None
"""What writes the HTML of a volume; None: a notebook shows its text."""


def shown(thing: object, write: Callable[[], str]) -> str:
    """The HTML that `write` makes; what went wrong, as text below the thing's own, where it cannot."""
    try:
        return write()
    except Exception as error:
        reason = f"No picture of it: {type(error).__name__}: {error}"
    try:
        text = repr(thing)
    except Exception as error:
        text = f"{type(thing).__name__} ({type(error).__name__}: {error})"
    return f"<pre>{html.escape(text)}\n{html.escape(reason)}</pre>"
