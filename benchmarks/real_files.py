"""Whether other tools' own files are read right: python benchmarks/real_files.py [FOLDER ...]

Takes the voxel files that installed packages ship (nibabel, dipy, nilearn, nipy, pyvista, mrcfile, gridData), or those
in folders, FOLDER/PACKAGE/FILE: the source of a package often holds more than what is installed. Every file is read by
`read_voxels` and by a program that shares no code with it: ITK (.nii, .nrrd; nibabel where ITK refuses), VTK (.vti), or
NumPy on the bytes that the format's definition names (.mrc, .map). The second is turned by nibabel's orientations and
put into the cube by sums along its axes; both are compared voxel by voxel. Exit code 1 if one differs.
"""

import argparse
import bz2
import gzip
import importlib.util
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pyvista
import SimpleITK
from nibabel.orientations import apply_orientation, io_orientation
from nibabel.spatialimages import SpatialImage
from scipy.ndimage import map_coordinates

from mnist3d.errors import VolumeFileError
from mnist3d.formats import read_voxels

PACKAGES = ("nibabel", "dipy", "nilearn", "nipy", "pyvista", "mrcfile", "gridData")
NIFTI, MRC = (".nii", ".nii.gz"), (".mrc", ".map", ".ccp4", ".mrc.gz", ".map.gz")
SUFFIXES = (*NIFTI, *MRC, ".nrrd", ".nhdr", ".vti")
LPS = np.diag([-1.0, -1.0, 1.0])  # from right, anterior, superior
CLOSE = 2e-5  # of the largest value: sums along an axis, and interpolation, in float32
WHOLE = 0.999e-3  # up to 1e-3 of an edge is not resampled; a little less, as frog_tissues.vti is the limit


def real_files(folders: list[Path]) -> Iterator[tuple[str, Path]]:
    """Package and file; of the folders, or without any of what is installed."""
    roots = [(folder.name, folder) for given in folders for folder in sorted(given.iterdir()) if folder.is_dir()]
    if not folders:
        specs = {name: importlib.util.find_spec(name) for name in PACKAGES}
        roots = [(name, Path(spec.origin).parent) for name, spec in specs.items() if spec and spec.origin]
    for package, root in roots:
        for path in sorted(root.rglob("*")):
            if path.name.lower().endswith(SUFFIXES) and path.is_file():
                yield package, path


def independent(path: Path, frame: int | None) -> tuple[str, np.ndarray, np.ndarray]:
    """Who read it, the voxels by the file's axes, and the step along each as a column: right, away, up."""
    name = path.name.lower()
    if name.endswith(".vti"):
        grid = pyvista.read(path)
        on_points = grid.point_data.active_scalars is not None or not grid.cell_data.keys()
        values = grid.point_data if on_points else grid.cell_data
        shape = np.array(grid.dimensions) - (0 if on_points else 1)
        data = np.asarray(values.active_scalars if values.active_scalars is not None else values[values.keys()[0]])
        return "VTK", data.reshape(shape, order="F"), grid.direction_matrix @ np.diag(grid.spacing)
    if name.endswith(MRC):
        return "NumPy", *_mrc(path)
    if name.endswith(NIFTI):
        try:
            return "ITK", *_itk(path, frame)
        except RuntimeError:  # of axes that are not at right angles
            image = nibabel.load(path)
            assert isinstance(image, SpatialImage)
            assert image.affine is not None
            data = image.get_fdata()
            return "nibabel", data[..., frame or 0] if data.ndim == 4 else data, LPS @ image.affine[:3, :3]
    return "ITK", *_itk(path, frame)


def _itk(path: Path, frame: int | None) -> tuple[np.ndarray, np.ndarray]:
    image = SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat64)
    if image.GetDimension() == 4:
        image = image[:, :, :, frame or 0]
    directions = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), directions


