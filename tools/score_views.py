"""Measure how good and how diverse a sculpture's views are."""

from mnist3d.cli.program import run_command

if __name__ == "__main__":
    run_command("score")
