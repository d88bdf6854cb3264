"""Rotations, cameras, grids: pure functions of angles, pixels and resolutions."""
