"""The page that shows a volume, finished or in the making.

What it is: a small server and one page. What it is not: it never touches the training weights; it is handed frozen
copies, and knows neither the trainer nor run directories.
"""

from .live import Live
from .options import ViewerOptions
from .scene import Reader, Scene, Snapshot
from .server import Viewer

__all__ = ["Live", "Reader", "Scene", "Snapshot", "Viewer", "ViewerOptions"]
