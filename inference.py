"""Look at a finished volume: python inference.py [RUN | volume.safetensors] serves a page that shows and turns it."""

from mnist3d.cli.program import run_command

if __name__ == "__main__":
    run_command("view")
