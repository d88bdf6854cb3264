"""Which array of a file is the volume: the file's own choice, a pick behind #, or a refusal by what it holds."""

import importlib
import importlib.util

import numpy as np
import pytest

from mnist3d.errors import VolumeFileError
from mnist3d.formats import READERS, read_voxels
from mnist3d.formats.picking import Pick, split_pick
from mnist3d.volumes import VoxelGrid
from tests.conftest import need

SHAPE = (4, 4, 4)  # 4 long, where the world is 2: an attenuation of 1 per unit of the file is 2 per unit of the world


def library(module):
    need(importlib.util.find_spec(module), f"{module} is not installed")
    return importlib.import_module(module)


def the_value(path):
    """Of a volume that has one everywhere, in the unit of the file."""
    (value,) = set(read_voxels(path)[0].ravel().tolist())
    return value / 2.0


def image_data(path, points=(), cells=(), active=None, shape=SHAPE):
    """A .vti of VTK's own writer; every array is (name, one value or one a component)."""
    core, model = library("vtkmodules.vtkCommonCore"), library("vtkmodules.vtkCommonDataModel")
    image = model.vtkImageData()
    image.SetDimensions(*(n + bool(cells) for n in shape))
    for data, arrays in ((image.GetPointData(), points), (image.GetCellData(), cells)):
        count = image.GetNumberOfPoints() if data is image.GetPointData() else image.GetNumberOfCells()
        for name, values in arrays:
            array = core.vtkStringArray() if isinstance(values, str) else core.vtkFloatArray()
            array.SetName(name)
            if isinstance(values, str):
                array.SetNumberOfValues(count)
            else:
                array.SetNumberOfComponents(len(np.atleast_1d(values)))
                array.SetNumberOfTuples(count)
                for component, value in enumerate(np.atleast_1d(values)):
                    array.FillComponent(component, float(value))
            data.AddArray(array)
        if active:
            data.SetActiveScalars(active)
    writer = library("vtkmodules.vtkIOXML").vtkXMLImageDataWriter()
    writer.SetFileName(str(path))
    writer.SetInputData(image)
    writer.Write()
    return path


@pytest.mark.parametrize(
    ("arrays", "active", "found"),
    [
        ([("vtkValidPointMask", 1), ("density", 5)], "density", 5),  # as ParaView resamples
        ([("vtkValidPointMask", 1), ("density", 5)], None, 5),
        ([("heat", 1), ("density", 5)], None, 1),
        ([("heat", 1), ("attenuation", 5)], "heat", 5),
        ([("labels", "text"), ("heat", 3)], None, 3),
    ],
)
def test_vtks_own_active_scalars_go_before_the_first_array(tmp_path, arrays, active, found):
    path = image_data(tmp_path / "a.vti", arrays, active=active)
    assert the_value(path) == found
    for name, value in arrays:
        if not isinstance(value, str):
            assert the_value(f"{path}#array={name}") == value


def test_cells_are_voxels_where_points_hold_nothing(tmp_path):
    path = image_data(tmp_path / "a.vti", cells=[("a", 1), ("b", 6)], active="b")
    assert read_voxels(path).shape == (2, *SHAPE)
    assert the_value(path) == 6
    assert the_value(f"{path}#array=a") == 1


def test_a_vector_of_vtk_is_refused_and_one_number_of_it_picked(tmp_path):
    path = image_data(tmp_path / "a.vti", [("flow", (1, 2, 3)), ("heat", 4)])
    with pytest.raises(VolumeFileError, match=r"3 numbers a voxel \(a vector or a colour\).*a\.vti#component=0"):
        read_voxels(path)
    assert the_value(f"{path}#component=1") == 2
    assert the_value(f"{path}#array=flow,component=2") == 3
    assert the_value(f"{path}#array=heat") == 4
    with pytest.raises(VolumeFileError, match=r"#array=none: must be one of flow, heat"):
        read_voxels(f"{path}#array=none")


