import math

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn

from .parity import close, compare_modules, normal

N, L, S, D, E = 3, 5, 7, 8, 2
PADDED = np.arange(S) >= np.array([[7], [4], [1]])  # True where a key is padding
HIDDEN = np.random.default_rng(0).random((L, S)) < 0.3
HIDDEN[:, 0] = False
PER_HEAD = np.random.default_rng(1).random((N * E, L, S)) < 0.3
PER_HEAD[..., 0] = False
TO_ADD = normal(L, S)


class OutputAndWeights:
    """A module's output and weights side by side, so that gradients go through both."""

    def __init__(self, module, flatten, **settings):
        self.module, self.flatten, self.settings = module, flatten, settings

    def __call__(self, *inputs):
        return self.flatten(*self.module(*inputs, **self.settings))

    def __getattr__(self, name):
        return getattr(self.module, name)


def compare(inputs, call, training=True, **settings):
    """Both modules' output, weights and all gradients, from the same parameters."""
    torch = pytest.importorskip("torch")

    def ours(y, weights):
        return y if weights is None else F.cat([y.flatten(), weights.flatten()])

    def theirs(y, weights):
        return y if weights is None else torch.cat([y.flatten(), weights.flatten()])

    their_call = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in call.items()}
    for dtype in ("float32", "float64"):
        cast = {
            k: v.to(getattr(torch, dtype))
            if isinstance(v, torch.Tensor) and v.is_floating_point()
            else v
            for k, v in their_call.items()
        }
        compare_modules(
            OutputAndWeights(nn.MultiheadAttention(D, E, **settings), ours, **call),
            OutputAndWeights(torch.nn.MultiheadAttention(D, E, **settings), theirs, **cast),
            *inputs,
            training=training,
            dtypes=(dtype,),
        )


def batch(batch_first, *sizes):
    """Inputs (N, L, D), or (L, N, D), for pairs of a length and a number of features."""
    return [
        normal(*((N, n) if batch_first else (n, N)), d, seed=i) for i, (n, d) in enumerate(sizes)
    ]


MASKS = {
    "none": {},
    "padding": {"key_padding_mask": PADDED},
    "one mask": {"attn_mask": HIDDEN},
    "one mask a head": {"attn_mask": PER_HEAD},
    "floats": {"attn_mask": TO_ADD},
    "both of booleans": {"attn_mask": HIDDEN, "key_padding_mask": PADDED},
    "both of floats": {"attn_mask": TO_ADD, "key_padding_mask": normal(N, S)},
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    "weights", [{"need_weights": False}, {}, {"average_attn_weights": False}], ids=str
)
def test_output_weights_and_all_gradients_are_pytorchs(mask, batch_first, weights):
    inputs = batch(batch_first, (L, D), (S, D), (S, D))
    compare(inputs, MASKS[mask] | weights, batch_first=batch_first)


