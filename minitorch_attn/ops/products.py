"""Matrix products of arrays, asked for in the way that a GPU's library is quick at."""

from __future__ import annotations

import math

from ..engine.backend import Array, on_gpu
from ..engine.dtypes import FLOAT16, FLOAT32, is_half


def matrix_product(a: Array, b: Array) -> Array:
    """The product a @ b of arrays.

    Only products of two matrices reach the GPU's matrix units through CuPy. With more axes it
    copies transposed factors, multiplies float16 in float32, and does not know bfloat16. So a
    batch of matrices by one matrix is made a single product: of all rows. A batch of bfloat16 by
    another goes by way of float32, as CuPy itself does it with float16.
    """
    if not on_gpu(a) or max(a.ndim, b.ndim) <= 2:
        return a @ b
    if b.ndim <= 2:
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        return (rows @ b).reshape(*a.shape[:-1], *b.shape[1:])
    if a.dtype == b.dtype and is_half(a.dtype) and a.dtype is not FLOAT16:
        return (a.astype(FLOAT32) @ b.astype(FLOAT32)).astype(a.dtype)
    return a @ b
