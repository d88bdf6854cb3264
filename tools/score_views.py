"""How good and how diverse a sculpture's views are: a table, scorecard.json, the view atlas and a turntable."""

from mnist3d.cli.program import run_command_line
from mnist3d.cli.score import main

if __name__ == "__main__":
    run_command_line(main)
