"""Mixed precision: which operation runs in which type, and what becomes of the gradients."""

import gc
import threading
import types

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import amp, nn
from minitorch_attn.engine import DTypeError, autocast, no_grad, primitive
from tests.ops.test_functional import EXAMPLES, PUBLIC, is_variable, pytorch, variables

LOW_TYPES = ["float16", "bfloat16"]


@pytest.fixture(params=LOW_TYPES)
def low(request):
    if request.param == "bfloat16":
        pytest.importorskip("ml_dtypes")
    return request.param


def single(*shape, requires_grad=False, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape)
    return mt.tensor(values, dtype="float32", requires_grad=requires_grad)


# -- which type -----------------------------------------------------------------------------


def test_products_give_the_low_type_and_delicate_operations_float32(low):
    x, w = single(3, 4), single(5, 4)
    with mt.autocast(low):
        y = F.linear(x, w)
        assert y.dtype == low
        assert (y @ mt.ones(5, 2)).dtype == low
        assert F.einsum("ij,kj->ik", x, w).dtype == low
        assert F.conv2d(single(1, 2, 5, 5), single(3, 2, 3, 3)).dtype == low
        for delicate in (F.softmax(y, dim=1), y.exp(), y.sum(), y.mean(), y**2, y.cumsum(1)):
            assert delicate.dtype == np.float32
        assert F.cross_entropy(y, mt.tensor([0, 1, 2])).dtype == np.float32
    assert F.linear(x, w).dtype == np.float32


def test_all_others_compute_in_the_widest_type_of_their_inputs(low):
    x, y = single(3, 4), single(3, 4).to(low)
    with mt.autocast(low):
        assert F.relu(y).dtype == low
        assert (y + y).dtype == (y * 2.0).dtype == low
        assert (x + y).dtype == np.float32
        assert F.cat([x, y]).dtype == np.float32
        assert F.relu(x).dtype == np.float32


def test_batch_norm_keeps_the_type_of_its_input_and_its_statistics_in_float32(low):
    norm = nn.BatchNorm2d(2)
    norm.running_mean.fill_(5.0)
    x = (single(8, 2, 3, 3) * 100 + 1000).to(low)
    with mt.autocast(low):
        y = norm(x)
    assert y.dtype == low and norm.running_mean.dtype == np.float32
    expected = 0.9 * 5 + 0.1 * x.to("float32").numpy().mean(axis=(0, 2, 3))
    np.testing.assert_allclose(norm.running_mean.numpy(), expected, rtol=1e-6)


# Ours are summed in float32 where PyTorch keeps half precision: a mean of many values, and what
# is made of means; and coordinates of pixels, of which 11 bits are too few.
MORE_CAREFUL = {"affine_grid", "logsigmoid", "mean", "std", "var"}
# PyTorch's dot takes float32 where its matmul does not; ours is matmul.
A_PRODUCT = {"dot", "outer"}
NOT_TO_BE_HAD = {"getitem", "grid_sample", "unfold"}  # by PyTorch, without a card


