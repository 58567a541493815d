import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import NonLocalBlock

from ..nn.parity import compare_modules, normal

PAIRWISE = ["gaussian", "embedded_gaussian", "dot_product", "concatenation"]
GAUSSIAN = PAIRWISE[:2]
SUBSAMPLE = [None, "after", "before"]
INPUTS = {1: normal(2, 6, 9), 2: normal(2, 6, 4, 5), 3: normal(2, 6, 3, 4, 2)}


def count(module):
    return sum(p.numel() for p in module.parameters())


def torch_block(torch, C, pairwise, dims, *, hidden, subsample, batch_norm, bias, scale):
    """Section 3 of the paper, term by term, with PyTorch: einsum over positions i and j."""
    tnn = torch.nn
    convolution = (tnn.Conv1d, tnn.Conv2d, tnn.Conv3d)[dims - 1]
    norm = (tnn.BatchNorm1d, tnn.BatchNorm2d, tnn.BatchNorm3d)[dims - 1]
    pool = (tnn.MaxPool1d(2), tnn.MaxPool2d(2), tnn.MaxPool3d((1, 2, 2)))[dims - 1]

    class Affinity(tnn.Module):
        def __init__(self):
            super().__init__()
            if pairwise == "concatenation":
                self.w_f = tnn.Parameter(torch.empty(2 * hidden))

        def forward(self, theta, phi):  # (N, D, L), (N, D, L')
            if pairwise == "concatenation":
                L, M = theta.shape[2], phi.shape[2]
                pairs = torch.cat(
                    [
                        theta[:, :, :, None].expand(-1, -1, L, M),
                        phi[:, :, None].expand(-1, -1, L, M),
                    ],
                    dim=1,
                )
                return torch.relu(torch.einsum("d,ndij->nij", self.w_f, pairs)) / M
            f = torch.einsum("ndi,ndj->nij", theta, phi)
            if pairwise == "dot_product":
                return f / phi.shape[2]
            f = torch.exp(f / theta.shape[1] ** 0.5 if scale else f)
            return f / f.sum(dim=2, keepdim=True)

    class Block(tnn.Module):
        def __init__(self):
            super().__init__()
            if pairwise != "gaussian":
                self.theta = convolution(C, hidden, 1, bias=bias)
                self.phi = convolution(C, hidden, 1, bias=bias)
            self.g = convolution(C, hidden, 1, bias=bias)
            self.affinity = Affinity()
            self.w_z = convolution(hidden, C, 1, bias=bias)
            if batch_norm:
                self.bn = norm(C)

        def forward(self, x):
            theta = self.theta(x) if pairwise != "gaussian" else x
            source = pool(x) if subsample == "before" else x
            phi = self.phi(source) if pairwise != "gaussian" else source
            g = self.g(source)
            if subsample == "after":
                phi, g = pool(phi), pool(g)
            weights = self.affinity(theta.flatten(2), phi.flatten(2))
            y = torch.einsum("nij,ndj->ndi", weights, g.flatten(2))
            z = self.w_z(y.unflatten(2, x.shape[2:]))
            return (self.bn(z) if batch_norm else z) + x

    return Block()


def compare(dims, **settings):
    torch = pytest.importorskip("torch")
    make_map, training = settings.pop("make_map", True), settings.pop("training", True)
    whole = {"subsample": None, "batch_norm": True, "bias": False, "scale": False, **settings}
    ours = NonLocalBlock(6, dims=dims, make_map=make_map, **whole)
    theirs = torch_block(torch, 6, dims=dims, hidden=3, **whole)
    x = INPUTS[dims]
    compare_modules(ours, theirs, x, training=training, dtypes=("float64",))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("subsample", SUBSAMPLE)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_outputs_and_all_gradients_are_those_of_the_papers_equations(pairwise, subsample, dims):
    compare(dims, pairwise=pairwise, subsample=subsample)


