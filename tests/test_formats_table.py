"""Every reader with every kind of file: mirrored, oblique, big-endian, complex, cut short, ...

A file is made with a program that is not ours. Where one more program reads it, what that one finds is the right
value: which number lies at which place. What a format cannot hold stands in `CANNOT`, with its reason.
"""

import gzip
import importlib
import importlib.util
import itertools
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from mnist3d.errors import VolumeFileError
from mnist3d.formats import READERS, read_voxels, world_voxels
from mnist3d.formats.orientation import straightened
from mnist3d.formats.picking import Pick
from mnist3d.formats.vdb import write_vdb
from tests.conftest import need

SHAPE = (4, 5, 7)
DATA = np.random.default_rng(0).integers(1, 100, SHAPE).astype(np.float32)  # by the file's axes
DIRECTIONS = {  # a column an axis: its step in left, posterior, superior
    "plain": np.eye(3),
    "mirrored": np.diag([-1.0, 1.0, 1.0]),
    "permuted": np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "turned": np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
    "oblique": Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix() @ np.diag([1.0, 1.5, 2.0]),
    "tilted": Rotation.from_euler("xyz", (1, -1, 2), degrees=True).as_matrix(),  # by less than half a voxel
    "anisotropic": np.diag([1.0, 2.0, 3.0]),
}
TYPES = {"big-endian": ">f4", "integer": "<i2", "bytes": "u1", "double": "<f8"}
REFUSED = ("complex", "4D", "2D", "NaN")
VARIATIONS = (*DIRECTIONS, *TYPES, "scaled", *REFUSED, "truncated")


def library(module):
    need(importlib.util.find_spec(module), f"{module} is not installed")
    return importlib.import_module(module)


def make_nrrd(path, data, directions, variation):
    header: dict[str, Any] = {"space": "LPS", "encoding": "raw"}
    rows = list(directions.T)
    if variation == "complex":
        data = np.stack([data.real, data.imag])
        rows, header["kinds"] = [np.full(3, np.nan), *rows], ["complex", "domain", "domain", "domain"]
    if data.ndim == 4 and variation == "4D":
        rows, header["kinds"] = [*rows, np.full(3, np.nan)], ["domain", "domain", "domain", "list"]
    header["space directions"] = np.array(rows[: data.ndim])
    library("nrrd").write(str(path), data, header)


def make_nifti(path, data, directions, variation):
    nibabel = library("nibabel")
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1.0, -1.0, 1.0]) @ directions
    header = nibabel.Nifti1Header(endianness=">" if data.dtype.byteorder == ">" else "<")
    header.set_data_dtype(data.dtype)
    image = nibabel.Nifti1Image(data, affine, header)
    image.set_qform(affine, 1)
    content = image.to_bytes()
    if variation == "scaled":
        content = content[:112] + np.array([0.5, 3.0], "<f4").tobytes() + content[120:]  # scl_slope, scl_inter
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def make_analyze(path, data, directions, variation):
    nibabel = library("nibabel")
    header = nibabel.AnalyzeHeader(endianness=">" if data.dtype.byteorder == ">" else "<")
    header.set_data_dtype(data.dtype)
    steps = np.linalg.norm(directions, axis=0)
    nibabel.AnalyzeImage(data, np.diag([*(steps * (-1, 1, 1)), 1]), header).to_filename(str(path.with_suffix(".img")))


def make_mrc(path, data, directions, variation):
    mrcfile, plain = library("mrcfile"), path.with_name("plain.mrc")
    with mrcfile.new(str(plain), overwrite=True) as mrc:
        mrc.set_data(np.ascontiguousarray(data.T))
        if data.ndim == 3:
            mrc.header.ispg = 1
        order = np.abs(directions).argmax(axis=0)  # which of x, y, z each axis is
        mrc.header.mapc, mrc.header.mapr, mrc.header.maps = (int(axis) + 1 for axis in order)
        for name, axis in zip("xyz", range(3), strict=True):
            count = data.shape[list(order).index(axis)] if data.ndim > 2 else 1
            mrc.header[f"m{name}"] = count
            mrc.header.cella[name] = count * np.linalg.norm(directions[axis])
    content = plain.read_bytes()
    plain.unlink()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


