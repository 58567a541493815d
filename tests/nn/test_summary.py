"""Multiply-adds of known layers, the table, and that nothing is left behind."""

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.engine import detect_anomaly

TABLE = """\
layer                                            output shape   parameters  multiply-adds
Sequential()                                     (1, 10)             5,946         10,944
  (0): Conv2d(1, 16, kernel_size=3, bias=False)  (1, 16, 6, 6)         144          5,184
  (1): BatchNorm2d(16)                           (1, 16, 6, 6)          32
  (2): Sequential()                              (1, 10)             5,770          5,760
    (0): Flatten()                               (1, 576)
    (1): Linear(576, 10)                         (1, 10)             5,770          5,760"""


class Attention(nn.Module):
    """Every token looks at every other: two matrix products, none of them in a layer."""

    def __init__(self, features):
        super().__init__()
        self.value = nn.Linear(features, features, bias=False)

    def forward(self, x):
        scores = x @ x.transpose(1, 2)
        return F.softmax(scores, dim=-1) @ self.value(x)


class Contract(nn.Module):
    """The sum of products of the input with a constant, by einsum."""

    def __init__(self, equation, *shape):
        super().__init__()
        self.equation = equation
        self.register_buffer("other", mt.ones(*shape))

    def forward(self, x):
        return F.einsum(self.equation, x, self.other)


class Convolve(nn.Module):
    """A convolution with constant kernels."""

    def __init__(self, op, *kernels, **options):
        super().__init__()
        self.op = op
        self.options = options
        self.register_buffer("kernels", mt.ones(*kernels))

    def forward(self, x):
        return self.op(x, self.kernels, **self.options)


@pytest.mark.parametrize(
    ("layer", "input_shape", "multiply_adds"),
    [
        (nn.Linear(5, 7), (5,), 5 * 7),
        (nn.Linear(5, 7), (3, 5), 3 * 5 * 7),
        (nn.Conv2d(4, 6, (3, 5)), (4, 10, 11), 6 * 8 * 7 * 4 * 3 * 5),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (4, 9, 9), 6 * 5 * 5 * 4 * 9),
        (nn.Conv2d(4, 6, 3, dilation=2, bias=False), (4, 9, 9), 6 * 5 * 5 * 4 * 9),
        (nn.Conv2d(4, 6, 3, groups=2), (4, 9, 9), 6 * 7 * 7 * 2 * 9),
        (nn.Conv2d(6, 6, 3, groups=6), (6, 9, 9), 6 * 7 * 7 * 9),  # depthwise
        (Attention(8), (10, 8), 10 * 8 * 10 + 10 * 8 * 8 + 10 * 10 * 8),
        (Contract("nld,dk->nlk", 8, 3), (10, 8), 10 * 8 * 3),
        (Contract("nld,nmd->nlm", 1, 7, 8), (10, 8), 10 * 8 * 7),
        (Contract("neld,emd->nelm", 2, 7, 8), (2, 10, 8), 2 * 10 * 8 * 7),
        (Contract("neld,emd->nelm", 1, 7, 8), (2, 10, 8), 2 * 10 * 8 * 7),
        (Contract("nl,d->nld", 8), (10,), 10 * 8),
        (Convolve(F.conv1d, 6, 2, 3, groups=2), (4, 9), 6 * 7 * 2 * 3),
        (Convolve(F.conv3d, 6, 4, 3, 2, 1), (4, 9, 8, 7), 6 * 7 * 7 * 7 * 4 * 3 * 2),
        (Convolve(F.conv_transpose1d, 4, 3, 3, groups=2), (4, 9), 4 * 9 * 3 * 3),
        (Convolve(F.conv_transpose2d, 4, 6, 3, 2, stride=2), (4, 9, 8), 4 * 9 * 8 * 6 * 3 * 2),
        (Convolve(F.conv_transpose3d, 4, 6, 1, 2, 3), (4, 5, 6, 7), 4 * 5 * 6 * 7 * 6 * 6),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.Flatten()), (4, 8, 8), 0),
    ],
)
def test_the_multiply_adds_of_an_operation(layer, input_shape, multiply_adds):
    assert mt.summary(layer, input_shape).multiply_adds == multiply_adds


