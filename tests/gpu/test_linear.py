"""Linear maps of half precision: what the card's library multiplies, and who adds up in float32."""

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.simulator import functions, simulated_gpu


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 4e-3), ("bfloat16", 3e-2)])
def test_linear_computes_in_the_dtype_of_its_inputs(dtype, tolerance):
    rng = np.random.default_rng(0)
    host = [rng.standard_normal(s) for s in [(3, 5, 16), (8, 16), (8,), (3, 5, 8)]]

    def run(device, dtype):
        x, w, b, dy = (mt.tensor(a, dtype=dtype, requires_grad=True, device=device) for a in host)
        y = F.linear(x, w, b)
        y.backward(dy.detach())
        return [y, x.grad, w.grad, b.grad]

    with simulated_gpu():
        ours = run("cuda", dtype)
        assert {str(t.dtype) for t in ours} == {dtype}
        ours = [t.cpu().numpy().astype(np.float64) for t in ours]
    for a, b in zip(ours, run("cpu", "float64")):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=tolerance * np.abs(b.numpy()).max())


def test_the_gradient_of_a_bias_is_summed_in_float32():
    """Ones beyond 2048 are lost in float16."""
    with simulated_gpu():
        b = mt.tensor([0.0], dtype="float16", requires_grad=True, device="cuda")
        x = mt.ones((4096, 2), dtype="float16", device="cuda")
        F.linear(x, mt.zeros((1, 2), dtype="float16", device="cuda"), b).sum().backward()
        assert b.grad.item() == 4096


def test_batches_of_bfloat16_are_multiplied():
    """CuPy knows the product of two matrices of bfloat16 only."""
    rng = np.random.default_rng(1)
    pairs = [((3, 4, 5), (3, 5, 2)), ((2, 3, 4, 5), (5, 2)), ((3, 4, 5), (5,)), ((5,), (3, 5, 2))]
    with simulated_gpu():
        for shapes in pairs:
            host = [rng.integers(-3, 4, s) for s in shapes]
            a, b = (mt.tensor(x, "bfloat16", requires_grad=True, device="cuda") for x in host)
            y = a @ b
            y.sum().backward()
            assert y.dtype == a.grad.dtype == b.grad.dtype == a.dtype
            np.testing.assert_array_equal(y.cpu().numpy(), host[0] @ host[1])
        a = mt.ones((2, 3, 4), dtype="bfloat16", device="cuda")
        assert (F.einsum("nij,nkj->nik", a, a).cpu().numpy() == 4).all()


def test_a_batch_of_rows_is_one_product_on_a_gpu(monkeypatch):
    """With more than two axes CuPy copies, and leaves the matrix units out."""
    axes = []

    def watched(a, b, **settings):
        axes.append((a.ndim, b.ndim))
        return matmul(a, b, **settings)

    with simulated_gpu():
        matmul = functions._OWN["matmul"]
        monkeypatch.setitem(functions._OWN, "matmul", watched)
        functions.cupy_function.cache_clear()
        x = mt.ones((2, 3, 4), requires_grad=True, device="cuda")
        F.linear(x, mt.ones((5, 4), requires_grad=True, device="cuda")).sum().backward()
    functions.cupy_function.cache_clear()
    assert axes == [(2, 2)] * 3


def test_sums_of_half_precision_are_made_in_float32():
    """Also where they undo broadcasting; ones beyond 2048 are lost in float16."""
    with simulated_gpu():
        ones = mt.ones((4096, 2), dtype="float16", device="cuda")
        b = mt.tensor([0.0, 0.0], dtype="float16", requires_grad=True, device="cuda")
        assert ones.sum(dim=0).tolist() == [4096, 4096]
        (ones + b).sum().backward()
        assert b.grad.tolist() == [4096, 4096]