@pytest.mark.parametrize("given", ["float32", "float16"])
@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - NOT_TO_BE_HAD))
def test_every_operation_gives_the_type_that_it_gives_in_pytorch_on_a_gpu(name, given):
    """PyTorch computes shapes and types of a GPU's tensors without a GPU, under autocast too."""
    torch = pytest.importorskip("torch")
    fake = pytest.importorskip("torch._subclasses.fake_tensor")
    inputs, settings = EXAMPLES[name]
    tensors = iter([mt.tensor(x, dtype=given) for x in variables(inputs)])

    def ours(x):
        if isinstance(x, list):
            return [ours(part) for part in x]
        return next(tensors) if is_variable(x) else x

    def theirs(x):
        if isinstance(x, list):
            return [theirs(part) for part in x]
        if not isinstance(x, np.ndarray):
            return x
        kind = getattr(torch, given) if is_variable(x) else torch.from_numpy(x).dtype
        return torch.empty(x.shape, dtype=kind, device="cuda")

    def types_of(results):
        results = results if isinstance(results, (tuple, list)) else [results]
        found = [str(y.dtype).removeprefix("torch.") for y in results]
        return [name for name in found if "float" in name]

    with mt.autocast("float16"):
        got = types_of(PUBLIC[name](*map(ours, inputs), **settings))
    with fake.FakeTensorMode(allow_non_fake_inputs=True):
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", torch.float16)
        try:
            expected = types_of(pytorch(name)(*map(theirs, inputs), **settings))
        finally:
            torch.set_autocast_enabled("cuda", False)
    if name in MORE_CAREFUL and given == "float16":
        assert (got, expected) == (["float32"], ["float16"])
    elif name in A_PRODUCT and given == "float32":
        assert (got, expected) == (["float16"], ["float32"])
    else:
        assert got == expected


def test_the_lists_name_operations_that_there_are():
    functions = [f for f in gc.get_objects() if type(f) is types.FunctionType]
    primitives = [f for f in functions if (f.__module__ or "").startswith("minitorch_attn.ops")]
    names = {f.__name__.strip("_") for f in primitives if hasattr(f, "__wrapped__")}
    assert autocast.LOW | autocast.FLOAT32 <= names
    assert autocast.LOW.isdisjoint(autocast.FLOAT32)


def test_float64_and_integers_are_left_alone(low):
    x, w = mt.tensor(np.ones((3, 4))), mt.tensor(np.ones((5, 4)), requires_grad=True)
    counts = mt.tensor([[1, 2], [3, 4]])
    with mt.autocast(low):
        assert F.linear(x, w).dtype == np.float64
        assert (single(3, 4) @ w.T).dtype == np.float64
        assert (counts @ counts).dtype == counts.dtype
        assert counts.sum().dtype == counts.dtype
        assert mt.gradcheck(F.linear, x.numpy(), w.numpy())


def test_arrays_among_the_inputs_are_cast_as_tensors_are(low):
    with mt.autocast(low):
        assert F.matmul(np.ones((2, 3), "float32"), single(3, 2)).dtype == low


# -- gradients --------------------------------------------------------------------------------


def test_parameters_get_gradients_of_float32_through_the_low_type(low):
    x, w = single(64, 16), single(8, 16, requires_grad=True, seed=1)
    with mt.autocast(low):
        loss = F.linear(x, w).square().mean()
    loss.backward()
    assert loss.dtype == w.grad.dtype == np.float32
    exact = mt.tensor(w.numpy(), requires_grad=True)
    F.linear(x, exact).square().mean().backward()
    error = np.abs(w.grad.numpy() - exact.grad.numpy()).max() / np.abs(exact.grad.numpy()).max()
    assert 0 < error < (1e-2 if low == "bfloat16" else 1e-3)


def test_gradients_and_losses_are_near_pytorchs_in_bfloat16():
    torch = pytest.importorskip("torch")
    pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 12)).astype("float32"), rng.integers(0, 5, 32)
    net = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 5))
    theirs = torch.nn.Sequential(torch.nn.Linear(12, 24), torch.nn.ReLU(), torch.nn.Linear(24, 5))
    for p, t in zip(net.parameters(), theirs.parameters()):
        t.data = torch.tensor(p.numpy())
    with mt.autocast("bfloat16"):
        scores = net(mt.tensor(x))
        loss = F.cross_entropy(scores, mt.tensor(y))
    with torch.autocast("cpu", torch.bfloat16):
        their_scores = theirs(torch.tensor(x))
        their_loss = torch.nn.functional.cross_entropy(their_scores.float(), torch.tensor(y))
    loss.backward()
    their_loss.backward()
    assert str(their_scores.dtype) == f"torch.{scores.dtype}"
    assert loss.item() == pytest.approx(their_loss.item(), rel=2e-2)
    for p, t in zip(net.parameters(), theirs.parameters()):
        assert str(t.grad.dtype) == f"torch.{p.grad.dtype}" == "torch.float32"
        scale = t.grad.abs().max().item()
        np.testing.assert_allclose(p.grad.numpy(), t.grad.numpy(), rtol=0, atol=2e-2 * scale)


