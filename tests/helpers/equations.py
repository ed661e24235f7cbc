"""One step of the LSTM, the GRU and the RNN with every option, in plain numpy, from the papers.

A truth for ``peephole.ops``, and nothing is shared with the code under test: one sequence, one
step at a time. Each symbol is its paper's:

    x, h, c, i, f, o     Graves 2013, Generating sequences with recurrent neural networks
    W_rm, clip           Sak et al. 2014, Long short-term memory recurrent neural network
                         architectures for large scale acoustic modeling: r = W_rm m
    alpha, beta          Ba et al. 2016, Layer normalization, the appendix
    z_h                  Gal & Ghahramani 2016, A theoretically grounded application of dropout in
                         recurrent neural networks
    d_h, d_c             Krueger et al. 2017, Zoneout: 1 keeps the old value; or the expectation
    coupled              Greff et al. 2017, LSTM: a search space odyssey, CIFG: f = 1 - i
    r, z                 Cho et al. 2014, the reset after the product as torch.nn.GRU documents it

Throughout, x is the input's part of a sum, W_x x(t) + b. What an option leaves out is there as the
number that changes nothing: a mask of ones, a clip at infinity, a projection by the identity.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Array = NDArray[np.float64]


class Run(NamedTuple):
    """What a sequence of T steps gives.

    Attributes:
        y: the output at each step ``[T, P]``.
        final: the state after the last step: (h, c), or (h,).
        steps: what the network held at each step, ``[T, ...]`` each: (gates, cells), (gates,)
            or nothing.
    """

    y: Array
    final: tuple[Array, ...]
    steps: tuple[Array, ...] = ()


def lstm(
    x: Array,
    h: Array,
    c: Array,
    W_h: Array,  # noqa: N803  the papers' names
    *,
    W_c: Array | None = None,  # noqa: N803
    W_rm: Array | None = None,  # noqa: N803
    alpha_1: Array | None = None,
    alpha_3: Array | None = None,
    beta_3: Array | None = None,
    z_h: Array | float = 1.0,
    d_h: Array | float = 0.0,
    d_c: Array | float = 0.0,
    clip: float = np.inf,
    coupled: bool = False,
) -> Run:
    """Graves 2013, equations 7 to 11, and every option.

    Args:
        x: ``[T, G * H]``, gates i, f, g, o or, coupled, i, g, o.
        h: ``[P]``; Sak et al. call it r.
        c: ``[H]``.
        W_h: ``[G * H, P]``, likewise.
        W_c: peepholes of i, f, o or, coupled, i, o: a row or a square each.
        W_rm: ``[P, H]``.
        alpha_1: ``[G * H]``, scales the normalized W_h h.
        alpha_3: ``[H]``, scales the normalized cell.
        beta_3: ``[H]``, its bias.
        z_h: ``[P]``.
        d_h: ``[T, P]``, or a number.
        d_c: ``[T, H]``, or a number.
        clip: the largest cell.
        coupled: whether f = 1 - i.
    """
    T, H, P = len(x), len(c), len(h)
    W_rm = np.eye(H) if W_rm is None else W_rm
    W_ci, W_cf, W_co = peepholes(W_c, H, coupled)
    d_h, d_c = np.broadcast_to(d_h, (T, P)), np.broadcast_to(d_c, (T, H))
    y, gates, cells = np.empty((T, P)), np.empty(x.shape), np.empty((T, H))
    for t in range(T):
        a = x[t] + scaled(alpha_1, W_h @ (z_h * h))
        a_i, *a_f, a_g, a_o = np.split(a, 3 if coupled else 4)
        i = expit(a_i + W_ci @ c)
        f = 1 - i if coupled else expit(a_f[0] + W_cf @ c)
        g = np.tanh(a_g)
        c_new = np.clip(f * c + i * g, -clip, clip)
        o = expit(a_o + W_co @ c_new)
        m = o * np.tanh(scaled(alpha_3, c_new) + (0 if beta_3 is None else beta_3))
        # Both states of a step see each other's new values before zoneout.
        h = d_h[t] * h + (1 - d_h[t]) * (W_rm @ m)
        c = d_c[t] * c + (1 - d_c[t]) * c_new
        y[t], cells[t] = h, c
        gates[t] = np.concatenate([i, g, o] if coupled else [i, f, g, o])
    return Run(y, (h, c), (gates, cells))


def gru(
    x: Array,
    h: Array,
    W_h: Array,  # noqa: N803
    *,
    b_hn: Array | None = None,
    alpha_1: Array | None = None,
    z_h: Array | float = 1.0,
    d_h: Array | float = 0.0,
) -> Run:
    """Cho et al. 2014 as ``torch.nn.GRU`` has it, and every option.

    Ba et al. normalize r and z together, and n by itself inside the reset.

    Args:
        x: ``[T, 3 * H]``, gates r, z, n.
        h: ``[H]``.
        W_h: ``[3 * H, H]``, likewise.
        b_hn: ``[H]``, inside the reset.
        alpha_1: ``[3 * H]``, scales the normalized W_h h.
        z_h: ``[H]``.
        d_h: ``[T, H]``, or a number.
    """
    T, H = len(x), len(h)
    alpha_rz, alpha_n = (None, None) if alpha_1 is None else np.split(alpha_1, [2 * H])
    d_h = np.broadcast_to(d_h, (T, H))
    y, gates = np.empty((T, H)), np.empty(x.shape)
    for t in range(T):
        x_rz, x_n = np.split(x[t], [2 * H])
        h_rz, h_n = np.split(W_h @ (z_h * h), [2 * H])
        r, z = np.split(expit(x_rz + scaled(alpha_rz, h_rz)), 2)
        n = np.tanh(x_n + r * (scaled(alpha_n, h_n) + (0 if b_hn is None else b_hn)))
        # The mask is for the matrices alone; what z carries over is h itself.
        h = d_h[t] * h + (1 - d_h[t]) * ((1 - z) * n + z * h)
        y[t], gates[t] = h, np.concatenate([r, z, n])
    return Run(y, (h,), (gates,))


def rnn(
    x: Array,
    h: Array,
    W_h: Array,  # noqa: N803
    *,
    nonlinearity: str = "tanh",
    alpha_1: Array | None = None,
    z_h: Array | float = 1.0,
    d_h: Array | float = 0.0,
) -> Run:
    """Elman 1990, and every option.

    Args:
        x: ``[T, H]``.
        h: ``[H]``.
        W_h: ``[H, H]``.
        nonlinearity: "tanh" or "relu".
        alpha_1: ``[H]``, scales the normalized W_h h.
        z_h: ``[H]``.
        d_h: ``[T, H]``, or a number.
    """
    d_h = np.broadcast_to(d_h, x.shape)
    y = np.empty(x.shape)
    for t in range(len(x)):
        a = x[t] + scaled(alpha_1, W_h @ (z_h * h))
        h_new = np.tanh(a) if nonlinearity == "tanh" else np.where(a > 0, a, 0)
        h = d_h[t] * h + (1 - d_h[t]) * h_new
        y[t] = h
    return Run(y, (h,))


def scaled(alpha: Array | None, v: Array) -> Array:
    """Ba et al. 2016, LN(v; alpha, 0) over all numbers of v; v itself without alpha."""
    if alpha is None:
        return v
    mu = v.sum() / v.size
    variance = ((v - mu) ** 2).sum() / v.size
    # The papers have no epsilon; torch.nn.LayerNorm's is 1e-5.
    return alpha * (v - mu) / np.sqrt(variance + 1e-5)


def peepholes(W_c: Array | None, H: int, coupled: bool) -> tuple[Array, Array, Array]:  # noqa: N803
    """W_ci, W_cf and W_co as matrices ``[H, H]``; coupled, i alone decides about f."""
    count = 2 if coupled else 3
    if W_c is None:
        W = [np.zeros((H, H))] * count
    elif W_c.shape == (count, H):
        W = [np.diag(row) for row in W_c]
    else:
        W = list(W_c.reshape(count, H, H))
    return W[0], np.zeros((H, H)) if coupled else W[1], W[-1]
