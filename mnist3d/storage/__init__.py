"""On disk whole or not at all.

The one writer of files, the names in a run directory, and what a figure needs to be repeated. Callers hand it bytes,
text, dictionaries and pictures.
"""

from .atomic import (
    check_folder,
    check_output,
    describe_file,
    suffix_of,
    whole_files,
    write_atomically,
    write_description,
)
from .environment import environment
from .optional import require, to_install
from .run_directory import RunDirectory, latest_run, png_bytes

__all__ = [
    "RunDirectory",
    "check_folder",
    "check_output",
    "describe_file",
    "environment",
    "latest_run",
    "png_bytes",
    "require",
    "suffix_of",
    "to_install",
    "whole_files",
    "write_atomically",
    "write_description",
]