@pytest.mark.parametrize("pairwise", PAIRWISE)
@pytest.mark.parametrize("batch_norm", [True, False])
def test_biases_and_evaluation_are_those_of_the_equations_too(pairwise, batch_norm):
    settings = {"bias": True, "batch_norm": batch_norm, "subsample": "after"}
    compare(2, pairwise=pairwise, training=False, **settings)


@pytest.mark.parametrize("pairwise", GAUSSIAN)
def test_the_scale_divides_the_exponent_by_the_root_of_its_terms(pairwise):
    compare(2, pairwise=pairwise, scale=True)


@pytest.mark.parametrize("subsample", SUBSAMPLE)
@pytest.mark.parametrize(
    ("pairwise", "scale"),
    [(f, s) for f in GAUSSIAN for s in (False, True)] + [(PAIRWISE[2], False)],
)
def test_without_a_map_it_computes_the_same(pairwise, scale, subsample):
    compare(2, pairwise=pairwise, subsample=subsample, scale=scale, make_map=False)


def test_float32_stays_float32_and_agrees():
    torch = pytest.importorskip("torch")
    theirs = torch_block(
        torch, 6, "embedded_gaussian", 2,
        hidden=3, subsample=None, batch_norm=True, bias=False, scale=False,
    )  # fmt: skip
    compare_modules(NonLocalBlock(6), theirs, INPUTS[2], dtypes=("float32",))


def awake(module, seed=0):
    """The module in float64, with no parameter at zero: else whole branches have no gradient."""
    rng = np.random.default_rng(seed)
    for p in module.double().parameters():
        p.data = rng.normal(scale=0.5, size=p.shape)
    return module


@pytest.mark.parametrize("pairwise", PAIRWISE)
@pytest.mark.parametrize("settings", [{}, {"batch_norm": False, "bias": True}])
def test_the_gradient_check_passes(pairwise, settings):
    if settings and pairwise in GAUSSIAN:
        settings = {**settings, "bias": False}  # the bias of phi has none: see below
    module = awake(NonLocalBlock(4, pairwise, subsample="after", **settings), seed=1)
    report = mt.gradcheck(module, normal(2, 4, 4, 4))
    assert report.ok and not any(i.warning for i in report.inputs), str(report)
    assert len(report.inputs) == 1 + len(list(module.parameters()))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("pairwise", PAIRWISE)
@pytest.mark.parametrize("settings", [{}, {"batch_norm": False, "bias": True}])
@pytest.mark.parametrize("training", [True, False])
def test_at_first_it_is_the_identity_to_the_last_bit(dims, pairwise, settings, training):
    module = NonLocalBlock(6, pairwise, dims, **settings).double().train(training)
    x = INPUTS[dims]
    assert np.array_equal(module(mt.tensor(x)).numpy(), x)


def learning(module):
    """Names of the parameters that get a gradient in the first step."""
    module.double()(mt.tensor(INPUTS[2])).backward(normal(2, 6, 4, 5, seed=3))
    found = {name: np.abs(p.grad.numpy()).max() for name, p in module.named_parameters()}
    return {name for name, largest in found.items() if largest > 1e-12}


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_in_the_first_step_only_what_starts_at_zero_learns(pairwise):
    assert learning(NonLocalBlock(6, pairwise)) == {"bn.weight", "bn.bias"}
    assert learning(NonLocalBlock(6, pairwise, batch_norm=False)) == {"w_z.weight"}


