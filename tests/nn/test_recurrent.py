import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn
from minitorch_attn.nn.summary import summary

from .parity import compare_modules, normal

torch = pytest.importorskip("torch")
tnn = torch.nn

CELLS = {
    "RNN": lambda n: n.RNNCell(3, 4),
    "RNN, relu": lambda n: n.RNNCell(3, 4, nonlinearity="relu"),
    "RNN, no bias": lambda n: n.RNNCell(3, 4, bias=False),
    "GRU": lambda n: n.GRUCell(3, 4),
    "GRU, no bias": lambda n: n.GRUCell(3, 4, bias=False),
}
LAYERS = {
    "RNN": lambda n: n.RNN(3, 4),
    "RNN, relu": lambda n: n.RNN(3, 4, nonlinearity="relu"),
    "RNN, all": lambda n: n.RNN(3, 4, 2, "tanh", False, True, 0.0, True),
    "LSTM": lambda n: n.LSTM(3, 4),
    "LSTM, deep": lambda n: n.LSTM(3, 4, num_layers=3, bias=False),
    "LSTM, both ways": lambda n: n.LSTM(3, 4, 2, bidirectional=True),
    "GRU": lambda n: n.GRU(3, 4),
    "GRU, batch first": lambda n: n.GRU(3, 4, batch_first=True),
    "GRU, both ways": lambda n: n.GRU(3, 4, 2, bidirectional=True),
}


def outputs_of(result):
    """Every tensor of a layer's result side by side, so that each has a gradient."""
    flat = []
    for part in result:
        flat += part if isinstance(part, tuple) else [part]
    concatenate = torch.cat if isinstance(flat[0], torch.Tensor) else mt.functional.cat
    return concatenate([t.reshape(-1) for t in flat], 0)


def with_all_outputs(base, module):
    """A module that calls another, and returns all its outputs as one tensor."""

    class All(base):
        def __init__(self):
            super().__init__()
            self.layer = module

        def forward(self, x, *state):
            state = state if len(state) == 2 else state[0] if state else None
            return outputs_of(self.layer(x, state))

    return All()


def compare_all(make, *inputs, **settings):
    """`compare_modules`, with respect to every tensor that the module returns."""
    compare_modules(
        with_all_outputs(nn.Module, make(nn)),
        with_all_outputs(tnn.Module, make(tnn)),
        *inputs,
        **settings,
    )


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_takes_pytorchs_step(name):
    compare_modules(CELLS[name](nn), CELLS[name](tnn), normal(2, 3), normal(2, 4))
    compare_modules(CELLS[name](nn), CELLS[name](tnn), normal(3), normal(4))
    compare_modules(CELLS[name](nn), CELLS[name](tnn), normal(2, 3))


