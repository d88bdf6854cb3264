"""A way around a sculpture: video, animation, frames, or a strip of views."""

from mnist3d.cli.program import run_command

if __name__ == "__main__":
    run_command("orbit")
