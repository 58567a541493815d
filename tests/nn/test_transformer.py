import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.nn.summary import summary

from .parity import compare_modules, normal

N, L, S, D, E = 3, 5, 7, 8, 2
SOURCE_PADDED = np.arange(S) >= np.array([[7], [4], [1]])
TARGET_PADDED = np.arange(L) >= np.array([[5], [3], [2]])
AHEAD = ~np.tril(np.ones((L, L), bool))

# A mask that lets every query look at something: PyTorch answers a row of nothing with NaN.
SOME = np.random.default_rng(0).random((L, S)) < 0.4
SOME[:, 0] = False


class Call:
    """A module with settings of its call written down, so that only tensors are left to give."""

    def __init__(self, module, **settings):
        self.module, self.settings = module, settings

    def __call__(self, *inputs):
        return self.module(*inputs, **self.settings)

    def __getattr__(self, name):
        return getattr(self.module, name)


def compare(name, inputs, call, training, **settings):
    """A module of `nn` beside PyTorch's of that name."""
    torch = pytest.importorskip("torch")
    their_call = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in call.items()}
    compare_modules(
        Call(getattr(nn, name)(**settings), **call),
        Call(getattr(torch.nn, name)(**settings), **their_call),
        *inputs,
        training=training,
    )


def tokens(batch_first, length, seed=0):
    return normal(*((N, length) if batch_first else (length, N)), D, seed=seed)


LAYER = {"d_model": D, "nhead": E, "dim_feedforward": 12, "dropout": 0.0}
SETTINGS = [
    {},
    {"norm_first": True},
    {"activation": "gelu"},
    {"bias": False},
    {"layer_norm_eps": 0.1, "norm_first": True},
]


@pytest.mark.filterwarnings("ignore")  # PyTorch's words about its nested tensors
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_an_encoder_layer_is_pytorchs(settings, batch_first, training, masked):
    call = {"src_key_padding_mask": TARGET_PADDED, "src_mask": AHEAD} if masked else {}
    settings = LAYER | settings | {"batch_first": batch_first}
    compare("TransformerEncoderLayer", [tokens(batch_first, L)], call, training, **settings)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_a_decoder_layer_is_pytorchs(settings, batch_first, training, masked):
    masks = {
        "tgt_mask": AHEAD,
        "memory_mask": SOME,
        "tgt_key_padding_mask": TARGET_PADDED,
        "memory_key_padding_mask": SOURCE_PADDED,
    }
    inputs = [tokens(batch_first, L), tokens(batch_first, S, seed=1)]
    settings = LAYER | settings | {"batch_first": batch_first}
    compare("TransformerDecoderLayer", inputs, masks if masked else {}, training, **settings)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_whole_transformer_is_pytorchs(norm_first, batch_first, training):
    call = {
        "tgt_mask": nn.Transformer.generate_square_subsequent_mask(L).numpy().astype("float64"),
        "src_key_padding_mask": SOURCE_PADDED,
        "memory_key_padding_mask": SOURCE_PADDED,
    }
    inputs = [tokens(batch_first, S, seed=1), tokens(batch_first, L)]
    settings = LAYER | {
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "norm_first": norm_first,
        "batch_first": batch_first,
    }
    torch = pytest.importorskip("torch")
    for dtype in ("float32", "float64"):
        theirs = {k: torch.tensor(v) for k, v in call.items()}
        theirs["tgt_mask"] = theirs["tgt_mask"].to(getattr(torch, dtype))
        compare_modules(
            Call(nn.Transformer(**settings), **call),
            Call(torch.nn.Transformer(**settings), **theirs),
            *inputs,
            training=training,
            dtypes=(dtype,),
        )


def test_the_arguments_and_their_defaults_are_pytorchs():
    torch = pytest.importorskip("torch")
    import inspect

    for name in (
        "MultiheadAttention",
        "TransformerEncoderLayer",
        "TransformerDecoderLayer",
        "TransformerEncoder",
        "TransformerDecoder",
        "Transformer",
    ):
        for method in ("__init__", "forward"):
            ours, theirs = (
                inspect.signature(getattr(getattr(where, name), method)).parameters
                for where in (nn, torch.nn)
            )
            names = [n for n in theirs if n not in ("device", "dtype")]
            assert list(ours) == names, name
            for n in names:
                if n != "activation":
                    assert ours[n].default == theirs[n].default, (name, n)
    square = nn.Transformer.generate_square_subsequent_mask(4).numpy()
    np.testing.assert_array_equal(
        square, torch.nn.Transformer.generate_square_subsequent_mask(4).numpy()
    )


@pytest.mark.filterwarnings("ignore")
def test_all_parameters_of_pytorchs_base_model_have_the_same_names_and_shapes():
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        theirs = torch.nn.Transformer(d_model=64, dim_feedforward=96)
    ours = nn.Transformer(d_model=64, dim_feedforward=96)
    assert {n: p.shape for n, p in ours.state_dict().items()} == {
        n: tuple(p.shape) for n, p in theirs.state_dict().items()
    }


def test_parameter_counts_are_those_of_the_papers_base_model():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    encoder, decoder = nn.TransformerEncoderLayer(512, 8), nn.TransformerDecoderLayer(512, 8)
    assert count(encoder) == 3_152_384
    assert count(decoder) == 4_204_032
    assert 6 * (count(encoder) + count(decoder)) == 44_138_496
    assert count(nn.Transformer(num_encoder_layers=1, num_decoder_layers=1)) == (
        count(encoder) + count(decoder) + 2 * 2 * 512  # and a norm behind each stack
    )


