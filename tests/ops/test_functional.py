"""What holds for every operation of `functional`, checked on one example call of each.

An operation without an example fails the first test: so none goes without a gradient check.
"""

import inspect
import operator

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F

from .parity import TOLERANCE, compare, normal, positive, torch

PUBLIC = {
    name: op
    for name, op in vars(F).items()
    if not name.startswith("_") and callable(op) and op.__module__.startswith("minitorch_attn")
}


def call(*inputs, **settings):
    """An example call: arrays are inputs, or settings without a gradient such as class indices."""
    return inputs, settings


CLASSES = np.array([2, 0, 2])
SEQUENCES = normal(2, 3, 7)
IMAGES = normal(2, 4, 5, 6)
VOLUMES = normal(1, 2, 4, 5, 3)
MATRIX = normal(3, 4)
MASK = normal(3, 4) > 0

EXAMPLES = {
    "abs": call(MATRIX),
    "adaptive_avg_pool1d": call(SEQUENCES, 2),
    "adaptive_avg_pool2d": call(IMAGES, 2),
    "adaptive_avg_pool3d": call(VOLUMES, 2),
    "adaptive_max_pool1d": call(SEQUENCES, 2),
    "adaptive_max_pool2d": call(IMAGES, 2),
    "adaptive_max_pool3d": call(VOLUMES, 2),
    "add": call(MATRIX, normal(4)),
    "affine_grid": call(normal(2, 2, 3), (2, 1, 4, 5), False),
    "amax": call(MATRIX, 1),
    "amin": call(MATRIX, 1),
    "avg_pool1d": call(SEQUENCES, 2),
    "avg_pool2d": call(IMAGES, 2),
    "avg_pool3d": call(VOLUMES, 2),
    "batch_norm": call(IMAGES, None, None, normal(4), normal(4, seed=1), True),
    "binary_cross_entropy_with_logits": call(MATRIX, MASK.astype(float)),
    "bmm": call(normal(2, 3, 4), normal(2, 4, 5)),
    "broadcast_to": call(MATRIX, (2, 3, 4)),
    "cat": call([MATRIX, normal(2, 4)], 0),
    "channel_shuffle": call(IMAGES, 2),
    "chunk": call(MATRIX, 3, 1),
    "clamp": call(MATRIX, -0.5, 0.5),
    "clip": call(MATRIX, -0.5, 0.5),
    "clone": call(MATRIX),
    "concatenate": call([MATRIX, normal(2, 4)]),
    "conv1d": call(normal(2, 4, 7), normal(3, 4, 2), normal(3)),
    "conv2d": call(IMAGES, normal(3, 4, 2, 3), normal(3)),
    "conv3d": call(normal(1, 2, 3, 4, 5), normal(2, 2, 2, 1, 3), normal(2)),
    "conv_transpose1d": call(normal(2, 4, 7), normal(4, 3, 2), normal(3), 2),
    "conv_transpose2d": call(IMAGES, normal(4, 3, 2, 3), normal(3), 2),
    "conv_transpose3d": call(normal(1, 2, 3, 2, 3), normal(2, 2, 2, 1, 3), normal(2), 2),
    "cos": call(MATRIX),
    "cosine_similarity": call(MATRIX, normal(3, 4, seed=1)),
    "cross_entropy": call(MATRIX, CLASSES),
    "cumsum": call(MATRIX, 1),
    "divide": call(MATRIX, positive(4)),
    "dot": call(normal(5), normal(5, seed=1)),
    "einsum": call("ij,kj->ik", MATRIX, normal(5, 4)),
    "elu": call(MATRIX),
    "embedding": call(np.array([[1, 2], [1, 0]]), MATRIX),
    "erf": call(MATRIX),
    "exp": call(MATRIX),
    "expand": call(MATRIX, (2, -1, 4)),
    "expm1": call(MATRIX),
    "flatten": call(IMAGES, 1),
    "flip": call(MATRIX, (0, 1)),
    "fold": call(normal(2, 8, 12), (4, 5), 2),
    "gather": call(MATRIX, 1, np.array([[0, 0, 3], [1, 2, 1]])),
    "gelu": call(MATRIX),
    "getitem": call(MATRIX, (slice(1, None), [0, 0, 2])),
    "grid_sample": call(IMAGES, normal(2, 3, 4, 2), "bilinear", "zeros", False),
    "group_norm": call(IMAGES, 2, normal(4), normal(4, seed=1)),
    "hardsigmoid": call(2 * MATRIX),
    "hardswish": call(2 * MATRIX),
    "index_select": call(MATRIX, 1, np.array([3, 0, 3])),
    "instance_norm": call(IMAGES, None, None, normal(4), normal(4, seed=1)),
    "interpolate": call(IMAGES, (7, 4), None, "bilinear"),
    "l1_loss": call(MATRIX, normal(3, 4, seed=1)),
    "layer_norm": call(MATRIX, (4,), normal(4), normal(4, seed=1)),
    "leaky_relu": call(MATRIX, 0.2),
    "linear": call(MATRIX, normal(5, 4), normal(5)),
    "local_response_norm": call(IMAGES, 3, 0.5),
    "log": call(positive(3, 4)),
    "log1p": call(positive(3, 4)),
    "log_softmax": call(MATRIX, 1),
    "logsigmoid": call(MATRIX),
    "logsumexp": call(MATRIX, 1),
    "lp_pool1d": call(np.abs(SEQUENCES), 3, 2),
    "lp_pool2d": call(np.abs(IMAGES), 3, 2),
    "lp_pool3d": call(np.abs(VOLUMES), 3, 2),
    "masked_fill": call(MATRIX, MASK, 2.0),
    "matmul": call(MATRIX, normal(2, 4, 5)),
    "max": call(MATRIX, 1),
    "max_pool1d": call(SEQUENCES, 2),
    "max_pool2d": call(IMAGES, 2),
    "max_pool3d": call(VOLUMES, 2),
    "max_unpool1d": call(normal(1, 1, 2), np.array([[[0, 3]]]), 2),
    "max_unpool2d": call(normal(1, 1, 1, 2), np.array([[[[4, 3]]]]), 2),
    "max_unpool3d": call(normal(1, 1, 1, 1, 2), np.array([[[[[4, 3]]]]]), 2),
    "maximum": call(MATRIX, normal(4)),
    "mean": call(MATRIX, 1),
    "min": call(MATRIX, 1),
    "minimum": call(MATRIX, normal(4)),
    "movedim": call(normal(2, 3, 4), 0, 2),
    "mse_loss": call(MATRIX, normal(3, 4, seed=1)),
    "multiply": call(MATRIX, normal(4)),
    "negative": call(MATRIX),
    "nll_loss": call(MATRIX, CLASSES),
    "norm": call(MATRIX, 2, 1),
    "normalize": call(MATRIX),
    "outer": call(normal(3), normal(4)),
    "pad": call(MATRIX, (1, 2, 0, 1), value=3.0),
    "pairwise_distance": call(MATRIX, normal(3, 4, seed=1)),
    "permute": call(normal(2, 3, 4), (2, 0, 1)),
    "pixel_shuffle": call(IMAGES, 2),
    "pixel_unshuffle": call(normal(2, 3, 4, 6), 2),
    "pow": call(positive(3, 4), normal(4)),
    "prod": call(MATRIX, 1),
    "reciprocal": call(positive(3, 4)),
    "relu": call(MATRIX),
    "relu6": call(5 * MATRIX),
    "remainder": call(3 * MATRIX, positive(4)),
    "repeat": call(MATRIX, (2, 1, 3)),
    "reshape": call(MATRIX, (2, -1)),
    "roll": call(MATRIX, 1, 0),
    "rsqrt": call(positive(3, 4)),
    "scaled_dot_product_attention": call(
        normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 2), normal(3, 5)
    ),
    "sigmoid": call(MATRIX),
    "silu": call(MATRIX),
    "sin": call(MATRIX),
    "smooth_l1_loss": call(MATRIX, normal(3, 4, seed=1)),
    "softmax": call(MATRIX, 1),
    "softplus": call(MATRIX),
    "sort": call(MATRIX, 1),
    "split": call(MATRIX, [1, 3], 1),
    "sqrt": call(positive(3, 4)),
    "square": call(MATRIX),
    "squeeze": call(normal(3, 1, 4), 1),
    "stack": call([MATRIX, normal(3, 4, seed=1)], 1),
    "std": call(MATRIX, 1),
    "subtract": call(MATRIX, normal(4)),
    "sum": call(MATRIX, 1),
    "take_along_dim": call(MATRIX, np.array([[0, 0, 3]]), 1),
    "tanh": call(MATRIX),
    "topk": call(MATRIX, 2),
    "transpose": call(normal(2, 3, 4), 0, 2),
    "tril": call(MATRIX),
    "triplet_margin_loss": call(MATRIX, normal(3, 4, seed=1), normal(3, 4, seed=2)),
    "triu": call(MATRIX),
    "unbind": call(MATRIX, 1),
    "unfold": call(IMAGES, (2, 3)),
    "unsqueeze": call(MATRIX, 1),
    "var": call(MATRIX, 1),
    "where": call(MASK, MATRIX, normal(4)),
}

