r"""Softmax attention in tiles: exact, and with memory that grows with the length, not its square.

With scores :math:`s_{ij} = \tau\, q_i \cdot k_j` (and what a mask adds), the output is

.. math:: y_i = \sum_j p_{ij} v_j, \qquad p_{ij} = e^{s_{ij} - \ell_i}, \qquad
    \ell_i = \log \sum_j e^{s_{ij}}.

The L x S scores are never stored. The forward pass meets them tile by tile and keeps, for each
query, the largest score so far, the sum of exponentials and the sum of values, both relative to
that largest score: when a larger one comes, both are scaled down. It leaves the output and
:math:`\ell`, from which the backward pass computes the same tiles again:

.. math:: dv_j = \sum_i p_{ij}\, dy_i, \quad
    ds_{ij} = p_{ij} (dy_i \cdot v_j - dy_i \cdot y_i), \quad
    dq_i = \tau \sum_j ds_{ij} k_j, \quad dk_j = \tau \sum_i ds_{ij} q_i.

On a GPU the same is done by the kernels of `attention_cuda`, whose tiles stay in registers; tokens
that are too wide for those go the way below, in larger tiles.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..engine import DTypeError, ShapeError, Tensor, array_module, default_generator, primitive
from ..engine.backend import Array, on_gpu
from ..engine.dtypes import is_floating
from ..engine.tensor import as_operands
from ..engine.threads import in_parallel
from . import attention_cuda
from .attention_tiles import Block, Mask, Noise, Scores, Tile, in_columns, with_column
from .shared_rules import shared_rules

__all__ = ["scaled_dot_product_attention"]

# The exponentials of a query are taken relative to its largest score so far. They may grow to
# exp(HEADROOM) before it is worth the passes over the tile to take the larger score instead.
HEADROOM = 16


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    r"""Attention: for each query, a mean of the values, weighted by how well their keys fit.

    .. math:: y = \mathrm{softmax}\!\left(\frac{q k^T}{\sqrt{D}} + \text{mask}\right) v

    It is computed in tiles (see the top of this file): no L x S array is made, so memory grows
    with L + S. Tiles that a mask hides wholly are left out.

    Parameters
    ----------
    query : (..., L, D)
    key : (..., S, D)
    value : (..., S, Dv)
        The leading axes broadcast.
    attn_mask : (..., L, S), or what broadcasts to it, optional
        Booleans: True where a query may look at a key. (`nn.MultiheadAttention` says it the other
        way round.) Floats: numbers to add to the scores, -inf where it may not look; they have
        a gradient if they require one. A query that may look at nothing gives zeros, with zero
        gradients.
    dropout_p : float
        Probability of a zero among the weights, which are then scaled by 1 / (1 - dropout_p).
        It is applied at every call: pass 0 outside of training. Noise comes from the default
        generator (see `manual_seed`).
    is_causal : bool
        Query i looks at the keys up to i alone. Not together with a mask.
    scale : float, optional
        Factor of the scores instead of 1 / sqrt(D).
    enable_gqa : bool
        Grouped queries: key and value have fewer heads (axis -3), each for as many neighbouring
        heads of the query.

    Returns
    -------
    (..., L, Dv)

    Raises
    ------
    ShapeError
        If the sizes do not fit.
    DTypeError
        If a mask is of integers.
    ValueError
        If a mask is given with `is_causal`, or `dropout_p` is no probability.

    References
    ----------
    Vaswani et al., "Attention Is All You Need" (2017), equation 1.
    Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018), algorithm 3.
    Rabe and Staats, "Self-attention Does Not Need O(n^2) Memory" (2021).
    Dao, Fu, Ermon, Rudra and Ré, "FlashAttention" (2022), algorithms 1 and 4.
    """
    query, key, value, mask = as_operands(query, key, value, attn_mask)
    if is_causal and mask is not None:
        raise ValueError(
            "scaled_dot_product_attention: is_causal=True is a mask of its own: give that, or "
            "attn_mask with False (or -inf) above the diagonal as well"
        )
    if mask is not None and mask.dtype != bool and not is_floating(mask.dtype):
        raise DTypeError(
            "scaled_dot_product_attention: attn_mask holds booleans (True: may look) or floats "
            f"(added to the scores), not {mask.dtype}: make booleans of zeros and ones by "
            "attn_mask.astype(bool)"
        )
    if not 0 <= dropout_p <= 1:
        raise ValueError(
            "scaled_dot_product_attention: dropout_p is a probability, from 0 to 1, not "
            f"{dropout_p}"
        )
    if enable_gqa:
        heads = _check_heads(query, key, value)
        in_groups = _in_groups(query, heads)
        if mask is not None and mask.ndim > 2:
            mask = mask.unsqueeze(-3) if mask.shape[-3] == 1 else _in_groups(mask, heads)
        key, value = key.unsqueeze(-3), value.unsqueeze(-3)
        y = scaled_dot_product_attention(in_groups, key, value, mask, dropout_p, is_causal, scale)
        return y.reshape(*y.shape[:-4], query.shape[-3], *y.shape[-2:])
    of_booleans = mask is not None and mask.dtype == np.bool_
    return _scaled_dot_product_attention(
        query,
        key,
        value,
        None if of_booleans else mask,
        allowed=mask if of_booleans else None,
        is_causal=is_causal,
        scale=scale,
        dropout_p=dropout_p,
        seed=int(default_generator().integers(2**32)) if dropout_p > 0 else 0,
    )


@primitive(floats="all", takes_half=True)
def _scaled_dot_product_attention(
    query, key, value, bias, *, allowed, is_causal, scale, dropout_p, seed
):
    batch = _check_shapes(query, key, value, bias if allowed is None else allowed)
    N, xp = math.prod(batch), array_module(query)
    dtype = np.result_type(query.dtype, key.dtype, value.dtype)
    scale = 1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale
    by_kernels = on_gpu(query) and attention_cuda.fits(dtype, query.shape[-1], value.shape[-1])
    inside = dtype if by_kernels else np.promote_types(dtype, np.float32)

    def flat(x):
        """The leading axes as one, the same for all: (N, tokens, features)."""
        x = xp.broadcast_to(x, batch + x.shape[-2:])
        return x.reshape(N, *x.shape[-2:]).astype(inside, copy=False)

    bias_shape = None if bias is None else bias.shape
    bias, allowed = Mask.of(bias, batch), Mask.of(allowed, batch)
    noise = Noise(dropout_p, seed, query.shape[-2])
    query, key, value = flat(query), flat(key), flat(value)
    steps: tuple[Callable[..., Any], ...]
    if by_kernels:
        mask = allowed if bias is None else bias
        kernels = attention_cuda.Attention(query, key, value, scale, mask, is_causal, noise)
        steps = kernels.forward, kernels.backward, kernels.backward_to_bias
    else:
        columns = in_columns(key)
        scores = Scores(query, key, columns, inside.type(scale), bias, allowed, is_causal, noise)
        on_tiles = _forward, _backward, _backward_to_bias
        steps = tuple(functools.partial(step, scores, value) for step in on_tiles)
    forward, backward, backward_to_bias = steps
    y, log_sum = forward()

    def gradients(dy):
        return [x.reshape(batch + x.shape[1:]) for x in backward(y, log_sum, flat(dy))]

    def vjp_bias(dy):
        return backward_to_bias(y, log_sum, flat(dy)).reshape(bias_shape)

    rules = *shared_rules(gradients, 3), None if bias is None else vjp_bias
    return y.reshape(batch + y.shape[1:]).astype(dtype, copy=False), rules


def _forward(scores: Scores, value: Array) -> tuple[Array, Array]:
    """Output (N, L, Dv), and the logarithm of each query's sum of exponentials (N, L, 1)."""
    xp, (N, L, _) = array_module(value), scores.query.shape
    y = xp.zeros((N, L, value.shape[2]), value.dtype)
    log_sum = xp.zeros((N, L, 1), value.dtype)
    blocks = scores.blocks()

    def work(part: slice) -> None:
        for block in blocks[part]:
            log_sum[block] = _attend(scores, value, block, y[block])

    in_parallel(work, len(blocks), _for_threads(scores))
    return y, log_sum


