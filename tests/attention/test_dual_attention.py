import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.attention import ChannelSelfAttention, DualAttentionHead, PositionAttention

from ..nn.parity import compare_modules, normal

SIGNS = ["paper", "program"]
IMAGES = normal(2, 8, 3, 4) / 2


def count(module):
    return sum(p.numel() for p in module.parameters())


def torch_position_attention(torch, C, D):
    """Equations 1 and 2 of the paper, by sums over positions i and j, with PyTorch."""
    tnn = torch.nn

    class Position(tnn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = tnn.Parameter(torch.zeros(1))
            self.query = tnn.Conv2d(C, D, 1)
            self.key = tnn.Conv2d(C, D, 1)
            self.value = tnn.Conv2d(C, C, 1)

        def forward(self, x):
            q, k, v = (conv(x).flatten(2) for conv in (self.query, self.key, self.value))
            e = torch.exp(torch.einsum("ndi,ndj->nij", q, k))
            s = e / e.sum(dim=2, keepdim=True)
            gathered = torch.einsum("nij,ncj->nci", s, v)
            return self.gamma * gathered.unflatten(2, x.shape[2:]) + x

    return Position()


def torch_channel_attention(torch, sign, mean=False):
    """Equations 3 and 4, and the authors' `max - energy`, with PyTorch."""
    tnn = torch.nn

    class Channel(tnn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = tnn.Parameter(torch.zeros(1))

        def forward(self, x):
            energy = torch.einsum("nchw,ndhw->ncd", x, x)
            if mean:
                energy = energy / (x.shape[2] * x.shape[3])
            largest = energy.max(dim=2, keepdim=True).values
            w = torch.softmax(energy if sign == "paper" else largest - energy, dim=2)
            return self.gamma * torch.einsum("ncd,ndhw->nchw", w, x) + x

    return Channel()


def torch_head(torch, C, K, width, branches, sign):
    """Figure 2 of the paper: two branches and their sum, each with scores, with PyTorch."""
    tnn = torch.nn

    def conv(inner):
        layers = (tnn.Conv2d(inner, width, 3, padding=1, bias=False), tnn.BatchNorm2d(width))
        return tnn.Sequential(*layers, tnn.ReLU())

    def scores():
        return tnn.Sequential(tnn.Identity(), tnn.Conv2d(width, K, 1))

    class Head(tnn.Module):
        def __init__(self):
            super().__init__()
            if branches != "channel":
                self.conv5a = conv(C)
                self.sa = torch_position_attention(torch, width, width // 2)
                self.conv51 = conv(width)
            if branches != "position":
                self.conv5c = conv(C)
                self.sc = torch_channel_attention(torch, sign)
                self.conv52 = conv(width)
            if branches == "both":
                self.conv6, self.conv7 = scores(), scores()
            self.conv8 = scores()

        def forward(self, x):
            if branches == "position":
                return self.conv8(self.conv51(self.sa(self.conv5a(x))))
            if branches == "channel":
                return self.conv8(self.conv52(self.sc(self.conv5c(x))))
            p = self.conv51(self.sa(self.conv5a(x)))
            c = self.conv52(self.sc(self.conv5c(x)))
            if not self.training:
                return self.conv8(p + c)
            return torch.cat([self.conv8(p + c), self.conv6(p), self.conv7(c)], dim=1)

    return Head()


class Joined(DualAttentionHead):
    """The head with its three scores side by side, so that one cotangent reaches them all."""

    def forward(self, x):
        y = super().forward(x)
        return F.cat(list(y), dim=1) if isinstance(y, tuple) else y


def awake(module, seed=0):
    """The module in float64, with no parameter at zero: else whole branches have no gradient."""
    rng = np.random.default_rng(seed)
    for p in module.double().parameters():
        p.data = rng.normal(scale=0.5, size=p.shape)
    return module


# ---------------------------------------------------------------- agreement


@pytest.mark.parametrize("make_map", [True, False])
@pytest.mark.parametrize("reduction", [2, 8])
def test_position_attention_is_the_papers_in_output_and_all_gradients(reduction, make_map):
    torch = pytest.importorskip("torch")
    ours = PositionAttention(8, reduction, make_map)
    compare_modules(ours, torch_position_attention(torch, 8, 8 // reduction), IMAGES)


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("sign", SIGNS)
def test_channel_attention_is_the_papers_and_the_programs(sign, mean):
    torch = pytest.importorskip("torch")
    ours = ChannelSelfAttention(8, sign, mean)
    compare_modules(ours, torch_channel_attention(torch, sign, mean), IMAGES)


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize(
    ("branches", "training"),  # in evaluation both branches leave two classifiers unused: see below
    [
        ("both", True),
        ("position", True),
        ("position", False),
        ("channel", True),
        ("channel", False),
    ],
)
def test_the_head_is_the_papers_in_outputs_and_all_gradients(branches, sign, training):
    torch = pytest.importorskip("torch")
    ours = Joined(8, 3, 2, branches, dropout=0.0, sign=sign, query_reduction=2)
    theirs = torch_head(torch, 8, 3, 4, branches, sign)
    compare_modules(ours, theirs, IMAGES, training=training, dtypes=("float64",))


@pytest.mark.parametrize("make_map", [True, False])
def test_the_gradient_check_passes_for_positions(make_map):
    module = awake(PositionAttention(4, 2, make_map))
    report = mt.gradcheck(module, normal(2, 4, 2, 3))
    assert report.ok and len(report.inputs) == 8, str(report)
    warned = [i.name for i in report.inputs if i.warning]
    assert warned in ([], ["key.bias"])  # its gradient is zero but for rounding


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("sign", SIGNS)
def test_the_gradient_check_passes_for_channels(sign, mean):
    module = awake(ChannelSelfAttention(3, sign, mean))
    report = mt.gradcheck(module, normal(2, 3, 2, 2) / 2)
    assert report.ok and len(report.inputs) == 2, str(report)
    assert not any(i.warning for i in report.inputs), str(report)


# ---------------------------------------------------------------- maps


def map_of(module, x):
    """What a hook on `weights` sees, and the output."""
    seen = []
    with module.weights.register_forward_hook(lambda part, inputs, w: seen.append(w.numpy())):
        y = module(mt.tensor(x)).numpy()
    (w,) = seen
    return w, y


def test_row_i_of_the_position_map_holds_what_position_i_gathers():
    module = awake(PositionAttention(8, 2))
    w, y = map_of(module, IMAGES)
    assert w.shape == (2, 12, 12) and w.min() > 0
    np.testing.assert_allclose(w.sum(axis=2), 1, rtol=1e-12)
    v = module.value(mt.tensor(IMAGES)).numpy().reshape(2, 8, 12)
    gathered = np.einsum("nij,ncj->nci", w, v).reshape(IMAGES.shape)
    np.testing.assert_allclose(y, module.gamma.item() * gathered + IMAGES, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sign", SIGNS)
def test_row_c_of_the_channel_map_holds_what_channel_c_gathers(sign):
    module = awake(ChannelSelfAttention(8, sign))
    w, y = map_of(module, IMAGES)
    assert w.shape == (2, 8, 8) and w.min() >= 0
    np.testing.assert_allclose(w.sum(axis=2), 1, rtol=1e-12)
    gathered = np.einsum("ncd,ndhw->nchw", w, IMAGES)
    np.testing.assert_allclose(y, module.gamma.item() * gathered + IMAGES, rtol=0, atol=1e-12)


def test_without_a_map_there_is_nothing_for_a_hook_to_see():
    module, seen = PositionAttention(8, 2, make_map=False).double(), []
    module.weights.register_forward_hook(lambda *call: seen.append(call))
    module(mt.tensor(IMAGES))
    assert not seen


def test_the_programs_map_is_the_softmax_of_minus_the_energy():
    w, _ = map_of(ChannelSelfAttention(8, "program").double(), IMAGES)
    flat = IMAGES.reshape(2, 8, 12)
    e = np.exp(-np.einsum("nci,ndi->ncd", flat, flat))
    np.testing.assert_allclose(w, e / e.sum(axis=2, keepdims=True), rtol=1e-12)


def test_the_papers_sign_saturates_and_the_mean_does_not():
    """Of independent channels of equal strength, with the more weight on itself the larger L."""
    own = {}
    for L in 10, 30, 1000:
        x = normal(1, 16, L, 1)
        for sign, mean in (("paper", False), ("program", False), ("paper", True)):
            w, _ = map_of(ChannelSelfAttention(16, sign, mean).double(), x)
            own[sign, mean, L] = np.diagonal(w, axis1=1, axis2=2).mean()
    assert own["paper", False, 10] < own["paper", False, 30] < own["paper", False, 1000]
    assert own["paper", False, 30] > 0.99 and own["program", False, 30] < 1e-6
    assert own["paper", True, 1000] == pytest.approx(np.e / (np.e + 15), abs=0.01)


@pytest.mark.parametrize(
    "module",
    [PositionAttention(8, 2), *(ChannelSelfAttention(8, sign) for sign in SIGNS)],
    ids=["position", *SIGNS],
)
def test_moving_the_positions_about_moves_the_output_alike(module):
    awake(module)
    order = np.random.default_rng(0).permutation(12)
    moved = IMAGES.reshape(2, 8, 12)[:, :, order].reshape(IMAGES.shape)
    y = module(mt.tensor(IMAGES)).numpy().reshape(2, 8, 12)
    z = module(mt.tensor(moved)).numpy().reshape(2, 8, 12)
    np.testing.assert_allclose(z, y[:, :, order], rtol=0, atol=1e-12)


# ---------------------------------------------------------------- the start


@pytest.mark.parametrize(
    "module",
    [PositionAttention(8), *(ChannelSelfAttention(8, sign) for sign in SIGNS)],
    ids=["position", *SIGNS],
)
def test_at_first_it_is_the_identity_and_only_gamma_learns(module):
    module.double()
    x = mt.tensor(IMAGES, requires_grad=True)
    y = module(x)
    assert np.array_equal(y.numpy(), IMAGES)
    dy = normal(*IMAGES.shape, seed=1)
    y.backward(dy)
    assert np.array_equal(x.grad.numpy(), dy)
    learning = {n for n, p in module.named_parameters() if np.abs(p.grad.numpy()).max() > 0}
    assert learning == {"gamma"}


def test_the_softmax_never_heeds_the_bias_of_the_keys():
    module = awake(PositionAttention(8, 2))
    module(mt.tensor(IMAGES)).backward(normal(*IMAGES.shape, seed=1))
    assert np.abs(module.key.bias.grad.numpy()).max() < 1e-12
    assert np.abs(module.query.bias.grad.numpy()).max() > 1e-3


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize(("C", "r"), [(64, 8), (512, 8), (32, 1)])
def test_parameters(C, r):
    assert count(PositionAttention(C, r)) == C * C + 2 * C * (C // r) + C + 2 * (C // r) + 1
    assert count(ChannelSelfAttention(C)) == 1


def test_multiply_adds_for_a_map_of_24_positions():
    L, C, D = 24, 16, 4
    position = mt.summary(PositionAttention(C, 4), (C, 4, 6)).multiply_adds
    assert position == L * C * (2 * D + C) + L * L * (D + C)
    assert mt.summary(ChannelSelfAttention(C), (C, 4, 6)).multiply_adds == 2 * C * C * L


# ---------------------------------------------------------------- the head


def test_in_training_both_branches_give_scores_too_and_in_evaluation_the_sum_alone():
    head = DualAttentionHead(32, 5, query_reduction=2)
    x = mt.randn(2, 32, 3, 4)
    y = head.train()(x)
    assert y._fields == ("logits", "position_logits", "channel_logits")
    assert [scores.shape for scores in y] == [(2, 5, 3, 4)] * 3
    assert head.eval()(x).shape == (2, 5, 3, 4)


def test_the_first_scores_are_of_the_sum_of_both_branches():
    head = DualAttentionHead(8, 3, reduction=2, query_reduction=2).double().eval()
    x = mt.tensor(IMAGES)
    expected = head.conv8[1](head.position(x) + head.channel(x))
    np.testing.assert_array_equal(head(x).numpy(), expected.numpy())


@pytest.mark.parametrize("branch", ["position", "channel"])
def test_a_single_branch_has_one_classifier_and_nothing_of_the_other(branch):
    head = DualAttentionHead(32, 5, branches=branch, query_reduction=2)
    names = {name.split(".")[0] for name, _ in head.named_parameters()}
    of_branch = {"position": {"conv5a", "sa", "conv51"}, "channel": {"conv5c", "sc", "conv52"}}
    assert names == of_branch[branch] | {"conv8"}
    for training in (True, False):
        assert head.train(training)(mt.randn(2, 32, 3, 4)).shape == (2, 5, 3, 4)


def test_whole_channels_are_dropped_in_front_of_each_classifier():
    head = DualAttentionHead(32, 5, dropout=0.3)
    dropouts = [m for m in head.modules() if isinstance(m, nn.Dropout2d)]
    assert [m.p for m in dropouts] == [0.3] * 3
    assert [type(part[0]) for part in (head.conv6, head.conv7, head.conv8)] == [nn.Dropout2d] * 3


def test_the_sign_and_the_reductions_reach_the_attentions():
    head = DualAttentionHead(64, 5, reduction=2, sign="program", query_reduction=4)
    assert head.sc.sign == "program"
    assert head.sa.channels == 32 and head.sa.query.out_channels == 8


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PositionAttention(4), "PositionAttention: reduction=8 leaves no unit .* 4"),
        (lambda: PositionAttention(8, 0), "reduction must be at least 1, not 0"),
        (lambda: ChannelSelfAttention(0), "ChannelSelfAttention: channels must be an integer of"),
        (lambda: ChannelSelfAttention(8, "minus"), "sign must be one of paper, program, not 'min"),
        (lambda: DualAttentionHead(2, 5), "DualAttentionHead: reduction=4 leaves no unit"),
        (lambda: DualAttentionHead(16, 5), "PositionAttention: reduction=8 leaves no unit .* 4"),
        (lambda: DualAttentionHead(64, 5, branches="none"), "branches must be one of both, posit"),
        (lambda: DualAttentionHead(64, 5, sign=1), "sign must be one of paper, program, not 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("shape", [(2, 7, 3, 3), (8, 3, 3), (2, 8)])
@pytest.mark.parametrize(
    "module",
    [PositionAttention(8), ChannelSelfAttention(8), DualAttentionHead(8, 3, 1)],
    ids=lambda m: type(m).__name__,
)
def test_an_input_of_another_shape_is_refused_by_name(module, shape):
    with pytest.raises(mt.ShapeError, match=r"needs an input \(N, C, H, W\) with C = 8 channels"):
        module(mt.ones(*shape))


def test_they_print_their_settings():
    assert repr(PositionAttention(8)).startswith("PositionAttention(8)  ")
    assert repr(ChannelSelfAttention(8)).startswith("ChannelSelfAttention(8, sign='paper')  ")
    assert "DualAttentionHead(8, branches='both')" in repr(DualAttentionHead(8, 3, 1))
