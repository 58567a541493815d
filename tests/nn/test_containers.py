import pytest

import minitorch_attn as mt
from minitorch_attn import nn


def test_sequential_passes_each_output_on():
    net = nn.Sequential(nn.Flatten(), nn.ReLU())
    assert net(mt.tensor([[[-1.0], [2.0]]])).tolist() == [[0, 2]]
    assert net.append(nn.Identity()) is net and len(net) == 3
    assert list(net) == [net[0], net[1], net[2]] and net[-1] is net[2]
    assert nn.Sequential()(5) == 5


def test_a_slice_of_a_sequential_shares_its_layers():
    net = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    tail = net[1:]
    assert [name for name, _ in tail.named_children()] == ["1", "2"] and tail[1] is net[2]


def test_no_layers_are_a_sequential_too():
    net = nn.Sequential(nn.Linear(1, 1))
    assert len(net[:0]) == len(net[5:]) == len(nn.Sequential({})) == 0


def test_appending_to_a_slice_replaces_none_of_its_layers():
    net = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    tail, last = net[1:], nn.Tanh()
    assert list(tail.append(last)) == [net[1], net[2], last]


def test_a_layer_of_a_sequential_can_be_replaced():
    net = nn.Sequential({"conv": nn.Conv2d(1, 2, 3), "relu": nn.ReLU()})
    net[-1] = nn.Tanh()
    assert list(map(type, net)) == [nn.Conv2d, nn.Tanh] and net.relu is net[1]
    with pytest.raises(IndexError):
        net[2] = nn.ReLU()


def test_sequential_takes_names():
    net = nn.Sequential({"conv": nn.Conv2d(1, 2, 3), "relu": nn.ReLU()})
    assert list(net.state_dict()) == ["conv.weight", "conv.bias"] and net.conv is net[0]


def test_a_function_in_a_sequential_is_refused():
    with pytest.raises(TypeError, match="'0' must be an nn.Module or None, not <function"):
        nn.Sequential(lambda x: x)


def test_module_list_is_a_list_whose_parameters_are_found():
    layers = nn.ModuleList(nn.Linear(i, 1) for i in (1, 2))
    layers.append(nn.Linear(3, 1)).extend([nn.Linear(4, 1)])
    assert [layer.in_features for layer in layers] == [1, 2, 3, 4] and len(layers) == 4
    layers[-1] = nn.Linear(9, 1)
    assert layers[3].in_features == 9 and len(list(layers.parameters())) == 8
    assert [layer.in_features for layer in layers[1:3]] == [2, 3]
    with pytest.raises(IndexError):
        layers[4] = nn.ReLU()
    with pytest.raises(NotImplementedError, match="ModuleList has no forward"):
        layers(1)


def test_module_dict_is_a_dict_whose_parameters_are_found():
    paths = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.ReLU()})
    paths["c"] = nn.Linear(2, 1)
    paths.update({"b": nn.Tanh()})
    assert list(paths) == list(paths.keys()) == ["a", "b", "c"] and "b" in paths
    assert [type(m) for m in paths.values()] == [nn.Linear, nn.Tanh, nn.Linear]
    assert dict(paths.items())["c"] is paths["c"]
    del paths["a"]
    assert len(paths) == 2 and list(paths.state_dict()) == ["c.weight", "c.bias"]
    with pytest.raises(KeyError, match="x"):
        del paths["x"]
    with pytest.raises(KeyError, match="already has an attribute 'items'"):
        paths["items"] = nn.ReLU()
