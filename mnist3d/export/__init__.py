"""Out of the program: pictures, videos, voxels, meshes. Handed a volume and a renderer, never a run."""


class ExportError(ValueError):
    """A file that cannot be written as asked; the message is one line that says what is allowed."""
