"""What a stranger's volume file claims is compared with limits first; what it holds is read as far as it claims."""

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest

from mnist3d.errors import VolumeFileError
from mnist3d.export import export_voxels
from mnist3d.formats import READERS, contents, from_upright, read_voxels, vdb_tree
from mnist3d.formats.contents import Claim, Numerals, first_fastest, read_claim, read_packed_claim
from mnist3d.formats.picking import Pick
from mnist3d.storage.inflating import PARTS, Inflated, opened_zip
from mnist3d.volumes import VoxelGrid, load_volume
from tests.conftest import need

SHAPE = (5, 6, 7)
ALL = slice(None)
DATA = np.random.default_rng(0).random(SHAPE).astype(np.float32)
linux_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes among its files")


def library(module):
    import importlib.util

    need(importlib.util.find_spec(module), f"{module} is not installed")
    return importlib.import_module(module)


@pytest.mark.parametrize("piece", [1, 40, 10**6])
@pytest.mark.parametrize("index", [(2, ALL, ALL, ALL), (ALL, 1, ALL, ALL), (ALL, ALL, ALL, 3)])
def test_one_volume_is_taken_out_of_several_whatever_their_order(monkeypatch, tmp_path, index, piece):
    """In pieces of any size; nothing behind the volume is read."""
    monkeypatch.setattr(contents, "PIECE", piece)
    array = np.random.default_rng(0).integers(0, 1000, (4, 5, 3, 6)).astype(">i2")
    claim = Claim(tmp_path, array.shape, array.dtype, index)
    assert np.array_equal(read_claim(claim, io.BytesIO(array.tobytes())), array[index])
    turned = first_fastest(tmp_path, array.shape, array.dtype, index)
    assert np.array_equal(read_claim(turned, io.BytesIO(array.tobytes(order="F"))).T, array[index])
    last = np.arange(array.size).reshape(array.shape)[index].max()
    assert claim.needed == (last + 1) * 2
    with pytest.raises(ValueError, match="ends too early"):
        read_claim(claim, io.BytesIO(array.tobytes()[: claim.needed - 1]))
    if piece == 1:
        assert np.array_equal(read_claim(claim, io.BytesIO(array.tobytes()[: claim.needed])), array[index])


def test_large_claims_are_counted_before_memory_is_taken(monkeypatch, tmp_path):
    claim = Claim(tmp_path, (4, 4, 4), np.dtype("<f4"), (slice(None),) * 3)
    opened = []

    def begin():
        opened.append(io.BytesIO(bytes(200)))
        return opened[-1]

    monkeypatch.setattr(contents, "COUNTED", 100)
    monkeypatch.setattr(contents, "read_claim", lambda *_: pytest.fail("memory was taken"))
    with pytest.raises(ValueError, match="ends too early"):
        read_packed_claim(claim, begin)
    assert len(opened) == 1
    monkeypatch.setattr(contents, "MOST_BYTES", 255)
    with pytest.raises(VolumeFileError, match=r"claims 256 bytes of voxels; packed ones must be at most 255 bytes"):
        read_packed_claim(claim, begin)
    assert len(opened) == 1


