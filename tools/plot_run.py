"""Draw a run: loss curves, scorecard over time, view atlas. Of a volume file on its own, the atlas."""

from mnist3d.cli.plot import main
from mnist3d.cli.program import run_command_line

if __name__ == "__main__":
    run_command_line(main)
