"""Small texts and models to try."""

import random
from typing import Any

import torch

from peephole.data.corpus import Corpus, of_texts
from peephole.tasks.text.model import TextModel
from peephole.tasks.text.settings import Network


def words(length: int, seed: int = 0) -> str:
    """A text in which much can be predicted."""
    draw = random.Random(seed)
    text = ""
    while len(text) < length:
        text += draw.choice(["ab ", "abc ", "bad ", "dad. "])
    return text[:length]


def corpus(*lengths: int, held_out: tuple[int, ...] = (-1,)) -> Corpus:
    """Documents of these lengths; those of ``held_out`` are."""
    texts = [words(length, seed) for seed, length in enumerate(lengths)]
    out = [False] * len(texts)
    for k in held_out:
        out[k] = True
    return of_texts(texts, out)


def model(size: int = 8, **options: Any) -> TextModel:
    """A model in evaluation mode, in float64, with distinct weights that are not small."""
    usual = {"hidden_size": 5, "layers": 2, "embedding_size": 3, "tied": False}
    made = TextModel(size, Network(**{**usual, **options})).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made
