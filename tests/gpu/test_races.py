"""Every kernel with each of its accesses to memory watched: no two threads get in each other's way.

Shapes are small but take several blocks, and tiles that are not full.
"""

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import amp, nn, optim
from minitorch_attn.engine.kernels import KERNELS
from minitorch_attn.nn.utils import clip_grad_norm_
from minitorch_attn.simulator import kernels, simulated_gpu

from .twice import computed


def normal(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def classes():
    return mt.tensor(np.arange(70) % 5).to("cuda")


def attend_with_bias(q, k, v, bias):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def stepped(optimiser):
    def step():
        weight = nn.Parameter(mt.tensor(normal(70, 90)).to("cuda"))
        weight.grad = mt.tensor(normal(70, 90)).to("cuda")
        amp.scale_gradients([weight], 0.5)
        clip_grad_norm_([weight], 1.0)
        optimiser([weight]).step()

    return step


def used(op, *arrays):
    return lambda: computed(op, arrays, "cuda")


def recurrent(layer):
    def use():
        network = layer(6, 5).to("cuda")
        y, _ = network(mt.tensor(normal(4, 70, 6)).to("cuda"))
        y.sum().backward()

    return use


# What is done, by the kernels it takes; the first names it.
CASES = {
    ("gelu_forward", "gelu_backward"): used(F.gelu, normal(900)),
    ("softmax_of_lines", "softmax_of_lines_backward"): used(
        lambda x: F.softmax(x, 1), normal(5, 300)
    ),
    ("cross_entropy", "cross_entropy_backward"): used(
        lambda x: F.cross_entropy(x, classes()), normal(70, 5)
    ),
    ("thinned",): used(lambda x: F.dropout(x, 0.5, training=True), normal(900)),
    ("channel_moments", "batch_norm", "channel_sums", "batch_norm_backward"): used(
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        *(normal(4, 6, 9, 9), normal(6), normal(6)),
    ),
    ("group_norm", "group_norm_backward", "column_sums"): used(
        lambda x, w, b: F.layer_norm(x, (133,), w, b), normal(70, 133), normal(133), normal(133)
    ),
    ("max_pool", "max_pool_backward"): used(lambda x: F.max_pool2d(x, 3, 2, 1), normal(2, 5, 9, 9)),
    ("avg_pool", "avg_pool_backward"): used(lambda x: F.avg_pool2d(x, 3, 2, 1), normal(2, 5, 9, 9)),
    ("mean_of_lines",): used(lambda x: F.adaptive_avg_pool2d(x, 1), normal(3, 5, 9, 9)),
    ("to_columns", "to_images"): used(
        lambda x: F.fold(F.unfold(x, 3, padding=1), (9, 9), 3, padding=1), normal(2, 3, 9, 9)
    ),
    ("band_product",): used(
        lambda x: F.interpolate(x, scale_factor=2.5, mode="bilinear"), normal(2, 3, 9, 9)
    ),
    ("read_places", "read_places_backward_input", "read_places_backward_grid"): used(
        F.grid_sample, normal(2, 3, 9, 9), normal(2, 14, 15, 2)
    ),
    ("implicit_gemm", "pack"): used(
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
        *(normal(2, 20, 9, 9), normal(70, 20, 3, 3), normal(70)),
    ),
    ("direct",): used(
        lambda x, w: F.conv2d(x, w, padding=1, groups=8), normal(2, 8, 9, 9), normal(8, 1, 3, 3)
    ),
    ("attention_forward", "attention_dq", "attention_dk_dv", "attention_along"): used(
        F.scaled_dot_product_attention, normal(2, 70, 20), normal(2, 90, 20), normal(2, 90, 20)
    ),
    ("attention_dbias",): used(
        attend_with_bias, normal(2, 40, 8), normal(2, 50, 8), normal(2, 50, 8), normal(2, 40, 50)
    ),
    ("lstm_step", "lstm_step_backward"): recurrent(nn.LSTM),
    ("gru_step", "gru_step_backward"): recurrent(nn.GRU),
    ("sgd", "scale", "powers", "clip"): stepped(lambda p: optim.SGD(p, lr=0.1, momentum=0.9)),
    ("adam",): stepped(lambda p: optim.Adam(p, lr=0.1)),
}


@pytest.fixture
def launched(monkeypatch):
    """Names of the kernels that were launched on a simulated GPU, each watched."""
    names = set()
    launch = kernels.RawKernel.__call__

    def noted(self, *arguments, **settings):
        names.add(self.name)
        return launch(self, *arguments, **settings)

    monkeypatch.setattr(kernels.RawKernel, "__call__", noted)
    try:
        kernels.compiler()
    except kernels.NoCompiler as missing:
        pytest.skip(str(missing))
    with simulated_gpu(), kernels.races_found():
        yield names


@pytest.mark.parametrize("names", CASES, ids=lambda names: names[0])
def test_a_kernel_has_no_race(names, launched):
    CASES[names]()
    assert launched >= set(names)


HALVES = {
    ("implicit_gemm", "pack"): used(
        lambda x, w: F.conv2d(x, w, padding=1),
        *(x.astype(np.float16) for x in (normal(2, 20, 9, 9), normal(70, 20, 3, 3))),
    ),
    ("attention_forward", "attention_dq", "attention_dk_dv"): used(
        F.scaled_dot_product_attention,
        *(normal(2, L, 20).astype(np.float16) for L in (70, 90, 90)),
    ),
}


@pytest.mark.parametrize("names", HALVES, ids=lambda names: names[0])
def test_a_kernel_on_matrix_units_has_no_race(names, launched):
    HALVES[names]()
    assert launched >= set(names)


def is_elementwise(kernel):
    """Whether each thread writes element i of the result and nothing else: one stands for all."""
    return "result[i] = T(" in kernel.code(kernel.variants[0])


def test_every_kernel_is_watched():
    watched = {name for names in CASES for name in names}
    missing = {kernel.name for kernel in KERNELS if not is_elementwise(kernel)} - watched
    assert not missing, f"CASES needs what launches {sorted(missing)}"


def test_a_race_is_seen_from_here(launched):
    import cupy

    source = 'extern "C" __global__ void race(float* y) { y[0] += threadIdx.x; }'
    with pytest.raises(kernels.LaunchError, match="a race: element 0 of `y`"):
        cupy.RawKernel(source, "race")((1,), (64,), (cupy.zeros(1, np.float32),))
