"""Volume + rotation -> view.

What it is: the renderer, and views arranged and written as pictures. What it is not: it knows no volume by name; it is
handed a Field.
"""

from .pictures import contact_sheet, sheet_views, to_uint8
from .renderer import AbsorptionRenderer, RendererOptions, render_views

__all__ = ["AbsorptionRenderer", "RendererOptions", "contact_sheet", "render_views", "sheet_views", "to_uint8"]
