"""`surfaces`: the embedded data set, procedural surfaces with defects, drawn from seeds.

An image is made in this order: a material gives a tone (`textures`), light and colour make a photograph of it
(`lighting`), and a defect darkens, paints or deforms it (`defects`); `drawing` joins them, `dataset` writes many.
"""

from inandout.data.surfaces.dataset import SurfacesConfig, drawing_fingerprint, write_surfaces
from inandout.data.surfaces.defects import CONTRASTS, KINDS, SIZES
from inandout.data.surfaces.drawing import Surface, draw_surface
from inandout.data.surfaces.lighting import COLOURS, LIGHTINGS, PALETTES
from inandout.data.surfaces.textures import SURFACES, draw_texture

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
