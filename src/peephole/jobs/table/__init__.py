"""Train on a person's table of sequences, evaluate on another, predict.

from peephole.jobs import table

run = table.train("train.csv", target="label", sequence="id", test="test.csv")
print(run.metrics["test.accuracy"], run.path)
table.predict(run, "new.csv", out="predictions.csv")
"""

from peephole.jobs.table.settings import TrainSettings
from peephole.jobs.table.train import TableRun, train
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
    "open_run",
    "predict",
    "train",
]
