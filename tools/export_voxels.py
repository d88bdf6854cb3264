"""Write a sculpture as voxels for other tools."""

from mnist3d.cli.program import run_command

if __name__ == "__main__":
    run_command("voxels")
