"""Draw a run: losses, scores over time, view atlas."""

from mnist3d.cli.program import run_command

if __name__ == "__main__":
    run_command("plot")
