"""A volume in a notebook's cell: the page that turns, or shaded views where the page would be too large.

What it is: HTML that needs no server and no file beside it. What it is not: it knows no notebook; `_repr_html_` of a
volume and of a run hands its text over.
"""

import base64
import html

from ..rendering.pictures import SHEET_VIEWS, contact_sheet, sheet_views
from ..rendering.renderer import AbsorptionRenderer, RendererOptions
from ..storage.labels import printable
from ..storage.run_directory import png_bytes
from ..volumes.base import Field
from ..volumes.wrappers import FrozenField
from .page import FIELD_RESOLUTION, page_html

# 2.4 MB of page. A Jupyter server drops what a cell writes beyond 1 MB/s over 3 s (`iopub_data_rate_limit`,
# `rate_limit_window`), and the page is saved with the notebook.
MOST_VOXELS = 96**3
WIDTH, HEIGHT = 880, 460  # pixels: from a width of 860 on the page has its map beside the view
SHEET_SIZE, SHEET_COLUMNS = 86, 10  # pixels of a view; ten and the gaps between them are as wide as the page
RADIUS = "border-radius:6px;display:block"
# A cell is lower than a phone is: beside the view there is room for a smaller map, below it for none.
IN_A_CELL = """<style>
@media (min-width: 600px) and (max-width: 859px) { body { grid-template: 1fr / minmax(0, 1fr) 236px; }
  footer { flex-direction: column; background: #1b1e27; } #map { width: 216px; } }
@media (max-width: 599px) { #map { display: none; } }
</style>
</head>"""


def notebook_cell(
    volume: Field, options: RendererOptions | None = None, title: str | None = None, caption: str | None = None
) -> str:
    """HTML that shows a volume, with a caption below.

    Args:
        volume: any; asked as it is.
        options: of the renderer that belongs to it; default the options' own. Of these the steps a ray are kept, and on
            a contact sheet the quadrature.
        title: shown on the page; default the volume's class.
        caption: default the volume's `repr`.
    """
    options, title = options or RendererOptions(), title or type(volume).__name__
    frozen = FrozenField(volume)  # its grid is found once
    grid = frozen.dense()
    voxels = FIELD_RESOLUTION**3 if grid is None else grid[0].numel()
    shown = _page(frozen, options, title) if voxels <= MOST_VOXELS else _sheet(frozen, options)
    lines = (repr(volume) if caption is None else caption).splitlines()
    text = html.escape("\n".join(map(printable, lines)))
    below = f'<pre style="margin:0;padding:6px 0;white-space:pre-wrap">{text}</pre>'
    return f'<div style="max-width:{WIDTH}px">{shown}{below}</div>'


def _page(volume: Field, options: RendererOptions, title: str) -> str:
    """In a frame of its own, so that its styles and scripts and the notebook's do not meet."""
    page = html.escape(page_html(volume, options, title).replace("</head>", IN_A_CELL))
    title = html.escape(printable(title))
    style = f"width:100%;height:{HEIGHT}px;border:0;background:#12141a;{RADIUS}"
    return f'<iframe sandbox="allow-scripts" title="{title}" style="{style}" srcdoc="{page}"></iframe>'


def _sheet(volume: Field, options: RendererOptions) -> str:
    renderer = AbsorptionRenderer(SHEET_SIZE, options.samples_per_ray, options.quadrature)
    sheet = contact_sheet(sheet_views(volume, renderer, style="shaded"), columns=SHEET_COLUMNS, magnify=1)
    data = base64.b64encode(png_bytes(sheet)).decode()
    style = f"width:{sheet.shape[1]}px;max-width:100%;{RADIUS}"
    return f'<img alt="{SHEET_VIEWS} shaded views" style="{style}" src="data:image/png;base64,{data}">'
