"""What can be wrong with what a user gave: one `UserError`, and its kinds.

Every message is one line: which key or file, what was given, what it must be, what to do.
"""

import unicodedata
from typing import Any

SHOWN = 100  # characters of a value in a message
LONGEST = 2000  # characters of a message
# Control characters, halves of characters, separators of lines, and what turns the direction of writing or is unseen;
# the two joiners are letters' own.
HIDDEN = ("Cc", "Cs", "Zl", "Zp", "Cf")
JOINERS = "\u200c\u200d"


class UserError(Exception):
    """Something that the user can mend; a command prints its message as one line and ends with exit code 2."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class ConfigError(UserError, ValueError):
    """A key, value or file of the configuration that is invalid."""


class DataError(UserError, ValueError):
    """Images that are missing, unreadable or do not fit."""


class VolumeFileError(UserError, ValueError):
    """A volume file that is missing, damaged, of another format, or of a class that is not trusted."""


class ExportError(UserError, ValueError):
    """A file that cannot be made as asked."""


class RunError(UserError, RuntimeError):
    """A run directory that is missing, incomplete, taken or damaged."""


class WriteError(UserError, RuntimeError):
    """A file that cannot be written: a full disk, a folder without permission."""


class WatchdogGaveUp(RuntimeError):
    """A run went wrong, and going back did not help; its last good state is saved. No mistake of the user's."""


class NotSaved(WatchdogGaveUp):
    """A run whose last state holds numbers that are not finite, so it is in no file; what was saved before stays."""


class RunsFailed(RuntimeError):
    """Runs of a sweep failed; the others are complete, and so is the sweep."""


class ViewerError(UserError, RuntimeError):
    """A page that cannot be served."""


def one_line(message: str) -> str:
    r"""A message as a terminal may get it, whatever the names and values in it: what it hides is written as \x1b."""
    text = " ".join(message.split())
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "".join(
        ascii(each)[1:-1] if each not in JOINERS and unicodedata.category(each) in HIDDEN else each for each in text
    )


def shown(value: Any) -> str:
    """A value in a message: one line, not too long."""
    text = "null" if value is None else f"{value}".lower() if isinstance(value, bool) else " ".join(f"{value}".split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."
