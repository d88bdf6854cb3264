"""Sculpt a 3D volume out of 2D pictures.

from mnist3d import AbsorptionRenderer, VoxelGrid, euler_matrix, load_run
"""

from typing import TYPE_CHECKING, Any

from . import notebook
from .version import __version__

if TYPE_CHECKING:
    from .data import load_images
    from .geometry import euler_matrix, sample_rotations, turntable
    from .rendering import AbsorptionRenderer, render_views
    from .runs.loading import load_run
    from .training import Trainer
    from .volumes import Field, FourierMLP, HashGrid, SparseGrid, TriPlane, VMGrid, Volume, VoxelGrid, load_volume

__all__ = [
    "AbsorptionRenderer",
    "Field",
    "FourierMLP",
    "HashGrid",
    "SparseGrid",
    "Trainer",
    "TriPlane",
    "VMGrid",
    "Volume",
    "VoxelGrid",
    "__version__",
    "euler_matrix",
    "load_images",
    "load_run",
    "load_volume",
    "render_views",
    "sample_rotations",
    "turntable",
]


def __getattr__(name: str) -> Any:
    """A name of `__all__` when it is first asked for (PEP 562), with what it needs: `mnist3d --help` needs no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("euler_matrix", "sample_rotations", "turntable"):
        from . import geometry as part
    elif name in ("AbsorptionRenderer", "render_views"):
        from . import rendering as part
    elif name == "load_images":
        from . import data as part
    elif name == "load_run":
        from .runs import loading as part
    elif name == "Trainer":
        from . import training as part
    else:
        from . import volumes as part
    found = globals()[name] = getattr(part, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _volume_html(volume: Any) -> str:
    from .export.notebook_cell import notebook_cell

    return notebook_cell(volume)


notebook.volume_html = _volume_html  # what a volume shows of itself in a notebook is made above the volumes
