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
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..engine import DTypeError, ShapeError, Tensor, array_module, default_generator, primitive
from ..engine.backend import Array
from ..engine.tensor import operand
from .shared_rules import shared_rules

__all__ = ["scaled_dot_product_attention"]

TILE = 512  # queries and keys of a tile, whose scores then fit the cache of a core


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
    query, key, value = operand(query), operand(key), operand(value)
    mask = None if attn_mask is None else operand(attn_mask)
    if is_causal and mask is not None:
        raise ValueError(
            "scaled_dot_product_attention: is_causal=True is a mask of its own: give that, or "
            "attn_mask with False (or -inf) above the diagonal as well"
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


@primitive(floats="all")
def _scaled_dot_product_attention(
    query, key, value, bias, *, allowed, is_causal, scale, dropout_p, seed
):
    batch = _check_shapes(query, key, value, bias if allowed is None else allowed)
    D = query.shape[-1]
    if scale is None:
        scale = 1 / math.sqrt(max(D, 1))
    dtype = np.result_type(query, key, value)
    scale = dtype.type(scale)

    def flat(x):
        """The leading axes as one, and all arrays in one dtype."""
        x = array_module(x).broadcast_to(x, batch + x.shape[-2:])
        return x.reshape(-1, *x.shape[-2:]).astype(dtype, copy=False)

    q, k, v = flat(query) * scale, flat(key), flat(value)
    bias_shape = None if bias is None else bias.shape
    scores = _Scores(q, k, _Mask.of(bias, batch), _Mask.of(allowed, batch), is_causal)
    noise = _Noise(dropout_p, seed)
    y, log_sum = _forward(scores, v, noise)

    def gradients(dy):
        dq, dk, dv = _backward(scores, v, noise, y, log_sum, flat(dy))
        dq *= scale
        return [x.reshape(batch + x.shape[1:]) for x in (dq, dk, dv)]

    def vjp_bias(dy):
        dbias = _backward_to_bias(scores, v, noise, y, log_sum, flat(dy))
        return dbias.reshape(bias_shape)

    rules = *shared_rules(gradients, 3), None if bias is None else vjp_bias
    return y.reshape(batch + y.shape[1:]), rules


class _Mask(NamedTuple):
    """Masks (M, L or 1, S or 1), and which of them each item of the batch has: (B,)."""

    values: Array
    which: Array

    @classmethod
    def of(cls, mask: Array | None, batch: tuple[int, ...]) -> _Mask | None:
        """What a mask that broadcasts to (*batch, L, S) is for the batch as one axis."""
        if mask is None:
            return None
        mask = mask[(None,) * (2 - mask.ndim)]
        *leading, rows, columns = mask.shape
        M = math.prod(leading)
        which = np.broadcast_to(np.arange(M).reshape(leading), batch).reshape(-1)
        return cls(mask.reshape(M, rows, columns), which)

    def place(self, items: slice, rows: slice, columns: slice) -> tuple:
        """Index of a tile in `values`."""
        which, (M, L, S) = self.which[items], self.values.shape
        return (
            slice(None) if M == 1 else which,
            slice(None) if L == 1 else rows,
            slice(None) if S == 1 else columns,
        )

    def tile(self, *place: slice) -> Array:
        return self.values[self.place(*place)]


class _Noise(NamedTuple):
    """Dropout's noise, made anew for each tile whenever it is asked for."""

    p: float
    seed: int

    def tile(self, like: Array, items: slice, rows: slice, columns: slice) -> Array:
        """0 with probability p, else 1 / (1 - p): (G, r, c)."""
        place = (items.start, rows.start, columns.start)
        kept = np.random.default_rng((self.seed, *place)).random(like.shape, np.float32) >= self.p
        scale = array_module(like).asarray(kept, dtype=like.dtype)
        scale *= 0.0 if self.p == 1 else 1 / (1 - self.p)
        return scale


class _Scores(NamedTuple):
    """What the scores of every tile are computed from."""

    q: Array  # (B, L, D), scaled
    k: Array  # (B, S, D)
    bias: _Mask | None
    allowed: _Mask | None
    is_causal: bool

    def tile(self, items: slice, rows: slice, columns: slice) -> Array | None:
        """Scores (G, r, c) of a tile, -inf where a query may not look; None if it nowhere may."""
        if self.is_causal and columns.start >= rows.stop:
            return None
        if self.allowed is not None:
            allowed = self.allowed.tile(items, rows, columns)
            if not allowed.any():
                return None
        s = self.q[items, rows] @ self.k[items, columns].swapaxes(1, 2)
        xp = array_module(s)
        if self.bias is not None:
            s += self.bias.tile(items, rows, columns)
        if self.allowed is not None:
            xp.copyto(s, -xp.inf, where=~allowed)
        if self.is_causal and columns.stop > rows.start + 1:
            i, j = xp.arange(rows.start, rows.stop), xp.arange(columns.start, columns.stop)
            xp.copyto(s, -xp.inf, where=i[:, None] < j)
        return s

    def items(self) -> Iterator[slice]:
        """Groups of the batch whose tiles are computed at once: several, where tiles are small."""
        B, L, _ = self.q.shape
        small = TILE**2 // max(1, min(L, TILE) * min(self.k.shape[1], TILE))
        return _parts(B, max(1, small))

    def rows(self) -> Iterator[slice]:
        return _parts(self.q.shape[1], TILE)

    def columns(self) -> Iterator[slice]:
        return _parts(self.k.shape[1], TILE)


def _parts(size: int, part: int) -> Iterator[slice]:
    """Slices that cover an axis."""
    for start in range(0, size, part):
        yield slice(start, min(start + part, size))


def _forward(scores: _Scores, v: Array, noise: _Noise) -> tuple[Array, Array]:
    """Output (B, L, Dv), and the logarithm of each query's sum of exponentials (B, L, 1)."""
    B, L, _ = scores.q.shape
    xp = array_module(v)
    y = xp.zeros((B, L, v.shape[-1]), v.dtype)
    log_sum = xp.full((B, L, 1), xp.inf, v.dtype)  # where nothing may be looked at: exp(-inf) = 0
    for items in scores.items():
        for rows in scores.rows():
            out = y[items, rows]
            largest = xp.full((*out.shape[:2], 1), -xp.inf, v.dtype)
            total = xp.zeros_like(largest)
            for columns in scores.columns():
                s = scores.tile(items, rows, columns)
                if s is None:
                    continue
                new = xp.maximum(largest, s.max(axis=2, keepdims=True))
                new[new == -xp.inf] = 0
                shrink = xp.exp(largest - new)
                s -= new
                p = xp.exp(s, out=s)
                total *= shrink
                total += p.sum(axis=2, keepdims=True)
                if noise.p > 0:
                    p *= noise.tile(p, items, rows, columns)
                out *= shrink
                out += p @ v[items, columns]
                largest = new
            seen = total != 0
            out /= xp.where(seen, total, 1)
            log_sum[items, rows] = xp.where(
                seen, largest + xp.log(xp.where(seen, total, 1)), xp.inf
            )
    return y, log_sum


def _score_gradients(scores, v, noise, y, log_sum, dy):
    """For every tile that is seen: where it lies, its weights as they met v, and ds."""
    xp = array_module(v)
    along = (dy * y).sum(axis=2, keepdims=True)
    for items in scores.items():
        for rows in scores.rows():
            for columns in scores.columns():
                s = scores.tile(items, rows, columns)
                if s is None:
                    continue
                s -= log_sum[items, rows]
                p = xp.exp(s, out=s)
                dp = dy[items, rows] @ v[items, columns].swapaxes(1, 2)
                if noise.p > 0:
                    z = noise.tile(p, items, rows, columns)
                    dp *= z
                dp -= along[items, rows]
                dp *= p
                if noise.p > 0:
                    p *= z
                yield items, rows, columns, p, dp


def _backward(scores, v, noise, y, log_sum, dy):
    """Gradients of the scaled queries, the keys and the values."""
    xp = array_module(v)
    dq, dk, dv = (xp.zeros_like(x) for x in (scores.q, scores.k, v))
    for items, rows, columns, p, ds in _score_gradients(scores, v, noise, y, log_sum, dy):
        dv[items, columns] += p.swapaxes(1, 2) @ dy[items, rows]
        dq[items, rows] += ds @ scores.k[items, columns]
        dk[items, columns] += ds.swapaxes(1, 2) @ scores.q[items, rows]
    return dq, dk, dv


def _backward_to_bias(scores, v, noise, y, log_sum, dy):
    """Gradient of the mask that was added."""
    xp = array_module(v)
    values, which = scores.bias
    dbias = xp.zeros(values.shape, v.dtype)
    M, L, S = values.shape
    for items, rows, columns, _, ds in _score_gradients(scores, v, noise, y, log_sum, dy):
        stretched = tuple(axis for axis, n in enumerate((M, L, S)) if n == 1)
        ds = ds.sum(axis=stretched, keepdims=True)
        xp.add.at(dbias, scores.bias.place(items, rows, columns), ds)
    return dbias


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
        if mask.dtype.kind not in "bf":
            raise DTypeError(
                f"{op}: a mask is of booleans (True: may look) or of floats (added to the scores), "
                f"not {mask.dtype}: for zeros and ones, give attn_mask.astype(bool)"
            )
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
