"""torch's own fused operators: cuDNN, MPS, oneDNN and what stands in for them."""

from peephole.ops.torch.layer import CELLS, OPERATORS, direction, whole

__all__ = ["CELLS", "OPERATORS", "direction", "whole"]
