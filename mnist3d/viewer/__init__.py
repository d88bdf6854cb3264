"""The web page that shows a volume, finished or in the making.

What it is: a small server and one page. What it is not: it never touches the training weights; it is handed frozen
copies, and knows neither the trainer nor run directories.
"""

from ..errors import ViewerError as ViewerError
from .live import Live as Live
from .options import ViewerOptions as ViewerOptions
from .scene import Reader as Reader
from .scene import Scene as Scene
from .scene import Snapshot as Snapshot
from .server import Viewer as Viewer
