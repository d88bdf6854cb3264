"""Write a sculpture as voxels for other tools; docs/formats.md says what opens which file."""

from mnist3d.cli.program import run_command_line
from mnist3d.cli.voxels import main

if __name__ == "__main__":
    run_command_line(main)