def count_casts(monkeypatch):
    """The shapes that are cast while the counting goes on."""
    shapes, cast = [], amp.astype

    def counted(x, *, dtype):
        shapes.append(x.shape)
        return cast(x, dtype=dtype)

    monkeypatch.setattr(amp, "astype", counted)
    return shapes


def test_a_parameter_that_is_used_often_is_cast_once(monkeypatch):
    shapes = count_casts(monkeypatch)
    x, w = single(4, 4), single(4, 4, requires_grad=True)
    with mt.autocast("float16"):
        y = x @ w
        for _ in range(3):
            y = y @ w
    assert shapes == [(4, 4), (4, 4)]  # x, w
    y.sum().backward()
    exact = mt.tensor(w.numpy(), requires_grad=True)
    (x @ exact @ exact @ exact @ exact).sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), exact.grad.numpy(), rtol=0.05, atol=0.05)
    with mt.autocast("float16"):
        x @ w
    assert shapes[2:] == [(4, 4), (4, 4)]  # each block for itself


def test_a_parameter_that_has_changed_is_cast_anew():
    w = mt.tensor(np.eye(2, dtype="float32"), requires_grad=True)
    x = mt.ones(1, 2)
    with mt.autocast("float16"):
        assert (x @ w).tolist() == [[1, 1]]
        with no_grad():
            w *= 2
        assert (x @ w).tolist() == [[2, 2]]
        w.data = 3 * np.eye(2, dtype="float32")
        assert (x @ w).tolist() == [[3, 3]]


def test_a_cast_without_gradient_is_not_taken_for_one_with():
    x, w = mt.ones(1, 2), mt.ones(2, 2, requires_grad=True)
    with mt.autocast("float16"):
        with no_grad():
            x @ w
        (x @ w).sum().backward()
    assert w.grad.tolist() == [[1, 1], [1, 1]]


def test_two_backward_passes_within_one_block_add_up():
    x, w = mt.ones(1, 2), mt.ones(2, 2, requires_grad=True)
    with mt.autocast("float16"):
        for _ in range(2):
            (x @ w).sum().backward()
    assert w.grad.tolist() == [[2, 2], [2, 2]]


# -- where it holds ---------------------------------------------------------------------------


def test_blocks_nest_and_can_be_switched_off():
    x = single(2, 2)
    with mt.autocast("float16"):
        with mt.autocast(enabled=False):
            assert (x @ x).dtype == np.float32
        assert (x @ x).dtype == np.float16
    with pytest.raises(ZeroDivisionError), mt.autocast("float16"):
        raise ZeroDivisionError
    assert (x @ x).dtype == np.float32


def test_a_function_can_be_decorated():
    @mt.autocast("float16")
    def product(x):
        return x @ x

    assert product(single(2, 2)).dtype == product(single(2, 2)).dtype == np.float16


def test_other_threads_are_not_concerned():
    found = []
    with mt.autocast("float16"):
        x = single(2, 2)
        thread = threading.Thread(target=lambda: found.append((x @ x).dtype))
        thread.start()
        thread.join()
    assert found == [np.float32]


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_the_low_precision_is_one_of_the_two(dtype):
    with pytest.raises(DTypeError, match=f"in 'float16' or 'bfloat16', not {dtype}"):
        with mt.autocast(dtype):
            pass


def test_an_operation_of_ones_own_follows_its_inputs():
    @primitive
    def twice(x):
        return x * 2, lambda dy: dy * 2

    with mt.autocast("float16"):
        assert twice(single(2)).dtype == np.float32
        assert twice(single(2).to("float16")).dtype == np.float16
