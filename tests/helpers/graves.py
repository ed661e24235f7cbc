"""Equations 7 to 11 of Graves 2013, unit by unit, in plain numpy.

Written from the paper (arXiv:1308.0850, section 2.1) with its names, as a truth for
``peephole.ops.lstm``: one sequence, one unit, one number at a time. Nothing here is fast, and
nothing is shared with the code under test.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Array = NDArray[np.float64]
Weights = dict[str, Array]


def run(
    W: Weights,  # noqa: N803  the paper's name
    b: Weights,
    x: Array,
    h: Array,
    c: Array,
) -> tuple[Array, Array, Array]:
    """One sequence.

    Args:
        W: matrices "xi" ``[H, I]``, "hi" ``[H, H]``, "ci" ``[H, H]`` and so on, as in the paper.
            Where it has diagonal ones, they come here as diagonal matrices.
        b: biases "i", "f", "c", "o", each ``[H]``.
        x: ``[T, I]``.
        h: ``[H]``, the initial output.
        c: ``[H]``, the initial cell.

    Returns:
        The output at each step ``[T, H]``, the final output and the final cell.
    """
    H = len(h)
    y = np.zeros((len(x), H))
    for t in range(len(x)):
        c_new, h_new = np.zeros(H), np.zeros(H)
        for u in range(H):
            total_i = b["i"][u] + dot(W["xi"][u], x[t]) + dot(W["hi"][u], h) + dot(W["ci"][u], c)
            total_f = b["f"][u] + dot(W["xf"][u], x[t]) + dot(W["hf"][u], h) + dot(W["cf"][u], c)
            total_c = b["c"][u] + dot(W["xc"][u], x[t]) + dot(W["hc"][u], h)
            c_new[u] = expit(total_f) * c[u] + expit(total_i) * np.tanh(total_c)
        for u in range(H):
            total_o = (
                b["o"][u] + dot(W["xo"][u], x[t]) + dot(W["ho"][u], h) + dot(W["co"][u], c_new)
            )
            h_new[u] = expit(total_o) * np.tanh(c_new[u])
        y[t], h, c = h_new, h_new, c_new
    return y, h, c


def dot(row: Array, column: Array) -> float:
    return sum(float(a) * float(b) for a, b in zip(row, column, strict=True))


def by_gate(
    weight_ih: Array, weight_hh: Array, weight_ch: Array | None, *biases: Array
) -> tuple[Weights, Weights]:
    """Take peephole's stacked weights apart, by the gate order that it documents.

    Args:
        weight_ih: ``[4H, I]``, gates i, f, g, o; the paper calls g by c.
        weight_hh: ``[4H, H]``, likewise.
        weight_ch: ``[3, H]`` or ``[3H, H]``, gates i, f, o, or None.
        biases: each ``[4H]`` as ``weight_ih`` or ``[3H]`` as ``weight_ch``.
    """
    H = weight_hh.shape[1]
    four = {gate: slice(k * H, (k + 1) * H) for k, gate in enumerate("ifco")}
    three = {gate: slice(k * H, (k + 1) * H) for k, gate in enumerate("ifo")}
    W, b = {}, {gate: np.zeros(H) for gate in four}
    for gate, rows in four.items():
        W["x" + gate], W["h" + gate] = weight_ih[rows], weight_hh[rows]
    for k, (gate, rows) in enumerate(three.items()):
        if weight_ch is None:
            W["c" + gate] = np.zeros((H, H))
        elif weight_ch.shape == (3, H):
            W["c" + gate] = np.diag(weight_ch[k])
        else:
            W["c" + gate] = weight_ch[rows]
    for bias in biases:
        for gate, rows in (four if len(bias) == 4 * H else three).items():
            b[gate] = b[gate] + bias[rows]
    return W, b
