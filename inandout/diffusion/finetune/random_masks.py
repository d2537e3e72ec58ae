"""Random masks for training an inpainting base, after diffusers' research project `dreambooth_inpaint`."""

import numpy as np
from PIL import Image, ImageDraw

from inandout.data.images import Mask


def random_mask(width: int, height: int, rng: np.random.Generator) -> Mask:
    """Return a rectangle or an ellipse (H, W) inside the image, each with probability 1/2; it is never empty.

    Width, height and place are uniform; each side has from one pixel to all pixels of the image.
    """
    sides = [int(rng.integers(1, limit + 1)) for limit in (width, height)]
    left, top = (int(rng.integers(0, limit - side + 1)) for limit, side in zip((width, height), sides, strict=True))
    box = (left, top, left + sides[0] - 1, top + sides[1] - 1)
    image = Image.new("1", (width, height))
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.5:
        draw.rectangle(box, fill=1)
    else:
        draw.ellipse(box, fill=1)
    mask: Mask = np.array(image, np.bool_)
    mask[top + sides[1] // 2, left + sides[0] // 2] = True
    return mask
