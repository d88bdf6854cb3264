"""Look at a finished volume: python inference.py [RUN | volume.safetensors] writes its views beside it."""

from collections.abc import Sequence
from pathlib import Path

from mnist3d.command_line import OneLineParser, add_sculpture_arguments, open_sculpture, run_command_line
from mnist3d.export.pictures import contact_sheet, sheet_views
from mnist3d.run_directory import latest_run, png_bytes, write_atomically
from mnist3d.session import RUNS_ROOT


def main(arguments: Sequence[str]) -> None:
    """Parse, render, say where the picture lies."""
    parser = OneLineParser(prog="inference.py", description="Write the views of a finished volume.")
    add_sculpture_arguments(parser, default=f"default the newest run under {RUNS_ROOT}/")
    parser.add_argument("--output", type=Path, help="PNG to write; default views.png beside the volume")
    options = parser.parse_args(arguments)
    run = open_sculpture(options.run or latest_run(RUNS_ROOT), options.volume)
    sheet = contact_sheet(sheet_views(run.volume, run.renderer, run.config.poses), columns=8)
    output = write_atomically(options.output or run.path / "views.png", png_bytes(sheet))
    print(f"40 views of {run.path}: {output}")


if __name__ == "__main__":
    run_command_line(main)
