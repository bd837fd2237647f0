"""What stands between two products of bytes, each chain in one pass over a token's numbers (compiled by Numba at first use).

torch does the same in some fifty calls a layer, each of which reads and writes every number; for one row they cost half as much
as the products. Everything here is fp32, on the calling thread and without Python's lock, so that passes run beside each other.
A token's numbers depend on no token of another row. newslora.model.packed.eight_bits says what the bytes mean, and
tests/equivalence/test_byte_layers.py holds each function to torch's own operations.

Greatest values are looked for among the bits of floating-point numbers, which as whole numbers have the same order where they
are positive: the compiler compares those many at a time.

Letters: T tokens, H numbers of each, R rows, L tokens of one, h heads, d numbers a head. `numbers` (T, H) uint8 and `greatest`
(T,) fp32 are tokens' bytes and scales; `scale` is what `greatest` was of a product's input, y what the product made of its
bytes.

All that is compiled together stands here: what Numba keeps on disk it makes anew when this file changes, and looks at no other.
Importing this module imports Numba: import it where it is used.
"""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import carray, float32, int32, njit, types, uint8  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.extending import intrinsic

from newslora.model.packed.torch_calls import data_ptr, delete, from_blob, qlinear

# sums in any order, so that several are added at once; everything else as IEEE 754 has it
SUMS = {"reassoc", "contract", "nsz"}
# multiplications of a product that OpenBLAS leaves to the calling thread (its GEMM_MULTITHREAD_THRESHOLD of 4 times 65,536)
ONE_THREAD = 2**18
POSITIVE = int32(0x7FFFFFFF)  # all bits but the sign
LEAST = int32(-0x80000000)  # of int32


class _Kept(FunctionCache):
    """What Numba keeps on disk; a disk that takes no more costs the next process its time, and this one no answer."""

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def _compiled(function: Callable[..., None]) -> Any:
    """For this chip, kept on disk for the next process where there is a place to write."""
    found: Any = njit(nogil=True, fastmath=SUMS, error_model="numpy")(function)
    with contextlib.suppress(RuntimeError):  # neither the package's folder nor a home can be written
        found._cache = _Kept(function)  # type: ignore[no-untyped-call]  # as `cache=True` does with Numba's own
    return found


