"""What can be wrong with a volume file."""


class VolumeFileError(ValueError):
    """A volume file that is missing, damaged, of another format, or of a class that is not trusted."""
