"""A module whose own dependency is missing."""

import glass_furnace  # noqa: F401  # pyright: ignore[reportMissingImports]
