"""Look at a finished volume: python inference.py [RUN | volume.safetensors] serves a page that shows and turns it."""

from mnist3d.cli.program import run_command_line
from mnist3d.cli.view import main

if __name__ == "__main__":
    run_command_line(main)
