import copy
import gc
import importlib.util
import weakref

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 3, bias=False)
        self.scale = nn.Parameter(mt.ones(3))
        self.register_buffer("mean", mt.zeros(3))
        self.register_buffer("cache", mt.zeros(1), persistent=False)

    def forward(self, x):
        return self.fc(x) * self.scale - self.mean


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Block()
        self.blocks = nn.ModuleList([nn.Linear(3, 3), nn.ReLU()])

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x


NAMES = ["first.scale", "first.fc.weight", "blocks.0.weight", "blocks.0.bias"]


def test_parameters_and_modules_are_found_by_their_dotted_names():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert len(list(net.parameters())) == 4
    names = ["", "first", "first.fc", "blocks", "blocks.0", "blocks.1"]
    assert [name for name, _ in net.named_modules()] == names
    assert [type(m).__name__ for m in net.children()] == ["Block", "ModuleList"]
    assert [name for name, _ in net.named_buffers()] == ["first.mean", "first.cache"]
    assert [name for name, _ in net.first.named_parameters("x")] == ["x.scale", "x.fc.weight"]
    assert net.get_submodule("first.fc") is net.first.fc and net.get_submodule("") is net


def test_get_submodule_says_what_there_is():
    with pytest.raises(AttributeError, match=r"Block has no part 'fd' \(its parts: fc\)"):
        Net().get_submodule("first.fd")


def test_a_module_that_is_used_twice_is_one_module_with_two_names_in_the_state():
    shared = nn.BatchNorm1d(2, affine=False)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    assert [name for name, _ in net.named_modules()] == ["", "0", "1"]
    buffers = ["running_mean", "running_var", "num_batches_tracked"]
    assert [name for name, _ in net.named_buffers()] == [f"0.{name}" for name in buffers]
    assert list(net.state_dict()) == [f"{i}.{name}" for i in (0, 2) for name in buffers]


def test_a_parameter_that_two_modules_share_is_one_parameter():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    assert [name for name, _ in net.named_parameters()] == ["0.weight"]
    assert list(net.state_dict()) == ["0.weight", "1.weight"]


def test_an_attribute_can_be_replaced_and_deleted():
    net = Net()
    net.blocks = nn.Identity()
    del net.first
    assert list(net.parameters()) == []
    net.first = None
    assert list(net.named_children()) == [("blocks", net.blocks)]


def test_training_mode_reaches_every_part():
    net = Net()
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    net.train()
    assert all(m.training for m in net.modules())


def test_freezing_and_forgetting_gradients_reach_every_parameter():
    net = Net()
    net(mt.ones(4, 2)).sum().backward()
    assert net.first.scale.grad is not None
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    net.requires_grad_(False)
    assert not net(mt.ones(4, 2)).requires_grad


def test_apply_visits_parts_before_the_module_itself():
    visited = []
    net = Net()
    assert net.apply(lambda m: visited.append(type(m).__name__)) is net
    assert visited == ["Linear", "Block", "Linear", "ReLU", "ModuleList", "Net"]


def test_conversion_keeps_the_parameters_that_an_optimiser_holds():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = list(net.parameters())
    net(mt.ones(4, 2) * mt.arange(4).reshape(4, 1)).sum().backward()
    assert net.double() is net
    assert all(a is b for a, b in zip(net.parameters(), before))
    assert {p.dtype for p in before} == {p.grad.dtype for p in before} == {np.dtype("float64")}
    dtypes = {name: str(b.dtype) for name, b in net.named_buffers()}
    assert dtypes == {
        "1.running_mean": "float64",
        "1.running_var": "float64",
        "1.num_batches_tracked": "int64",
    }
    assert net.half()[0].weight.dtype == np.float16
    if importlib.util.find_spec("ml_dtypes"):
        assert net.bfloat16()[0].weight.dtype == net[0].weight.bfloat16().dtype == "bfloat16"
    assert net.float().to("cpu", "float16")[0].weight.dtype == np.float16
    assert net.to(dtype="float32", device="cpu").get_submodule("0").weight.dtype == np.float32


def test_conversion_keeps_the_buffers_that_someone_holds():
    norm = nn.BatchNorm1d(2)
    before = list(norm.buffers())
    norm.double()
    assert all(a is b for a, b in zip(norm.buffers(), before))
    assert before[0].dtype == np.float64