def _for_threads(scores: Scores) -> int:
    """Multiply-adds that threads of the host could share: a card has threads of its own."""
    return 0 if on_gpu(scores.query) else scores.multiply_adds


def _attend(scores: Scores, value: Array, block: Block, out: Array) -> Array:
    """Add up the output of a block of queries in `out`, zeros before: (G, r, Dv).

    Returns the logarithms of the sums of exponentials, (G, r, 1).
    """
    xp = array_module(value)
    ones = xp.ones((value.shape[1], 1), value.dtype)
    total = xp.zeros((*out.shape[:2], 1), value.dtype)
    reference = xp.zeros_like(total)  # `out` and `total` are relative to the exponential of this
    queries = scores.queries(block, -reference)
    settled = False  # whether every query has met a key that it may look at
    asks = not on_gpu(value)  # the host would wait for the answer: there every tile is scaled
    for tile in scores.tiles(block):
        s = scores.at(tile, queries)
        if not settled or s.max() > HEADROOM:
            highest = s.max(axis=2, keepdims=True)
            rise = xp.where(total > 0, xp.maximum(highest, 0), highest)
            rise = xp.where(rise == -xp.inf, 0, rise)
            shrink = xp.exp(xp.minimum(-rise, 0))
            total *= shrink
            out *= shrink
            reference += rise
            queries[..., -1:] = -reference
            s -= rise
        p = xp.exp(s, out=s)
        total += p @ ones[tile.columns]
        settled = asks and (settled or bool((total > 0).all()))
        noise = scores.noise.at(tile, p)
        if noise is not None:
            p *= noise
        out += p @ value[tile.keys]
    total = xp.where(total == 0, 1, total)  # of no key at all: then the output stays 0
    out /= total
    return reference + xp.log(total)