VTK_TYPES = {"f4": "Float32", "f8": "Float64", "i2": "Int16", "u1": "UInt8"}


def make_vti(path, data, directions, variation):
    steps = np.linalg.norm(directions, axis=0)
    extent = " ".join(f"0 {n - 1}" for n in SHAPE)
    if data.dtype.kind == "c":
        data = np.stack([data.real, data.imag])  # components are the fastest
    components = data.shape[0] if data.ndim == 4 else 1
    order = "BigEndian" if data.dtype.byteorder == ">" else "LittleEndian"
    block = data.tobytes(order="F")
    size = np.array(len(block), (">" if order == "BigEndian" else "<") + "u4").tobytes()
    path.write_bytes(
        f'<VTKFile type="ImageData" version="1.0" byte_order="{order}" header_type="UInt32"><ImageData '
        f'WholeExtent="{extent}" Origin="0 0 0" Spacing="{" ".join(map(repr, steps.tolist()))}" '
        f'Direction="{" ".join(map(repr, (directions / steps).ravel().tolist()))}"><Piece Extent="{extent}"><PointData>'
        f'<DataArray type="{VTK_TYPES[data.dtype.str[1:]]}" Name="a" NumberOfComponents="{components}" '
        'format="appended" offset="0"/></PointData></Piece></ImageData><AppendedData encoding="raw">_'.encode()
        + size + block + b"</AppendedData></VTKFile>\n"
    )  # fmt: skip


def world(data):
    """From (left, posterior, superior) to (z away, y down, x right); what is not 3D stays as it is."""
    return data.transpose(2, 1, 0)[::-1].transpose(1, 0, 2) if data.ndim == 3 else data.T


def make_npy(path, data, directions, variation):
    np.save(path, world(data))


def make_npz(path, data, directions, variation):
    arrays = {"attenuation": world(data), "absorbance": np.zeros(world(data).shape, np.float32)}
    along_x, along_y, along_z = np.linalg.norm(directions, axis=0)
    np.savez(path, **arrays, spacing_xyz=[along_x, along_z, along_y])


def make_vdb(path, data, directions, variation):
    """By our own writer, whose files OpenVDB reads; OpenVDB's own are in tests/test_volume_readers_vdb.py."""
    values = np.stack([world(data), np.zeros_like(world(data))]).astype(np.float32)
    write_vdb(world_voxels(values), path, {"resolution_zyx": list(values.shape[1:])})
    scale = b"\x11\0\0\0ScaleTranslateMap"
    matrix = np.eye(4)
    matrix[:3, :3] = directions.T  # OpenVDB multiplies rows
    content, size = path.read_bytes(), len(scale) + 18 * 8
    parts = content.split(scale)
    # As long as before, so that the table of grids stays right: a matrix of 16 numbers, and 9 + 7 bytes of metadata.
    assert len(parts) == 4  # of three grids
    mapped = b"\x09\0\0\0AffineMap" + matrix.astype("<f8").tobytes()
    filler = size - len(mapped)
    for part in range(1, 4):
        head = parts[part - 1]
        entry = b"\x01\0\0\0f" + b"\x06\0\0\0string" + np.array(filler - 19, "<u4").tobytes() + bytes(filler - 19)
        place = head.rindex(b"\x05\0\0\0class")
        count = int.from_bytes(head[place - 4 : place], "little") + 1
        parts[part - 1] = head[: place - 4] + count.to_bytes(4, "little") + entry + head[place:]
        parts[part] = mapped + parts[part][18 * 8 :]
    path.write_bytes(b"".join(parts))


