"""Write a sculpture as one HTML file that turns in any browser."""

from mnist3d.cli.program import run_command

if __name__ == "__main__":
    run_command("page")
