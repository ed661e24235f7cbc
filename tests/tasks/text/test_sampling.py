"""Text from a model."""

import math
from collections import Counter
from itertools import islice
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from peephole.data.alphabet import UNKNOWN, Alphabet
from peephole.errors import UserError
from peephole.tasks.text import sampling
from peephole.tasks.text.model import TextModel
from peephole.tasks.text.sampling import Choice, Writer, written
from tests.tasks.text.texts import model

ABC = Alphabet("char", "abcdefg")
LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=9).map(
    lambda some: np.array(some, np.float32)
)


DRAWS = 4000


def shares(choice: Choice, logits: np.ndarray) -> np.ndarray:
    """How often each id is drawn, over evenly spaced random numbers: within 1 / DRAWS."""
    counts = Counter(choice.draw(logits, (k + 0.5) / DRAWS) for k in range(DRAWS))
    return np.array([counts[id] / DRAWS for id in range(len(logits))])


class TestChoice:
    @hypothesis.given(logits=LOGITS, temperature=st.floats(0.2, 4))
    @hypothesis.settings(max_examples=20)
    def test_by_itself_it_is_softmax(self, logits: np.ndarray, temperature: float) -> None:
        wanted = torch.softmax(torch.from_numpy(logits).double() / temperature, 0).numpy()
        np.testing.assert_allclose(
            shares(Choice(temperature), logits), wanted, rtol=1e-5, atol=1 / DRAWS
        )

    @hypothesis.given(logits=LOGITS, k=st.integers(1, 9))
    @hypothesis.settings(max_examples=20)
    def test_top_k_leaves_the_k_likeliest(self, logits: np.ndarray, k: int) -> None:
        k = min(k, len(logits))
        kept = np.argsort(-logits, kind="stable")[:k]
        wanted = np.zeros(len(logits))
        wanted[kept] = torch.softmax(torch.from_numpy(logits[kept]).double(), 0).numpy()
        np.testing.assert_allclose(
            shares(Choice(top_k=k), logits), wanted, rtol=1e-5, atol=1 / DRAWS
        )

    @hypothesis.given(logits=LOGITS, p=st.floats(0.05, 0.95))
    @hypothesis.settings(max_examples=20)
    def test_top_p_leaves_the_fewest_that_have_as_much(self, logits: np.ndarray, p: float) -> None:
        all_shares = torch.softmax(torch.from_numpy(logits).double(), 0).numpy()
        order = np.argsort(-logits, kind="stable")
        sums = all_shares[order].cumsum()
        hypothesis.assume(np.abs(sums - p).min() > 1e-4)
        kept = order[: int((sums < p).sum()) + 1]
        wanted = np.zeros(len(logits))
        wanted[kept] = all_shares[kept] / all_shares[kept].sum()
        np.testing.assert_allclose(
            shares(Choice(top_p=p), logits), wanted, rtol=1e-5, atol=1 / DRAWS
        )

    @hypothesis.given(logits=LOGITS, uniform=st.floats(0, 1, exclude_max=True))
    def test_cold_is_the_likeliest(self, logits: np.ndarray, uniform: float) -> None:
        best = int(logits.argmax())
        for choice in (Choice(0), Choice(top_k=1), Choice(top_p=1e-9), Choice(0, 2, 0.5)):
            assert choice.draw(logits, uniform) == best
        drawn = Choice(1e-300).draw(logits, uniform)
        assert logits[drawn] == logits[best]

    def test_what_cannot_be_never_is(self) -> None:
        logits = np.array([-np.inf, 0, -np.inf, 0], np.float32)
        for choice in (Choice(), Choice(100.0), Choice(top_k=3), Choice(top_p=1.0)):
            assert shares(choice, logits).tolist() == [0, 0.5, 0, 0.5]
            assert choice.draw(logits, math.nextafter(1, 0)) in (1, 3)

    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            (Choice(-1), "temperature: -1; it must be a number of at least 0"),
            (Choice(math.nan), "temperature: nan; it must be a number of at least 0"),
            (Choice(math.inf), "temperature: inf; it must be a number of at least 0"),
            (Choice(top_k=0), "top_k: 0; the model's alphabet has 7: it must be from 1 to that"),
            (Choice(top_k=8), "top_k: 8; the model's alphabet has 7: it must be from 1 to that"),
            (Choice(top_p=0), "top_p: 0; it must be above 0 and at most 1"),
            (Choice(top_p=math.nan), "top_p: nan; it must be above 0 and at most 1"),
            (Choice(top_p=1.01), "top_p: 1.01; it must be above 0 and at most 1"),
        ],
    )
    def test_numbers_out_of_range(self, choice: Choice, message: str) -> None:
        with pytest.raises(UserError) as error:
            choice.check(7)
        assert str(error.value) == message

    def test_numbers_in_range(self) -> None:
        for choice in (Choice(), Choice(0), Choice(top_k=7), Choice(top_p=1.0)):
            choice.check(7)