def test_an_lstm_cell_takes_pytorchs_step():
    for make in (lambda n: n.LSTMCell(3, 4), lambda n: n.LSTMCell(3, 4, bias=False)):
        compare_all(make, normal(2, 3), normal(2, 4), normal(2, 4, seed=1))
        compare_all(make, normal(3), normal(4), normal(4, seed=1))
        compare_all(make, normal(2, 3))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_pytorchs_outputs_states_and_gradients(name):
    compare_all(LAYERS[name], normal(5, 2, 3))
    compare_all(LAYERS[name], normal(1, 1, 3))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_starts_from_given_states(name):
    layer = LAYERS[name](nn)
    rows = layer.num_layers * (1 + layer.bidirectional)
    sequences = normal(2, 5, 3) if layer.batch_first else normal(5, 2, 3)
    parts = 2 if "LSTM" in name else 1
    compare_all(LAYERS[name], sequences, *(normal(rows, 2, 4, seed=k) for k in range(parts)))
    compare_all(LAYERS[name], normal(5, 3), *(normal(rows, 4, seed=k) for k in range(parts)))


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("lengths", [[5, 3, 3, 1], [2, 5, 1, 4]])
def test_packed_sequences_are_read_as_pytorch_reads_them(kind, lengths):
    """Outputs, last states and gradients, with states to start from."""

    def packed_by(pack, cat, base, kinds):
        class Packed(base):
            def __init__(self):
                super().__init__()
                self.layer = getattr(kinds, kind)(3, 4, 2, bidirectional=True)

            def forward(self, x, *state):
                packed = pack(x, lengths, enforce_sorted=False)
                y, last = self.layer(packed, state if kind == "LSTM" else state[0])
                last = last if kind == "LSTM" else (last,)
                return cat([t.reshape(-1) for t in (y.data, *last)], 0)

        return Packed()

    states = [normal(4, 4, 4, seed=k) for k in range(2 if kind == "LSTM" else 1)]
    compare_modules(
        packed_by(nn.pack_padded_sequence, mt.functional.cat, nn.Module, nn),
        packed_by(tnn.utils.rnn.pack_padded_sequence, torch.cat, tnn.Module, tnn),
        normal(5, 4, 3),
        *states,
    )


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_a_layer_is_its_cell_step_by_step(kind):
    mt.manual_seed(0)
    layer = getattr(nn, kind)(3, 4).double()
    cell = getattr(nn, kind + "Cell")(3, 4).double()
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    sequences, state = mt.tensor(normal(6, 2, 3)), None
    outputs, last = layer(sequences)
    for x, expected in zip(sequences, outputs):
        state = cell(x, state)
        h = state[0] if kind == "LSTM" else state
        np.testing.assert_allclose(h.numpy(), expected.numpy(), atol=1e-14)
    final = last[1] if kind == "LSTM" else last
    np.testing.assert_allclose(final[0].numpy(), (state[-1] if kind == "LSTM" else h).numpy())


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_each_packed_sequence_is_read_as_if_alone(kind):
    mt.manual_seed(0)
    layer = getattr(nn, kind)(3, 4, 2, bidirectional=True).double()
    sequences = [mt.tensor(normal(n, 3)) for n in (2, 5, 4)]
    y, last = layer(nn.pack_sequence(sequences, enforce_sorted=False))
    y, lengths = nn.pad_packed_sequence(y)
    assert lengths.tolist() == [2, 5, 4]
    for n, sequence in enumerate(sequences):
        alone, last_alone = layer(sequence)
        np.testing.assert_allclose(y[: len(sequence), n].numpy(), alone.numpy(), atol=1e-14)
        pairs = zip(last, last_alone) if kind == "LSTM" else [(last, last_alone)]
        for ours, expected in pairs:
            np.testing.assert_allclose(ours[:, n].numpy(), expected.numpy(), atol=1e-14)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_what_stands_behind_a_sequence_does_not_reach_its_states(kind):
    layer = getattr(nn, kind)(3, 4, bidirectional=True)
    padded = normal(5, 2, 3).astype("float32")
    lengths = [5, 2]
    before, _ = layer(nn.pack_padded_sequence(padded, lengths))
    padded[2:, 1] = 100.0
    after, _ = layer(nn.pack_padded_sequence(padded, lengths))
    np.testing.assert_array_equal(before.data.numpy(), after.data.numpy())


def test_a_unidirectional_layer_does_not_see_what_comes():
    layer = nn.GRU(3, 4, 2)
    sequence = normal(6, 1, 3).astype("float32")
    before = layer(sequence)[0].numpy().copy()
    sequence[4:] += 1
    after = layer(sequence)[0].numpy()
    np.testing.assert_array_equal(after[:4], before[:4])
    assert (after[4:] != before[4:]).all()


def test_dropout_acts_between_layers_in_training_alone():
    mt.manual_seed(0)
    layer = nn.LSTM(3, 4, 2, dropout=1.0)
    x = mt.tensor(normal(5, 2, 3).astype("float32"))
    without_input = nn.LSTM(4, 4)  # with dropout 1 the second layer reads zeros
    state = layer.state_dict()
    without_input.load_state_dict(
        {k.replace("l1", "l0"): v for k, v in state.items() if k.endswith("l1")}
    )
    np.testing.assert_allclose(
        layer(x)[0].numpy(), without_input(mt.zeros(5, 2, 4))[0].numpy(), atol=1e-7
    )
    layer.eval()
    layer.dropout = 0.5
    np.testing.assert_array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())
    layer.train()
    assert (layer(x)[0].numpy() != layer(x)[0].numpy()).any()


def test_dropout_with_one_layer_is_remarked_on():
    with pytest.warns(UserWarning, match="dropout=0.5 acts between layers"):
        nn.GRU(3, 4, dropout=0.5)


@pytest.mark.parametrize(
    ("layer", "count"),
    [
        (nn.RNN(32, 64), 64 * (32 + 64 + 2)),
        (nn.LSTM(32, 64), 25_088),
        (nn.GRU(32, 64), 18_816),
        (nn.LSTMCell(32, 64), 25_088),
        (nn.GRUCell(32, 64, bias=False), 3 * 64 * (32 + 64)),
        (nn.GRU(3, 4, 2, bidirectional=True), 2 * 12 * (3 + 4 + 2) + 2 * 12 * (8 + 4 + 2)),
    ],
)
def test_parameters(layer, count):
    assert sum(p.numel() for p in layer.parameters()) == count
    bound = 1 / np.sqrt(layer.hidden_size)
    for p in layer.parameters():
        assert 0.5 * bound < np.abs(p.numpy()).max() <= bound


