import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn

from .parity import compare_modules, normal

torch = pytest.importorskip("torch")
tnn = torch.nn

IMAGES = normal(4, 6, 7, 5)
ROWS = normal(5, 3)
TOKENS = normal(2, 4, 3)

LAYERS = {
    "linear": (lambda n: n.Linear(3, 4), ROWS),
    "linear of tokens": (lambda n: n.Linear(3, 4, bias=False), TOKENS),
    "flatten": (lambda n: n.Flatten(), IMAGES),
    "flatten pixels": (lambda n: n.Flatten(2), IMAGES),
    "identity": (lambda n: n.Identity(), ROWS),
    "conv": (lambda n: n.Conv2d(6, 4, 3), IMAGES),
    "conv with all settings": (
        lambda n: n.Conv2d(6, 4, (3, 2), (2, 1), (2, 1), (2, 1), 2, False),
        IMAGES,
    ),
    "conv, same": (lambda n: n.Conv2d(6, 4, 3, padding="same"), IMAGES),
    "depthwise": (lambda n: n.Conv2d(6, 12, 3, padding=1, groups=6), IMAGES),
    "batch norm": (lambda n: n.BatchNorm2d(6), IMAGES),
    "batch norm with all settings": (lambda n: n.BatchNorm2d(6, 1e-3, 0.3, False), IMAGES),
    "batch norm, average": (lambda n: n.BatchNorm2d(6, momentum=None), IMAGES),
    "batch norm, untracked": (lambda n: n.BatchNorm2d(6, track_running_stats=False), IMAGES),
    "batch norm of rows": (lambda n: n.BatchNorm1d(3), ROWS),
    "batch norm of sequences": (lambda n: n.BatchNorm1d(4), TOKENS),
    "layer norm": (lambda n: n.LayerNorm(3), TOKENS),
    "layer norm of two axes": (lambda n: n.LayerNorm((4, 3), eps=1e-3), TOKENS),
    "layer norm, no bias": (lambda n: n.LayerNorm(3, bias=False), TOKENS),
    "layer norm, plain": (lambda n: n.LayerNorm(3, elementwise_affine=False), TOKENS),
    "max pool": (lambda n: n.MaxPool2d(2), IMAGES),
    "max pool with all settings": (lambda n: n.MaxPool2d((3, 2), 2, 1, ceil_mode=True), IMAGES),
    "max pool, dilated": (lambda n: n.MaxPool2d(2, stride=1, dilation=2), IMAGES),
    "avg pool": (lambda n: n.AvgPool2d(2), IMAGES),
    "avg pool with all settings": (lambda n: n.AvgPool2d(4, 2, 1, True, False), IMAGES),
    "avg pool, divisor": (lambda n: n.AvgPool2d(3, divisor_override=2), IMAGES),
    "adaptive avg pool": (lambda n: n.AdaptiveAvgPool2d((3, None)), IMAGES),
    "adaptive max pool": (lambda n: n.AdaptiveMaxPool2d(2), IMAGES),
    "relu": (lambda n: n.ReLU(), ROWS),
    "relu6": (lambda n: n.ReLU6(), 5 * ROWS),
    "leaky relu": (lambda n: n.LeakyReLU(0.2), ROWS),
    "elu": (lambda n: n.ELU(0.7), ROWS),
    "gelu": (lambda n: n.GELU(), ROWS),
    "gelu by tanh": (lambda n: n.GELU("tanh"), ROWS),
    "silu": (lambda n: n.SiLU(), ROWS),
    "sigmoid": (lambda n: n.Sigmoid(), ROWS),
    "tanh": (lambda n: n.Tanh(), ROWS),
    "softplus": (lambda n: n.Softplus(2.0, 1.0), ROWS),
    "log sigmoid": (lambda n: n.LogSigmoid(), ROWS),
    "hard swish": (lambda n: n.Hardswish(), 4 * ROWS),
    "softmax": (lambda n: n.Softmax(dim=1), ROWS),
    "log softmax": (lambda n: n.LogSoftmax(dim=0), ROWS),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_gives_pytorchs_output_gradients_and_buffers(name, training):
    make, x = LAYERS[name]
    compare_modules(make(nn), make(tnn), x, training=training)


def test_hard_sigmoid_is_a_sigmoid_of_straight_lines():
    # PyTorch's float64 gradient has a slope of 1/6 rounded to float32: no parity to ask for.
    x = mt.tensor(4 * ROWS, requires_grad=True)
    y = nn.Hardsigmoid()(x)
    np.testing.assert_allclose(y.numpy(), np.clip(4 * ROWS / 6 + 0.5, 0, 1), rtol=0, atol=1e-15)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), (np.abs(4 * ROWS) < 3) / 6, rtol=0, atol=1e-15)


