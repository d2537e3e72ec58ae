"""`surfaces`: the embedded dataset of procedural surfaces with defects, generated from seeds.

The steps of one image are: the tone of a material (`textures`), light and colour (`lighting`), harmless marks (`wear`),
and a defect that darkens, paints or deforms the surface (`defects`). `drawing` combines them; `dataset` writes many
images.
"""

from inandout.data.config import KINDS, SURFACES, SurfacesConfig
from inandout.data.surfaces.dataset import drawing_fingerprint, write_surfaces
from inandout.data.surfaces.defects import CONTRASTS, SIZES
from inandout.data.surfaces.drawing import Surface, draw_surface
from inandout.data.surfaces.lighting import COLOURS, LIGHTINGS, PALETTES
from inandout.data.surfaces.textures import draw_texture

__all__ = [
    "COLOURS",
    "CONTRASTS",
    "KINDS",
    "LIGHTINGS",
    "PALETTES",
    "SIZES",
    "SURFACES",
    "Surface",
    "SurfacesConfig",
    "draw_surface",
    "draw_texture",
    "drawing_fingerprint",
    "write_surfaces",
]