def test_what_vtk_says_of_a_damaged_file_is_raised_and_not_printed(tmp_path, capfd):
    path = image_data(tmp_path / "a.vti", [("heat", 4)])
    content = path.read_bytes()
    start = content.index(b"<AppendedData")
    path.write_bytes(content[:start] + content[start:].replace(b"A", b"!"))
    with pytest.raises(VolumeFileError, match=r"a\.vti: damaged"):
        read_voxels(path)
    assert capfd.readouterr() == ("", "")


def test_points_that_no_piece_holds_are_not_whatever_the_memory_held(tmp_path):
    path = image_data(tmp_path / "a.vti", [("heat", 4)])
    path.write_bytes(path.read_bytes().replace(b'WholeExtent="0 3', b'WholeExtent="0 9', 1))
    with pytest.raises(VolumeFileError, match=r"its pieces do not fill its extent \(0, 9, 0, 3, 0, 3\)"):
        read_voxels(path)


def test_a_colour_of_nifti_is_refused_and_one_of_it_picked(tmp_path):
    nibabel = library("nibabel")
    colours = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["R"], colours["G"], colours["B"] = 1, 2, 3
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(VolumeFileError, match="3 numbers a voxel"):
        read_voxels(tmp_path / "a.nii")
    assert [the_value(f"{tmp_path / 'a.nii'}#component={k}") for k in range(3)] == [1, 2, 3]


def test_a_nifti_of_vectors_over_time_needs_both_picks(tmp_path):
    nibabel = library("nibabel")
    data = np.broadcast_to(np.arange(6, dtype=np.float32).reshape(2, 3), (*SHAPE, 2, 3)).copy()
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "a.nii.gz")
    for picks in ("", "#component=1"):
        with pytest.raises(VolumeFileError, match=r"2 3D volumes \(frames\)"):
            read_voxels(f"{tmp_path / 'a.nii.gz'}{picks}")
    assert the_value(f"{tmp_path / 'a.nii.gz'}#frame=1,component=2") == 5


@pytest.mark.parametrize(("kind", "role"), [("RGB-color", "component"), ("3-vector", "component"), ("list", "frame")])
def test_nrrds_kinds_say_what_an_axis_is(tmp_path, kind, role):
    nrrd = library("nrrd")
    data = np.broadcast_to(np.array([1, 2, 3], np.float32).reshape(3, 1, 1, 1), (3, *SHAPE)).copy()
    directions = np.vstack([np.full(3, np.nan), np.eye(3)])  # `none` in the file
    header = {"space": "LPS", "space directions": directions, "kinds": [kind, *["space"] * 3]}
    nrrd.write(str(tmp_path / "a.nrrd"), data, header)
    assert "none" in (tmp_path / "a.nrrd").read_bytes().decode("latin-1")
    with pytest.raises(VolumeFileError, match=rf"holds 3 .*#{role}=0 to {role}=2"):
        read_voxels(tmp_path / "a.nrrd")
    assert the_value(f"{tmp_path / 'a.nrrd'}#{role}=1") == 2
    header = {"kinds": [kind, *["space"] * 3]}  # no space: the kinds alone
    nrrd.write(str(tmp_path / "b.nrrd"), data, header)
    assert the_value(f"{tmp_path / 'b.nrrd'}#{role}=2") == 3


@pytest.mark.parametrize("mode", [0, 1, 2, 6, 12])
def test_each_mode_of_an_mrc(tmp_path, mode):
    mrcfile = library("mrcfile")
    kind = {0: np.int8, 1: np.int16, 2: np.float32, 6: np.uint16, 12: np.float16}[mode]
    largest = {0: 127, 1: 32767, 2: 1e6, 6: 65535, 12: 60000}[mode]
    with mrcfile.new(str(tmp_path / "a.mrc")) as mrc:
        mrc.set_data(np.full(SHAPE, largest, kind))
        assert int(mrc.header.mode) == mode
    assert the_value(tmp_path / "a.mrc") == np.float32(kind(largest))