@pytest.mark.parametrize(
    "settings",
    [
        {"bias": False},
        {"kdim": 3},
        {"vdim": 5},
        {"kdim": 3, "vdim": 5, "bias": False},
        {"add_bias_kv": True},
        {"add_zero_attn": True},
        {"add_bias_kv": True, "add_zero_attn": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("mask", ["none", "both of booleans", "floats"])
@pytest.mark.parametrize("need_weights", [False, True])
def test_every_setting_is_pytorchs(settings, mask, need_weights):
    sizes = (L, D), (S, settings.get("kdim", D)), (S, settings.get("vdim", D))
    compare(batch(False, *sizes), MASKS[mask] | {"need_weights": need_weights}, **settings)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_a_sequence_may_come_alone(training, need_weights):
    inputs = [normal(L, D), normal(S, D), normal(S, D, seed=1)]
    call = {"need_weights": need_weights, "key_padding_mask": PADDED[1], "attn_mask": HIDDEN}
    compare(inputs, call, training=training)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("padding", [None, PADDED[:, :L]])
def test_causal_without_a_mask_is_the_mask_written_out(need_weights, extra, padding):
    mt.manual_seed(0)
    module = nn.MultiheadAttention(D, E, add_zero_attn=extra, batch_first=True)
    x = mt.tensor(normal(N, L, D).astype("float32"))
    hidden = ~np.tril(np.ones((L, L), bool))
    said = module(x, x, x, padding, need_weights, is_causal=True)
    written = module(x, x, x, padding, need_weights, attn_mask=hidden, is_causal=True)
    for a, b in zip(said, written):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)


@pytest.mark.parametrize("need_weights", [False, True])
def test_the_gradient_check_passes_with_a_mask_that_is_learned(need_weights):
    mt.manual_seed(0)
    module = nn.MultiheadAttention(4, 2, batch_first=True).double()

    def attend(q, k, v, mask):
        return module(q, k, v, attn_mask=mask, need_weights=need_weights)[0]

    report = mt.gradcheck(attend, normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 4), normal(3, 5))
    assert not any(i.warning for i in report.inputs), str(report)


def test_a_hook_sees_the_weights_of_every_head_though_nobody_asked_for_them():
    mt.manual_seed(0)
    module = nn.MultiheadAttention(D, E, batch_first=True).double()
    q, k, v = (mt.tensor(x) for x in batch(True, (L, D), (S, D), (S, D)))
    unwatched, none = module(q, k, v, PADDED, need_weights=False)
    asked = module(q, k, v, PADDED, average_attn_weights=False)[1]
    seen = []
    with module.softmax.register_forward_hook(lambda m, inputs, y: seen.append(y.numpy())):
        watched, still_none = module(q, k, v, PADDED, need_weights=False)
    assert none is None and still_none is None
    np.testing.assert_allclose(watched.numpy(), unwatched.numpy(), atol=1e-12)
    (weights,) = seen
    assert weights.shape == (N, E, L, S)
    np.testing.assert_array_equal(weights, asked.numpy())
    np.testing.assert_allclose(weights.sum(axis=-1), 1)
    assert (weights[np.broadcast_to(PADDED[:, None, None], weights.shape)] == 0).all()


@pytest.mark.parametrize("need_weights", [False, True])
def test_a_query_that_may_look_at_nothing_gets_the_output_bias_and_passes_no_nan(need_weights):
    mt.manual_seed(0)
    module = nn.MultiheadAttention(D, E, batch_first=True).double()
    x = mt.tensor(normal(N, S, D), requires_grad=True)
    padding = PADDED.copy()
    padding[2] = True
    y, weights = module(x, x, x, padding, need_weights)
    y.sum().backward()
    np.testing.assert_allclose(y.numpy()[2], np.broadcast_to(module.out_proj.bias.numpy(), (S, D)))
    assert np.isfinite(x.grad.numpy()).all()
    if need_weights:
        assert (weights.numpy()[2] == 0).all()


def test_dropout_thins_the_weights_in_training_alone():
    mt.manual_seed(0)
    module = nn.MultiheadAttention(D, E, dropout=0.5, batch_first=True)
    x = mt.tensor(normal(N, 40, D))
    zeros = (module(x, x, x, average_attn_weights=False)[1].numpy() == 0).mean()
    assert zeros == pytest.approx(0.5, abs=0.03)
    a, b = (module(x, x, x, need_weights=False)[0].numpy() for _ in range(2))
    assert np.abs(a - b).max() > 1e-3
    module.eval()
    a, b = (module(x, x, x, need_weights=need)[0].numpy() for need in (False, True))
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_float64_mask_leaves_float32_tokens_as_they_are():
    module = nn.MultiheadAttention(D, E, batch_first=True)
    x = mt.tensor(normal(N, L, D).astype("float32"))
    for need_weights in (False, True):
        y, _ = module(x, x, x, attn_mask=normal(L, L), need_weights=need_weights)
        assert y.dtype == np.float32


def test_it_has_four_times_d_squared_and_d_parameters():
    for features, heads in ((512, 8), (64, 4)):
        count = sum(p.numel() for p in nn.MultiheadAttention(features, heads).parameters())
        assert count == 4 * (features**2 + features)


def test_first_values_are_pytorchs():
    mt.manual_seed(0)
    module = nn.MultiheadAttention(64, 4, add_bias_kv=True)
    bound = math.sqrt(6 / (64 + 3 * 64))
    assert 0.98 * bound < np.abs(module.in_proj_weight.numpy()).max() <= bound
    assert 0.98 / 8 < np.abs(module.out_proj.weight.numpy()).max() <= 1 / 8
    assert not module.in_proj_bias.numpy().any() and not module.out_proj.bias.numpy().any()
    assert module.bias_k.numpy().std() == pytest.approx(math.sqrt(2 / (64 + 64)), rel=0.5)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="10 features cannot be shared out evenly among 4 heads"):
        nn.MultiheadAttention(10, 4)
    with pytest.raises(ValueError, match="dropout is a probability"):
        nn.MultiheadAttention(8, 4, dropout=1.5)


