"""The recurrences on compiled CPU kernels, whose sources are in ``csrc``."""

from peephole.ops.cpu.direction import Results, cannot, run
from peephole.ops.cpu.extension import instruction_set, instruction_sets
from peephole.ops.cpu.step import step

__all__ = ["Results", "cannot", "instruction_set", "instruction_sets", "run", "step"]
