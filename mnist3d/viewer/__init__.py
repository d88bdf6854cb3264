"""The page that shows a volume, finished or in the making.

A small server and one page. It is handed frozen copies and never touches the training weights.
"""

from .live import Live
from .options import ViewerOptions
from .scene import Reader, Scene, Snapshot
from .server import Viewer

__all__ = ["Live", "Reader", "Scene", "Snapshot", "Viewer", "ViewerOptions"]