PACKERS = {"gzip": gzip.compress, "zlib": zlib.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("size", [1, 1000, 10**7])
def test_packed_bytes_come_back_in_pieces_of_any_size(kind, size):
    content = np.random.default_rng(0).integers(0, 4, 300_000, np.uint8).tobytes() + bytes(300_000)
    content = content[:2000] if size == 1 else content
    packed = PACKERS[kind](content)

    def unpacked(packed, most):
        stream, found = Inflated(io.BytesIO(packed), kind, most), []
        while piece := stream.read(size):
            assert len(piece) <= size
            found.append(piece)
        return b"".join(found)

    assert unpacked(packed, len(content)) == content
    assert unpacked(packed + bytes(5) + packed + bytes(5), 2 * len(content)) == 2 * content
    with pytest.raises(ValueError, match="unpacks to more than"):
        unpacked(packed, len(content) - 1)
    with pytest.raises(EOFError, match="end too early"):
        unpacked(packed[:-1], len(content))
    with pytest.raises((ValueError, OSError, zlib.error, lzma.LZMAError)):
        unpacked(packed + b"no such part", 2 * len(content))


def test_a_file_of_nothing_but_parts_ends():
    stream = Inflated(io.BytesIO(gzip.compress(b"") * (PARTS + 2)), "gzip", 100)
    with pytest.raises(ValueError, match="too many parts"):
        stream.read(1)


def test_the_table_of_an_archive_is_short_and_its_members_unpack_within_limits():
    import zipfile

    for how, members, words in ((zipfile.ZIP_BZIP2, 1, "stored or deflated"), (zipfile.ZIP_STORED, 60_000, "table")):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", how) as archive:
            for number in range(members):
                archive.writestr(f"{number:040}", b"")
        with pytest.raises(ValueError, match=words), opened_zip(file):
            pass
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.npy", b"2")
    with pytest.raises(ValueError, match="one name"), opened_zip(file):
        pass


@pytest.mark.parametrize("text", ["1 2\n3\t4 ", "1 2 3 4", " " * 99 + "1\n\n2 3 4"])
def test_numbers_that_are_text(monkeypatch, text):
    for piece in (1, 3, 1000):
        monkeypatch.setattr(contents, "TEXT_PIECE", piece)
        stream = Numerals(io.BytesIO(text.encode()), np.dtype("<f4"))
        assert np.frombuffer(contents.exactly(stream, 16), "<f4").tolist() == [1, 2, 3, 4]
        assert stream.read(1) == b""
    for wrong in ("1 two", "1,2", "1" * 5000):
        with pytest.raises(ValueError, match=r"something else|more than 1024 digits"):
            contents.exactly(Numerals(io.BytesIO(wrong.encode()), np.dtype("<f4")), 16)


COMPRESSORS = ("None", "ZLib", "LZ4", "LZMA")


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("mode", ["Ascii", "Binary", "Appended", "Raw"])
@pytest.mark.parametrize("order", ["Little", "Big"])
def test_a_vti_as_vtk_writes_it(tmp_path, mode, compressor, order):
    """Two arrays, one of vectors, on the cells of an image that begins anywhere."""
    library("vtkmodules")
    from vtkmodules.util.numpy_support import numpy_to_vtk  # pyright: ignore[reportMissingImports]
    from vtkmodules.vtkCommonDataModel import vtkImageData  # pyright: ignore[reportMissingImports]
    from vtkmodules.vtkIOXML import vtkXMLImageDataWriter  # pyright: ignore[reportMissingImports]

    image = vtkImageData()
    image.SetExtent(3, 3 + 7, -2, -2 + 6, 0, 5)  # points; 7 x 6 x 5 cells
    vectors = np.stack([DATA, DATA * 2.0, DATA * 3.0], axis=-1).astype(np.float64)
    for name, values in (("flow", vectors.reshape(-1, 3)), ("count", np.arange(210, dtype=np.int16))):
        array = numpy_to_vtk(values, deep=True)
        array.SetName(name)
        image.GetCellData().AddArray(array)
    writer = vtkXMLImageDataWriter()
    writer.SetFileName(str(tmp_path / "a.vti"))
    writer.SetInputData(image)
    getattr(writer, f"SetDataModeTo{'Appended' if mode == 'Raw' else mode}")()
    writer.SetEncodeAppendedData(mode != "Raw")
    getattr(writer, f"SetCompressorTypeTo{compressor}")()
    getattr(writer, f"SetByteOrderTo{order}Endian")()
    writer.SetBlockSize(4096 if compressor == "LZ4" else 800)
    assert writer.Write()
    found = READERS[".vti"](tmp_path / "a.vti", Pick(array="flow", component=1)).attenuation
    assert np.array_equal(found, from_upright(DATA * 2.0))  # text is written so that it comes back
    found = READERS[".vti"](tmp_path / "a.vti", Pick(array="count")).attenuation
    assert np.array_equal(found, from_upright(np.arange(210, dtype=np.float32).reshape(SHAPE)))


def test_a_vti_of_several_pieces(tmp_path):
    array = '<DataArray type="Int8" Name="a" format="ascii">{2}</DataArray>'
    piece = f'<Piece Extent="{{0}} {{1}} 0 1 0 1"><PointData>{array}</PointData></Piece>'
    parts = piece.format(0, 1, "1 2 1 2 1 2 1 2") + piece.format(1, 3, "2 3 4 2 3 4 2 3 4 2 3 4")
    whole = f'<VTKFile type="ImageData"><ImageData WholeExtent="0 3 0 1 0 1">{parts}</ImageData></VTKFile>'
    (tmp_path / "a.vti").write_text(whole)
    assert read_voxels(tmp_path / "a.vti")[0][2, 2].tolist() == [2, 4, 6, 8]  # 4 long, where the world is 2
    for wrong, words in ((whole.replace('"1 3 ', '"2 3 '), "do not fill"), (whole.replace('"1 3 ', '"1 9 '), "larger")):
        (tmp_path / "a.vti").write_text(wrong)
        with pytest.raises(VolumeFileError, match=words):
            read_voxels(tmp_path / "a.vti")


@linux_only
@pytest.mark.parametrize("suffix", [*READERS, ".safetensors", ".pt"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path, suffix):
    read = load_volume if suffix in (".safetensors", ".pt") else read_voxels
    path = tmp_path / f"a{suffix}"
    os.mkfifo(path)
    with pytest.raises(VolumeFileError, match="is a named pipe, not a plain file"):
        read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(VolumeFileError, match="is a folder, not a plain file"):
        read(path)


@linux_only
@pytest.mark.parametrize("suffix", [".npy", ".nrrd", ".hdr"])
def test_nor_is_it_beside(tmp_path, suffix):
    pipe, words = tmp_path / "pipe.raw", "is a named pipe, not a plain file"
    if suffix == ".npy":
        pipe = tmp_path / "a_absorbance.npy"
        np.save(tmp_path / "a.npy", DATA)
    elif suffix == ".nrrd":
        header = (
            "NRRD0004\ntype: float\ndimension: 3\nsizes: 2 2 2\nendian: little\nencoding: raw\ndata file: pipe.raw\n"
        )
        (tmp_path / "a.nrrd").write_text(header)
    else:
        nibabel = library("nibabel")
        nibabel.save(nibabel.Nifti1Pair(DATA, np.eye(4)), tmp_path / "a.img")
        pipe = tmp_path / "a.img"
        pipe.unlink()
    os.mkfifo(pipe)
    with pytest.raises(VolumeFileError, match=words):
        read_voxels(tmp_path / f"a{suffix}")


def test_a_pair_that_lost_one_says_so(tmp_path):
    nibabel = library("nibabel")
    nibabel.save(nibabel.Nifti1Pair(DATA, np.eye(4)), tmp_path / "a.img")
    for lost, left in ((".img", ".hdr"), (".hdr", ".img")):
        content = (tmp_path / f"a{lost}").read_bytes()
        (tmp_path / f"a{lost}").unlink()
        with pytest.raises(VolumeFileError, match=rf"a\{left}: a\{lost} is not beside it"):
            read_voxels(tmp_path / f"a{left}")
        (tmp_path / f"a{lost}").write_bytes(content)


def test_lengths_of_zero_are_cubes_and_nothing_is_printed(tmp_path, capfd):
    nibabel = library("nibabel")
    content = bytearray(nibabel.Nifti1Image(DATA, None).to_bytes())
    content[80:92] = bytes(12)  # pixdim
    (tmp_path / "a.nii").write_bytes(content)
    assert read_voxels(tmp_path / "a.nii").shape == (2, 7, 7, 7)
    assert capfd.readouterr() == ("", "")


def test_four_axes_without_kinds(tmp_path):
    nrrd = library("nrrd")
    several = np.stack([DATA, DATA * 2.0], axis=-1)
    nrrd.write(str(tmp_path / "a.nrrd"), several)
    with pytest.raises(VolumeFileError, match=r"has 4 axes, and nothing says.*domain domain domain list"):
        read_voxels(tmp_path / "a.nrrd")
    header = (tmp_path / "a.nrrd").read_bytes()
    (tmp_path / "a.nrrd").write_bytes(header.replace(b"\n\n", b"\nkinds: domain domain domain list\n\n", 1))
    told = read_voxels(f"{tmp_path / 'a.nrrd'}#frame=1")
    nrrd.write(str(tmp_path / "b.nrrd"), several, {"spacings": [1.0, 1.0, 1.0, np.nan]})
    assert np.array_equal(read_voxels(f"{tmp_path / 'b.nrrd'}#frame=1"), told)


@pytest.mark.parametrize("order", "<>")
def test_an_old_mrc_has_no_stamp_and_is_read_as_makes_sense(tmp_path, order):
    mrcfile = library("mrcfile")
    with mrcfile.new(str(tmp_path / "new.mrc")) as mrc:
        mrc.set_data(DATA.astype(f"{order}f4"))
    content = bytearray((tmp_path / "new.mrc").read_bytes())
    content[208:216] = bytes(8)
    (tmp_path / "old.mrc").write_bytes(content)
    assert np.array_equal(read_voxels(tmp_path / "old.mrc"), read_voxels(tmp_path / "new.mrc"))
    content[12:16] = b"\xff" * 4  # the mode
    (tmp_path / "old.mrc").write_bytes(content)
    with pytest.raises(VolumeFileError, match="no MRC file"):
        read_voxels(tmp_path / "old.mrc")


def test_a_line_of_voxels_does_not_become_gigabytes(tmp_path):
    np.save(tmp_path / "line.npy", np.ones((1, 1, 1024), np.float32))
    with pytest.raises(VolumeFileError, match=r"the cube around it has \(1024, 1024, 1024\) voxels, of \(1, 1, 1024\)"):
        read_voxels(tmp_path / "line.npy")


def test_more_than_the_memory_holds_is_refused_before_it_is_taken(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.ones((150, 150, 150), np.uint8))
    monkeypatch.setattr("mnist3d.storage.memory.free_memory", lambda *_: 10**8)
    monkeypatch.setattr(contents, "_fill", lambda *_: pytest.fail("voxels were read"))
    with pytest.raises(VolumeFileError, match=r"reading \(150, 150, 150\) voxels takes about 103 MiB, 95.4 MiB"):
        read_voxels(tmp_path / "a.npy")


def test_an_option_of_another_type_names_itself(tmp_path):
    """In a process of its own, as the tests look at types too."""
    np.save(tmp_path / "a.npy", DATA)
    script = """
import sys
from mnist3d.formats import read_voxels
for options in ({"threshold": "3"}, {"percentile": [1]}, {"threshold": True}):
    try:
        read_voxels(sys.argv[1], **options)
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.npy")], capture_output=True, text=True)
    expected = ["threshold='3'", "percentile=[1]", "threshold=True"]
    assert done.stdout.splitlines() == [f"{option}: must be a number" for option in expected], done.stderr


def test_a_vdb_whose_leaves_end_early_is_refused_before_memory_is_taken_for_its_box(tmp_path, monkeypatch):
    path = tmp_path / "a.vdb"
    export_voxels(VoxelGrid.from_array(np.random.default_rng(0).random((12, 12, 12), np.float32)), path)
    whole = read_voxels(path)
    monkeypatch.setattr(vdb_tree, "COUNTED", 0)
    assert np.array_equal(read_voxels(path), whole)
    content = bytearray(path.read_bytes())
    last = content.rindex(b"\x78")  # zlib's first byte, in the last leaf or behind it
    content[last - 8 : last] = (10**6).to_bytes(8, "little")
    path.write_bytes(content)

    def taken(*_):
        raise MemoryError("the box was made")

    monkeypatch.setattr(vdb_tree.np, "full", taken)
    with pytest.raises(VolumeFileError, match="ends too early"):
        read_voxels(path)