def _same_bits(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    return builder.bitcast(values[0], context.get_value_type(signature.return_type))


@intrinsic
def _as_float(context: Any, number: Any) -> Any:
    """int32 -> the fp32 number of the same bits. (An array seen as one of another kind is an allocation in a loop.)"""
    return types.float32(types.int32), _same_bits


@intrinsic
def _as_bits(context: Any, number: Any) -> Any:
    """fp32 -> its bits as int32."""
    return types.int32(types.float32), _same_bits


_float_of: Any = _as_float
_bits_of: Any = _as_bits


@njit(inline="always")
def _to_bytes(row: Any, numbers: Any) -> Any:
    """One token's numbers (H,) -> its bytes; returns its greatest absolute value."""
    high = int32(0)
    for i in range(len(row)):
        high = max(high, int32(_bits_of(row[i]) & POSITIVE))
    greatest = max(_float_of(high), float32(1e-12))
    steps = float32(127.0) / greatest
    for i in range(len(row)):
        numbers[i] = uint8(int32(row[i] * steps + float32(128.5)))  # all positive: dropping the rest rounds
    return greatest


@njit(inline="always")
def _erf(x: Any) -> Any:
    """The error function by a ratio of polynomials, within 5e-7: the fit that Eigen and XLA have for fp32."""
    x = min(max(x, float32(-4.0)), float32(4.0))
    square = x * x
    over = float32(-2.72614225801306e-10)
    over = over * square + float32(2.77068142495902e-08)
    over = over * square + float32(-2.10102402082508e-06)
    over = over * square + float32(-5.69250639462346e-05)
    over = over * square + float32(-7.34990630326855e-04)
    over = over * square + float32(-2.95459980854025e-03)
    over = over * square + float32(-1.60960333262415e-02)
    under = float32(-1.45660718464996e-05)
    under = under * square + float32(-2.13374055278905e-04)
    under = under * square + float32(-1.68282697438203e-03)
    under = under * square + float32(-7.37332916720468e-03)
    under = under * square + float32(-1.42647390514189e-02)
    return x * over / under


@njit(inline="always")
def _exponentials(x: Any) -> None:
    """e^x in place, for numbers of at most zero: 2^f by its Taylor series to the sixth term, |f| <= 1/2, and the whole power
    of two added to the exponent's bits; within 1e-6."""
    for i in range(len(x)):
        two = max(x[i] * float32(1.4426950408889634), float32(-126.0))
        whole = np.floor(two + float32(0.5))
        f = two - whole
        y = float32(1.5403530e-4)
        y = y * f + float32(1.3333558e-3)
        y = y * f + float32(9.6181291e-3)
        y = y * f + float32(5.5504109e-2)
        y = y * f + float32(2.4022651e-1)
        y = y * f + float32(6.9314718e-1)
        x[i] = _float_of(int32(_bits_of(float32(y * f + float32(1.0))) + int32(int32(whole) << 23)))


@njit(inline="always")
def _in_order(bits: Any) -> Any:
    """The bits of an fp32 number of either sign -> an int32 in the same order; and back."""
    return int32(bits ^ (int32(bits >> 31) & POSITIVE))


@_compiled
def quantise(x: Any, numbers: Any, greatest: Any) -> None:
    """x (T, H) -> its bytes and scales."""
    for t in range(len(x)):
        greatest[t] = _to_bytes(x[t], numbers[t])


@_compiled
def scale_and_shift(y: Any, scale: Any, bias: Any) -> None:
    """y (T, H) -> scale (T,) * y + bias (H,), in place."""
    for t in range(len(y)):
        for i in range(y.shape[1]):
            y[t, i] = y[t, i] * scale[t] + bias[i]


@_compiled
def gelu_and_quantise(y: Any, scale: Any, bias: Any, numbers: Any, greatest: Any) -> None:
    """GELU (its exact form, Hendrycks and Gimpel 2016, arXiv:1606.08415) of scale * y + bias -> bytes and scales."""
    row = np.empty(y.shape[1], np.float32)
    for t in range(len(y)):
        for i in range(len(row)):
            value = y[t, i] * scale[t] + bias[i]
            row[i] = float32(0.5) * value * (float32(1.0) + _erf(value * float32(0.7071067811865476)))
        greatest[t] = _to_bytes(row, numbers[t])


@_compiled
def add_norm_and_quantise(
    y: Any, scale: Any, bias: Any, hidden: Any, weight: Any, shift: Any, epsilon: float, numbers: Any, greatest: Any
) -> None:
    """hidden (T, H) -> LayerNorm(hidden + scale * y + bias), in place, and its bytes and scales."""
    width = y.shape[1]
    row = np.empty(width, np.float32)
    for t in range(len(y)):
        total = float32(0.0)
        for i in range(width):
            row[i] = y[t, i] * scale[t] + bias[i] + hidden[t, i]
            total += row[i]
        mean, squares = total / float32(width), float32(0.0)
        for i in range(width):
            row[i] -= mean
            squares += row[i] * row[i]
        inverse = float32(1.0) / np.sqrt(squares / float32(width) + float32(epsilon))
        for i in range(width):
            row[i] = row[i] * inverse * weight[i] + shift[i]
            hidden[t, i] = row[i]
        greatest[t] = _to_bytes(row, numbers[t])


@_compiled
def split_heads(y: Any, scale: Any, bias: Any, q: Any, k: Any, v: Any) -> None:
    """y (L, 3 h d) of a row's tokens -> scale * y + bias as q, k, v (h, L, d), q over the root of d."""
    heads, length, size = q.shape
    width = heads * size
    root = float32(1.0) / np.sqrt(float32(size))
    for t in range(length):
        by = scale[t]
        for h in range(heads):
            first = h * size
            for i in range(size):
                q[h, t, i] = (y[t, first + i] * by + bias[first + i]) * root
            first += width
            for i in range(size):
                k[h, t, i] = y[t, first + i] * by + bias[first + i]
            first += width
            for i in range(size):
                v[h, t, i] = y[t, first + i] * by + bias[first + i]


@_compiled
def softmax(scores: Any, by_distance: Any) -> None:
    """scores (h, L, L) of a row -> probabilities over each query's keys, in place.

    Args:
        scores: to overwrite.
        by_distance: (h, 2 M - 1) added to the scores, by the distance from query to key, from 1 - M on; (0, 0): nothing is.
    """
    heads, length, _ = scores.shape
    nearest = by_distance.shape[1] // 2  # the place of distance 0
    for h in range(heads):
        # no row is taken as an array of its own: to count who holds it costs as much as its numbers
        for t in range(length):
            if len(by_distance):
                bias = by_distance[h, nearest - t : nearest - t + length]
                for i in range(length):
                    scores[h, t, i] += bias[i]
            high = LEAST
            for i in range(length):
                high = max(high, _in_order(_bits_of(scores[h, t, i])))
            greatest = _float_of(_in_order(high))
            for i in range(length):
                scores[h, t, i] -= greatest
        _exponentials(scores[h].reshape(length * length))
        for t in range(length):
            total = float32(0.0)
            for i in range(length):
                total += scores[h, t, i]
            share = float32(1.0) / total
            for i in range(length):
                scores[h, t, i] *= share


@_compiled
def join_heads_and_quantise(context: Any, numbers: Any, greatest: Any) -> None:
    """context (h, L, d) of a row -> bytes (L, h d) and scales of its tokens, heads side by side."""
    heads, length, size = context.shape
    row = np.empty(heads * size, np.float32)
    for t in range(length):
        for h in range(heads):
            for i in range(size):
                row[h * size + i] = context[h, t, i]
        greatest[t] = _to_bytes(row, numbers[t])


@_compiled
def attend_and_quantise(
    y: Any, scale: Any, bias: Any, starts: Any, lengths: Any, heads: int, by_distance: Any, numbers: Any, greatest: Any
) -> None:
    """Every token attends to its row; products by the BLAS that SciPy brings.

    Args:
        y: (T, 3 h d) queries, keys and values, to be scaled and shifted.
        scale, bias: of y.
        starts, lengths: (R,) int64 of each row.
        heads: h.
        by_distance: as `softmax` takes it.
        numbers, greatest: (T, h d) and (T,), to write.
    """
    size = y.shape[1] // 3 // heads
    for r in range(len(starts)):
        first, last = starts[r], starts[r] + lengths[r]
        q = np.empty((heads, lengths[r], size), np.float32)
        k, v = np.empty_like(q), np.empty_like(q)
        scores = np.empty((heads, lengths[r], lengths[r]), np.float32)
        split_heads(y[first:last], scale[first:last], bias, q, k, v)
        queries = max(1, ONE_THREAD // (lengths[r] * size))
        for h in range(heads):
            for t in range(0, lengths[r], queries):
                np.dot(q[h, t : t + queries], k[h].T, scores[h, t : t + queries])
        softmax(scores, by_distance)
        for h in range(heads):
            for t in range(0, lengths[r], queries):
                np.dot(scores[h, t : t + queries], v[h], q[h, t : t + queries])  # over the queries, which are done with
        join_heads_and_quantise(q, numbers[first:last], greatest[first:last])


@_compiled
def attend_first_and_quantise(
    q: Any, kv: Any, starts: Any, lengths: Any, heads: int, by_distance: Any, numbers: Any, greatest: Any
) -> None:
    """What the first token of each row makes of its row.

    Args:
        q: (R, h d) queries of the first tokens.
        kv: (T, 2 h d) keys and values of all tokens.
        starts, lengths: (R,) int64 of each row.
        heads: h.
        by_distance: as `softmax` takes it.
        numbers, greatest: (R, h d) and (R,), to write.
    """
    width = q.shape[1]
    size = width // heads
    root = float32(1.0) / np.sqrt(float32(size))
    nearest = by_distance.shape[1] // 2
    row = np.empty(width, np.float32)
    longest = 0
    for r in range(len(lengths)):
        longest = max(longest, lengths[r])
    held = np.empty(longest, np.float32)
    for r in range(len(q)):
        scores = held[: lengths[r]]
        row[:] = 0
        for h in range(heads):
            first = h * size
            for t in range(len(scores)):
                score = float32(0.0)
                for i in range(size):
                    score += q[r, first + i] * kv[starts[r] + t, first + i]
                scores[t] = score * root
                if len(by_distance):
                    scores[t] += by_distance[h, nearest + t]
            high = LEAST
            for t in range(len(scores)):
                high = max(high, _in_order(_bits_of(scores[t])))
            greatest_score = _float_of(_in_order(high))
            for t in range(len(scores)):
                scores[t] -= greatest_score
            _exponentials(scores)
            total = float32(0.0)
            for t in range(len(scores)):
                total += scores[t]
            for t in range(len(scores)):
                share = scores[t] / total
                for i in range(size):
                    row[first + i] += share * kv[starts[r] + t, width + first + i]
        greatest[r] = _to_bytes(row, numbers[r])


@intrinsic
def _as_pointer(context: Any, number: Any) -> Any:
    """A whole number as an address."""

    def code(_: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(number), code


_pointer: Any = _as_pointer


@_compiled
def multiply(numbers: Any, handles: Any, result: Any) -> Any:
    """numbers (N, in) uint8 -> (N, out) fp32, which lives until `release(result)`.

    Args:
        numbers: rows that lie one after another.
        handles: of `Handles`.
        result: (1,) uint64, to hold the product's handle.
    """
    # Numba frees an array after its last use, of which an address is none: so each is looked at once more after the calls
    held = np.empty(6, np.uint64)  # sizes, strides, the handle of `numbers`, where the result lies
    held[0], held[1] = numbers.shape
    held[2], held[3] = numbers.shape[1], 1
    sizes, strides, made, lies = held.ctypes.data, held[2:].ctypes.data, held[4:].ctypes.data, held[5:].ctypes.data
    failed = from_blob(numbers.ctypes.data, 2, sizes, strides, 0, np.int32(handles[5]), 0, 0, made)
    if not failed:
        failed = qlinear(
            held[4], handles[0], handles[1], handles[6], handles[7], handles[8], 0, 1.0, 0, handles[2], handles[3], 0, 0,
            handles[4], result.ctypes.data,
        )  # fmt: skip
        delete(held[4])
    if failed:
        raise RuntimeError("torch could not multiply bytes")
    data_ptr(result[0], lies)
    return carray(_pointer(held[5]), (len(numbers), np.int64(handles[9])), np.float32)


@_compiled
def release(result: Any) -> None:
    """Give a product's memory back."""
    delete(result[0])


class LayerArrays(NamedTuple):
    """A post-norm layer: products as `torch_calls.Handles` has them, each with its bias, and both norms."""

    q: Any  # queries; of all tokens keys and values too
    q_bias: Any
    kv: Any  # keys and values where queries are of first tokens only, else as `q`
    kv_bias: Any
    out: Any
    out_bias: Any
    up: Any
    up_bias: Any
    down: Any
    down_bias: Any
    norm1: Any  # weight, shift, epsilon
    norm2: Any


@njit(inline="always")
def _layer(layers: Any, i: int) -> Any:
    """One of several."""
    weight1, shift1, epsilon1 = layers.norm1
    weight2, shift2, epsilon2 = layers.norm2
    return LayerArrays(
        layers.q[i], layers.q_bias[i], layers.kv[i], layers.kv_bias[i], layers.out[i], layers.out_bias[i], layers.up[i],
        layers.up_bias[i], layers.down[i], layers.down_bias[i], (weight1[i], shift1[i], epsilon1[i]),
        (weight2[i], shift2[i], epsilon2[i]),
    )  # fmt: skip


@_compiled
def _after_attention(
    layer: Any, context: Any, scale: Any, hidden: Any, together: int, numbers: Any, greatest: Any
) -> None:
    """The attention's output projection, the feed-forward part and both norms; hidden (T, H) is overwritten."""
    result = np.zeros(1, np.uint64)
    middle, between = np.empty(hidden.shape, np.uint8), np.empty(len(hidden), np.float32)
    y = multiply(context, layer.out, result)
    weight, shift, epsilon = layer.norm1
    add_norm_and_quantise(y, scale, layer.out_bias, hidden, weight, shift, epsilon, middle, between)
    release(result)
    weight, shift, epsilon = layer.norm2
    for start in range(0, len(hidden), together):
        end = min(start + together, len(hidden))
        y = multiply(middle[start:end], layer.up, result)
        raised, high = np.empty(y.shape, np.uint8), np.empty(len(y), np.float32)
        gelu_and_quantise(y, between[start:end], layer.up_bias, raised, high)
        release(result)
        y = multiply(raised, layer.down, result)
        add_norm_and_quantise(
            y, high, layer.down_bias, hidden[start:end], weight, shift, epsilon, numbers[start:end], greatest[start:end]
        )
        release(result)


@_compiled
def whole_layers(
    layers: Any, hidden: Any, numbers: Any, greatest: Any, starts: Any, lengths: Any, end: int, heads: int,
    by_distance: Any, together: int,
) -> None:  # fmt: skip
    """Layers one after another in a single call; `torch_calls.linked()` comes first.

    Args:
        layers: `LayerArrays` of N layers, each array (N, ...), for a tuple of layers would be compiled anew for each N.
        hidden: (T, H), to be overwritten by the last one's.
        numbers, greatest: the same in bytes (T, H), with scales (T,), to be overwritten likewise.
        starts, lengths: (R,) int64 of each row.
        end: where the rows end and filler begins.
        heads: h.
        by_distance: as `softmax` takes it.
        together: tokens of a feed-forward part at a time.
    """
    result = np.zeros(1, np.uint64)
    context, high = np.empty(hidden.shape, np.uint8), np.empty(len(hidden), np.float32)
    context[end:], high[end:] = 128, float32(1.0)  # filler: zeros, which nothing reads
    for place in range(len(layers.q)):
        layer = _layer(layers, place)
        y = multiply(numbers, layer.q, result)
        attend_and_quantise(y, greatest, layer.q_bias, starts, lengths, heads, by_distance, context, high)
        release(result)
        _after_attention(layer, context, high, hidden, together, numbers, greatest)


@_compiled
def whole_first_layer(
    layer: Any, hidden: Any, held: Any, scale: Any, starts: Any, lengths: Any, heads: int, by_distance: Any,
    together: int, numbers: Any, greatest: Any,
) -> None:  # fmt: skip
    """One layer of which only first tokens are wanted, in a single call.

    Args:
        layer: of `LayerArrays`.
        hidden: (R, H) of first tokens, to be overwritten by the layer's.
        held, scale: all tokens in bytes (T, H), with scales (T,).
        starts, lengths, heads, by_distance, together: as `whole_layers` takes them.
        numbers, greatest: (R, H) and (R,), to write: the layer's in bytes.
    """
    queries, keys = np.zeros(1, np.uint64), np.zeros(1, np.uint64)
    context, high = np.empty(hidden.shape, np.uint8), np.empty(len(hidden), np.float32)
    firsts, scales = held[starts], scale[starts]
    q = multiply(firsts, layer.q, queries)
    scale_and_shift(q, scales, layer.q_bias)
    kv = multiply(held, layer.kv, keys)
    scale_and_shift(kv, scale, layer.kv_bias)
    attend_first_and_quantise(q, kv, starts, lengths, heads, by_distance, context, high)
    release(queries)
    release(keys)
    _after_attention(layer, context, high, hidden, together, numbers, greatest)