WITHOUT_GRADIENT = {
    "all": call(MASK, 1),
    "any": call(MASK, 1),
    "argmax": call(MATRIX, 1),
    "argmin": call(MATRIX, 1),
    "argsort": call(MATRIX, 1),
    "bitwise_and": call(MASK, MASK[0]),
    "bitwise_not": call(MASK),
    "bitwise_or": call(MASK, MASK[0]),
    "bitwise_xor": call(MASK, MASK[0]),
    "ceil": call(MATRIX),
    "eq": call(MATRIX, MATRIX),
    "floor": call(MATRIX),
    "floor_divide": call(MATRIX, positive(4)),
    "ge": call(MATRIX, normal(4)),
    "gt": call(MATRIX, normal(4)),
    "isfinite": call(MATRIX),
    "isinf": call(MATRIX),
    "isnan": call(MATRIX),
    "le": call(MATRIX, normal(4)),
    "logical_and": call(MASK, MASK[0]),
    "logical_not": call(MASK),
    "logical_or": call(MASK, MASK[0]),
    "logical_xor": call(MASK, MASK[0]),
    "lt": call(MATRIX, normal(4)),
    "ne": call(MATRIX, MATRIX),
    "one_hot": call(CLASSES, 4),
    "round": call(MATRIX),
    "sign": call(MATRIX),
}

