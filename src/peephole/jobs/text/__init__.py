"""Train a language model of characters or bytes, let it write, measure it.

from peephole.jobs import text

run = text.train("input.txt", budget="5m")
print("".join(text.sample(run, prompt="ROMEO:", length=500)))
print(text.evaluate(run, "other.txt").bits)
"""

from peephole.jobs.text.settings import ModelSettings, TrainSettings
from peephole.jobs.text.train import TextRun, resume, train
from peephole.jobs.text.use import TextScores, evaluate, open_run, sample
from peephole.tasks.text.settings import Network

__all__ = [
    "ModelSettings",
    "Network",
    "TextRun",
    "TextScores",
    "TrainSettings",
    "evaluate",
    "open_run",
    "resume",
    "sample",
    "train",
]