def test_conversion_to_what_it_is_copies_nothing():
    norm = nn.BatchNorm1d(2).double()
    tensors = [*norm.parameters(), *norm.buffers()]
    arrays = [t.numpy() for t in tensors]
    norm.to("cpu", "float64")
    assert all(np.shares_memory(t.numpy(), array) for t, array in zip(tensors, arrays))


def test_conversion_refuses_what_no_parameter_can_be():
    with pytest.raises(mt.DTypeError, match="must be floating-point numbers, not int64"):
        nn.Linear(2, 2).to("int64")


def test_a_copy_learns_on_its_own():
    net = Net()
    other = copy.deepcopy(net)
    with mt.no_grad():
        other.first.scale += 1
    assert (net.first.scale.numpy() == 1).all()
    assert [name for name, _ in other.named_parameters()] == NAMES
    assert isinstance(other.first.scale, nn.Parameter)


def test_a_module_is_freed_without_the_garbage_collector():
    gc.disable()
    try:
        net = Net()
        net(mt.ones(4, 2)).sum().backward()
        reference = weakref.ref(net)
        del net
        assert reference() is None
    finally:
        gc.enable()


# -- parameters -----------------------------------------------------------------------------


def test_a_parameter_owns_its_values_and_prints_itself():
    values = np.ones(2, dtype="float32")
    p = nn.Parameter(values)
    values[0] = 5
    assert p.tolist() == [1, 1] and p.requires_grad and p.is_leaf
    assert repr(p) == "Parameter containing:\ntensor([1., 1.], requires_grad=True)"
    assert not nn.Parameter(mt.ones(2), requires_grad=False).requires_grad
    assert type(p * 2) is mt.Tensor


def test_integers_cannot_be_trained():
    with pytest.raises(mt.DTypeError, match="only floating-point tensors have gradients"):
        nn.Parameter(np.arange(3))


# -- mistakes in __init__ -------------------------------------------------------------------


def test_assigning_before_super_init_says_what_to_do():
    class Early(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(mt.ones(2))

    with pytest.raises(AttributeError, match=r"call super\(\).__init__\(\) first in Early"):
        Early()


def test_calling_without_super_init_says_what_to_do():
    class Slope(nn.Module):
        def __init__(self):
            self.slope = 2

        def forward(self, x):
            return x * self.slope

    with pytest.raises(AttributeError, match=r"call super\(\).__init__\(\) first in Slope"):
        Slope()(mt.ones(2))


def test_a_missing_attribute_is_named():
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'frist'$"):
        _ = Net().frist


def test_a_parameter_cannot_silently_become_a_plain_tensor():
    with pytest.raises(TypeError, match=r"'scale' is a parameter of Block .* not a Tensor: assign"):
        Block().scale = mt.ones(3)


@pytest.mark.parametrize("name", ["", "a.b", 3])
def test_names_that_would_break_dotted_names_are_refused(name):
    with pytest.raises(KeyError, match="a string without dots"):
        nn.Module().add_module(name, nn.ReLU())


def test_names_that_would_hide_a_method_are_refused():
    with pytest.raises(KeyError, match="Module already has an attribute 'forward'"):
        nn.Module().register_parameter("forward", nn.Parameter(mt.ones(1)))


def test_registering_checks_what_is_registered():
    module = nn.Module()
    with pytest.raises(TypeError, match="must be an nn.Module or None, not 3"):
        module.add_module("layer", 3)
    with pytest.raises(TypeError, match=r"must be an nn.Parameter or None, not tensor\(1.\)"):
        module.register_parameter("weight", mt.tensor(1.0))
    with pytest.raises(TypeError, match="buffer 'mean' must be a Tensor or None, not 3"):
        module.register_buffer("mean", 3)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "running_mean",
            np.zeros(3),
            "is a buffer of BatchNorm1d .* not a ndarray: assign a tensor",
        ),
        ("weight", np.zeros(3), "is a parameter of BatchNorm1d"),
    ],
)
def test_a_buffer_is_not_lost_to_an_array(name, value, message):
    norm = nn.BatchNorm1d(3)
    with pytest.raises(TypeError, match=message):
        setattr(norm, name, value)
    norm.running_mean = mt.ones(3)
    norm.running_mean = None  # a place that is kept free
    with pytest.raises(TypeError, match="is a buffer"):
        norm.running_mean = 5
    assert "running_mean" not in norm.state_dict()


