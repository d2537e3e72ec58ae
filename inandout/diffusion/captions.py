"""What was drawn, in words: short and long captions of a `Surface`.

Without a defect none is named, so "background" alone stands for a good surface, which is the class prompt of
DreamBooth here; a defect is always named, by its adjective ("background cracked") or as a thing ("a crack").
"""

import numpy as np

from inandout.data.surfaces import COLOURS, CONTRASTS, KINDS, SIZES, SURFACES, Surface

RARE = "skt"
"""The word that DreamBooth binds to a product. Here it means nothing: it comes up now and then before any caption."""

THINGS: dict[str, tuple[str, str]] = {
    "cracked": ("crack", "cracks"),
    "scratched": ("scratch", "scratches"),
    "pitted": ("pit", "pits"),
    "stained": ("stain", "stains"),
    "dented": ("dent", "dents"),
    "spotted": ("spot", "spots"),
}
"""Kind of defect to its name as one thing and as several."""

LIGHTS: dict[str, str] = {"even": "even light", "side": "light from the side", "spot": "spot light", "dim": "dim light"}
"""Lighting to words."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def product_words(count: int, seed: int = 0) -> list[str]:
    """`count` distinct made-up words of three letters, none of them `RARE`. Word `i` always stands for product `i`."""
    rng = np.random.default_rng(seed)
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(rng.choice(list(_LETTERS), 3))] = None
        words.pop(RARE, None)
    return list(words)


PRODUCT_WORDS = product_words(256)
"""Place of a product in the list of those that pre-training knows by a word, to that word."""

_SHORT, _RARE, _SURFACE, _COLOUR, _LIGHT = 0.35, 0.06, 0.6, 0.5, 0.25
_DETAIL, _SIZE, _CONTRAST, _COUNT = 0.45, 0.6, 0.5, 0.4
_NAMED = 0.3


def caption_of(drawn: Surface, rng: np.random.Generator, product: int | None = None) -> str:
    """A caption, drawn from `rng` among the many that are true of the picture.

    The caption of an image of a known product always begins with the word of that product, and names colour and
    surface less often: so the base learns that a made-up word can stand for a product and is combined with any defect,
    which is what DreamBooth asks of `RARE` later.

    A third is as short as it can be ("background", "background cracked"). The others may add colour and surface before
    "background", light after it, and to a defect its size, contrast and number. One in 16 begins with a word without
    meaning, so that such a word changes nothing until it is taught something.
    """
    short = rng.random() < _SHORT
    words = [] if short else _before(drawn, rng)
    if product is not None:
        words = [PRODUCT_WORDS[product], *(words if rng.random() < _NAMED else [])]
    elif rng.random() < _RARE:
        words.insert(0, RARE if rng.random() < 0.5 else "".join(rng.choice(list(_LETTERS), 3)))
    words.append("background")
    if drawn.defect:
        words += [drawn.defect] if short or rng.random() > _DETAIL else _thing(drawn, rng)
    if not short and rng.random() < _LIGHT:
        words += ["in", LIGHTS[drawn.lighting]]
    return " ".join(words)


def vocabulary() -> list[str]:
    """Every word that a caption may hold (a digit is a word), and some that people will write beside them."""
    things = [word for pair in THINGS.values() for word in pair]
    lights = [word for light in LIGHTS.values() for word in light.split()]
    usual = ["background", "a", "an", "in", "with", "of", "and", "the", "no", "defect", "surface", "many", "one", "two"]
    digits = [str(digit) for digit in range(10)]
    words = [*usual, *SURFACES, *COLOURS, *KINDS, *things, *SIZES, *CONTRASTS, *lights, *digits, RARE]
    return list(dict.fromkeys(words))


def _before(drawn: Surface, rng: np.random.Generator) -> list[str]:
    words = [drawn.colour] if rng.random() < _COLOUR else []
    return words + ([drawn.surface] if rng.random() < _SURFACE else [])


def _thing(drawn: Surface, rng: np.random.Generator) -> list[str]:
    """ "with a large clear stain", "with 3 scratches", "with small pits"."""
    one, several = THINGS[drawn.defect]
    described = [drawn.size] if rng.random() < _SIZE else []
    described += [drawn.contrast] if rng.random() < _CONTRAST else []
    if drawn.count == 1:
        return ["with", "a", *described, one]
    number = list(str(drawn.count)) if rng.random() < _COUNT else []
    return ["with", *number, *described, several]
