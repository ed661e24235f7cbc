"""What the layers refuse, each with its whole message; where ``torch.nn`` refuses it, both do."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

import peephole
from peephole import Ragged
from tests.helpers.batches import offsets_of
from tests.helpers.errors import raises
from tests.helpers.layers import BACKENDS, BY_NAME

# People run without the type hook.
pytestmark = pytest.mark.usefixtures("unhooked")

NAN = float("nan")
DROPOUT = (
    "dropout should be a number in range [0, 1] representing the probability of an element being "
    "zeroed, got {}"
)
BELOW_ONE = "it must be a number from 0 up to, not including, 1"
INITIALIZATION = (
    "initialization={}; it is 'torch', 'orthogonal', ('chrono', T_max) or a function of a "
    "parameter's name and the parameter"
)

# (options, message, error). torch.nn refuses the first of them too.
AS_TORCH: list[tuple[dict[str, Any], str, type[Exception]]] = [
    ({"input_size": 0}, "input_size=0; it must be at least 1", ValueError),
    ({"input_size": 2.0}, "input_size should be of type int, got: float", TypeError),
    ({"hidden_size": 0}, "hidden_size=0; it must be at least 1", ValueError),
    ({"hidden_size": -1}, "hidden_size=-1; it must be at least 1", ValueError),
    ({"hidden_size": 3.0}, "hidden_size should be of type int, got: float", TypeError),
    ({"hidden_size": "3"}, "hidden_size should be of type int, got: str", TypeError),
    ({"num_layers": 0}, "num_layers=0; it must be at least 1", ValueError),
    ({"num_layers": 1.0}, "num_layers should be of type int, got: float", TypeError),
    ({"num_layers": 2, "dropout": 1.5}, DROPOUT.format("1.5"), ValueError),
    ({"num_layers": 2, "dropout": -0.1}, DROPOUT.format("-0.1"), ValueError),
    ({"num_layers": 2, "dropout": NAN}, DROPOUT.format("nan"), ValueError),
    ({"num_layers": 2, "dropout": True}, DROPOUT.format("True"), ValueError),
    ({"num_layers": 2, "dropout": "a"}, DROPOUT.format("'a'"), ValueError),
    ({"bias": 1}, "bias should be of type bool, got: int", TypeError),
    ({"batch_first": 1}, "batch_first should be of type bool, got: int", TypeError),
    ({"proj_size": 1.5}, "proj_size should be of type int, got: float", TypeError),
]
OURS: list[tuple[dict[str, Any], str, type[Exception]]] = [
    (
        {"hidden_size": []},
        "hidden_size=[] has a width for each of 0 layers, but num_layers=1",
        ValueError,
    ),
    (
        {"hidden_size": [3, 4], "num_layers": 3},
        "hidden_size=[3, 4] has a width for each of 2 layers, but num_layers=3",
        ValueError,
    ),
    ({"hidden_size": (3, 0)}, "hidden_size[1]=0; it must be at least 1", ValueError),
    ({"hidden_size": [3, 2.0]}, "hidden_size[1] should be of type int, got: float", TypeError),
    ({"recurrent_dropout": 1}, f"recurrent_dropout=1; {BELOW_ONE}", ValueError),
    ({"recurrent_dropout": -0.1}, f"recurrent_dropout=-0.1; {BELOW_ONE}", ValueError),
    ({"recurrent_dropout": NAN}, f"recurrent_dropout=nan; {BELOW_ONE}", ValueError),
    ({"recurrent_dropout": None}, f"recurrent_dropout=None; {BELOW_ONE}", ValueError),
    ({"zoneout": 1.5}, "zoneout=1.5; it must be a number from 0 to 1", ValueError),
    ({"zoneout": NAN}, "zoneout=nan; it must be a number from 0 to 1", ValueError),
    ({"zoneout": "a"}, "zoneout='a'; it must be a number from 0 to 1", ValueError),
    ({"initialization": "xavier"}, INITIALIZATION.format("'xavier'"), ValueError),
    ({"initialization": ("chrono",)}, INITIALIZATION.format("('chrono',)"), ValueError),
    (
        {"single_bias": True, "bias": False},
        "single_bias=True asks for a bias and bias=False for none",
        ValueError,
    ),
    ({"backend": "cuda"}, "backend='cuda'; there are auto, torch, reference, cpu", ValueError),
    (
        {"backend": "torch", "layer_norm": True},
        "backend='torch' cannot serve: torch.nn has no layer_norm=True; backend='reference' can",
        ValueError,
    ),
    (
        {"backend": "torch", "zoneout": 0.5, "recurrent_dropout": 0.1},
        "backend='torch' cannot serve: torch.nn has no recurrent_dropout=0.1, zoneout=0.5; "
        "backend='reference' can",
        ValueError,
    ),
]
CHRONO = "T_max={}; it must be a finite number of more than 2"
OF_KIND: list[tuple[str, dict[str, Any], str]] = [
    (
        "LSTM",
        {"proj_size": -1},
        "proj_size=-1; it must be from 0, for none, up to, not including, hidden_size, 3",
    ),
    (
        "LSTM",
        {"proj_size": 3},
        "proj_size=3; it must be from 0, for none, up to, not including, hidden_size, 3",
    ),
    (
        "LSTM",
        {"proj_size": 3, "hidden_size": [5, 3]},
        "proj_size=3; it must be from 0, for none, up to, not including, hidden_size, 3",
    ),
    ("GRU", {"proj_size": 2}, "proj_size argument is only supported for LSTM, not RNN or GRU"),
    ("RNN", {"proj_size": 2}, "proj_size argument is only supported for LSTM, not RNN or GRU"),
    ("RNN", {"nonlinearity": "selu"}, "nonlinearity='selu'; it is one of 'tanh' and 'relu'"),
    ("LSTM", {"peephole": "some"}, "peephole='some'; it is one of None, 'diagonal' and 'full'"),
    ("LSTM", {"cell_clip": 0}, "cell_clip=0; it must be a finite number of more than 0"),
    ("LSTM", {"cell_clip": -1.5}, "cell_clip=-1.5; it must be a finite number of more than 0"),
    ("LSTM", {"cell_clip": NAN}, "cell_clip=nan; it must be a finite number of more than 0"),
    ("LSTM", {"cell_clip": math.inf}, "cell_clip=inf; it must be a finite number of more than 0"),
    ("LSTM", {"zoneout": (0.1,)}, "zoneout=(0.1,); LSTM takes a number or (hidden, cell)"),
    ("LSTM", {"zoneout": (0.1, 2)}, "zoneout=2; it must be a number from 0 to 1"),
    ("GRU", {"zoneout": (0.1, 0.2)}, "zoneout=(0.1, 0.2); GRU takes one number"),
    ("LSTM", {"initialization": ("chrono", 2)}, CHRONO.format(2)),
    ("GRU", {"initialization": ("chrono", math.inf)}, CHRONO.format("inf")),
    ("GRU", {"initialization": ("chrono", NAN)}, CHRONO.format("nan")),
    (
        "LSTM",
        {"initialization": ("chrono", 9), "bias": False},
        "chrono initialization sets biases, and bias=False leaves none",
    ),
    (
        "RNN",
        {"initialization": ("chrono", 9)},
        "chrono initialization sets biases of gates, and RNN has none",
    ),
    (
        "LSTM",
        {"forget_bias": 1.0, "bias": False},
        "forget_bias sets a bias, and bias=False leaves none",
    ),
    (
        "LSTM",
        {"forget_bias": 1.0, "initialization": ("chrono", 9)},
        "forget_bias and chrono initialization both set the forget gate's bias",
    ),
    (
        "LSTM",
        {"backend": "torch", "peephole": "full", "coupled": True, "cell_clip": 3},
        "backend='torch' cannot serve: torch.nn has no peephole='full', coupled=True, "
        "cell_clip=3.0; backend='reference' can",
    ),
]


def make(module: Any, name: str, **options: Any) -> Any:
    return getattr(module, name)(**({"input_size": 2, "hidden_size": 3} | options))


class TestOptions:
    @BY_NAME
    @pytest.mark.parametrize(("options", "message", "error"), AS_TORCH, ids=str)
    def test_that_torch_refuses(
        self, name: str, options: dict[str, Any], message: str, error: type[Exception]
    ) -> None:
        with pytest.raises((ValueError, TypeError)):
            make(nn, name, **options)
        with raises(message, error):
            make(peephole, name, **options)

    @BY_NAME
    @pytest.mark.parametrize(("options", "message", "error"), OURS, ids=str)
    def test_of_ours(
        self, name: str, options: dict[str, Any], message: str, error: type[Exception]
    ) -> None:
        with raises(message, error):
            make(peephole, name, **options)

    @pytest.mark.parametrize(("name", "options", "message"), OF_KIND, ids=str)
    def test_of_one_kind(self, name: str, options: dict[str, Any], message: str) -> None:
        if options.keys() <= {"proj_size", "nonlinearity"}:
            with pytest.raises(ValueError, match=r"proj_size|nonlinearity"):
                make(nn, name, **options)
        with raises(message):
            make(peephole, name, **options)

    @pytest.mark.parametrize(
        ("name", "option"),
        [
            ("LSTM", "forget"),
            ("LSTM", "nonlinearity"),
            ("GRU", "peephole"),
            ("GRU", "forget_bias"),
            ("RNN", "coupled"),
            ("RNN", "cell_clip"),
        ],
    )
    def test_unknown(self, name: str, option: str) -> None:
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{option}'"):
            make(peephole, name, **{option: None})

    @BY_NAME
    def test_options_of_ours_only_by_name(self, name: str) -> None:
        last = (2, 3, 1, *(["tanh"] if name == "RNN" else []), True, False, 0.0, False, 0)
        with pytest.raises(TypeError, match="positional arguments"):
            getattr(peephole, name)(*last, "cpu", torch.float32, 0.5)

    @BY_NAME
    def test_dropout_of_one_layer_warns_as_torch_s(self, name: str) -> None:
        told = []
        for module in (peephole, nn):
            with pytest.warns(UserWarning, match="^dropout option adds dropout") as warnings:
                make(module, name, dropout=0.5)
            told.append([str(warning.message) for warning in warnings])
        assert told[0] == told[1]


PADDED = torch.zeros(4, 2, 2)
OFFSETS = offsets_of([4, 1])
RAGGED = Ragged(torch.zeros(5, 2), OFFSETS)
NESTED = torch.nested.as_nested_tensor([torch.zeros(4, 2), torch.zeros(1, 2)], layout=torch.jagged)
PACKED = RAGGED.to_packed()


class TestLengths:
    @BY_NAME
    @pytest.mark.parametrize(
        ("lengths", "message"),
        [
            ([4, 5], "lengths[1] = 5 is longer than the padded input (4 steps)"),
            ([-1, 4], "lengths[0] = -1 is negative"),
            (torch.tensor([4, -1], dtype=torch.int8), "lengths[1] = -1 is negative"),
            ([4.0, 1.0], "lengths must be whole numbers, got torch.float32"),
            (torch.ones(2).bool(), "lengths must be whole numbers, got torch.bool"),
            (torch.ones(2) * 1j, "lengths must be whole numbers, got torch.complex64"),
            ([4], "lengths must be one for each of the 2 sequences, got shape (1,)"),
            ([4, 1, 1], "lengths must be one for each of the 2 sequences, got shape (3,)"),
            ([], "lengths must be one for each of the 2 sequences, got shape (0,)"),
            ([[4], [1]], "lengths must be one for each of the 2 sequences, got shape (2, 1)"),
            (4, "lengths must be one for each of the 2 sequences, got shape ()"),
        ],
        ids=str,
    )
    def test_that_do_not_fit(self, name: str, lengths: Any, message: str) -> None:
        layer = make(peephole, name)
        with raises(message):
            layer(PADDED, None, lengths)
        layer = make(peephole, name, batch_first=True)
        with raises(message):
            layer(PADDED.transpose(0, 1), lengths=lengths)

    @BY_NAME
    def test_of_an_input_that_has_its_own(self, name: str) -> None:
        layer = make(peephole, name)
        for input, what in (
            (RAGGED, "Ragged"),
            (PACKED, "PackedSequence"),
            (NESTED, "NestedTensor"),
        ):
            with raises(f"lengths go with a padded input; this {what} has lengths of its own"):
                layer(input, None, [4, 1])
        with raises("lengths go with a batch; this input [4, 2] is one sequence"):
            layer(PADDED[:, 0], None, [4])


WIDTH = "input.size(-1) must be equal to input_size. Expected 2, got 3"
BY_STEP = "the input's values must be [N, 2] for input_size=2, got {}"
FORMS = "a peephole.Ragged, a padded tensor with or without lengths, a PackedSequence or a nested"


class TestInput:
    @BY_NAME
    @BACKENDS
    @pytest.mark.parametrize(
        ("input", "message"),
        [
            (torch.zeros(2), "{}: Expected input to be 2D or 3D, got 1D instead"),
            (torch.zeros(1, 1, 1, 2), "{}: Expected input to be 2D or 3D, got 4D instead"),
            (torch.zeros(4, 2, 3), WIDTH),
            (torch.zeros(4, 3), WIDTH),
            (PackedSequence(torch.zeros(5, 3), PACKED.batch_sizes), WIDTH),
            (Ragged(torch.zeros(5, 3), OFFSETS), WIDTH),
            (Ragged(torch.zeros(5), OFFSETS), BY_STEP.format([5])),
            (Ragged(torch.zeros(5, 1, 2), OFFSETS), BY_STEP.format([5, 1, 2])),
            (PADDED.double(), "the input has dtype torch.float64, but the layer has torch.float32"),
            (PADDED.long(), "the input has dtype torch.int64, but the layer has torch.float32"),
            (
                RAGGED.to(torch.float64),
                "the input has dtype torch.float64, but the layer has torch.float32",
            ),
            (
                PackedSequence(PACKED.data.double(), *PACKED[1:]),
                "the input has dtype torch.float64, but the layer has torch.float32",
            ),
            (RAGGED.to("meta"), "the input has device meta, but the layer has cpu"),
            (PADDED.to("meta"), "the input has device meta, but the layer has cpu"),
        ],
        ids=lambda given: given if isinstance(given, str) else type(given).__name__,
    )
    def test_that_does_not_fit(self, name: str, backend: str, input: Any, message: str) -> None:
        if not isinstance(input, Ragged):
            with pytest.raises((ValueError, RuntimeError, NotImplementedError)):
                make(nn, name)(input)
        with raises(message.format(name)):
            make(peephole, name, backend=backend)(input)

    @BY_NAME
    @pytest.mark.parametrize("input", [None, "text", [PADDED], 3.0], ids=str)
    def test_that_is_no_batch(self, name: str, input: Any) -> None:
        with raises(f"{name} takes {FORMS} tensor, got {type(input).__name__}", TypeError):
            make(peephole, name)(input)

    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
    @BY_NAME
    def test_nested_of_another_layout(self, name: str) -> None:
        layer = make(peephole, name)
        strided = torch.nested.as_nested_tensor([torch.zeros(2, 2)], layout=torch.strided)
        with raises(
            "from_nested takes a nested tensor with layout=torch.jagged, got layout torch.strided"
        ):
            layer(strided)
        with raises(
            "the nested tensor is ragged in dimension 2; transpose it so that dimension 1 is the "
            "ragged one"
        ):
            layer(NESTED.transpose(1, 2))

    @pytest.mark.parametrize(
        ("offsets", "message"),
        [
            ([0, 4], "offsets end at 4, but values have 5 steps; they must agree"),
            ([0, 4, 6], "offsets end at 6, but values have 5 steps; they must agree"),
            ([1, 5], "offsets[0] = 1; it must be 0"),
            ([0, 4, 3, 5], "offsets fall: offsets[1] = 4, offsets[2] = 3"),
        ],
        ids=str,
    )
    def test_ragged_with_wrong_offsets_cannot_be_made(
        self, offsets: list[int], message: str
    ) -> None:
        with raises(message):
            Ragged(torch.zeros(5, 2), torch.tensor(offsets))


MUST = "the initial state must be [2, 2, 3] (layers * directions, sequences, width), got {}"
ALONE = (
    "the initial state must be [2, 3] (layers * directions, width: the input is one sequence, "
    "without a batch), got {}"
)
EACH = (
    "with a width for each layer, a state is a tuple with a tensor [D, B, width] for each of the 2 "
    "layers, got {}"
)


class TestStates:
    """In two directions; the last of the states is wrong."""

    @BY_NAME
    @BACKENDS
    @pytest.mark.parametrize(
        ("wrong", "message", "error"),
        [
            (torch.zeros(1, 2, 3), MUST.format([1, 2, 3]), ValueError),
            (torch.zeros(2, 1, 3), MUST.format([2, 1, 3]), ValueError),
            (torch.zeros(2, 2, 4), MUST.format([2, 2, 4]), ValueError),
            (torch.zeros(2, 3), MUST.format([2, 3]), ValueError),
            (torch.zeros(1, 2, 2, 3), MUST.format([1, 2, 2, 3]), ValueError),
            (3, "the initial state must be tensors, got int", TypeError),
            ("h", "the initial state must be tensors, got str", TypeError),
            (
                torch.zeros(2, 2, 3, device="meta"),
                "the initial state has device meta, but the input has cpu",
                ValueError,
            ),
            (
                torch.zeros(2, 2, 3, dtype=torch.float64),
                "the initial state has dtype torch.float64, but the input has torch.float32",
                ValueError,
            ),
        ],
        ids=lambda given: str(given) if isinstance(given, str) else "",
    )
    def test_that_does_not_fit(
        self, name: str, backend: str, wrong: Any, message: str, error: type[Exception]
    ) -> None:
        layer = make(peephole, name, bidirectional=True, backend=backend)
        hx = (torch.zeros(2, 2, 3), wrong) if name == "LSTM" else wrong
        for given in ((PADDED,), (RAGGED,), (PACKED,), (NESTED,), (PADDED, [4, 1])):
            with raises(message, error):
                layer(given[0], hx, *given[1:])
        with pytest.raises(Exception):  # noqa: B017, PT011  torch.nn has many
            make(nn, name, bidirectional=True)(PADDED, hx)

    @BY_NAME
    @pytest.mark.parametrize("shape", [(2, 1, 3), (1, 3), (2, 4)])
    def test_of_one_sequence(self, name: str, shape: tuple[int, ...]) -> None:
        hx = torch.zeros(shape)
        hx = (torch.zeros(2, 3), hx) if name == "LSTM" else hx
        with raises(ALONE.format(list(shape))):
            make(peephole, name, bidirectional=True)(PADDED[:, 0], hx)

    @pytest.mark.parametrize(
        ("hx", "given"),
        [
            (torch.zeros(1, 2, 3), "one tensor"),
            ((torch.zeros(1, 2, 3),), "1"),
            ((torch.zeros(1, 2, 3),) * 3, "3"),
            ((), "0"),
            (3, "int"),
        ],
        ids=["tensor", "one", "three", "none", "number"],
    )
    def test_number_of_the_lstm_s(self, hx: Any, given: str) -> None:
        error = TypeError if given == "int" else ValueError
        with raises(f"the initial state of LSTM must be (h, c), got {given}", error):
            peephole.LSTM(2, 3)(PADDED, hx)

    @pytest.mark.parametrize("bidirectional", [False, True])
    @pytest.mark.parametrize("count", [0, 1, 3, 4])
    def test_number_with_a_width_for_each_layer(self, count: int, bidirectional: bool) -> None:
        layer = peephole.GRU(2, (3, 5), bidirectional=bidirectional)
        with raises(EACH.format("one tensor")):
            layer(PADDED, torch.zeros(2, 2, 3))
        # As many rows as all layers and directions have together must not pass for them.
        rows = 2 * (1 + bidirectional) // max(count, 1)
        with raises(EACH.format(count)):
            layer(PADDED, (torch.zeros(rows, 2, 3),) * count)
        right = torch.zeros(1 + bidirectional, 2, 3)
        message = f"must be [{1 + bidirectional}, 2, 5] (layers * directions, sequences, width)"
        with raises(f"the initial state {message}, got {list(right.shape)}"):
            layer(PADDED, (right, right))