def test_layers_print_what_differs_from_the_defaults():
    assert nn.RNN(3, 4).extra_repr() == "3, 4"
    deep = nn.LSTM(3, 4, 2, False, True, 0.5, True)
    assert deep.extra_repr() == (
        "3, 4, num_layers=2, bias=False, batch_first=True, dropout=0.5, bidirectional=True"
    )
    assert nn.RNN(3, 4, nonlinearity="relu").extra_repr() == "3, 4, nonlinearity='relu'"
    assert nn.RNNCell(3, 4, False, "relu").extra_repr() == "3, 4, bias=False, nonlinearity='relu'"


def test_a_summary_counts_the_multiply_adds_of_both_shares():
    layer = nn.GRU(3, 4, batch_first=True)
    assert summary(layer, (5, 3)).multiply_adds == 5 * 12 * (3 + 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.GRU(0, 4), "GRU: input_size must be an integer of at least 1, not 0"),
        (lambda: nn.LSTMCell(3, 4.0), "LSTMCell: hidden_size must be an integer .* not 4.0"),
        (lambda: nn.RNN(3, 4, 0), "RNN: num_layers must be an integer of at least 1, not 0"),
        (lambda: nn.RNN(3, 4, 2, dropout=2), "RNN: dropout is a probability, 0 to 1, not 2"),
        (lambda: nn.RNN(3, 4, nonlinearity="sin"), "RNN: nonlinearity must be 'tanh' or 'relu'"),
        (lambda: nn.RNNCell(3, 4, nonlinearity="sin"), "RNNCell: nonlinearity must be 'tanh'"),
    ],
)
def test_settings_that_cannot_be(make, message):
    with pytest.raises(ValueError, match="^" + message):
        make()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: nn.GRU(3, 4)(mt.zeros(5, 2, 7)),
            r"GRU: needs an input \(L, N, D_in\) or \(L, D_in\) with D_in = 3 .* got \(5, 2, 7\)",
        ),
        (
            lambda: nn.GRU(3, 4, batch_first=True)(mt.zeros(5)),
            r"GRU: needs an input \(N, L, D_in\) .* got \(5,\)",
        ),
        (
            lambda: nn.LSTM(3, 4, batch_first=True)(mt.zeros(2, 0, 3)),
            r"LSTM: the sequences of an input \(2, 0, 3\) have no element",
        ),
        (
            lambda: nn.RNN(3, 4)(mt.zeros(5, 2, 3), mt.zeros(2, 4)),
            r"RNN: this input needs a state of shape \(1, 2, 4\), .* got \(2, 4\)",
        ),
        (
            lambda: nn.RNN(3, 4)(nn.pack_sequence([mt.zeros(5, 2)])),
            r"RNN: needs D_in = 3 features, got rows \(5, 2\)",
        ),
        (
            lambda: nn.LSTMCell(3, 4)(mt.zeros(5, 2, 3)),
            r"LSTMCell: needs an input \(N, D_in\) .* got \(5, 2, 3\); a whole sequence .* LSTM",
        ),
        (
            lambda: nn.GRUCell(3, 4)(mt.zeros(2, 3), mt.zeros(2, 3)),
            r"GRUCell: an input \(2, 3\) needs a state of shape \(2, 4\), got \(2, 3\)",
        ),
    ],
)
def test_shapes_that_do_not_fit(call, message):
    with pytest.raises(mt.ShapeError, match="^" + message):
        call()


@pytest.mark.parametrize("lstm", [nn.LSTM(3, 4), nn.LSTMCell(3, 4)])
def test_the_state_of_an_lstm_is_a_pair(lstm):
    with pytest.raises(TypeError, match=r"its state is a pair \(h, c\) of tensors, not Tensor"):
        lstm(mt.zeros(2, 3), mt.zeros(1, 4))
    with pytest.raises(TypeError, match=r"a pair \(h, c\) of tensors, not a tuple of 3"):
        lstm(mt.zeros(2, 3), (1, 2, 3))


@pytest.mark.parametrize(
    "layer", [nn.RNN(3, 4), nn.LSTM(3, 4), nn.GRU(3, 4, 2, bidirectional=True)]
)
def test_a_batch_without_sequences_has_no_states(layer):
    x = mt.zeros(5, 0, 3, requires_grad=True)
    y, last = layer(x)
    assert y.shape == (5, 0, 8 if layer.bidirectional else 4)
    assert (last[0] if isinstance(last, tuple) else last).shape[1:] == (0, 4)
    y.sum().backward()
    assert x.grad.shape == (5, 0, 3)