def test_a_function_or_a_module_may_be_the_activation():
    x = mt.tensor(normal(N, L, D))
    outputs = []
    for activation in ("gelu", F.gelu, nn.GELU()):
        mt.manual_seed(0)
        layer = nn.TransformerEncoderLayer(**LAYER, activation=activation)
        outputs.append(layer(x).numpy())
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])
    with pytest.raises(ValueError, match="EncoderLayer: activation must be relu or gelu, or a fun"):
        nn.TransformerEncoderLayer(8, 2, activation="tanh")


def test_dropout_acts_in_all_its_places_in_training_alone():
    mt.manual_seed(0)
    layer = nn.TransformerDecoderLayer(D, E, 12, dropout=0.5, batch_first=True).double()
    x, memory = mt.tensor(tokens(True, L)), mt.tensor(tokens(True, S, seed=1))
    whole = layer.eval()(x, memory).numpy()
    np.testing.assert_array_equal(layer(x, memory).numpy(), whole)
    places = [layer.dropout, layer.dropout1, layer.dropout2, layer.dropout3]
    places += [layer.self_attn, layer.multihead_attn]
    for place in places:
        layer.eval()
        place.training = True
        assert np.abs(layer(x, memory).numpy() - whole).max() > 1e-3, place


def test_layers_of_a_stack_are_copies_with_parameters_of_their_own():
    layer = nn.TransformerEncoderLayer(D, E, 12)
    stack = nn.TransformerEncoder(layer, 3)
    first, second = stack.layers[0].linear1.weight, stack.layers[1].linear1.weight
    np.testing.assert_array_equal(first.numpy(), second.numpy())
    assert first is not second and first is not layer.linear1.weight
    assert len(list(stack.parameters())) == 3 * len(list(layer.parameters()))


def test_no_token_of_the_decoder_sees_a_later_one():
    mt.manual_seed(0)
    model = nn.Transformer(D, E, 1, 2, 12, dropout=0.0, batch_first=True).double()
    source, target = tokens(True, S, seed=1), tokens(True, L)
    before = model(mt.tensor(source), mt.tensor(target), tgt_is_causal=True).numpy()
    for t in range(L):
        changed = target.copy()
        changed[:, t] += 1
        after = model(mt.tensor(source), mt.tensor(changed), tgt_is_causal=True).numpy()
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert (np.abs(after - before)[:, t:].max(axis=(0, 2)) > 1e-6).all()


def test_an_encoder_without_places_knows_no_order():
    mt.manual_seed(0)
    layer = nn.TransformerEncoderLayer(D, E, 12, dropout=0.0, batch_first=True).double()
    encoder = nn.TransformerEncoder(layer, 2)
    x, order = tokens(True, S), np.random.default_rng(0).permutation(S)
    np.testing.assert_allclose(
        encoder(mt.tensor(x[:, order])).numpy(), encoder(mt.tensor(x)).numpy()[:, order], atol=1e-12
    )


@pytest.mark.parametrize("norm_first", [False, True])
def test_step_by_step_with_a_cache_gives_what_the_whole_gives(norm_first):
    mt.manual_seed(0)
    settings = LAYER | {"batch_first": True, "norm_first": norm_first}
    layer = nn.TransformerDecoderLayer(**settings).double()
    x, memory = tokens(True, L), mt.tensor(tokens(True, S, seed=1))
    whole = layer(
        mt.tensor(x), memory, tgt_is_causal=True, memory_key_padding_mask=SOURCE_PADDED
    ).numpy()
    cache, looked_at = layer.start(memory), ~SOURCE_PADDED.reshape(N, 1, 1, S)
    for t in range(L):
        y, after = layer.step(mt.tensor(x[:, t : t + 1]), cache, looked_at)
        np.testing.assert_allclose(y.numpy()[:, 0], whole[:, t], atol=1e-12)
        assert after["keys"].shape == (N, E, t + 1, D // E)
        assert cache["keys"].shape == (N, E, t, D // E)  # the cache before is left as it was
        cache = after


def test_batches_of_two_sizes_are_refused_by_name():
    model = nn.Transformer(D, E, 1, 1, 12)
    with pytest.raises(mt.ShapeError, match=r"src \(7, 3, 8\) and tgt \(5, 2, 8\) need the same N"):
        model(mt.ones(7, 3, 8), mt.ones(5, 2, 8))


def test_the_gradient_check_passes_for_both_orders_of_norm():
    for norm_first in (False, True):
        mt.manual_seed(0)
        layer = nn.TransformerDecoderLayer(
            4, 2, 5, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm_first
        ).double()

        def decode(tgt, memory, layer=layer):
            return layer(tgt, memory, tgt_is_causal=True)

        report = mt.gradcheck(decode, normal(2, 3, 4), normal(2, 4, 4))
        assert not any(i.warning for i in report.inputs), str(report)


def test_multiply_adds_are_those_of_the_projections_the_look_up_and_the_network():
    length, features, hidden = 10, 64, 96
    layer = nn.TransformerEncoderLayer(features, 4, hidden, batch_first=True)
    projections = 4 * length * features**2
    look_up = 2 * length**2 * features
    network = 2 * length * features * hidden
    counted = summary(layer, (length, features)).multiply_adds
    assert counted == projections + look_up + network
