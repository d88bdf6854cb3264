"""A sculpture as one HTML file that turns in any browser: no server, no network."""

from mnist3d.cli.page import main
from mnist3d.cli.program import run_command_line

if __name__ == "__main__":
    run_command_line(main)