def test_bytes_of_imod_are_unsigned_unless_it_says_so(tmp_path):
    mrcfile = library("mrcfile")
    with mrcfile.new(str(tmp_path / "a.mrc")) as mrc:
        mrc.set_data(np.full(SHAPE, 200, np.uint8).view(np.int8))
    content = bytearray((tmp_path / "a.mrc").read_bytes())
    for stamp, flags, found in ((1146047817, 0, 200), (1146047817, 1, None), (0, 0, None)):
        content[152:160] = stamp.to_bytes(4, "little") + flags.to_bytes(4, "little")
        (tmp_path / "a.mrc").write_bytes(content)
        if found:
            assert the_value(tmp_path / "a.mrc") == found
        else:
            with pytest.raises(VolumeFileError, match=r"< 0, in \[-56, -56\]"):
                read_voxels(tmp_path / "a.mrc")


def test_bytes_of_itk_are_unsigned_where_its_largest_is_none_of_signed_ones(tmp_path):
    itk = library("SimpleITK")
    values = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
    for largest in (100, 255):
        kept = np.minimum(values, largest)
        itk.WriteImage(itk.GetImageFromArray(kept), str(tmp_path / "a.mrc"))
        found = read_voxels(tmp_path / "a.mrc")[0]
        assert found.max() / found[found > 0].min() == pytest.approx(kept.max() / kept[kept > 0].min())


def test_an_array_of_another_programs_npz_is_picked(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, rho=np.full(SHAPE, 3.0), several=np.stack([np.full(SHAPE, k) for k in range(3)]), text="a")
    with pytest.raises(VolumeFileError, match=r"holds no absorbance.*a\.npz#array=NAME takes one array \(rho, several"):
        read_voxels(path)
    assert the_value(f"{path}#array=rho") == 3
    assert the_value(f"{path}#array=several,frame=2") == 2
    with pytest.raises(VolumeFileError, match="holds <U1 values; must be integers or real numbers"):
        read_voxels(f"{path}#array=text")


def test_a_plain_npy_is_attenuation_or_both_channels_in_the_worlds_axes(tmp_path):
    values = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
    np.save(tmp_path / "one.npy", values[0])
    np.save(tmp_path / "both.npy", values.astype(np.float64))
    one, both = read_voxels(tmp_path / "one.npy"), read_voxels(tmp_path / "both.npy")
    assert np.array_equal(one[0], 2.0 * values[0])
    assert not one[1].any()
    assert np.array_equal(both, np.stack([2.0 * values[0], values[1]]))
    assert np.array_equal(read_voxels(f"{tmp_path / 'both.npy'}#frame=1")[0], 2.0 * values[1])
    np.save(tmp_path / "wide.npy", np.zeros((2, 3, *SHAPE)))
    with pytest.raises(VolumeFileError, match=r"its shape is \(2, 3, 4, 4, 4\): 5D data; must be a volume"):
        read_voxels(tmp_path / "wide.npy")


def test_an_npy_that_carries_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    np.save(tmp_path / "a.npy", np.array([[[Trap()]]], object), allow_pickle=True)
    with pytest.raises(VolumeFileError, match="holds object values"):
        read_voxels(tmp_path / "a.npy")


def test_a_file_whose_own_name_holds_the_sign_still_opens(tmp_path):
    plain, odd = tmp_path / "a.npy", tmp_path / "a.npy#frame=1.npy"
    np.save(plain, np.full(SHAPE, 1.0))
    np.save(odd, np.full((3, *SHAPE), 7.0))
    assert split_pick(plain) == (plain, Pick())
    assert split_pick(f"{plain}#frame=0") == (plain, Pick(frame=0))
    assert split_pick(f"{odd}#frame=2") == (odd, Pick(frame=2))
    np.save(odd, np.full(SHAPE, 7.0))
    assert the_value(odd) == 7
    (tmp_path / "run #3").mkdir()
    np.save(tmp_path / "run #3" / "b.npy", np.full(SHAPE, 9.0))
    assert the_value(f"{tmp_path / 'run #3' / 'b.npy'}#frame=0") == 9
    with pytest.raises(VolumeFileError, match=r"none\.npy: no such file"):
        read_voxels(f"{tmp_path / 'none.npy'}#frame=0")


