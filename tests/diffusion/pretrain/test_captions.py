import re

import numpy as np
import pytest

from inandout.data.surfaces import COLOURS, CONTRASTS, KINDS, LIGHTINGS, SIZES, SURFACES, draw_surface
from inandout.diffusion.pretrain.captions import LIGHTS, NOUNS, PRODUCT_WORDS, RARE, caption_of, vocabulary
from inandout.diffusion.pretrain.tokenizer import END, LENGTH, START, build_tokenizer

TOKENIZER = build_tokenizer(vocabulary())
NAMES = {kind: {kind, *NOUNS[kind]} for kind in KINDS}


def captions(defect: str, count: int = 60) -> list[str]:
    rng = np.random.default_rng(0)
    return [caption_of(draw_surface(32, 32, seed, defect), rng) for seed in range(count)]


def test_every_defect_and_lighting_has_words() -> None:
    assert set(NOUNS) == set(KINDS)
    assert set(LIGHTS) == set(LIGHTINGS)


def test_captions_of_a_good_surface_name_no_defect() -> None:
    descriptions = captions("")
    assert "background" in descriptions
    defects = set().union(*NAMES.values(), SIZES, CONTRASTS) | {"with"}
    assert not any(defects & set(caption.replace("spot light", "").split()) for caption in descriptions)


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_names_its_defect_and_no_other(kind: str) -> None:
    descriptions = captions(kind)
    assert f"background {kind}" in descriptions
    others = set().union(*(names for other, names in NAMES.items() if other != kind))
    for caption in descriptions:
        words = set(caption.replace("spot light", "").split())
        assert "background" in words
        assert NAMES[kind] & words
        assert not others & words


def test_captions_vary_and_are_true() -> None:
    rng = np.random.default_rng(0)
    surface = draw_surface(64, 64, 3, "scratched")
    descriptions = {caption_of(surface, rng) for _ in range(200)}
    assert len(descriptions) > 40
    for words, truth in ((COLOURS, surface.colour), (SURFACES, surface.surface), (SIZES, surface.size)):
        assert {word for caption in descriptions for word in caption.split() if word in words} == {truth}


def test_captions_are_reproducible() -> None:
    surface = draw_surface(64, 64, 3, "stained")
    assert caption_of(surface, np.random.default_rng(5)) == caption_of(surface, np.random.default_rng(5))


def test_every_word_of_a_caption_is_one_token_and_the_caption_fits() -> None:
    for caption in [caption for kind in ("", *KINDS) for caption in captions(kind)]:
        words = [word for word in caption.split() if not re.fullmatch("[a-z]{3}", word) or word == RARE]
        digits = sum(len(word) - 1 for word in words if word.isdigit())
        assert len(TOKENIZER(" ".join(words)).input_ids) == len(words) + digits + 2
        assert len(TOKENIZER(caption).input_ids) <= LENGTH


@pytest.mark.parametrize("word", vocabulary())
def test_known_words_are_one_token(word: str) -> None:
    assert TOKENIZER.tokenize(word) == [f"{word}</w>"]


def test_unknown_words_are_split_into_bytes_and_never_end_the_prompt() -> None:
    tokens = TOKENIZER("Schöne 表面 #7 background").input_ids
    assert tokens[0] == TOKENIZER.bos_token_id
    assert tokens.index(TOKENIZER.eos_token_id) == len(tokens) - 1
    assert TOKENIZER.convert_ids_to_tokens(tokens[-2]) == "background</w>"


def test_start_and_end_are_the_last_two_tokens() -> None:
    assert TOKENIZER.convert_tokens_to_ids([START, END]) == [len(TOKENIZER) - 2, len(TOKENIZER) - 1]


def test_a_product_is_called_by_its_own_word_and_defects_are_named_as_ever() -> None:
    rng = np.random.default_rng(0)
    word = PRODUCT_WORDS[7]
    said = [caption_of(draw_surface(32, 32, seed, "stained"), rng, product=7) for seed in range(60)]
    assert all(caption.startswith(f"{word} ") for caption in said)
    assert f"{word} background stained" in said
    assert all(NAMES["stained"] & set(caption.split()) for caption in said)


def test_words_of_products_are_distinct_and_none_is_the_word_of_dreambooth() -> None:
    assert len(set(PRODUCT_WORDS)) == len(PRODUCT_WORDS) == 256
    assert RARE not in PRODUCT_WORDS
