"""``csrc/functions.h``: exp, tanh and the sigmoid, one vector at a time, against wider numbers.

The instruction set is the one that is loaded; ``PEEPHOLE_CPU`` chooses another.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from peephole.ops.cpu import kernels

# Allowed errors in units in the last place; the header says what they are.
UNITS = {"exp": 2.0, "tanh": 2.0, "sigmoid": 3.0}
WIDER = {np.dtype(np.float32): np.float64, np.dtype(np.float64): np.longdouble}
FUNCTION = pytest.mark.parametrize("name", UNITS)
DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])

# Without 80-bit numbers the reference for float64 is no better than what is tested.
WIDE_ENOUGH = np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant


def evaluate(name: str, x: np.ndarray) -> np.ndarray:
    y = kernels.evaluate(name, torch.from_numpy(x)).numpy()
    assert y.dtype == x.dtype
    assert y.shape == x.shape
    return y


def exact(name: str, x: np.ndarray) -> np.ndarray:
    """The function in the next wider numbers."""
    x = x.astype(WIDER[x.dtype])
    with np.errstate(over="ignore", under="ignore"):
        if name == "exp":
            return np.exp(x)
        if name == "tanh":
            return np.tanh(x)
        # exp(-|x|) does not overflow.
        small = np.exp(-np.abs(x))
        return np.where(x < 0, small, 1) / (1 + small)


def errors(name: str, x: np.ndarray) -> np.ndarray:
    """How far results are from exact ones, in units in the last place of a number so large.

    Below the normal numbers that unit is the smallest subnormal number. Where the exact result is
    too large for its dtype an infinity is no error, and nothing else is right.
    """
    y, wanted = evaluate(name, x), exact(name, x)
    info = np.finfo(x.dtype)
    exponent = np.maximum(np.frexp(wanted)[1] - 1, info.minexp) - info.nmant
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.abs(y.astype(wanted.dtype) - wanted) / np.ldexp(wanted.dtype.type(1), exponent)
        beyond = np.isinf(wanted.astype(x.dtype))
    return np.where(beyond, np.where(y == np.inf, 0, np.inf), found)


def check(name: str, x: np.ndarray) -> None:
    """Accuracy everywhere; a NaN is the worst of errors."""
    if x.dtype == np.float64 and not WIDE_ENOUGH:
        pytest.skip("numpy has no numbers wider than float64 here")
    found = np.nan_to_num(errors(name, x), nan=np.inf)
    worst = int(found.argmax())
    assert found[worst] <= UNITS[name], f"{name}({x[worst]!r}) is {found[worst]:.2f} units off"


def around(points: np.ndarray, dtype: type, count: int = 200) -> np.ndarray:
    """The numbers nearest to each point, `count` on either side, and their negatives."""
    points = np.abs(np.asarray(points)).astype(dtype)
    bits = points.view(np.int32 if dtype is np.float32 else np.int64)
    near = bits[:, None] + np.arange(-count, count + 1, dtype=bits.dtype)
    x = near[near >= 0].view(dtype)
    return np.concatenate([x, -x])


@FUNCTION
def test_float32_of_every_kind(name: str) -> None:
    # A prime, so that every exponent comes with fractions of all kinds.
    bits = np.arange(0, 2**32, 1999, dtype=np.int64).astype(np.uint32)
    x = bits.view(np.float32)
    check(name, x[np.isfinite(x)])


@FUNCTION
def test_float64_of_every_kind(name: str) -> None:
    bits = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    x = bits.view(np.float64)
    check(name, x[np.isfinite(x)])


@FUNCTION
@DTYPE
def test_where_results_change(name: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    limits = (0.5, 2, 10, 20, 40, 110, 760)
    check(name, np.concatenate([rng.uniform(-w, w, 100_000) for w in limits]).astype(dtype))


@FUNCTION
@DTYPE
def test_every_exponent(name: str, dtype: type) -> None:
    info = np.finfo(dtype)
    exponents = np.arange(info.minexp - info.nmant, info.maxexp)
    fractions = np.linspace(1, 2, 53, endpoint=False)
    x = np.ldexp(fractions.astype(dtype), exponents[:, None]).astype(dtype).ravel()
    check(name, np.concatenate([x, -x]))


@FUNCTION
@DTYPE
def test_where_the_power_of_two_steps(name: str, dtype: type) -> None:
    # exp and the sigmoid change it at odd multiples of ln(2) / 2, tanh at half of that.
    odd = np.arange(1, 2200 if dtype is np.float64 else 310, 2)
    check(name, np.concatenate([around(odd * np.log(2) / part, dtype, 20) for part in (2, 4)]))


@FUNCTION
@DTYPE
def test_near_limits_and_thresholds(name: str, dtype: type) -> None:
    info = np.finfo(dtype)
    points = [
        # From where, and up to where, numbers are held before anything is computed.
        *(9.5, 20, 30, 60, 89, 104, 710, 746),
        # Results overflow, become subnormal, become zero, become one.
        *np.log([float(info.max)]),
        *-np.log([float(info.smallest_normal)]),
        *-np.log([float(info.smallest_subnormal)]) + np.array([0, np.log(2)]),
        *(np.log(2) * (info.nmant + 1) * part for part in (0.5, 1)),
        # tanh computes (exp(2x) - 1) / 2 otherwise below 1 than above.
        np.log(3) / 2,
        float(info.eps),
        float(info.smallest_normal),
        float(info.smallest_subnormal),
    ]
    check(name, around(np.array(points), dtype))


@DTYPE
def test_tanh_of_tiny_numbers_is_the_number(dtype: type) -> None:
    info = np.finfo(dtype)
    tiny = np.array([0, info.smallest_subnormal, info.smallest_normal, info.eps**2], dtype)
    x = np.concatenate([tiny, -tiny, 3 * tiny, -7 * tiny, info.smallest_normal - tiny[:2]])
    y = evaluate("tanh", x)
    assert np.array_equal(y, x)
    assert np.array_equal(np.signbit(y), np.signbit(x))


@DTYPE
def test_tanh_is_odd(dtype: type) -> None:
    x = np.random.default_rng(0).normal(0, 3, 10_000).astype(dtype)
    assert np.array_equal(evaluate("tanh", -x), -evaluate("tanh", x))


@DTYPE
def test_zeros(dtype: type) -> None:
    x = np.array([0.0, -0.0], dtype)
    assert evaluate("exp", x).tolist() == [1, 1]
    assert evaluate("sigmoid", x).tolist() == [0.5, 0.5]
    assert np.signbit(evaluate("tanh", x)).tolist() == [False, True]


@pytest.mark.parametrize(("name", "low"), [("exp", 0), ("tanh", -1), ("sigmoid", 0)])
@DTYPE
def test_extremes(name: str, low: int, dtype: type) -> None:
    high = np.inf if name == "exp" else 1
    large = np.array([np.inf, np.finfo(dtype).max, 1e5, 800], dtype)
    assert (evaluate(name, large) == high).all()
    assert (evaluate(name, -large) == low).all()


@FUNCTION
@DTYPE
def test_a_nan_stays_in_its_lane(name: str, dtype: type) -> None:
    # Longer than the widest vector, with NaNs of both signs and with low bits set.
    x = np.linspace(-4, 4, 37).astype(dtype)
    bits = np.array([np.nan, -np.nan], dtype).view(np.int32 if dtype is np.float32 else np.int64)
    nans = np.concatenate([bits, bits + 1, bits + 0x155]).view(dtype)
    without = evaluate(name, x)
    for lane in range(len(x)):
        y = x.copy()
        y[lane] = nans[lane % len(nans)]
        found = evaluate(name, y)
        assert np.isnan(found[lane])
        assert np.array_equal(np.delete(found, lane), np.delete(without, lane))


@FUNCTION
@DTYPE
def test_extremes_do_not_change_other_lanes(name: str, dtype: type) -> None:
    x = np.linspace(-4, 4, 48).astype(dtype)
    among = x.copy()
    among[::3] = np.tile(np.array([np.inf, -np.inf, 1e30, -1e-42], dtype), 4)
    kept = np.arange(len(x)) % 3 != 0
    assert np.array_equal(evaluate(name, among)[kept], evaluate(name, x)[kept])


@FUNCTION
@DTYPE
@pytest.mark.parametrize("count", [0, 1, 3, 15, 17, 33])
def test_any_number_of_numbers(name: str, dtype: type, count: int) -> None:
    x = np.random.default_rng(0).normal(0, 3, 64).astype(dtype)
    assert np.array_equal(evaluate(name, x[:count]), evaluate(name, x)[:count])


@FUNCTION
@DTYPE
def test_any_shape(name: str, dtype: type) -> None:
    x = np.random.default_rng(0).normal(0, 3, (3, 1, 7)).astype(dtype)
    assert np.array_equal(evaluate(name, x).ravel(), evaluate(name, x.ravel()))


@FUNCTION
@DTYPE
def test_is_what_torch_computes(name: str, dtype: type) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(0, 3, 1000).astype(dtype))
    wanted: Tensor = getattr(torch, name)(x)
    close = 4 * torch.finfo(x.dtype).eps
    torch.testing.assert_close(kernels.evaluate(name, x), wanted, rtol=close, atol=0)
