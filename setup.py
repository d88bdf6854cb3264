"""What setup.cfg cannot say: presets lie in `configs/` of a clone, and inside the package once it is installed."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["mnist3d", "mnist3d.*"]), "mnist3d.configs"],
    package_dir={"mnist3d.configs": "configs"},
)