@pytest.mark.parametrize(
    "shapes",
    [
        [(3, 5, 8), (3, 7, 8), (3, 6, 8)],
        [(3, 5, 8), (4, 7, 8), (4, 7, 8)],
        [(3, 5, 6), (3, 7, 8), (3, 7, 8)],
        [(5, 8), (3, 7, 8), (3, 7, 8)],
        [(8,), (8,), (8,)],
    ],
)
def test_inputs_of_other_shapes_are_refused_by_name(shapes):
    module = nn.MultiheadAttention(8, 2, batch_first=True)
    with pytest.raises(mt.ShapeError, match=r"query \(N, L, 8\), key \(N, S, 8\) and value") as e:
        module(*(mt.ones(*shape) for shape in shapes))
    assert str(shapes[0]) in str(e.value)


def test_masks_that_do_not_fit_are_refused_by_name():
    module = nn.MultiheadAttention(8, 2, batch_first=True)
    x = mt.ones(3, 5, 8)
    with pytest.raises(mt.ShapeError, match=r"attn_mask needs shape \(5, 5\) or \(6, 5, 5\)"):
        module(x, x, x, attn_mask=np.zeros((3, 5, 5), bool))
    with pytest.raises(mt.ShapeError, match=r"key_padding_mask needs shape \(3, 5\), not \(5, 3\)"):
        module(x, x, x, np.zeros((5, 3), bool))
    with pytest.raises(
        mt.DTypeError, match=r"True: must not be looked at.*write key_padding_mask != 0"
    ):
        module(x, x, x, np.zeros((3, 5), int))


def test_the_masked_softmax_takes_booleans_and_floats():
    softmax, x = nn.MaskedSoftmax(), normal(2, 4)
    allowed = np.array([[True, False, True, True], [False] * 4])
    y = softmax(mt.tensor(x), allowed).numpy()
    e = np.exp(x[0]) * allowed[0]
    np.testing.assert_allclose(y, [e / e.sum(), np.zeros(4)])
    added = np.where(allowed, normal(2, 4, seed=1), -np.inf)
    e = np.exp(x[0] + added[0])
    np.testing.assert_allclose(softmax(mt.tensor(x), added).numpy(), [e / e.sum(), np.zeros(4)])
    np.testing.assert_allclose(softmax(mt.tensor(x)).numpy().sum(axis=-1), 1)
    with pytest.raises(mt.DTypeError, match="write mask != 0"):
        softmax(mt.tensor(x), np.ones((2, 4), int))


@pytest.mark.parametrize("shape", [(2, 5), (3, 4), (6, 2, 4)])
@pytest.mark.parametrize("dtype", [bool, float])
def test_the_masked_softmax_refuses_a_mask_that_does_not_broadcast_to_the_scores(shape, dtype):
    with pytest.raises(mt.ShapeError, match=r"MaskedSoftmax: a mask of shape .* scores of shape"):
        nn.MaskedSoftmax()(normal(2, 4), np.ones(shape, dtype))


def test_inputs_may_come_as_lists():
    attention = nn.MultiheadAttention(2, 1, batch_first=True)
    x = [[1.0, 2.0], [3.0, 5.0]]
    np.testing.assert_array_equal(
        attention(x, x, x)[0].data, attention(*[mt.tensor(x)] * 3)[0].data
    )


def test_it_prints_its_settings():
    module = nn.MultiheadAttention(8, 2, 0.1, bias=False, kdim=4, batch_first=True)
    assert (
        repr(module)
        .splitlines()[0]
        .startswith("MultiheadAttention(8, 2, dropout=0.1, bias=False, kdim=4, batch_first=True)")
    )


def test_gradients_of_a_learned_mask_are_those_of_the_scores():
    torch = pytest.importorskip("torch")
    ours, theirs = nn.MultiheadAttention(D, E).double(), torch.nn.MultiheadAttention(D, E).double()
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x = normal(L, N, D)
    mask = mt.tensor(normal(L, L), requires_grad=True)
    their_mask = torch.tensor(normal(L, L), requires_grad=True)
    t = torch.tensor(x)
    for need_weights in (False, True):
        mask.zero_grad()
        their_mask.grad = None
        ours(x, x, x, need_weights=need_weights, attn_mask=mask)[0].square().sum().backward()
        theirs(t, t, t, attn_mask=their_mask)[0].square().sum().backward()
        close(mask.grad, their_mask.grad, "float64", "gradient of the mask")
