"""Volume + rotation -> view.

The renderer, and views arranged and written as pictures. It is handed a `Field` and knows no volume by name.
"""

from .pictures import contact_sheet, sheet_views, to_uint8
from .renderer import AbsorptionRenderer, RendererOptions, for_few_views, render_views

__all__ = [
    "AbsorptionRenderer",
    "RendererOptions",
    "contact_sheet",
    "for_few_views",
    "render_views",
    "sheet_views",
    "to_uint8",
]
