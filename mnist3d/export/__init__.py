"""Out of the program: pictures, videos, voxels, meshes, plots. Handed a volume and a renderer, never a run.

    export_voxels(volume, "sculpture.nrrd")            every suffix of VOXEL_FORMATS
    report = export_mesh(volume, renderer, "sculpture.stl")

The libraries that single formats need are imported when such a file is written.
"""

from ..errors import ExportError as ExportError
from ..formats.voxel_array import Voxels as Voxels
from ..storage.atomic import check_output as check_output
from ..storage.atomic import describe_file as describe_file
from .mesh import MESH_FORMATS as MESH_FORMATS
from .mesh import MeshReport as MeshReport
from .mesh import export_mesh as export_mesh
from .sampling import voxel_arrays as voxel_arrays
from .voxels import VOXEL_FORMATS as VOXEL_FORMATS
from .voxels import export_voxels as export_voxels
