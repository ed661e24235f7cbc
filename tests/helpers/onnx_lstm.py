"""ONNX Runtime's LSTM operator: diagonal peepholes, each row of a padded batch to its length."""

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

Array = NDArray[np.float32]


def onnx_lstm(
    x: Array, lengths: NDArray[np.int32], direction: str, **weights: Array
) -> tuple[Array, Array, Array]:
    """Run the operator.

    Args:
        x: ``[T, B, I]``.
        lengths: ``[B]``, each at least 1: it refuses empty rows.
        direction: "forward" or "reverse".
        weights: W ``[1, 4H, I]``, R ``[1, 4H, H]`` and B ``[1, 8H]``, gates in the order i, o, f,
            c; P ``[1, 3H]`` in the order i, o, f; initial_h and initial_c ``[1, B, H]``.

    Returns:
        The outputs ``[T, B, H]``, the final h and the final c, each ``[B, H]``.
    """
    given = {"X": x, "sequence_lens": lengths, **weights}
    order = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
    node = helper.make_node(
        "LSTM",
        order,
        ["Y", "Y_h", "Y_c"],
        hidden_size=weights["R"].shape[2],
        direction=direction,
    )
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(given[name].dtype), given[name].shape
        )
        for name in order
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * dimensions)
        for name, dimensions in zip(node.output, (4, 3, 3), strict=True)
    ]
    model = helper.make_model(
        helper.make_graph([node], "lstm", inputs, outputs),
        opset_imports=[helper.make_opsetid("", 22)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    y, h, c = session.run(None, given)
    return y[:, 0], h[0], c[0]
