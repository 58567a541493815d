"""All operations in one flat list, under PyTorch's names.

Usually imported as F: `import minitorch_attn.functional as F`, then `F.relu(x)`. Each is defined
in the file of `minitorch_attn/ops` that is named after its idea.
"""

# ruff: noqa: F401  (names are imported here to be found here)

from .ops.activation import (
    elu,
    gelu,
    hardsigmoid,
    hardswish,
    leaky_relu,
    log_softmax,
    logsigmoid,
    relu,
    relu6,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from .ops.adaptive_pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
)
from .ops.arithmetic import (
    abs,
    add,
    ceil,
    clamp,
    clip,
    cos,
    divide,
    exp,
    expm1,
    floor,
    floor_divide,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    negative,
    pow,
    reciprocal,
    remainder,
    round,
    rsqrt,
    sign,
    sin,
    sqrt,
    square,
    subtract,
    where,
)
from .ops.attention import scaled_dot_product_attention
from .ops.avg_pooling import avg_pool1d, avg_pool2d, avg_pool3d, lp_pool1d, lp_pool2d, lp_pool3d
from .ops.comparison import (
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    eq,
    ge,
    gt,
    isfinite,
    isinf,
    isnan,
    le,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    ne,
)
from .ops.convolution import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from .ops.dropout import dropout, dropout2d
from .ops.einsum import einsum
from .ops.folding import fold, unfold
from .ops.indexing import (
    gather,
    getitem,
    index_select,
    one_hot,
    take_along_dim,
)
from .ops.interpolation import interpolate
from .ops.linalg import (
    bmm,
    dot,
    matmul,
    outer,
)
from .ops.linear import (
    embedding,
    linear,
)
from .ops.loss import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
    triplet_margin_loss,
)
from .ops.max_pooling import max_pool1d, max_pool2d, max_pool3d
from .ops.normalization import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
)
from .ops.padding import pad
from .ops.reduction import (
    all,
    amax,
    amin,
    any,
    argmax,
    argmin,
    cumsum,
    logsumexp,
    max,
    mean,
    min,
    norm,
    prod,
    std,
    sum,
    var,
)
from .ops.sampling import affine_grid, grid_sample
from .ops.shape import (
    broadcast_to,
    cat,
    chunk,
    clone,
    concatenate,
    expand,
    flatten,
    flip,
    masked_fill,
    movedim,
    permute,
    repeat,
    reshape,
    roll,
    split,
    squeeze,
    stack,
    transpose,
    tril,
    triu,
    unbind,
    unsqueeze,
)
from .ops.shuffle import channel_shuffle, pixel_shuffle, pixel_unshuffle
from .ops.similarity import cosine_similarity, normalize, pairwise_distance
from .ops.sorting import argsort, sort, topk
from .ops.special import erf
from .ops.unpooling import max_unpool1d, max_unpool2d, max_unpool3d