def test_embedding_looks_up_rows_and_never_trains_the_padding():
    make = lambda n: n.Embedding(5, 3, padding_idx=1)  # noqa: E731
    compare_modules(make(nn), make(tnn), np.array([[0, 4, 4], [1, 2, 0]]))
    assert (make(nn).weight.numpy()[1] == 0).all()


LOSSES = {
    "mse": (lambda n: n.MSELoss(), ROWS, normal(5, 3, seed=1)),
    "mse, sum": (lambda n: n.MSELoss(reduction="sum"), ROWS, normal(5, 3, seed=1)),
    "l1": (lambda n: n.L1Loss(), ROWS, normal(5, 3, seed=1)),
    "smooth l1": (lambda n: n.SmoothL1Loss(beta=0.5), ROWS, normal(5, 3, seed=1)),
    "cross entropy": (lambda n: n.CrossEntropyLoss(), ROWS, np.array([0, 2, 1, 1, 0])),
    "cross entropy with all settings": (
        lambda n: n.CrossEntropyLoss(ignore_index=1, reduction="none", label_smoothing=0.1),
        ROWS,
        np.array([0, 2, 1, 1, 0]),
    ),
    "binary cross entropy": (
        lambda n: n.BCEWithLogitsLoss(),
        ROWS,
        np.random.default_rng(0).uniform(size=(5, 3)),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_pytorchs(name):
    make, scores, target = LOSSES[name]
    compare_modules(make(nn), make(tnn), scores, target)


def test_the_triplet_loss_is_pytorchs():
    triplets = ROWS, normal(5, 3, seed=1), normal(5, 3, seed=2)
    for settings in ({}, {"margin": 0.2, "p": 1.0, "eps": 0.1, "swap": True, "reduction": "sum"}):
        make = lambda n: n.TripletMarginLoss(**settings)  # noqa: B023, E731
        compare_modules(make(nn), make(tnn), *triplets)


def test_class_weights_of_a_loss_are_buffers_that_move_with_it():
    weight = np.array([1.0, 2.0, 0.5])
    ours = nn.CrossEntropyLoss(mt.tensor(weight))
    theirs = tnn.CrossEntropyLoss(torch.tensor(weight))
    compare_modules(ours, theirs, ROWS, np.array([0, 2, 1, 1, 0]))
    ours = nn.BCEWithLogitsLoss(weight=mt.tensor(weight), pos_weight=mt.tensor(weight))
    theirs = tnn.BCEWithLogitsLoss(torch.tensor(weight), pos_weight=torch.tensor(weight))
    compare_modules(ours, theirs, ROWS, np.random.default_rng(0).uniform(size=(5, 3)))


def test_running_statistics_follow_several_batches_as_in_pytorch():
    for momentum in (0.1, None):
        ours, theirs = nn.BatchNorm2d(6, momentum=momentum), tnn.BatchNorm2d(6, momentum=momentum)
        for seed in range(5):
            x = normal(4, 6, 3, 3, seed=seed).astype("float32")
            ours(mt.tensor(x))
            theirs(torch.tensor(x))
        for name, value in theirs.state_dict().items():
            np.testing.assert_allclose(ours.state_dict()[name].numpy(), value, rtol=1e-5, atol=1e-6)


def test_evaluation_leaves_running_statistics_alone():
    layer = nn.BatchNorm2d(6).eval()
    before = layer.state_dict()
    layer(mt.tensor(IMAGES))
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name].numpy())


