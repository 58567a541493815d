"""Every mechanism has its place under the roof, and does something there."""

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import attention, nn
from minitorch_attn import functional as F
from minitorch_attn.compare import CONTROLS, FAMILY_ROWS, MECHANISMS, ROWS
from minitorch_attn.compare.mechanisms import InHeads, LookUp, OnTokens, RegionalPooling
from minitorch_attn.course import plan

IN_THE_BACKBONE = [row.name for row in MECHANISMS if row.place != "network"]


def network(name, seed=0):
    mt.manual_seed(seed)
    return ROWS[name].network(24)


@pytest.fixture(autouse=True)
def in_float64():
    before = mt.get_default_dtype()
    mt.set_default_dtype("float64")
    yield
    mt.set_default_dtype(before)


def test_every_mechanism_of_the_library_stands_somewhere():
    standing = {type(part) for row in MECHANISMS for part in row.network(24).modules()}
    # sSE stands within scSE, a ViT's first layer cuts patches by the same convolution.
    elsewhere = {attention.PatchEmbedding}
    classes = {getattr(attention, name) for name in attention.__all__}
    assert classes - standing - elsewhere == set()


def test_rows_have_names_of_their_own():
    assert len(ROWS) == len(CONTROLS) + len(MECHANISMS) + len(FAMILY_ROWS)


@pytest.mark.parametrize("name", [row.name for row in MECHANISMS])
def test_a_row_tells_the_lesson_that_builds_it(name):
    builds = plan.BUILT_IN.get(f"attention.{name}")
    if builds is not None:
        assert ROWS[name].lesson == builds
    assert 8 < ROWS[name].lesson < 30


@pytest.mark.parametrize("name", ROWS)
def test_scores_come_out_and_every_parameter_has_a_gradient(name):
    model = network(name)
    x = np.random.default_rng(0).random((3, 1, 24, 24))
    scores = model(x)
    assert scores.shape == (3, 10)
    F.cross_entropy(scores, np.array([0, 1, 2])).backward()
    # The branch scores of DANet's head have a loss of their own, which is left out here.
    left_out = ("fc.head.conv6", "fc.head.conv7")
    without = [
        n for n, p in model.named_parameters() if p.grad is None and not n.startswith(left_out)
    ]
    assert without == []


@pytest.mark.parametrize("name", IN_THE_BACKBONE)
def test_the_backbone_has_the_very_same_first_weights_in_every_row(name):
    plain = dict(network("nothing").named_parameters())
    model = dict(network(name).named_parameters())
    replaced = {"convolution": ("conv2",), "head": ("fc",)}.get(ROWS[name].place, ())
    for key, parameter in plain.items():
        if not any(part in key for part in replaced):
            np.testing.assert_array_equal(model[key].numpy(), parameter.numpy())


# At first these add nothing: a scale that starts at 0.
START_AS_NOTHING = {
    "SpatialTransformer",
    "GlobalContext",
    "NonLocalBlock",
    "NonLocalBlock, in tiles",
    "PositionAttention",
    "ChannelSelfAttention",
    "CrissCrossAttention",
}


@pytest.mark.parametrize("name", IN_THE_BACKBONE)
def test_a_mechanism_changes_the_scores_unless_it_starts_as_nothing(name):
    x = np.random.default_rng(0).random((3, 1, 24, 24))
    same = np.allclose(network(name)(x).numpy(), network("nothing")(x).numpy())
    assert same == (name in START_AS_NOTHING)


def test_in_tiles_the_non_local_block_is_the_same_function():
    x = np.random.default_rng(0).random((3, 1, 24, 24))
    scores = []
    for name in ("NonLocalBlock", "NonLocalBlock, in tiles"):
        model = network(name)
        nn.init.ones_(model.between.bn.weight)
        scores.append(model(x).numpy())
    np.testing.assert_allclose(*scores, rtol=1e-9)


def test_on_tokens_is_a_residual_look_up_of_normalised_places():
    mt.manual_seed(0)
    block = OnTokens(4, attention.ScaledDotProductAttention())
    x = np.random.default_rng(0).normal(size=(2, 4, 2, 3))
    t = x.reshape(2, 4, 6).transpose(0, 2, 1)
    t = (t - t.mean(axis=2, keepdims=True)) / np.sqrt(t.var(axis=2, keepdims=True) + 1e-5)
    q, k, v = (
        t @ layer.weight.numpy().T + layer.bias.numpy()
        for layer in (block.query, block.key, block.value)
    )
    e = np.exp(q @ k.transpose(0, 2, 1) / 2)
    read = e / e.sum(axis=2, keepdims=True) @ v
    read = read @ block.output.weight.numpy().T + block.output.bias.numpy()
    expected = x + read.transpose(0, 2, 1).reshape(x.shape)
    np.testing.assert_allclose(block(mt.tensor(x)).numpy(), expected, rtol=1e-9)


def test_in_heads_adds_what_it_reads():
    block = InHeads(8, heads=2)
    nn.init.zeros_(block.attend.out_proj.weight)
    nn.init.zeros_(block.attend.out_proj.bias)
    x = np.random.default_rng(0).normal(size=(2, 8, 3, 3))
    np.testing.assert_array_equal(block(mt.tensor(x)).numpy(), x)


def test_look_up_asks_with_the_mean_of_the_image():
    pool = LookUp(attention.MultiplicativeAttention(3, 3, score="dot"))
    x = np.random.default_rng(0).normal(size=(1, 3, 2, 2))
    memory = x.reshape(3, 4).T
    e = np.exp(memory @ x.mean(axis=(2, 3))[0])
    np.testing.assert_allclose(pool(mt.tensor(x)).numpy()[0], e / e.sum() @ memory, rtol=1e-9)


def test_regional_pooling_is_a_weighted_mean_of_regions_maxima():
    pool = RegionalPooling(3)
    nn.init.zeros_(pool.attention.fc2.weight)  # so that each weight is softplus(bias)
    nn.init.constant_(pool.attention.fc2.bias, 2.0)
    x = np.full((1, 3, 6, 6), 5.0)
    np.testing.assert_allclose(pool(mt.tensor(x)).numpy(), 5 * np.log1p(np.exp(2.0)), rtol=1e-9)
