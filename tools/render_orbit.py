"""A way around a sculpture: video, animation, frames, or a strip of views. The last frame leads into the first."""

from mnist3d.cli.orbit import main
from mnist3d.cli.program import run_command_line

if __name__ == "__main__":
    run_command_line(main)
