"""Short and long captions of a `Surface`.

A caption names a defect if and only if there is one, so "background" alone stands for a good surface, the class prompt
of DreamBooth. A defect is named by its adjective ("background cracked") or as a noun ("a crack").
"""

import numpy as np

from inandout.data.surfaces import COLOURS, CONTRASTS, KINDS, SIZES, SURFACES, Surface

RARE = "skt"
"""The word that DreamBooth binds to a product. It has no meaning in pretraining, where it begins some captions."""

NOUNS: dict[str, tuple[str, str]] = {
    "cracked": ("crack", "cracks"),
    "scratched": ("scratch", "scratches"),
    "pitted": ("pit", "pits"),
    "stained": ("stain", "stains"),
    "dented": ("dent", "dents"),
    "spotted": ("spot", "spots"),
}
"""Kind of defect to its singular and plural noun."""

LIGHTS: dict[str, str] = {"even": "even light", "side": "light from the side", "spot": "spot light", "dim": "dim light"}
"""Lighting to its words in a caption."""

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
    """Return one of the many true captions of a surface, chosen by `rng`.

    A third is minimal ("background", "background cracked"). The others may add colour and surface before "background",
    the light after it, and size, contrast and number to a defect. One in 16 begins with a meaningless word, so that
    such words have no effect until DreamBooth teaches one.

    The caption of a known product begins with the word of the product and names colour and surface less often. The base
    learns from these captions that a made-up word stands for a product and combines with every defect.
    """
    short = rng.random() < _SHORT
    words = [] if short else _before(drawn, rng)
    if product is not None:
        words = [PRODUCT_WORDS[product], *(words if rng.random() < _NAMED else [])]
    elif rng.random() < _RARE:
        words.insert(0, RARE if rng.random() < 0.5 else "".join(rng.choice(list(_LETTERS), 3)))
    words.append("background")
    if drawn.defect:
        words += [drawn.defect] if short or rng.random() > _DETAIL else _noun_phrase(drawn, rng)
    if not short and rng.random() < _LIGHT:
        words += ["in", LIGHTS[drawn.lighting]]
    return " ".join(words)


def vocabulary() -> list[str]:
    """Return every word of the captions (a digit is a word), and common words of user prompts."""
    nouns = [word for pair in NOUNS.values() for word in pair]
    lights = [word for light in LIGHTS.values() for word in light.split()]
    basic = ["background", "a", "an", "in", "with", "of", "and", "the", "no", "defect", "surface", "many", "one", "two"]
    digits = [str(digit) for digit in range(10)]
    words = [*basic, *SURFACES, *COLOURS, *KINDS, *nouns, *SIZES, *CONTRASTS, *lights, *digits, RARE]
    return list(dict.fromkeys(words))


def _before(drawn: Surface, rng: np.random.Generator) -> list[str]:
    words = [drawn.colour] if rng.random() < _COLOUR else []
    return words + ([drawn.surface] if rng.random() < _SURFACE else [])


def _noun_phrase(drawn: Surface, rng: np.random.Generator) -> list[str]:
    """Return words such as "with a large clear stain", "with 3 scratches", "with small pits"."""
    singular, plural = NOUNS[drawn.defect]
    adjectives = [drawn.size] if rng.random() < _SIZE else []
    adjectives += [drawn.contrast] if rng.random() < _CONTRAST else []
    if drawn.count == 1:
        return ["with", "a", *adjectives, singular]
    number = list(str(drawn.count)) if rng.random() < _COUNT else []
    return ["with", *number, *adjectives, plural]
