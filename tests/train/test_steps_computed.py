"""Training computes the steps that there are, and no others."""

from typing import Any

import pytest

from peephole.ops.cpu import lstm
from peephole.train import Settings, fit
from tests.helpers.training import TASKS


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "changes",
    [{"batch_size": 6}, {"batch_size": 6, "accumulate": 3}, {"batch_size": 6, "pool": 4}],
    ids=["plain", "accumulated", "pooled"],
)
def test_each_step_is_computed_once_an_epoch(
    task: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = TASKS[task]()
    steps: dict[str, int] = {"lstm_forward": 0, "lstm_backward": 0}
    plain = lstm.call

    def call(name: str, dtype: Any) -> Any:
        kernel = plain(name, dtype)

        def counting(sequences: int, told: int, *others: Any) -> None:
            steps[name] += told
            kernel(sequences, told, *others)

        return counting

    monkeypatch.setattr(lstm, "call", call)
    monkeypatch.setattr(made, "evaluate", lambda model: {"loss": 0.0})
    fit(made, Settings(epochs=3, learning_rate=0.01, **changes))
    exist = 3 * int(made.lengths.sum())
    assert steps == {"lstm_forward": exist, "lstm_backward": exist}
