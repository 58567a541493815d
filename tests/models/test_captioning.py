"""Captioning models: the papers' equations, step by step, and what hooks on them see."""

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.attention import SCAAttention
from minitorch_attn.models import (
    CaptionDecoder,
    Captioner,
    Coordinates,
    SCALayers,
    SoftAttention,
    beam_search,
    greedy_decode,
)

from ..nn.parity import compare_modules, normal

N, C, H, W = 3, 4, 2, 3
K, E, D, A = 7, 5, 6, 8
MAPS, STATE = normal(N, C, H, W), normal(N, D)
TARGET = np.array([[1, 4, 5, 6], [1, 3, 2, 0], [1, 6, 6, 2]])


def sca_layers():
    layers = nn.Sequential(nn.Conv2d(C, 5, 3, padding=1), nn.ReLU())
    return SCALayers((SCAAttention(C, D, A), layers), SCAAttention(5, D, A), features=5)


LOOKS = {
    "mean": lambda: None,
    "soft": lambda: SoftAttention(C, D, A),
    "sca": sca_layers,
}
looks = pytest.mark.parametrize("kind", LOOKS)


def model(kind):
    mt.manual_seed(0)
    return Captioner(nn.Identity(), CaptionDecoder(K, E, D, C, LOOKS[kind]())).double()


# -- the looks ------------------------------------------------------------------------------