class TestWriter:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"cell": "gru"},
            {"cell": "rnn"},
            {"peephole": "diagonal"},
            {"peephole": "full", "layers": 3},
            {"layer_norm": "output"},
            {"layer_norm": "gates"},
            {"layer_norm": "gates", "cell": "gru"},
            {"tied": True, "embedding_size": 5},
            {"dropout": 0.5, "recurrent_dropout": 0.5},
        ],
    )
    def test_steps_are_the_layers(
        self, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = model(**options).float()
        ids = torch.randint(9, (12,)).tolist()
        with torch.no_grad():
            wanted, _ = made(torch.tensor(ids), torch.tensor([0, 12]), made.initial_state(1))
        writer = Writer(made)
        monkeypatch.setattr(sampling, "STEPS", 3)
        found = [writer.read(ids[:7]), *(writer.step(id) for id in ids[7:])]
        np.testing.assert_allclose(np.stack(found), wanted[6:].numpy(), rtol=1e-5, atol=1e-5)


@pytest.fixture
def made() -> TextModel:
    """One that heeds what it has read."""
    strong = model(8).float()
    with torch.no_grad():
        for parameter in strong.parameters():
            parameter.mul_(4)
    return strong


class TestWritten:
    def test_the_same_seed_gives_the_same_text(self, made: TextModel) -> None:
        def text(seed: int, **options: Any) -> str:
            return "".join(written(made, ABC, length=60, choice=Choice(), seed=seed, **options))

        assert text(1) == text(1)
        assert len({text(seed) for seed in range(5)}) == 5
        assert text(1)[:30] == "".join(written(made, ABC, length=30, choice=Choice(), seed=1))
        assert text(1, prompt="abc") != text(1)

    def test_it_draws_what_the_model_says(self, made: TextModel) -> None:
        """Greedy, against the whole text given to the layers at once."""
        text = "".join(written(made, ABC, prompt="bad", length=20, choice=Choice(0)))
        ids = torch.tensor([made.start, *ABC.encode("bad" + text).tolist()])
        with torch.no_grad():
            logits, _ = made(ids, torch.tensor([0, len(ids)]), made.initial_state(1))
        logits[:, UNKNOWN] = -torch.inf
        assert ABC.encode(text).tolist() == logits[3:-1].argmax(1).tolist()

    def test_the_unknown_is_never_written(self, made: TextModel) -> None:
        with torch.no_grad():
            made.output_bias[UNKNOWN] = 1000
        text = "".join(written(made, ABC, length=50, choice=Choice()))
        assert len(text) == 50
        assert set(text) <= set("abcdefg")

    def test_it_comes_a_character_at_a_time_and_may_go_on(self, made: TextModel) -> None:
        endless = written(made, ABC, choice=Choice(), seed=2)
        first = list(islice(endless, 300))
        assert {len(character) for character in first} == {1}
        assert "".join(first) == "".join(written(made, ABC, length=300, choice=Choice(), seed=2))
        assert list(written(made, ABC, length=0, choice=Choice())) == []

    def test_bytes_become_characters_as_soon_as_they_are_whole(self) -> None:
        made = model(256).float()
        text = list(written(made, Alphabet("byte"), prompt="é", length=200, choice=Choice()))
        assert all(text)
        with torch.no_grad():
            made.output.zero_()
            for byte in "é".encode():
                made.output_bias[byte] = 100 if byte == 0xC3 else 99
        cut = list(written(made, Alphabet("byte"), length=1, choice=Choice(0)))
        assert cut == ["\N{REPLACEMENT CHARACTER}"]

    def test_a_prompt_the_model_has_never_seen(self, made: TextModel) -> None:
        with pytest.raises(UserError) as error:
            written(made, ABC, prompt="a€z\n€", length=3, choice=Choice())
        assert str(error.value) == "prompt: the model has never seen '€z\\n'; it knows 'abcdefg'"