@pytest.mark.parametrize(
    ("picks", "words"),
    [
        ("frame=-1", r"a\.npy#frame=-1: must be one of array=NAME, frame=N, component=N \(N from 0\)"),
        ("frame=x", "#frame=x: must be one of"),
        ("array=", "#array=: must be one of"),
        ("moment=3", "#moment=3: must be one of"),
        ("frame", "#frame: must be one of"),
        ("frame=1", r"#frame=1: must be in \[0, 0\]"),
        ("component=2", r"#component=2: must be in \[0, 0\]"),
        ("array=rho", r"#array=rho: must be left out: a \.npy holds one array"),
    ],
)
def test_a_wrong_pick_is_one_line(tmp_path, picks, words):
    np.save(tmp_path / "a.npy", np.ones(SHAPE))
    with pytest.raises(VolumeFileError, match=words) as refused:
        VoxelGrid.load(f"{tmp_path / 'a.npy'}#{picks}")
    assert "\n" not in str(refused.value)


def test_only_formats_with_named_arrays_take_a_name(tmp_path):
    """The table of them is right: each reader that is not in it never looks at the name."""
    from mnist3d.formats.reading import OF_ARRAYS

    assert set(READERS) >= OF_ARRAYS == {".npz", ".vti", ".vdb"}


def test_a_pick_that_is_named_can_be_typed_from_any_folder(tmp_path, monkeypatch):
    """The name in the message is the one that was given, folder and all."""
    (tmp_path / "of#1").mkdir()
    monkeypatch.chdir(tmp_path)
    np.save("of#1/a.npy", np.stack([np.full(SHAPE, k) for k in range(3)]))
    np.savez("of#1/b.npz", rho=np.full(SHAPE, 3.0))
    for name, value in (("of#1/a.npy#frame=0", 0), ("of#1/b.npz#array=NAME", 3)):
        with pytest.raises(VolumeFileError) as refused:
            read_voxels(name.rpartition("#")[0])
        assert name in str(refused.value)
        assert the_value(name.replace("NAME", "rho")) == value


@pytest.mark.parametrize("twice", ["frame=0,frame=1", "negative=refuse,frame=0,negative=clip", "array=a,array=a"])
def test_nothing_is_picked_twice(tmp_path, twice):
    np.save(tmp_path / "a.npy", np.stack([np.full(SHAPE, k) for k in range(3)]))
    key = twice.partition("=")[0]
    with pytest.raises(VolumeFileError, match=rf"a\.npy#{twice.rpartition(',')[2]}: {key} is given twice"):
        read_voxels(f"{tmp_path / 'a.npy'}#{twice}")


def test_who_types_what_each_message_says_arrives(tmp_path):
    """Vectors at three times, with noise below 0: each pick keeps those before it."""
    nibabel = library("nibabel")
    data = np.ones((*SHAPE, 3, 2), np.float32)
    data[0] = -1.0
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), str(tmp_path / "a.nii"))
    name = f"{tmp_path / 'a.nii'}#negative=clip"
    for ending in ("#frame=0,negative=clip", "#frame=0,component=0,negative=clip"):
        with pytest.raises(VolumeFileError) as refused:
            read_voxels(name)
        name = str(refused.value).partition("one must be picked, with ")[2].partition(" to ")[0]
        assert name == f"{tmp_path / 'a.nii'}{ending}"
    assert set(read_voxels(name)[0].ravel().tolist()) == {0.0, 2.0}
