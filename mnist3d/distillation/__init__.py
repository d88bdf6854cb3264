"""One field fitted to another."""

from .fitting import FitOptions, Fitting
from .source import Source, psnr_of_views

__all__ = ["FitOptions", "Fitting", "Source", "psnr_of_views"]
