import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn


def small_net():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_a_state_dict_is_a_snapshot():
    net = small_net()
    state = net.state_dict()
    before = state["0.weight"].numpy().copy()
    with mt.no_grad():
        net[0].weight += 1
    np.testing.assert_array_equal(state["0.weight"].numpy(), before)
    assert not state["0.weight"].requires_grad


def test_buffers_are_part_of_it_unless_they_are_not_persistent():
    net = small_net()
    net.register_buffer("kept", mt.ones(1))
    net.register_buffer("cache", mt.ones(1), persistent=False)
    net.register_buffer("empty", None)
    assert list(net.state_dict()) == [
        "kept",
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ]
    assert [name for name, _ in net.named_buffers()][:2] == ["kept", "cache"]


def test_loading_overwrites_in_place_and_keeps_dtypes():
    net, other = small_net(), small_net().double()
    other.get_submodule("1").num_batches_tracked.fill_(7)
    weight = net[0].weight
    missing, unexpected = net.load_state_dict(other.state_dict())
    assert (missing, unexpected) == ([], [])
    assert net[0].weight is weight and weight.dtype == np.float32 and weight.requires_grad
    np.testing.assert_array_equal(weight.numpy(), other[0].weight.numpy().astype("float32"))
    assert net[1].num_batches_tracked.item() == 7
    assert net[1].num_batches_tracked.dtype == np.int64


def test_the_loaded_values_are_not_shared():
    net, values = small_net(), np.ones((3, 2), dtype="float32")
    net.load_state_dict({"0.weight": values}, strict=False)
    values[...] = 5
    assert (net[0].weight.numpy() == 1).all()


def test_all_that_does_not_fit_is_said_at_once_and_nothing_is_loaded():
    net = small_net()
    before = net.state_dict()
    state = net.state_dict() | {"0.weigth": mt.ones(3, 2), "head": mt.ones(1)}
    state["0.bias"], state["1.bias"] = mt.ones(4), mt.ones(3)
    del state["0.weight"], state["1.running_mean"]
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(state)
    assert str(caught.value) == (
        "the state dict does not fit Sequential, nothing was loaded:\n"
        "  missing: '0.weight' (is it the unexpected '0.weigth'?)\n"
        "  missing: '1.running_mean'\n"
        "  unexpected: '0.weigth'\n"
        "  unexpected: 'head'\n"
        "  shape: '0.bias' needs (3,), the state dict has (4,)"
    )
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name].numpy())


def test_without_strict_names_may_differ_but_shapes_may_not():
    net = small_net()
    missing, unexpected = net.load_state_dict({"0.bias": mt.ones(3), "x": mt.ones(1)}, strict=False)
    assert missing[0] == "0.weight" and len(missing) == 6 and unexpected == ["x"]
    assert (net[0].bias.numpy() == 1).all()
    with pytest.raises(RuntimeError, match="nothing was loaded:\n  shape: '0.bias' needs"):
        net.load_state_dict({"0.bias": mt.ones(4)}, strict=False)


def test_a_long_list_is_cut():
    net = nn.Sequential(*(nn.Linear(1, 1) for _ in range(50)))
    with pytest.raises(RuntimeError, match=r"'3.bias'\n  ... and 92 more$"):
        net.load_state_dict({})


def test_values_that_are_no_numbers_are_refused_before_anything_is_loaded():
    net = small_net()
    before = net[0].bias.numpy().copy()
    with pytest.raises(mt.DTypeError):
        net.load_state_dict(net.state_dict() | {"0.bias": mt.ones(3), "1.bias": ["a", "b", "c"]})
    np.testing.assert_array_equal(net[0].bias.numpy(), before)


def test_loading_between_forward_and_backward_is_noticed():
    net = small_net()
    y = net(mt.tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True)).sum()
    net.load_state_dict(small_net().state_dict())
    with pytest.raises(mt.GraphError, match="changed in place"):
        y.backward()
