"""MemSeg's synthetic anomalies: a Perlin mask, filled from a texture or from the image itself."""