RANDOM = {"dropout", "dropout2d"}  # tested with fixed noise in test_dropout.py

PYTORCH_IS_ROUGH = {"hardsigmoid": 1e-7}  # it divides by 6 in float32, also in float64

every_operation = pytest.mark.parametrize("name", sorted(EXAMPLES))


def is_variable(x):
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def is_constant(x):
    return isinstance(x, np.ndarray) and x.dtype.kind != "f"


def variables(inputs):
    """The differentiable arrays of a call: those of floats, also inside a list of inputs."""
    flat = [x for entry in inputs for x in (entry if isinstance(entry, list) else [entry])]
    return [x for x in flat if is_variable(x)]


def run(op, inputs, settings, tensors, cat=F.cat):
    """The call with each variable replaced by a tensor; several results are joined to one."""
    tensors = iter(tensors)

    def swap(x):
        if isinstance(x, list):
            return [swap(entry) for entry in x]
        return next(tensors) if is_variable(x) else x

    y = op(*map(swap, inputs), **settings)
    if isinstance(y, tuple):
        return cat([part.reshape(-1) for part in y if "float" in str(part.dtype)])
    return y


def test_every_public_operation_has_an_example():
    assert PUBLIC.keys() == EXAMPLES.keys() | WITHOUT_GRADIENT.keys() | RANDOM


def test_every_operation_of_the_ops_files_is_in_the_flat_list():
    files = {inspect.getmodule(op) for op in PUBLIC.values()}
    defined = {
        name
        for file in files
        for name, op in vars(file).items()
        if getattr(op, "__module__", None) == file.__name__
        and hasattr(op, "__wrapped__")
        and not name.startswith("_")
    }
    assert defined <= PUBLIC.keys()


