"""Which operations a mixed-precision computation runs in which precision: the two lists."""

from __future__ import annotations

from typing import Literal

Precision = Literal["low", "float32"]

# Products: nearly all of the work, quick in 16 bits on a GPU, and summed in float32 there.
# ("product" is that of two operands of einsum.)
LOW = {
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "linear",
    "matmul",
    "product",
    "recurrence",
    "scaled_dot_product_attention",
}

# What loses digits in 16 bits, or leaves their range: exponentials, logarithms and powers, sums
# over many values, and what is made of them.
FLOAT32 = {
    "affine_grid",
    "binary_cross_entropy_with_logits",
    "cosine_similarity",
    "cross_entropy",
    "cumsum",
    "exp",
    "expm1",
    "group_norm",
    "interpolate",
    "l1_loss",
    "layer_norm",
    "local_response_norm",
    "log",
    "log1p",
    "log_softmax",
    "logsigmoid",
    "logsumexp",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "mean",
    "mse_loss",
    "nll_loss",
    "norm",
    "pow",
    "prod",
    "reciprocal",
    "rsqrt",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "square",
    "std",
    "sum",
    "var",
}


def precision_of(op: str) -> Precision | None:
    """The precision of an operation; None: it computes in that of its inputs, the widest."""
    return "low" if op in LOW else "float32" if op in FLOAT32 else None
