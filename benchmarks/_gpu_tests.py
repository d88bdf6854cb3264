"""A plugin of pytest for `gpu.py`: of the tests that are handed to it, only those that skip without a GPU.

They are known by the reason of their mark, which is one of `REASONS`.
"""

import pytest

REASONS = ("no CUDA device", "needs a GPU")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Called by pytest."""
    wanted = [item for item in items if any(m.kwargs.get("reason") in REASONS for m in item.iter_markers("skipif"))]
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = wanted