@pytest.mark.parametrize(
    ("pairwise", "heeded"), [("embedded_gaussian", False), ("dot_product", True)]
)
def test_softmax_never_heeds_the_bias_of_phi(pairwise, heeded):
    module = awake(NonLocalBlock(6, pairwise, bias=True, batch_norm=False))
    module(mt.tensor(INPUTS[2])).backward(normal(2, 6, 4, 5, seed=3))
    gradient = np.abs(module.phi.bias.grad.numpy()).max()
    assert (gradient > 1e-3) if heeded else (gradient < 1e-12)


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize(("channels", "reduction"), [(64, 2), (1024, 2), (64, 8)])
def test_it_has_four_c_squared_over_r_weights_and_two_for_each_channels_norm(channels, reduction):
    weights = 4 * channels**2 // reduction
    hidden = channels // reduction
    assert count(NonLocalBlock(channels, reduction=reduction)) == weights + 2 * channels
    plain = {"reduction": reduction, "batch_norm": False}
    assert count(NonLocalBlock(channels, "dot_product", **plain)) == weights
    assert count(NonLocalBlock(channels, "gaussian", **plain)) == weights // 2
    assert count(NonLocalBlock(channels, "concatenation", **plain)) == weights + 2 * hidden
    assert count(NonLocalBlock(channels, bias=True, **plain)) == weights + 3 * hidden + channels


def products(pairwise, **settings):
    """Multiply-adds for one feature map of 8 channels and 4 x 6 positions."""
    block = NonLocalBlock(8, pairwise, **settings)
    return mt.summary(block, (8, 4, 6)).multiply_adds


L, C, D = 24, 8, 4