def _backward(
    scores: Scores, value: Array, y: Array, log_sum: Array, dy: Array
) -> tuple[Array, Array, Array]:
    """Gradients of the queries, the keys and the values."""
    xp = array_module(value)
    query, key = scores.query, scores.key
    dq = xp.zeros_like(query)
    blocks = scores.blocks()
    tiles_of = _tiles_again(scores, value, y, log_sum, dy)

    def work(part: slice) -> tuple[Array, Array]:
        dk, dv = xp.zeros_like(key), xp.zeros_like(value)
        for tile, p, ds in tiles_of(blocks[part]):
            dq[tile.queries] += ds @ key[tile.keys]
            dk[tile.keys] += ds.swapaxes(1, 2) @ query[tile.queries]
            dv[tile.keys] += p.swapaxes(1, 2) @ dy[tile.queries]
        return dk, dv

    shares = in_parallel(work, len(blocks), 2 * _for_threads(scores))
    dk, dv = (functools.reduce(operator.iadd, of_all) for of_all in zip(*shares))
    dq *= scores.scale
    dk *= scores.scale
    return dq, dk, dv


def _backward_to_bias(scores: Scores, value: Array, y: Array, log_sum: Array, dy: Array) -> Array:
    """Gradient of the numbers that were added to the scores: (M, L or 1, S or 1)."""
    xp, bias = array_module(value), scores.bias
    assert bias is not None
    dbias = xp.zeros(bias.values.shape, value.dtype)
    stretched = tuple(axis for axis, n in enumerate(dbias.shape) if n == 1)
    for tile, _, ds in _tiles_again(scores, value, y, log_sum, dy)(scores.blocks()):
        xp.add.at(dbias, bias.place(tile), ds.sum(axis=stretched, keepdims=True))
    return dbias


def _tiles_again(
    scores: Scores, value: Array, y: Array, log_sum: Array, dy: Array
) -> Callable[[list[Block]], Iterator[tuple[Tile, Array, Array]]]:
    """What computes the tiles of blocks again: their places, weights and scores' gradients.

    The weights are those that met the values, with noise if there is any.
    """
    xp = array_module(value)
    columns = in_columns(value)

    def tiles_of(blocks: list[Block]) -> Iterator[tuple[Tile, Array, Array]]:
        for block in blocks:
            queries = scores.queries(block, -log_sum[block])
            along = (dy[block] * y[block]).sum(axis=2, keepdims=True)
            dy_and_along = with_column(dy[block], -along)
            for tile in scores.tiles(block):
                s = scores.at(tile, queries)
                p = xp.exp(s, out=s)
                noise = scores.noise.at(tile, p)
                of_values = columns[tile.columns.start][tile.items]
                if noise is None:
                    ds = dy_and_along @ of_values
                    ds *= p
                else:
                    ds = noise * (dy[block] @ of_values[:, :-1])
                    ds -= along
                    ds *= p
                    p *= noise
                yield tile, p, ds

    return tiles_of


def _check_shapes(query, key, value, mask) -> tuple[int, ...]:
    """The leading axes of the result, once it is known that all sizes fit."""
    op = "scaled_dot_product_attention"
    for name, x in (("query", query), ("key", key), ("value", value)):
        if x.ndim < 2:
            raise ShapeError(f"{op}: {name} needs shape (..., tokens, features), not {x.shape}")
    if query.shape[-1] != key.shape[-1]:
        raise ShapeError(
            f"{op}: query {query.shape} and key {key.shape} are compared feature by feature: "
            "their last axes must be equal"
        )
    if key.shape[-2] != value.shape[-2]:
        raise ShapeError(
            f"{op}: key {key.shape} and value {value.shape} need the same number of tokens, axis -2"
        )
    leading = [x.shape[:-2] for x in (query, key, value)]
    try:
        batch = np.broadcast_shapes(*leading)
    except ValueError:
        raise ShapeError(
            f"{op}: the leading axes of query, key and value do not broadcast: "
            f"{', '.join(map(str, leading))}"
        ) from None
    if mask is not None:
        full = (*batch, query.shape[-2], key.shape[-2])
        try:
            fits = np.broadcast_shapes(mask.shape, full) == full
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(f"{op}: the mask {mask.shape} does not broadcast to the scores {full}")
    return batch


def _check_heads(query: Tensor, key: Tensor, value: Tensor) -> int:
    """How many heads key and value have, for grouped queries."""
    heads = {x.shape[-3] if x.ndim > 2 else 0 for x in (key, value)}
    most = query.shape[-3] if query.ndim > 2 else 0
    if len(heads) > 1 or 0 in heads or most % min(heads):
        raise ShapeError(
            "scaled_dot_product_attention: enable_gqa needs heads on axis -3, as many of the key "
            "as of the value, and a multiple of them of the query, not shapes "
            f"{query.shape}, {key.shape}, {value.shape}"
        )
    return heads.pop()


def _in_groups(x: Tensor, heads: int) -> Tensor:
    """(..., E, a, b) -> (..., heads, E / heads, a, b)."""
    *leading, E, a, b = x.shape
    return x.reshape(*leading, heads, E // heads, a, b)