def _mrc(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """MRC2014's words by number; modes 0, 1, 2 and 6."""
    opened = {".gz": gzip.open, ".bz2": bz2.open}.get(path.suffix, open)
    with opened(path, "rb") as file:
        content = file.read()
    order = "<" if content[212] == 0x44 else ">"
    words, numbers = np.frombuffer(content, f"{order}i4", 56), np.frombuffer(content, f"{order}f4", 56)
    kind = {0: "i1", 1: "i2", 2: "f4", 6: "u2"}[int(words[3])]
    data = np.frombuffer(content, order + kind, int(np.prod(words[:3])), 1024 + int(words[23]))
    sides, (alpha, beta, gamma) = numbers[10:13] / words[7:10], np.cos(np.radians(numbers[13:16].astype(float)))
    # The cell's Gram matrix has one lower triangular root; its rows are the cell's axes, the first one along x.
    gram = np.array([[1.0, gamma, beta], [gamma, 1.0, alpha], [beta, alpha, 1.0]])
    cell = np.linalg.cholesky(gram).T * sides
    return data.reshape(words[:3], order="F").astype(float), cell[:, words[16:19] - 1]


def expected(data: np.ndarray, directions: np.ndarray, edge: int) -> tuple[np.ndarray, np.ndarray]:
    """Attenuation in the world's (Z, Y, X), and where it is to be compared.

    Args:
        data: values by the file's axes, none < 0.
        directions: the step along each, as a column.
        edge: voxels along the longest edge of what is compared.
    """
    affine = np.eye(4)
    affine[:3, :3] = directions
    turn = io_orientation(affine)
    steps = np.linalg.norm(directions, axis=0)
    off = directions.copy()
    off[turn[:, 0].astype(int), range(3)] -= turn[:, 1] * steps
    corners = np.array(list(product((-0.5, 0.5), repeat=3))) * (np.array(data.shape) - 1)
    if np.linalg.norm(corners @ off.T, axis=1).max() > steps.min() / 2.0:
        return _sampled(data, directions, edge)
    straight = apply_orientation(data, turn)  # right, away, up
    steps = steps[np.argsort(turn[:, 0])]
    world, steps = straight.transpose(1, 2, 0)[:, ::-1], steps[[1, 2, 0]]  # away, down, right
    cube = float((steps * world.shape).max())
    for axis in range(3):
        world = np.moveaxis(_along(np.moveaxis(world, axis, 0), cube / steps[axis]), 0, axis)
    return world * cube / 2.0, np.ones(world.shape, bool)


def _along(data: np.ndarray, across: float) -> np.ndarray:
    """Averages over the parts of an edge that is so many voxels long, with nothing around the data."""
    count = max(round(across), 1)
    if abs(count - across) <= WHOLE * across:
        before = (count - len(data)) // 2
        return np.pad(data, [(before, count - len(data) - before), (0, 0), (0, 0)])
    sums = np.concatenate([np.zeros((1, *data.shape[1:])), np.cumsum(data, axis=0, dtype=float)])
    cuts = np.clip((len(data) - across) / 2.0 + across / count * np.arange(count + 1), 0.0, len(data))
    low = np.minimum(cuts.astype(int), len(data) - 1)
    at = sums[low] + (cuts - low)[:, None, None] * data[low]
    return np.diff(at, axis=0) / (across / count)


def _sampled(data: np.ndarray, directions: np.ndarray, edge: int) -> tuple[np.ndarray, np.ndarray]:
    """Oblique or sheared: interpolated at the middle of every voxel of a cube as fine as the shortest step.

    The box around it is padded, which along an axis may leave it half a voxel beside the middle.
    """
    step = np.linalg.norm(directions, axis=0).min()
    filled = np.ceil(np.abs(directions) @ data.shape / step - WHOLE)[[1, 2, 0]]  # away, down, right
    places = [np.arange(edge) - (edge - n) // 2 - (n - 1) / 2.0 for n in filled]
    away, down, right = (step * axis for axis in np.meshgrid(*places, indexing="ij"))
    index = np.tensordot(np.linalg.inv(directions), np.stack([right, away, -down]), 1)
    index += (np.array(data.shape)[:, None, None, None] - 1) / 2.0
    last = np.array(data.shape)[:, None, None, None] - 1
    within = np.all((index >= 0.0) & (index <= last), axis=0)
    beyond = np.any((index < -1.0) | (index > last + 1.0), axis=0)  # between the two a border may be drawn either way
    return map_coordinates(data, index, order=1, cval=0.0) * edge * step / 2.0, np.logical_or(within, beyond)


def verdict(path: Path) -> tuple[str, str, str]:
    """What was picked from the file, who else read it, and how both agree: same, differs or refused."""
    named, frame = str(path), None
    for _ in range(2):
        try:
            ours = read_voxels(named, negative="clip", not_finite="empty")
            break
        except VolumeFileError as error:
            if "#frame=0" not in str(error):
                return named[len(str(path)) :], "", f"refused: {str(error).replace(str(path), path.name)}"
            frame = 1
            named = f"{path}#frame={frame}"
    else:
        return named[len(str(path)) :], "", "refused twice"
    reader, data, directions = independent(path, frame)
    data = np.maximum(np.where(np.isfinite(data), data, 0.0), 0.0)
    wanted, compared = expected(data, directions, max(ours.shape[1:]))
    pick = named[len(str(path)) :]
    if ours[0].shape != wanted.shape:
        return pick, reader, f"differs: {ours[0].shape} voxels, must be {wanted.shape}"
    off = np.abs(ours[0] - wanted)[compared]
    if not off.max() <= CLOSE * wanted.max():
        share = (off > CLOSE * wanted.max()).mean()
        return (
            pick,
            reader,
            f"differs: {share:.2%} of the voxels, by up to {off.max() / wanted.max():.2g} of the largest",
        )
    return pick, reader, f"same: {' x '.join(map(str, data.shape))} voxels, {compared.sum():,} compared"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="of folders, one a package, with files")
    print("| file | package | compared with | verdict |\n|---|---|---|---|")
    bad = 0
    for package, path in real_files(parser.parse_args().folders):
        pick, reader, words = verdict(path)
        bad += words.startswith("differs")
        print(f"| {path.name}{pick} | {package} | {reader} | {words} |", flush=True)
    sys.exit(int(bad > 0))


if __name__ == "__main__":
    main()