@pytest.mark.parametrize(
    ("pairwise", "settings", "expected"),
    [
        ("embedded_gaussian", {}, 4 * L * C * D + 2 * L * L * D),
        ("dot_product", {}, 4 * L * C * D + 2 * L * L * D),
        ("dot_product", {"make_map": False}, 4 * L * C * D + 2 * L * D * D),
        ("gaussian", {}, 2 * L * C * D + L * L * (C + D)),
        ("concatenation", {}, 4 * L * C * D + 2 * L * D + L * L * D),
        ("embedded_gaussian", {"subsample": "after"}, 4 * L * C * D + L * L * D // 2),
        ("embedded_gaussian", {"subsample": "before"}, 5 * L * C * D // 2 + L * L * D // 2),
    ],
)
def test_its_multiply_adds_are_those_of_the_formula(pairwise, settings, expected):
    assert products(pairwise, **settings) == expected


# ---------------------------------------------------------------- the map


def map_of(module, x):
    seen = []
    with module.affinity.register_forward_hook(lambda m, inputs, f: seen.append(f.numpy())):
        y = module(mt.tensor(x)).numpy()
    (weights,) = seen
    return weights, y


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("pairwise", GAUSSIAN)
def test_a_hook_sees_a_map_whose_rows_are_shares(pairwise, dims):
    x = INPUTS[dims]
    weights, _ = map_of(awake(NonLocalBlock(6, pairwise, dims)), x)
    L = np.prod(x.shape[2:])
    assert weights.shape == (2, L, L) and weights.min() > 0
    np.testing.assert_allclose(weights.sum(axis=2), 1, rtol=1e-12)


@pytest.mark.parametrize(("dims", "keys"), [(1, 4), (2, 2 * 2), (3, 3 * 2 * 1)])
@pytest.mark.parametrize("subsample", ["after", "before"])
def test_subsampling_leaves_fewer_columns_and_all_rows_and_frames(dims, keys, subsample):
    x = INPUTS[dims]
    weights, _ = map_of(awake(NonLocalBlock(6, dims=dims, subsample=subsample)), x)
    assert weights.shape == (2, np.prod(x.shape[2:]), keys)


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_the_output_is_the_maps_weighted_sum_of_g(pairwise):
    module = awake(NonLocalBlock(6, pairwise, batch_norm=False))
    weights, z = map_of(module, INPUTS[2])
    g = np.einsum("dc,ncj->ndj", module.g.weight.numpy()[:, :, 0, 0], INPUTS[2].reshape(2, 6, 20))
    y = np.einsum("nij,ndj->ndi", weights, g)
    expected = np.einsum("cd,ndi->nci", module.w_z.weight.numpy()[:, :, 0, 0], y)
    np.testing.assert_allclose(z, expected.reshape(2, 6, 4, 5) + INPUTS[2], rtol=0, atol=1e-12)


def test_without_a_map_there_is_nothing_for_a_hook_to_see():
    module, seen = NonLocalBlock(6, make_map=False), []
    module.affinity.register_forward_hook(lambda *call: seen.append(call))
    module(mt.tensor(INPUTS[2].astype(np.float32)))
    assert not seen


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_moving_the_positions_about_moves_the_output_alike(pairwise):
    module = awake(NonLocalBlock(6, pairwise, dims=1))
    order = np.random.default_rng(0).permutation(9)
    y = module(mt.tensor(INPUTS[1])).numpy()
    moved = module(mt.tensor(INPUTS[1][:, :, order])).numpy()
    np.testing.assert_allclose(moved, y[:, :, order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_a_clip_is_treated_as_a_sequence_of_all_its_pixels(pairwise):
    clip = awake(NonLocalBlock(6, pairwise, dims=3))
    line = NonLocalBlock(6, pairwise, dims=1).double()
    state = clip.state_dict().items()
    line.load_state_dict(
        {k: v.numpy().reshape(*v.shape[:2], 1) if v.ndim == 5 else v.numpy() for k, v in state}
    )
    x = INPUTS[3]
    y = line(mt.tensor(x.reshape(2, 6, -1))).numpy()
    np.testing.assert_allclose(clip(mt.tensor(x)).numpy(), y.reshape(x.shape), rtol=0, atol=1e-12)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairwise": "cosine"}, "pairwise must be one of gaussian, .*, not 'cosine'"),
        ({"dims": 4}, "dims must be 1, 2 or 3 axes of space, not 4"),
        ({"dims": 2.0}, "dims must be an integer, not 2.0"),
        ({"subsample": True}, "subsample must be one of after, before, not True"),
        ({"reduction": 0}, "reduction must be at least 1, not 0"),
        ({"reduction": 9}, "reduction=9 leaves no unit .* of 8 channels: .* at most 8"),
        ({"pairwise": "dot_product", "scale": True}, "scale is for the exponent"),
        ({"pairwise": "concatenation", "make_map": False}, "leave make_map=True"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        NonLocalBlock(8, **settings)


@pytest.mark.parametrize(
    ("dims", "shape", "wanted"),
    [
        (1, (2, 8, 4, 4), r"\(N, C, L\) with C = 8"),
        (2, (2, 8, 4), r"\(N, C, H, W\) with C = 8"),
        (2, (2, 7, 4, 4), r"\(N, C, H, W\) with C = 8"),
        (3, (2, 8, 4, 4), r"\(N, C, T, H, W\) with C = 8"),
    ],
)
def test_an_input_of_another_shape_is_refused_with_what_fits(dims, shape, wanted):
    with pytest.raises(mt.engine.ShapeError, match=wanted):
        NonLocalBlock(8, dims=dims)(mt.ones(*shape))


@pytest.mark.parametrize(("dims", "shape"), [(1, (1,)), (2, (4, 1)), (3, (4, 1, 4))])
@pytest.mark.parametrize("subsample", ["after", "before"])
def test_too_few_positions_to_take_half_of_are_refused(dims, shape, subsample):
    module = NonLocalBlock(8, dims=dims, subsample=subsample)
    with pytest.raises(mt.engine.ShapeError, match="at least 2 positions"):
        module(mt.ones(2, 8, *shape))


def test_a_single_frame_can_be_subsampled():
    module = NonLocalBlock(8, dims=3, subsample="after")
    assert module(mt.ones(2, 8, 1, 4, 4)).shape == (2, 8, 1, 4, 4)


def test_it_prints_its_settings_and_parts():
    lines = repr(NonLocalBlock(8, "dot_product", dims=3, subsample="after")).splitlines()
    assert "NonLocalBlock(8, pairwise='dot_product', dims=3, subsample='after')" in lines[0]
    named = [line.split(":")[0].strip() for line in lines if line[2:3] == "("]
    assert named == ["(theta)", "(phi)", "(g)", "(pool)", "(affinity)", "(w_z)", "(bn)"]
    assert "scale=True, make_map=False" in repr(NonLocalBlock(8, scale=True, make_map=False))