def test_dropout_drops_in_training_only_and_repeats_with_the_seed():
    layer, x = nn.Dropout(0.25), mt.ones(10_000)
    assert layer.eval()(x) is x
    mt.manual_seed(0)
    first = layer.train()(x).numpy()
    assert abs((first == 0).mean() - 0.25) < 0.02
    np.testing.assert_allclose(first[first > 0], 1 / 0.75, rtol=1e-6)
    mt.manual_seed(0)
    np.testing.assert_array_equal(layer(x).numpy(), first)
    with pytest.raises(ValueError, match="Dropout: p is a probability, from 0 to 1, not 2"):
        nn.Dropout(2)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: n.Linear(50, 40),
        lambda n: n.Conv2d(16, 24, 3, groups=2),
        lambda n: n.Embedding(100, 30),
    ],
    ids=["linear", "conv", "embedding"],
)
def test_first_values_are_distributed_as_in_pytorch(make):
    mt.manual_seed(0)
    torch.manual_seed(0)
    ours = [make(nn).state_dict() for _ in range(100)]
    theirs = [make(tnn).state_dict() for _ in range(100)]
    for name in theirs[0]:
        a = np.concatenate([state[name].numpy().ravel() for state in ours])
        b = np.concatenate([state[name].numpy().ravel() for state in theirs])
        shares = np.linspace(0.02, 0.98, 25)
        spread = b.std()
        np.testing.assert_allclose(
            np.quantile(a, shares) / spread, np.quantile(b, shares) / spread, atol=0.15
        )
        assert abs(a.std() / spread - 1) < 0.1 and abs(a.mean()) < 0.1 * spread


def test_parameters_come_in_the_default_dtype():
    assert {p.dtype for p in nn.Conv2d(2, 3, 3).parameters()} == {np.dtype("float32")}
    mt.set_default_dtype("float64")
    try:
        layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.LayerNorm(2))
        assert {p.dtype for p in layers.parameters()} == {np.dtype("float64")}
        assert layers.get_submodule("1").running_var.dtype == np.float64
    finally:
        mt.set_default_dtype("float32")


def test_the_same_seed_gives_the_same_weights_in_either_dtype():
    mt.manual_seed(3)
    single = nn.Linear(4, 5).weight.numpy()
    mt.set_default_dtype("float64")
    try:
        mt.manual_seed(3)
        double = nn.Linear(4, 5).weight.numpy()
    finally:
        mt.set_default_dtype("float32")
    np.testing.assert_array_equal(single, double.astype("float32"))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (5, 3)),
        (nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()), (2, 2, 4, 3)),
        (nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.GELU()), (2, 3, 4)),
    ],
    ids=["perceptron", "convolution", "transformer"],
)
def test_layers_put_together_pass_the_gradient_check(layer, shape):
    report = mt.gradcheck(layer.double(), normal(*shape))
    assert len(report.inputs) == 1 + len(list(layer.parameters()))


def test_a_layer_names_the_shape_it_needs():
    with pytest.raises(
        mt.ShapeError,
        match=r"BatchNorm2d: needs an input \(N, C, H, W\) with C = 6 channels, got \(2, 3\) "
        r"\(in layer BatchNorm2d: BatchNorm2d\(6\)\)",
    ):
        nn.BatchNorm2d(6)(mt.ones(2, 3))
    with pytest.raises(mt.ShapeError, match="groups=4 must divide in_channels=6"):
        nn.Conv2d(6, 8, 3, groups=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel_size": (3, 3, 5)}, "Conv2d: kernel_size must be an integer of at least 1"),
        ({"stride": 0}, "Conv2d: stride must be an integer of at least 1"),
        ({"padding": -1}, "Conv2d: padding must be an integer of at least 0"),
        ({"dilation": 1.5}, "Conv2d: dilation must be an integer of at least 1"),
        ({"groups": 0}, "Conv2d: groups must be an integer of at least 1, not 0"),
    ],
)
def test_a_convolution_that_cannot_be_is_refused_when_it_is_made(settings, message):
    with pytest.raises(ValueError, match=message):
        nn.Conv2d(2, 2, **{"kernel_size": 3} | settings)


def test_numpys_integers_are_sizes():
    assert nn.Conv2d(1, 1, np.int64(3), stride=np.int64(2)).kernel_size == (3, 3)


@pytest.mark.parametrize(
    "name", ["ReLU", "ReLU6", "LeakyReLU", "ELU", "SiLU", "Hardsigmoid", "Hardswish"]
)
def test_inplace_is_taken_and_overwrites_nothing(name):
    kind = getattr(nn, name)
    x = normal(3, 4)
    before = x.copy()
    y = kind(inplace=True)(mt.as_tensor(x))
    np.testing.assert_array_equal(y.numpy(), kind()(mt.as_tensor(x)).numpy())
    np.testing.assert_array_equal(x, before)
    assert repr(kind(inplace=True)) == repr(kind())
    assert repr(nn.Dropout(0.3, inplace=True)) == "Dropout(0.3)"