MRC, ANALYZE = (".mrc", ".mrc.gz", ".map", ".map.gz", ".ccp4"), (".hdr", ".img")
MAKERS = {
    ".npz": make_npz,
    ".npy": make_npy,
    ".nrrd": make_nrrd,
    ".nhdr": make_nrrd,
    ".nii.gz": make_nifti,
    ".nii": make_nifti,
    ".hdr": make_analyze,
    ".img": make_analyze,
    **dict.fromkeys(MRC, make_mrc),
    ".vti": make_vti,
    ".vdb": make_vdb,
}
CANNOT = {
    (".npz", ".npy"): {
        **dict.fromkeys(
            ("mirrored", "permuted", "turned", "oblique", "tilted"), "arrays have the world's axes, no transform"
        ),
        "scaled": "no scale",
    },
    (".npy",): {"anisotropic": "no lengths"},
    (".nrrd", ".nhdr"): {"scaled": "no scale that a reader applies: old min and old max tell of the past"},
    ANALYZE: {
        **dict.fromkeys(("mirrored", "permuted", "turned", "oblique", "tilted"), "only lengths of voxels"),
        "scaled": "Analyze 7.5 has no scale; SPM's is applied by nibabel as NIfTI's is",
    },
    MRC: {
        **dict.fromkeys(
            ("mirrored", "turned", "oblique", "tilted"), "lengths, order and angles of axes, but no directions"
        ),
        "scaled": "no scale; modes 0, 1, 6 and 12 have a test of their own",
        "double": "no mode for it",
    },
    (".vti",): {"scaled": "no scale", "2D": "always three axes"},
    (".vdb",): {
        **dict.fromkeys(("big-endian", "scaled"), "always little-endian, no scale"),
        **dict.fromkeys(("integer", "bytes", "double"), "our writer has floats only"),
        **dict.fromkeys(("complex", "4D", "2D"), "a grid is 3D; vectors: tests/test_volume_readers_vdb.py"),
    },
}
REASONS = {(s, variation): why for names, whys in CANNOT.items() for s in names for variation, why in whys.items()}
BOTH = [(s, variation) for s, variation in itertools.product(READERS, VARIATIONS) if (s, variation) not in REASONS]


def cases(*variations):
    chosen = [each for each in BOTH if each[1] in variations]
    return pytest.mark.parametrize(("suffix", "variation"), chosen, ids=[f"{s}-{v}" for s, v in chosen])


def test_every_reader_is_in_the_table_and_every_gap_has_a_reason():
    assert set(MAKERS) == set(READERS)
    assert all(reason for reason in REASONS.values())
    assert {suffix for suffix, _ in REASONS} <= set(READERS)
    assert {variation for _, variation in REASONS} <= set(VARIATIONS)


def made(folder, suffix, variation, data=DATA):
    path = folder / f"a{suffix}"
    data = data.astype(TYPES.get(variation, data.dtype.str))
    if variation == "scaled":
        data = data.astype("<i2")
    MAKERS[suffix](path, data, DIRECTIONS.get(variation, np.eye(3)), variation)
    return path


def as_itk_has_it(path, suffix, variation):
    """Values and directions by another reader, or None where ITK has none for it."""
    if suffix in (".nrrd", ".nhdr", ".nii", ".nii.gz") or (suffix == ".mrc" and variation != "permuted"):
        image = library("SimpleITK").ReadImage(str(path))
        directions = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
        return library("SimpleITK").GetArrayFromImage(image).T.astype(np.float32), directions
    return None


@cases(*DIRECTIONS, *TYPES, "scaled")
def test_each_value_lies_where_another_program_has_it(tmp_path, suffix, variation):
    path = made(tmp_path, suffix, variation)
    told = DATA, DIRECTIONS.get(variation, np.eye(3))
    if suffix in ANALYZE:  # its axes run to the left, to the front and up
        told = DATA, np.diag([1.0, -1.0, 1.0]) @ told[1]
    data, directions = as_itk_has_it(path, suffix, variation) or told
    # ITK has what was put in; nibabel writes directions as float32
    assert data == pytest.approx(told[0] * 0.5 + 3.0 if variation == "scaled" else told[0])
    assert directions == pytest.approx(told[1], abs=1e-6)

    voxels = straightened(path, READERS[suffix](path, Pick()))
    z, y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in voxels.shape), indexing="ij")
    along_x, along_y, along_z = voxels.spacing
    places = np.stack([x * along_x, z * along_z, -y * along_y])  # to the right, away, up
    index = (
        np.einsum("ij,jzyx->izyx", np.linalg.inv(directions), places)
        + (np.array(data.shape) - 1).reshape(3, 1, 1, 1) / 2
    )
    if variation == "oblique":
        # float32 coordinates: 1e-6 of 100 a step, in each of three interpolations; outside of the box there is nothing
        wanted = map_coordinates(data.astype(np.float64), index, order=1, mode="grid-constant")
        assert voxels.attenuation == pytest.approx(wanted, abs=1e-3)
        assert min(voxels.spacing) == pytest.approx(np.linalg.norm(directions, axis=0).min())
        assert max(voxels.extent) >= np.abs(directions @ data.shape).max() - 1e-6  # nothing is cut away
    else:
        nearest = np.rint(index).astype(int)
        assert np.abs(index - nearest).max() < (0.5 if variation == "tilted" else 1e-5)
        assert np.array_equal(voxels.attenuation, data[tuple(nearest)])
        assert np.unique(nearest.reshape(3, -1), axis=1).shape[1] == data.size


