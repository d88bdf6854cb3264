"""What all tests share."""

import os

# Set before torch is imported: OpenMP's waiting threads otherwise spin, and two of them on a busy machine make
# a test of seconds take minutes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest


def need(condition: object, reason: str) -> None:
    """Skip a test whose reader is not installed, with the reason; in CI, where all are installed, fail."""
    if not condition:
        (pytest.fail if os.environ.get("MNIST3D_CI") else pytest.skip)(reason)
