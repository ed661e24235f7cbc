"""Invert a noisy wavy function: the experiment this package grew from."""

from peephole.tasks.toy.data import DATA_SETS, DataSet
from peephole.tasks.toy.models import MODELS, Model
from peephole.tasks.toy.task import Toy

__all__ = ["DATA_SETS", "MODELS", "DataSet", "Model", "Toy"]