def test_a_network_prints_as_a_table():
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.Sequential(nn.Flatten(), nn.Linear(576, 10)),
    )
    table = mt.summary(net, (1, 8, 8))
    assert str(table) == TABLE


def test_html_keeps_the_table_and_escapes_it():
    class Odd(nn.Identity):
        def extra_repr(self):
            return "<b>"

    shown = mt.summary(Odd(), (3,))._repr_html_()
    assert "Odd(&lt;b&gt;)" in shown and "<b>" not in shown


def test_a_row_counts_its_parts():
    net = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 5), nn.ReLU()))
    rows = {row.name: row for row in mt.summary(net, (3,)).rows}
    assert list(rows) == ["", "0", "1", "1.0", "1.1"]
    assert [row.depth for row in rows.values()] == [0, 1, 1, 2, 2]
    assert [row.multiply_adds for row in rows.values()] == [32, 12, 20, 20, 0]
    assert [row.parameters for row in rows.values()] == [41, 16, 25, 25, 0]
    assert rows["1"].output_shape == (1, 5)
    assert rows["0"].layer == "Linear(3, 4)"


def test_depth_leaves_out_what_lies_deeper():
    net = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 5), nn.ReLU()))
    whole = mt.summary(net, (3,))
    for depth, names in [(0, [""]), (1, ["", "0", "1"])]:
        table = mt.summary(net, (3,), depth=depth)
        assert [row.name for row in table.rows] == names
        assert table.multiply_adds == whole.multiply_adds
        assert table.parameters == whole.parameters


def test_a_layer_that_is_called_twice_costs_twice_and_has_its_parameters_once():
    shared = nn.Linear(4, 4)
    table = mt.summary(nn.Sequential(shared, nn.ReLU(), shared), (4,))
    assert (table.multiply_adds, table.parameters) == (32, 20)


def test_a_layer_that_is_not_called_has_no_shape_and_no_cost():
    net = Attention(4)
    net.unused = nn.Linear(4, 4)
    rows = {row.name: row for row in mt.summary(net, (3, 4)).rows}
    assert rows["unused"].output_shape is None and rows["unused"].multiply_adds == 0
    assert rows["unused"].parameters == 20


def test_a_list_of_layers_costs_what_its_layers_cost():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.branches = nn.ModuleList([nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 3))])

        def forward(self, x):
            return self.branches[0](x) + self.branches[1](x)

    rows = {row.name: row.multiply_adds for row in mt.summary(Sum(), (4,)).rows}
    assert rows == {
        "": 24,
        "branches": 24,
        "branches.0": 12,
        "branches.1": 12,
        "branches.1.0": 12,
    }


def test_an_input_that_does_not_fit_is_told_with_its_shape():
    with pytest.raises(mt.ShapeError) as told:
        mt.summary(nn.Sequential(nn.Conv2d(3, 4, 1)), (1, 3, 8, 8))
    assert told.value.__notes__ == [
        "summary ran Sequential on an input of shape (1, 1, 3, 8, 8): input_shape=(1, 3, 8, 8) is "
        "taken for that of one input, without the batch"
    ]


def test_the_network_is_left_as_it_was():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    net[2].eval()
    before = {name: t.numpy().copy() for name, t in net.state_dict().items()}
    mt.summary(net, (4,))
    assert [m.training for m in net.modules()] == [True, True, True, False]
    for name, t in net.state_dict().items():
        np.testing.assert_array_equal(t.numpy(), before[name])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert net(mt.ones(2, 4)).requires_grad


def test_the_network_is_left_as_it_was_when_the_input_does_not_fit():
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout())
    with pytest.raises(mt.ShapeError, match=r"takes 4 features.*in layer Sequential\.0"):
        mt.summary(net, (5,))
    assert all(m.training for m in net.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_the_input_has_the_dtype_of_the_parameters():
    seen = []
    net = nn.Sequential(nn.Linear(4, 4)).double()
    net.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    mt.summary(net, (4,))
    assert seen == [np.float64]


def test_a_search_for_anomalies_goes_on_afterwards():
    with detect_anomaly(), np.errstate(all="ignore"):
        mt.summary(nn.Linear(4, 4), (4,))
        with pytest.raises(mt.AnomalyError):
            F.log(mt.tensor([-1.0]))