@every_operation
def test_gradients_agree_with_central_differences(name):
    inputs, settings = EXAMPLES[name]

    def f(*tensors):
        return run(PUBLIC[name], inputs, settings, tensors)

    report = mt.gradcheck(f, *variables(inputs))
    assert not any(i.warning or i.on_kink.any() for i in report.inputs), report


@every_operation
def test_float32_stays_float32(name):
    inputs, settings = EXAMPLES[name]
    tensors = [mt.tensor(x, dtype="float32", requires_grad=True) for x in variables(inputs)]
    y = run(PUBLIC[name], inputs, settings, tensors)
    y.backward(np.ones(y.shape))
    assert y.dtype == np.float32
    assert all(x.grad.dtype == np.float32 for x in tensors if x.grad is not None)


@every_operation
def test_memory_layout_does_not_matter(name):
    inputs, settings = EXAMPLES[name]
    arrays = variables(inputs)
    scattered = [np.repeat(x.T, 2, axis=0)[::2].T if x.ndim else x for x in arrays]
    assert all(np.array_equal(x, z) for x, z in zip(arrays, scattered))
    results = []
    for given in (arrays, scattered):
        tensors = [mt.Tensor(x, requires_grad=True) for x in given]
        y = run(PUBLIC[name], inputs, settings, tensors)
        dy = normal(*y.shape[::-1], seed=9).T
        y.backward(dy if given is scattered else dy.copy())
        results.append([y, *(x.grad for x in tensors)])
    for plain, strided in zip(*results):
        np.testing.assert_allclose(strided.numpy(), plain.numpy(), rtol=1e-12, atol=1e-14)


@every_operation
def test_neither_inputs_nor_incoming_gradient_are_written_to(name):
    inputs, settings = EXAMPLES[name]
    tensors = [mt.tensor(x, requires_grad=True) for x in variables(inputs)]
    y = run(PUBLIC[name], inputs, settings, tensors)
    dy = normal(*y.shape)
    before = [x.numpy().copy() for x in [y, *tensors]] + [dy.copy()]
    y.backward(dy, retain_graph=True)
    first = [x.grad.numpy().copy() for x in tensors]
    for array, copy in zip([y.numpy(), *(x.numpy() for x in tensors), dy], before):
        np.testing.assert_array_equal(array, copy)
    for x in tensors:
        x.zero_grad()
    y.backward(dy)  # the rules give the same a second time: nothing they hold was overwritten
    for x, expected in zip(tensors, first):
        np.testing.assert_array_equal(x.grad.numpy(), expected)


def pytorch(name):
    """PyTorch's function of that name."""
    if torch is None:
        pytest.skip("needs PyTorch")
    homes = (torch.nn.functional, torch, torch.Tensor, operator)
    return next(op for home in homes if (op := getattr(home, name, None)) is not None)


@every_operation
def test_agrees_with_pytorch_under_its_name(name):
    inputs, settings = EXAMPLES[name]
    constant = [torch.tensor(x) if is_constant(x) else x for x in inputs]

    def ours(*tensors):
        return run(PUBLIC[name], inputs, settings, tensors, F.cat)

    def theirs(*tensors):
        return run(pytorch(name), constant, settings, tensors, torch.cat)

    rough = PYTORCH_IS_ROUGH.get(name)
    tolerance = TOLERANCE | ({"float64": rough} if rough else {})
    compare(ours, theirs, *variables(inputs), tolerance=tolerance)


@pytest.mark.parametrize("name", sorted(WITHOUT_GRADIENT))
def test_operations_without_gradient_agree_with_pytorch_and_record_nothing(name):
    inputs, settings = WITHOUT_GRADIENT[name]
    tensors = [mt.tensor(x, requires_grad=True) for x in variables(inputs)]
    y = run(PUBLIC[name], inputs, settings, tensors)
    assert not y.requires_grad
    if torch is not None:
        given = [torch.tensor(x) if isinstance(x, np.ndarray) else x for x in inputs]
        expected = pytorch(name)(*given).numpy()
        np.testing.assert_array_equal(y.numpy(), expected)
        assert y.dtype == expected.dtype
