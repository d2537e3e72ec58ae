"""A CLIP tokenizer, built in memory, with one token for every word of the captions."""

from itertools import pairwise

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

LENGTH = 32
"""Maximum number of tokens of a prompt, including start and end. Captions have at most 14 words."""

START, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
"""Suffix that CLIP adds to the last symbol of a word."""


def build_tokenizer(words: list[str]) -> CLIPTokenizer:
    """Return a tokenizer with one token for each of `words`; other words are split into bytes.

    As in CLIP, the vocabulary consists of the 256 bytes, the same as ends of words, the merges, start and end.
    """
    alphabet = sorted(ByteLevel.alphabet())
    merges = _merges(words)
    word_ends = [symbol + _WORD_END for symbol in alphabet]
    vocabulary = dict.fromkeys([*alphabet, *word_ends, *("".join(pair) for pair in merges), START, END])
    token_ids = {token: number for number, token in enumerate(vocabulary)}
    return CLIPTokenizer(vocab=token_ids, merges=merges, model_max_length=LENGTH)


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """Return byte-pair merges that build each word; longer words extend the merges of shorter ones.

    The existing merges are applied to a word first; the remaining pieces are joined from left to right. Later merges
    cannot split an earlier word, because it is already joined when they apply.
    """
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = _join([*word[:-1], word[-1] + _WORD_END], merges)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    return merges


def _join(pieces: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """Apply byte-pair encoding: repeatedly join the pair with the lowest rank."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    while known := [pair for pair in pairwise(pieces) if pair in ranks]:
        pair = min(known, key=ranks.__getitem__)
        joined: list[str] = []
        for piece in pieces:
            if joined and (joined[-1], piece) == pair:
                joined[-1] += piece
            else:
                joined.append(piece)
        pieces = joined
    return pieces
