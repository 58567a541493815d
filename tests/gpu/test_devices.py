"""Tensors and modules on a GPU: where they lie, how they move, what is said if they do not fit.

On the simulated card, and on a real one where there is one.
"""

import contextlib
import copy
import pickle
import sys

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.engine import backend
from minitorch_attn.engine.backend import array_module


@pytest.fixture(autouse=True)
def _unused_before(card, monkeypatch):
    """As if no test before had moved anything there."""
    monkeypatch.setattr(backend, "gpu_in_use", False)


def values(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def test_moving_there_and_back_keeps_the_values():
    x = mt.tensor(values(2, 3))
    y = x.to("cuda")
    assert (x.device, y.device, y.shape, y.dtype) == ("cpu", "cuda", (2, 3), x.dtype)
    for back in (y.cpu(), y.to("cpu"), y.to(x)):
        assert back.device == "cpu"
        np.testing.assert_array_equal(back.numpy(), x.numpy())
    assert x.cuda().device == "cuda"
    assert y.cuda() is y and x.cpu() is x


def test_a_device_and_a_dtype_at_once():
    y = mt.tensor(values(2)).to("cuda", "float32")
    assert (y.device, y.dtype) == ("cuda", np.float32)


def test_the_gradient_makes_the_way_back():
    x = mt.tensor(values(2, 3), requires_grad=True)
    (x.to("cuda") * 2).sum().backward()
    assert x.grad.device == "cpu"
    np.testing.assert_array_equal(x.grad.numpy(), np.full((2, 3), 2.0))


def test_a_leaf_on_the_device_has_its_gradient_there():
    x = mt.tensor(values(3), requires_grad=True, device="cuda")
    (x * x).backward(np.ones(3))
    assert x.grad.device == "cuda"
    np.testing.assert_array_equal(x.grad.numpy(), 2 * x.numpy())


@pytest.mark.parametrize(
    "make",
    [
        lambda device: mt.zeros(2, 3, device=device),
        lambda device: mt.ones((2, 3), device=device),
        lambda device: mt.full((2, 3), 1.5, device=device),
        lambda device: mt.randn(2, 3, device=device),
        lambda device: mt.rand(2, 3, device=device),
        lambda device: mt.arange(6, device=device).reshape(2, 3),
        lambda device: mt.tensor(values(2, 3), device=device),
    ],
)
def test_what_makes_tensors_makes_them_on_a_device(make):
    x = make("cuda")
    assert (x.device, x.shape) == ("cuda", (2, 3))
    assert make(None).device == "cpu"
    assert mt.zeros_like(x).device == mt.ones_like(x).device == "cuda"


@pytest.fixture
def default_gpu():
    mt.set_default_device("cuda")
    yield
    mt.set_default_device("cpu")


def test_the_default_device_is_where_new_tensors_and_parameters_lie(default_gpu):
    assert mt.get_default_device() == "cuda"
    made = [mt.zeros(2), mt.tensor([1.0]), mt.randn(2), nn.Linear(2, 3).weight]
    assert {x.device for x in made} == {"cuda"}
    on_cpu = mt.zeros(2, device="cpu")
    assert on_cpu.device == "cpu" == mt.tensor(on_cpu).device


def test_an_unknown_default_device_changes_nothing():
    with pytest.raises(mt.DeviceError, match="unknown device 'gpu'"):
        mt.set_default_device("gpu")
    assert mt.get_default_device() == "cpu"


def test_copies_and_views_stay_where_they_are():
    x = mt.tensor(values(2, 3), device="cuda")
    assert {mt.tensor(x).device, x.detach().device, copy.deepcopy(x).device} == {"cuda"}
    assert x.data is not x._data and array_module(x.data) is array_module(x._data)


def test_tensors_on_two_devices_do_not_mix_and_the_error_names_both():
    x, w = mt.zeros(2, 3, device="cuda"), mt.zeros(2, 3)
    with pytest.raises(mt.DeviceError) as error:
        x + w
    assert str(error.value) == (
        "add: input 0 (2, 3) float32 lies on 'cuda' and input 1 (2, 3) float32 lies on 'cpu': "
        "move one of them, for example with x.to('cuda'), or all parameters of a module with "
        "model.to('cuda')"
    )
    with pytest.raises(mt.DeviceError, match=r"x \+= y: x .* 'cuda' and y .* 'cpu'"):
        x += w


def test_a_module_on_the_other_device_is_told_with_its_layer():
    with pytest.raises(mt.DeviceError, match=r"linear: .*'cuda'.*'cpu'"):
        nn.Linear(3, 2)(mt.zeros(4, 3, device="cuda"))


def test_numbers_lists_and_numpy_arrays_come_along():
    x = mt.tensor(values(2, 3), device="cuda")
    for other in (2, [1.0, 2.0, 3.0], np.ones(3)):
        assert (x + other).device == (other + x).device == "cuda"
    assert x[[1, 0]].device == x[np.array([0])].device == "cuda"
    np.testing.assert_array_equal(x[np.array([1])].numpy(), x.numpy()[[1]])


def test_writing_in_place_takes_values_of_either_device():
    x = mt.zeros(2, 3, device="cuda")
    x[0] = np.ones(3, np.float32)
    x[1] = mt.full((3,), 2.0)
    x.copy_(x.cpu() + 1)
    np.testing.assert_array_equal(x.numpy(), [[2, 2, 2], [3, 3, 3]])
    host = mt.zeros(2, 3)
    host.copy_(x)
    np.testing.assert_array_equal(host.numpy(), x.numpy())


def test_data_that_is_replaced_by_an_array_stays_on_the_device():
    x = mt.zeros(2, device="cuda")
    x.data = np.ones(2, np.float32)
    assert x.device == "cuda" and x.tolist() == [1, 1]
    x.data = mt.zeros(2)
    assert x.device == "cpu"


def test_a_write_is_noticed_by_the_graph_also_there():
    x = mt.tensor(values(3), requires_grad=True, device="cuda")
    y = x * 1
    z = (y * y).sum()
    with mt.no_grad():
        y[0] = 5.0
    with pytest.raises(mt.GraphError, match="changed in place"):
        z.backward()


def network():
    with contextlib.ExitStack() as stack:
        stack.callback(mt.manual_seed, int(mt.default_generator().integers(2**31)))
        mt.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


def test_a_module_moves_with_its_parameters_buffers_and_gradients():
    model = network()
    model(mt.tensor(values(2, 3, 5, 5), "float32")).sum().backward()
    optimizer = mt.optim.SGD(model.parameters(), lr=0.1)
    before = [id(p) for p in model.parameters()]
    assert model.cuda() is model
    tensors = [*model.parameters(), *model.buffers()]
    assert {t.device for t in tensors} == {"cuda"}
    assert {p.grad.device for p in model.parameters()} == {"cuda"}
    assert [id(p) for p in model.parameters()] == before, "the optimiser must still hold them"
    optimizer.step()
    assert {t.device for t in model.cpu().buffers()} == {"cpu"}


def test_a_gradient_lies_with_its_tensor():
    x = mt.tensor(values(3), requires_grad=True, device="cuda")
    with pytest.raises(mt.DeviceError, match="x .* lies on 'cuda' and gradient .* on 'cpu'"):
        x.grad = mt.ones(3)
    assert x.grad is None
    x.grad = np.ones(3)
    assert x.grad.device == "cuda"


def test_nested_lists_may_hold_tensors_of_both_devices():
    losses = mt.tensor([mt.tensor(1.0, device="cuda"), (mt.tensor(2.0)), 3.0])
    assert losses.device == "cpu"
    assert losses.tolist() == [1.0, 2.0, 3.0]


def test_a_copy_stays_on_the_device(card):
    model = network().to("cuda")
    model(mt.ones(2, 3, 5, 5, device="cuda")).sum().backward()
    before = card.to_host if card else None
    other = copy.deepcopy(model)
    assert card is None or card.to_host == before
    assert {t.device for t in (*other.parameters(), *other.buffers())} == {"cuda"}
    assert {p.grad.device for p in other.parameters()} == {"cuda"}
    with mt.no_grad():
        other[0].weight += 1
    assert (model[0].weight.numpy() != other[0].weight.numpy()).all()


def test_a_pickle_comes_back_to_the_gpu_or_says_that_there_is_none(monkeypatch):
    model = network().to("cuda")
    pickled = pickle.dumps(model)
    again = pickle.loads(pickled)
    assert again[0].weight.device == again[1].running_mean.device == "cuda"
    np.testing.assert_array_equal(again[0].weight.numpy(), model[0].weight.numpy())
    told = r"install .*without a GPU, pickle x.cpu\(\) or model.cpu"
    with monkeypatch.context() as without, pytest.raises(ImportError, match=told):
        without.setitem(sys.modules, "cupy", None)
        pickle.loads(pickled)


def test_a_module_gives_the_same_there():
    model, x = network().double(), values(2, 3, 5, 5)
    expected = model(mt.tensor(x))
    mean = model[1].running_mean.numpy().copy()
    moved = network().double().to("cuda")
    y = moved(mt.tensor(x, device="cuda"))
    assert y.device == "cuda"
    np.testing.assert_allclose(y.numpy(), expected.numpy(), atol=1e-12)
    np.testing.assert_allclose(moved[1].running_mean.numpy(), mean, atol=1e-12)


def test_a_state_dict_crosses_devices_and_files(tmp_path):
    pytest.importorskip("safetensors")
    model, moved = network(), network().to("cuda")
    with mt.no_grad():
        moved[0].weight += 1
    mt.save(moved.state_dict(), tmp_path / "moved.safetensors")
    for state in (moved.state_dict(), mt.load(tmp_path / "moved.safetensors")):
        model.load_state_dict(state)
        assert model[0].weight.device == "cpu"
        np.testing.assert_array_equal(model[0].weight.numpy(), moved[0].weight.numpy())
    moved.load_state_dict(model.state_dict())
    assert moved[0].weight.device == "cuda"


def test_each_device_has_a_generator_and_one_seed_restarts_all():
    def draw():
        return [mt.rand(4, device=d).numpy().copy() for d in ("cpu", "cuda")]

    mt.manual_seed(3)
    first, second = draw(), draw()
    mt.manual_seed(3)
    again = draw()
    for one, other, same in zip(first, second, again):
        assert (one == same).all() and (one != other).all()
    assert mt.default_generator() is not mt.default_generator("cuda")


def test_noise_of_a_numpy_generator_is_the_same_on_both_devices():
    x = mt.ones(20)
    kept = [
        F.dropout(y, 0.5, generator=np.random.default_rng(1)).numpy() for y in (x, x.to("cuda"))
    ]
    np.testing.assert_array_equal(*kept)


def test_only_reading_a_value_copies_it_to_the_host(card):
    if card is None:
        pytest.skip("counted on the simulated card")
    x = mt.tensor(values(3, 3), requires_grad=True, device="cuda")
    before = card.to_host
    loss = F.softmax(x @ x, dim=1)[0].sum()
    loss.backward()
    assert card.to_host == before
    loss.item()
    x.grad.numpy()
    assert card.to_host == before + 2


def test_names_of_torch_cuda():
    assert mt.cuda.is_available()
    assert mt.cuda.get_device_name()
    free, total = mt.cuda.mem_get_info()
    assert 0 < free <= total
    mt.cuda.synchronize()
    mt.cuda.empty_cache()
    assert 0 <= mt.cuda.memory_allocated() <= mt.cuda.memory_reserved()