@pytest.mark.filterwarnings("ignore:Data array contains NaN")  # mrcfile, as it writes
@cases("complex", "NaN", "2D")
def test_what_is_no_volume_is_refused_by_what_it_is(tmp_path, suffix, variation):
    data = {"complex": DATA + 1j * DATA, "2D": DATA[0], "NaN": np.where(DATA > 50, np.nan, DATA)}[variation]
    dtype = np.complex64 if variation == "complex" else np.float32
    path = made(tmp_path, suffix, variation, data.astype(dtype))
    words = {
        "complex": "numbers a voxel" if suffix == ".vti" else "complex numbers",
        "2D": "2D data; must be a volume",
        "NaN": rf"{(DATA > 50).sum()} of 140 voxels are not finite",
    }
    with pytest.raises(VolumeFileError, match=words[variation]) as refused:
        read_voxels(path)
    assert "\n" not in str(refused.value)
    assert path.name in str(refused.value)


@cases("4D")
def test_one_of_several_volumes_is_picked(tmp_path, suffix, variation):
    several = np.stack([DATA, DATA * 2.0, DATA * 3.0], axis=0 if suffix == ".vti" else 3)
    path = made(tmp_path, suffix, variation, several)
    if suffix in MRC:
        assert library("mrcfile").read(str(path)).ndim == 4
    role = "component" if suffix == ".vti" else "frame"  # image data of VTK has no time inside
    pick = "array=attenuation,frame" if suffix == ".npz" else role
    if suffix == ".npz":  # of two named arrays, each 4D
        with pytest.raises(VolumeFileError, match="its shape is"):
            read_voxels(path)
    else:
        with pytest.raises(VolumeFileError, match=f"holds 3 .* one must be picked, with .*#{role}=0 to {role}=2"):
            read_voxels(path)
    with pytest.raises(VolumeFileError, match=rf"#{role}=3: must be in \[0, 2\]"):
        read_voxels(f"{path}#{pick}=3")
    first, second = (read_voxels(f"{path}#{pick}={number}")[0] for number in (0, 1))
    assert np.array_equal(second, 2.0 * first)
    assert sorted(first[first > 0]) == pytest.approx(sorted(DATA.ravel() * 3.5))  # 7 long, where the world is 2


@cases("truncated")
def test_a_file_cut_short_anywhere_is_one_line(tmp_path, suffix, variation):
    path = made(tmp_path, suffix, variation)
    cut = path
    if suffix in (".hdr", ".img"):
        cut = path.with_suffix(".img")
    if suffix == ".nhdr":
        (cut,) = (file for file in tmp_path.iterdir() if file.suffix != ".nhdr")
    content = cut.read_bytes()
    for place in [len(content) * k // 20 for k in range(20)] + ([] if ".gz" in suffix else [len(content) - 1]):
        cut.write_bytes(content[:place])
        if suffix == ".vti" and place == len(content) - 1:  # the last is an end of line
            continue
        with pytest.raises(VolumeFileError) as refused:
            read_voxels(path)
        assert "\n" not in str(refused.value)
        assert path.name in str(refused.value)
    cut.write_bytes(content)
    read_voxels(path)