def xu_look(torch, gate):
    """Show, attend and tell's equations, with a picture's annotations as rows (L, C)."""

    class Look(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = torch.nn.Module()
            self.attention.query = torch.nn.Linear(D, A)
            self.attention.key = torch.nn.Linear(C, A, bias=False)
            self.attention.score = torch.nn.Linear(A, 1, bias=False)
            if gate:
                self.gate = torch.nn.Sequential(torch.nn.Linear(D, 1))

        def forward(self, x, h):
            contexts = []
            for one, state in zip(x, h):
                a = one.reshape(C, -1).T
                e = torch.tanh(self.attention.query(state) + a @ self.attention.key.weight.T)
                alpha = torch.exp(e @ self.attention.score.weight[0])
                z = (alpha / alpha.sum()) @ a
                contexts.append(torch.sigmoid(self.gate(state)) * z if gate else z)
            return torch.stack(contexts)

    return Look()


@pytest.mark.parametrize("gate", [True, False])
def test_the_soft_look_is_that_of_the_paper(gate):
    torch = pytest.importorskip("torch")
    compare_modules(SoftAttention(C, D, A, gate), xu_look(torch, gate), MAPS, STATE)


def test_one_spatial_sca_and_a_mean_are_the_soft_look_without_its_gate():
    soft = SoftAttention(C, D, A, gate=False).double()
    sca = SCALayers(SCAAttention(C, D, A, "spatial"), features=C).double()
    spatial = sca.attentions[0].spatial
    spatial.map.weight.data = soft.attention.key.weight.numpy()
    spatial.map.bias.data = soft.attention.query.bias.numpy()
    spatial.state.weight.data = soft.attention.query.weight.numpy()
    spatial.score.weight.data = soft.attention.score.weight.numpy()
    np.testing.assert_allclose(
        sca(mt.tensor(MAPS), STATE).numpy(), soft(mt.tensor(MAPS), STATE).numpy()
    )


def test_layers_run_between_the_attentions_for_the_same_state():
    look = sca_layers().double()
    first, second = look.attentions
    conv, _ = look.layers[0]
    x = F.relu(conv(first(mt.tensor(MAPS), STATE)))
    expected = second(x, STATE).numpy().mean(axis=(2, 3))
    np.testing.assert_allclose(look(mt.tensor(MAPS), mt.tensor(STATE)).numpy(), expected)


def test_coordinates_are_from_minus_one_to_one():
    y = Coordinates()(mt.tensor(MAPS)).numpy()
    assert y.shape == (N, C + 2, H, W) and y.dtype == MAPS.dtype
    np.testing.assert_array_equal(y[:, :C], MAPS)
    np.testing.assert_array_equal(y[1, C], [[-1, -1, -1], [1, 1, 1]])
    np.testing.assert_array_equal(y[1, C + 1], [[-1, 0, 1], [-1, 0, 1]])
    assert not Coordinates()(mt.zeros(1, 1, 1, 1)).numpy().any()
    np.testing.assert_array_equal(Coordinates(3)(mt.tensor(MAPS)).numpy()[:, C:], 3 * y[:, C:])


def test_coordinates_keep_float32_and_let_gradients_through():
    x = mt.tensor(MAPS.astype(np.float32), requires_grad=True)
    y = Coordinates()(x)
    assert y.dtype == np.float32
    dy = normal(*y.shape).astype(np.float32)
    y.backward(dy)
    np.testing.assert_array_equal(x.grad.numpy(), dy[:, :C])


# -- the decoder ----------------------------------------------------------------------------


def xu_decoder(torch, kind):
    """Equations 1 to 7 over whole captions, the LSTM written out gate by gate."""
    tnn = torch.nn

    class Decoder(tnn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = tnn.Embedding(K, E)
            self.first_state = tnn.Linear(C, D)
            self.first_cell = tnn.Linear(C, D)
            if kind == "soft":
                self.look = xu_look(torch, gate=True)
            self.rnn = tnn.LSTMCell(E + C, D)
            self.from_state = tnn.Linear(D, E)
            self.from_look = tnn.Linear(C, E, bias=False)
            self.output = tnn.Linear(E, K)

    class Captions(tnn.Module):
        def __init__(self):
            super().__init__()
            self.cnn = tnn.Identity()
            self.decoder = Decoder()

        def forward(self, x, tokens):
            d, rnn = self.decoder, self.decoder.rnn
            mean = x.flatten(2).mean(2)
            h, c = torch.tanh(d.first_state(mean)), torch.tanh(d.first_cell(mean))
            scores = []
            for t in range(tokens.shape[1]):
                z = mean if kind == "mean" else d.look(x, h)
                y = d.embedding.weight[tokens[:, t]]
                a = torch.cat([y, z], 1) @ rnn.weight_ih.T + rnn.bias_ih
                a = a + h @ rnn.weight_hh.T + rnn.bias_hh
                i, f, g, o = (a[:, k * D : (k + 1) * D] for k in range(4))
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
                scores.append(d.output(y + d.from_state(h) + d.from_look(z)))
            return torch.stack(scores, 1)

    return Captions()


@pytest.mark.parametrize("kind", ["mean", "soft"])
def test_scores_and_all_gradients_are_those_of_the_papers_equations(kind):
    torch = pytest.importorskip("torch")
    tokens = np.where(TARGET == 0, 5, TARGET)  # the padding's embedding gets no gradient here
    compare_modules(model(kind), xu_decoder(torch, kind), MAPS, tokens)


@looks
def test_the_gradient_check_passes(kind):
    captioner = model(kind)
    maps, tokens = MAPS[:2, :, :, :2], TARGET[:2, :2]
    mt.gradcheck(lambda x, *_: captioner(x, tokens), maps, *captioner.parameters())


@looks
def test_step_by_step_and_teacher_forcing_are_the_same(kind):
    captioner = model(kind)
    scores = captioner(MAPS, TARGET).numpy()
    assert scores.shape == (N, 4, K)
    state = captioner.start(MAPS)
    for t in range(4):
        step, state = captioner.step(TARGET[:, t], state)
        np.testing.assert_allclose(step.numpy(), scores[:, t], atol=1e-13)


@looks
def test_a_score_does_not_depend_on_later_words_nor_on_other_pictures(kind):
    captioner = model(kind)
    before = captioner(MAPS, TARGET).numpy()
    changed = TARGET.copy()
    changed[:, 2:] = 5
    after = captioner(MAPS, changed).numpy()
    np.testing.assert_array_equal(after[:, :2], before[:, :2])
    assert (after[:, 2:] != before[:, 2:]).any()
    np.testing.assert_allclose(captioner(MAPS[1:2], TARGET[1:2]).numpy()[0], before[1], atol=1e-13)


@looks
def test_all_parameters_learn(kind):
    captioner = model(kind)
    F.cross_entropy(captioner(MAPS, TARGET).reshape(-1, K), TARGET.reshape(-1)).backward()
    for name, p in captioner.named_parameters():
        if not name.endswith("score.bias"):  # a softmax does not see it
            assert np.abs(p.grad.numpy()).max() > 1e-9, name


@looks
def test_greedy_decoding_and_a_beam_of_one_write_the_same(kind):
    captioner = model(kind)
    with mt.no_grad():
        for p in captioner.parameters():
            p *= 3.0
    greedy = greedy_decode(captioner, MAPS, max_length=6)
    assert greedy.shape[0] == N
    tokens, _ = beam_search(captioner, mt.tensor(MAPS), beam_size=1, max_length=6)
    np.testing.assert_array_equal(tokens[:, 0], greedy)
    wide, scores = beam_search(captioner, MAPS, beam_size=3, max_length=6)
    assert wide.shape[:2] == (N, 3) and (np.diff(scores, axis=1) <= 0).all()


def test_what_a_network_sees_is_described():
    mt.manual_seed(0)
    cnn = nn.Sequential(nn.Conv2d(1, C, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    captioner = Captioner(cnn, CaptionDecoder(K, E, D, C, SoftAttention(C, D, A)))
    images = normal(2, 1, 8, 6).astype(np.float32)
    scores = captioner(images, TARGET[:2])
    maps = Captioner(nn.Identity(), captioner.decoder)(cnn(mt.tensor(images)), TARGET[:2])
    np.testing.assert_array_equal(scores.numpy(), maps.numpy())
    scores.backward(normal(*scores.shape).astype(np.float32))
    assert np.abs(cnn[0].weight.grad.numpy()).max() > 0


def test_hooks_see_where_it_looks_for_each_word():
    soft, seen = model("soft"), []
    look = soft.decoder.look
    look.attention.softmax.register_forward_hook(lambda m, i, y: seen.append(y.numpy()))
    look.gate.register_forward_hook(lambda m, i, y: seen.append(y.numpy()))
    soft(MAPS, TARGET)
    weights, gates = seen[::2], seen[1::2]
    assert len(weights) == len(gates) == 4
    assert all(w.shape == (N, H * W) and g.shape == (N, 1) for w, g in zip(weights, gates))
    np.testing.assert_allclose([w.sum(axis=1) for w in weights], 1)
    assert np.abs(weights[1] - weights[0]).max() > 1e-6

    sca, seen = model("sca"), []
    for attention in sca.decoder.look.attentions:
        for part in attention.channel, attention.spatial:
            part.weights.register_forward_hook(lambda m, i, y: seen.append(y.shape))
    sca(MAPS, TARGET)
    assert seen == 4 * [(N, C), (N, H * W), (N, 5), (N, H * W)]


@pytest.mark.parametrize(
    ("kind", "count"), [("mean", 0), ("soft", D * A + A + C * A + A + D + 1), ("sca", None)]
)
def test_a_look_adds_its_parameters_and_no_others(kind, count):
    def numbers(module):
        return sum(p.numel() for p in module.parameters())

    captioner = model(kind)
    F_ = 5 if kind == "sca" else C
    rest = K * E + 2 * (C * D + D) + 4 * D * (E + F_ + D + 2) + D * E + E + F_ * E + E * K + K
    if kind == "sca":
        channel = 2 * A + D * A + A + 1
        spatial = [c * A + A + D * A + A + 1 for c in (C, 5)]
        count = 2 * channel + sum(spatial) + 9 * C * 5 + 5
    assert numbers(captioner) == rest + count


def test_no_pictures_give_no_scores():
    assert model("soft")(MAPS[:0], TARGET[:0]).shape == (0, 4, K)


@pytest.mark.parametrize(
    ("images", "tokens", "message"),
    [
        (MAPS[:, :2], TARGET, "CaptionDecoder: needs an input .* with C = 4 channels"),
        (MAPS[0], TARGET, r"CaptionDecoder: needs an input \(N, C, H, W\)"),
        (MAPS, TARGET[:2], r"needs tokens \(N, T\), a row for each of 3 pictures, got \(2, 4\)"),
        (MAPS, TARGET[0], r"needs tokens \(N, T\).* got \(4,\)"),
        (MAPS, TARGET[:, :0], r"needs tokens \(N, T\).* got \(3, 0\)"),
        (MAPS, TARGET * 1.0, "one token, an integer, for each of 3 pictures, got .* of float"),
    ],
)
def test_what_does_not_fit_is_refused(images, tokens, message):
    with pytest.raises(mt.ShapeError, match=message):
        model("soft")(images, tokens)


def test_bad_settings_are_refused_by_name():
    with pytest.raises(ValueError, match="channels must be an integer of at least 1, not 0"):
        CaptionDecoder(K, E, D, 0)
    with pytest.raises(ValueError, match="features must be an integer of at least 1, not 2.5"):
        SCALayers(SCAAttention(C, D), features=2.5)
    with pytest.raises(ValueError, match="SCALayers: needs a stage at least"):
        SCALayers(features=4)
    with pytest.raises(mt.ShapeError, match="Coordinates: needs an input"):
        Coordinates()(mt.ones(2, 3))
