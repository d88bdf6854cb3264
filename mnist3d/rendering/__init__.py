"""Volume + rotation -> view.

The renderer, shaded views for the eye, and contact sheets. It is handed a `Field`, whatever the volume is.
"""

from .pictures import contact_sheet, sheet_views, to_uint8
from .renderer import AbsorptionRenderer, RendererOptions, for_few_views, render_views
from .shading import Shading, StyleName, shaded_view

__all__ = [
    "AbsorptionRenderer",
    "RendererOptions",
    "Shading",
    "StyleName",
    "contact_sheet",
    "for_few_views",
    "render_views",
    "shaded_view",
    "sheet_views",
    "to_uint8",
]