def test_a_part_is_not_lost_to_something_else():
    net = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    with pytest.raises(TypeError, match="'0' is a part of Sequential .* not a int: assign an nn.M"):
        setattr(net, "0", 5)
    setattr(net, "0", nn.Identity())
    assert len(net) == 2


def test_a_module_without_forward_says_so():
    class Empty(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty has no forward\(\)"):
        Empty()(1)


# -- hooks ----------------------------------------------------------------------------------


def test_hooks_see_and_replace_inputs_and_outputs_until_removed():
    layer, seen = nn.ReLU(), []
    x = mt.tensor([-1.0, 2.0])
    handle = layer.register_forward_hook(lambda m, inputs, y: seen.append((m, inputs[0], y)))
    y = layer(x)
    assert seen == [(layer, x, y)]
    handle.remove()
    handle.remove()
    layer(x)
    assert len(seen) == 1
    with layer.register_forward_hook(lambda m, inputs, y: y + 1):
        assert layer(x).tolist() == [1, 3]
    with layer.register_forward_pre_hook(lambda m, inputs: -inputs[0]):
        assert layer(x).tolist() == [1, 0]
    with layer.register_forward_pre_hook(lambda m, inputs: (inputs[0] * 2,)):
        assert layer(x).tolist() == [0, 4]
    assert layer(x).tolist() == [0, 2]


def test_hooks_run_in_the_order_they_were_registered():
    layer, order = nn.Identity(), []
    layer.register_forward_hook(lambda *_: order.append("first"))
    handle = layer.register_forward_hook(lambda *_: handle.remove())
    layer.register_forward_hook(lambda *_: order.append("last"))
    layer(mt.ones(1))
    assert order == ["first", "last"]


# -- which layer it was ---------------------------------------------------------------------


def test_a_shape_error_names_the_path_of_the_layer_once():
    net = Net()
    net.first.fc = nn.Linear(5, 3, bias=False)
    with pytest.raises(mt.ShapeError) as caught:
        net(mt.ones(4, 2))
    assert str(caught.value).endswith("(in layer Net.first.fc: Linear(5, 3, bias=False))")
    assert str(caught.value).startswith("linear: the weight (3, 5) takes 5 features")
    assert str(caught.value).count("in layer") == 1


@pytest.mark.parametrize("kind", [ValueError, TypeError, IndexError, mt.GraphError])
def test_every_error_with_a_message_names_the_layer(kind):
    class Broken(nn.Module):
        def forward(self, x):
            raise kind("no")

    with pytest.raises(kind, match=r"^no \(in layer Sequential.0: Broken\(\)\)$"):
        nn.Sequential(Broken())(1)


def test_an_error_that_holds_more_than_a_message_is_left_as_it_is():
    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError("no", 5)

    with pytest.raises(ValueError) as caught:
        Broken()(1)
    assert caught.value.args == ("no", 5)


def test_the_path_passes_through_lists_that_are_not_called():
    net = Net()
    net.blocks[0] = nn.Linear(4, 3)
    with pytest.raises(mt.ShapeError, match=r"\(in layer Net.blocks.0: Linear\(4, 3\)\)"):
        net(mt.ones(4, 2))


def test_the_anomaly_inspector_is_told_the_path_of_the_layer():
    class Log(nn.Module):
        def forward(self, x):
            return x.log()

    net = Net()
    net.blocks = nn.ModuleList([nn.Sequential(nn.Identity(), Log())])
    x = mt.tensor([[-1.0, -1.0]])
    with mt.no_grad():
        net.first.fc.weight[...] = 1
    with np.errstate(invalid="ignore"), mt.detect_anomaly():
        with pytest.raises(mt.AnomalyError, match=r"in layer 'Net\.blocks\.0\.1' produced NaN"):
            net(x)
        with pytest.raises(mt.AnomalyError, match=r"in layer 'Log' produced"):
            Log()(x)
