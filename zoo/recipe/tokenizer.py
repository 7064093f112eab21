"""A CLIP tokenizer of the captions' own words: byte-pair merges learnt from a list of captions."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
END = "</w>"


def build(captions: list[str], merges: int, length: int) -> CLIPTokenizer:
    """Learn `merges` byte-pair merges; pads and truncates to `length`; the end token has the highest id."""
    splitter = CLIPTokenizer().backend_tokenizer.pre_tokenizer
    counts = Counter(w for c in captions for w, _ in splitter.pre_tokenize_str(c.lower()))
    words = {w: (*w[:-1], w[-1] + END) for w in counts}
    learnt: list[tuple[str, str]] = []
    for _ in range(merges):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in words.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = max(pairs, key=lambda p: (pairs[p], p))
        learnt.append(best)
        words = {w: merged(parts, best) for w, parts in words.items()}
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(c + END for c in alphabet), *("".join(p) for p in learnt), BOS, EOS]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    pairs_learnt: Any = learnt  # pairs, which transformers takes and its annotation lacks
    return CLIPTokenizer(vocab=vocab, merges=pairs_learnt, model_max_length=length)


def merged(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return tuple(out)
