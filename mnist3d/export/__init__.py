"""Videos, meshes, pages, plots.

The ways out of the program. Each takes a volume and a renderer, never a run. The libraries that single formats need
are imported when such a file is written.

    export_voxels(volume, "sculpture.nrrd")            every suffix of VOXEL_FORMATS
    report = export_mesh(volume, "sculpture.stl")
    report = export_points(volume, "sculpture.ply")
"""

from .mesh import MESH_FORMATS, MeshReport, export_mesh
from .points import POINT_FORMATS, PointReport, export_points
from .sampling import voxel_arrays
from .voxels import VOXEL_FORMATS, export_voxels

__all__ = [
    "MESH_FORMATS",
    "POINT_FORMATS",
    "VOXEL_FORMATS",
    "MeshReport",
    "PointReport",
    "export_mesh",
    "export_points",
    "export_voxels",
    "voxel_arrays",
]
