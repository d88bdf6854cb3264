"""Write a sculpture's light as a cloud of points, for engraving in glass and for point viewers."""

from mnist3d.cli.program import run_command

if __name__ == "__main__":
    run_command("points")
