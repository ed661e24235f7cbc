"""A layer on the operators behind ``torch.nn.LSTM``, ``GRU`` and ``RNN``.

They take a padded batch whose sequences all have its length, or a packed one. Here a ragged batch
goes through either, one layer and one direction at a time.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from peephole.offsets import Layout

State = tuple[Tensor, ...]

# By the recurrence's name and its nonlinearity.
OPERATORS: dict[tuple[str, str | None], Any] = {
    ("lstm", None): torch.lstm,
    ("gru", None): torch.gru,
    ("rnn", "tanh"): torch.rnn_tanh,
    ("rnn", "relu"): torch.rnn_relu,
}
CELLS: dict[tuple[str, str | None], Any] = {
    ("lstm", None): torch.lstm_cell,
    ("gru", None): torch.gru_cell,
    ("rnn", "tanh"): torch.rnn_tanh_cell,
    ("rnn", "relu"): torch.rnn_relu_cell,
}


def whole(
    operator: tuple[str, str | None],
    input: Tensor,
    batch_sizes: Tensor | None,
    hx: State,
    weights: list[Tensor],
    bias: bool,
    num_layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, State]:
    """All layers and directions at once, as ``torch.nn`` itself calls its operator.

    Args:
        operator: a key of ``OPERATORS``.
        input: padded ``[T, B, I]`` (``[B, T, I]`` with ``batch_first``), every sequence of length
            T, or the data of a ``PackedSequence``.
        batch_sizes: of the ``PackedSequence``, else None.
        hx: initial states, each ``[L * D, B, H]``, in the order of the packed batch.
        weights: in the order of ``torch.nn``'s parameters.
        bias: whether they have biases.
        num_layers: L.
        dropout: between layers.
        training: whether dropout acts.
        bidirectional: D is 2.
        batch_first: the layout of a padded input.

    Returns:
        The output in the input's form, and the final states.
    """
    state = hx if operator[0] == "lstm" else hx[0]
    head = (input, state) if batch_sizes is None else (input, batch_sizes, state)
    tail = (batch_first,) if batch_sizes is None else ()
    y, *final = OPERATORS[operator](
        *head, weights, bias, num_layers, dropout, training, bidirectional, *tail
    )
    return y, tuple(final)


def direction(
    operator: tuple[str, str | None],
    form: str,
    x: Tensor,
    layout: Layout,
    tensors: Mapping[str, Tensor],
    state: State,
    *,
    reverse: bool,
    training: bool,
) -> tuple[Tensor, State]:
    """One layer in one direction over a ragged batch.

    Args:
        operator: a key of ``OPERATORS``.
        form: "padded" or "packed", which of them to go through; a network with ReLUs only goes
            through padded without padding.
        x: ``[N, I]``, N at least 1.
        layout: of the batch.
        tensors: ``weight_ih``, ``weight_hh`` and, where there are, ``bias_ih``, ``bias_hh``,
            ``weight_hr``.
        state: the initial h ``[B, P]`` and, for the LSTM, c ``[B, H]``.
        reverse: run each sequence from its own last step to its first.
        training: whether gradients will be asked for.

    Returns:
        The output ``[N, P]`` in the order of ``x``, and each sequence's final states.
    """
    weights = [tensors["weight_ih"], tensors["weight_hh"]]
    if bias := "bias_ih" in tensors:
        b_ih = tensors["bias_ih"]
        weights += [b_ih, tensors["bias_hh"] if "bias_hh" in tensors else torch.zeros_like(b_ih)]
    if "weight_hr" in tensors:
        weights.append(tensors["weight_hr"])
    # What a ReLU does not bound may grow past all numbers in the padding.
    bounded = operator != ("rnn", "relu") or layout.waste == 1
    run = _padded if form == "padded" and bounded else _packed

    def one(
        input: Tensor, batch_sizes: Tensor | None, hx: State, *w: Tensor
    ) -> tuple[Tensor, State]:
        hx = tuple(s.unsqueeze(0) for s in hx)
        y, final = whole(
            operator, input, batch_sizes, hx, list(w), bias, 1, 0.0, training, False, False
        )
        return y, tuple(s.squeeze(0) for s in final)

    return run(one, x, layout, weights, state, reverse)


def _packed(
    one: Callable[..., tuple[Tensor, State]],
    x: Tensor,
    layout: Layout,
    weights: list[Tensor],
    state: State,
    reverse: bool,
) -> tuple[Tensor, State]:
    order = layout.order(reverse)
    longest_first = [s.index_select(0, order.sequences) for s in state]
    # Empty sequences come last, and a packed batch has none.
    nonempty = order.counts[0]
    y, ended = one(
        x.index_select(0, order.rows),
        order.batch_sizes,
        tuple(s[:nonempty] for s in longest_first),
        *weights,
    )
    if layout.some_empty:
        pairs = zip(ended, longest_first, strict=True)
        ended = tuple(torch.cat([end, begin[nonempty:]]) for end, begin in pairs)
    return y.index_select(0, order.places), tuple(s.index_select(0, order.ranks) for s in ended)


def _padded(
    one: Callable[..., tuple[Tensor, State]],
    x: Tensor,
    layout: Layout,
    weights: list[Tensor],
    state: State,
    reverse: bool,
) -> tuple[Tensor, State]:
    B, T = layout.sequences, layout.longest
    uneven = layout.steps < B * T
    if uneven:
        # One row more, which stands in all the padding.
        N, I = x.shape  # noqa: E741
        # A cell goes on in padding, and is marked to stay.
        marked = len(state) > 1
        rows_and_padding = x.new_zeros(N + 1, I + marked)
        rows_and_padding[:N, :I] = x
        if marked:
            rows_and_padding[N, I] = 1
            weights = [_with_padding_gates(weights[0], state[1]), *weights[1:]]
        x = rows_and_padding
    padded = x.index_select(0, layout.padded_sources(reverse)).view(T, B, x.shape[1])
    y, final = one(padded, None, state, *weights)
    y = y.flatten(0, 1).index_select(0, layout.padded_rows(reverse))
    if not uneven:
        return y, final
    h_n = y.index_select(0, layout.final_rows(reverse))
    if layout.some_empty:
        h_n = torch.where((layout.offsets.diff() == 0).unsqueeze(1), state[0], h_n)
    # Of the LSTM the operator gives only the last cell: padding carried it there.
    return y, (h_n, *final[1:])


def _with_padding_gates(weight_ih: Tensor, c: Tensor) -> Tensor:
    """Weights of one more feature, which is 1 in padding: there f is 1, i is 0 and c stays."""
    H = c.shape[1]
    column = weight_ih.new_zeros(4, H, 1)
    # More than any other part of a gate's sum: the gate is shut or open, exactly.
    saturated = torch.finfo(weight_ih.dtype).max / 4
    column[0] = -saturated
    column[1] = saturated
    return torch.cat([weight_ih, column.view(4 * H, 1)], 1)
