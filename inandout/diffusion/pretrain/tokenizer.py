"""The tokenizer: CLIP's, built in memory, with every word of the captions as one token."""

from itertools import pairwise

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

LENGTH = 32
"""Tokens of a prompt, begin and end included; the rest is cut off. Captions have 14 words at most."""

START, END = "<|startoftext|>", "<|endoftext|>"
_LAST = "</w>"
"""What CLIP adds to the last symbol of a word."""


def build_tokenizer(words: list[str]) -> CLIPTokenizer:
    """A tokenizer that makes one token of each of `words`, and spells every other word byte by byte.

    As in CLIP, the vocabulary is the 256 bytes, the same as ends of words, the merges, begin, end.
    """
    alphabet = sorted(ByteLevel.alphabet())
    merges = _merges(words)
    vocabulary = [*alphabet, *(symbol + _LAST for symbol in alphabet), *("".join(pair) for pair in merges), START, END]
    numbered = {token: number for number, token in enumerate(dict.fromkeys(vocabulary))}
    return CLIPTokenizer(vocab=numbered, merges=merges, model_max_length=LENGTH)


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges that build each word, longer words adding to what shorter ones need.

    A word is first joined by the merges there are; what is then left in pieces is joined from left to right. Later
    merges cannot break an earlier word, which is already whole when their turn comes.
    """
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = _join([*word[:-1], word[-1] + _LAST], merges)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    return merges


def _join(pieces: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """Byte-pair encoding: again and again join the pair that was merged first."""
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
