"""Train on a person's table of sequences, evaluate on another, predict.

from peephole.jobs import table

run = table.train("train.csv", target="label", sequence="id", test="test.csv")
print(run.metrics["test.accuracy"], run.path)
table.predict(run, "new.csv", out="predictions.csv")

Where a file is named there may be a table from Python: an Arrow table, a pandas or polars frame, a
Hugging Face ``datasets.Dataset``, or the one that ``from_tensors`` makes of tensors.
"""

from peephole.data.frames import from_tensors
from peephole.jobs.table.settings import TrainSettings
from peephole.jobs.table.train import TableRun, resume, train
from peephole.jobs.table.use import evaluate, open_run, predict
from peephole.tasks.table.metrics import Scores
from peephole.tasks.table.settings import DataSettings, ModelSettings

__all__ = [
    "DataSettings",
    "ModelSettings",
    "Scores",
    "TableRun",
    "TrainSettings",
    "evaluate",
    "from_tensors",
    "open_run",
    "predict",
    "resume",
    "train",
]
