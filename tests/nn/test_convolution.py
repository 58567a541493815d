import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn

from .parity import compare_modules, normal

torch = pytest.importorskip("torch")
tnn = torch.nn

SIZES = {1: (9,), 2: (7, 6), 3: (5, 6, 4)}
MODES = ["zeros", "reflect", "replicate", "circular"]

every_dimension = pytest.mark.parametrize("dims", [1, 2, 3])


def images(dims, batched=True):
    return normal(*(2,) * batched, 4, *SIZES[dims])


CONVOLUTIONS = {
    "plain": (3,),
    "all by position": (2, 2, 1, 2, 2, False),
    "same": (3, 1, "same"),
    "same, even": (2, 1, "same"),
    "valid": (3, 1, "valid"),
    "depthwise": (3, 1, 1, 1, 4),
}


@every_dimension
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_a_convolution_is_pytorchs(dims, name):
    make = lambda n: getattr(n, f"Conv{dims}d")(4, 8, *CONVOLUTIONS[name])  # noqa: E731
    compare_modules(make(nn), make(tnn), images(dims))
    compare_modules(make(nn), make(tnn), images(dims, batched=False))


@every_dimension
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", [0, 2, "same", "valid", "mixed"])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_a_convolution_pads_by_its_mode_as_in_pytorch(dims, mode, padding):
    padding = (2, 0, 1)[:dims] if padding == "mixed" else padding

    def make(n):
        kind = getattr(n, f"Conv{dims}d")
        return kind(4, 2, (2, 3, 2)[:dims], padding=padding, dilation=2, padding_mode=mode)

    compare_modules(make(nn), make(tnn), images(dims))
    compare_modules(make(nn), make(tnn), images(dims, batched=False))


TRANSPOSED = {
    "plain": (3,),
    "all by position": (3, 2, 1, 1, 2, False, 2),
    "output padding by dilation": (2, 1, 0, 1, 1, True, 3),
    "depthwise": (3, 2, 1, 0, 4),
}


@every_dimension
@pytest.mark.parametrize("name", TRANSPOSED)
def test_a_transposed_convolution_is_pytorchs(dims, name):
    make = lambda n: getattr(n, f"ConvTranspose{dims}d")(4, 8, *TRANSPOSED[name])  # noqa: E731
    compare_modules(make(nn), make(tnn), images(dims))
    compare_modules(make(nn), make(tnn), images(dims, batched=False))


@every_dimension
@pytest.mark.parametrize("more", [0, 1, 2])
def test_an_output_size_chooses_among_those_possible(dims, more):
    make = lambda n: getattr(n, f"ConvTranspose{dims}d")(4, 3, 3, 3, 1)  # noqa: E731
    ours, theirs = make(nn), make(tnn)
    ours.load_state_dict({name: t.numpy() for name, t in theirs.state_dict().items()})
    x = images(dims).astype("float32")
    size = tuple((n - 1) * 3 + 1 + more for n in SIZES[dims])
    for asked in (size, list(size), (2, 3, *size)):
        y, expected = ours(mt.tensor(x), asked), theirs(torch.tensor(x), asked).detach().numpy()
        assert y.shape == (2, 3, *size)
        np.testing.assert_allclose(y.numpy(), expected, atol=1e-5)
    assert ours(mt.tensor(x[0]), (3, *size)).shape == (3, *size)


def test_an_output_size_takes_the_place_of_the_output_padding():
    layer = nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1)
    x = mt.zeros(2, 4, 5, 6)
    assert layer(x).shape == (2, 3, 10, 12)
    assert layer(x, output_size=(9, 11)).shape == (2, 3, 9, 11)


@pytest.mark.parametrize("size", [(8, 12), (9, 13), (2, 3, 11, 12)])
def test_an_impossible_output_size_is_answered_with_the_possible_ones(size):
    layer = nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1)
    with pytest.raises(
        mt.ShapeError, match="ConvTranspose2d: of images of 5x6 .* from 9x11 to 10x12"
    ):
        layer(mt.zeros(2, 4, 5, 6), output_size=size)
    with pytest.raises(ValueError, match="output_size must be .*, or two of them"):
        layer(mt.zeros(2, 4, 5, 6), output_size=(3, 9, 12))


@pytest.mark.parametrize(
    "make",
    [
        lambda n: n.Conv1d(16, 24, 5),
        lambda n: n.Conv3d(8, 12, 2, groups=2),
        lambda n: n.ConvTranspose1d(12, 32, 3),
        lambda n: n.ConvTranspose2d(16, 24, 3, groups=2),
    ],
)
def test_first_values_are_uniform_within_pytorchs_bounds(make):
    for name, theirs in make(tnn).state_dict().items():
        ours = np.concatenate([make(nn).state_dict()[name].numpy().ravel() for _ in range(30)])
        drawn = torch.cat([make(tnn).state_dict()[name].ravel() for _ in range(30)]).numpy()
        assert make(nn).state_dict()[name].shape == tuple(theirs.shape)
        assert abs(ours).max() == pytest.approx(abs(drawn).max(), rel=0.03)
        assert ours.std() == pytest.approx(abs(drawn).max() / 3**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("layer", "shown"),
    [
        (nn.Conv1d(2, 4, 3), "Conv1d(2, 4, kernel_size=3)"),
        (
            nn.Conv3d(2, 4, (1, 3, 3), padding="same", padding_mode="circular"),
            "Conv3d(2, 4, kernel_size=(1, 3, 3), padding='same', padding_mode='circular')",
        ),
        (
            nn.ConvTranspose2d(2, 4, 3, 2, 1, 1, 2, False),
            "ConvTranspose2d(2, 4, kernel_size=3, stride=2, padding=1, groups=2, bias=False, "
            "output_padding=1)",
        ),
        (nn.Unfold(3), "Unfold(3)"),
        (nn.Unfold((3, 2), stride=2), "Unfold((3, 2), stride=2)"),
        (nn.Fold((4, 5), 2, padding=1), "Fold((4, 5), 2, padding=1)"),
    ],
)
def test_a_layer_is_printed_as_it_could_be_made(layer, shown):
    assert repr(layer).startswith(shown)
    assert repr(eval(f"nn.{shown}")) == repr(layer)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv1d(4, 4, 3, padding=(1, 1)), "Conv1d: padding must be an integer"),
        (lambda: nn.Conv2d(4, 4, 3, padding="full"), "Conv2d: padding is integers, 'same'"),
        (lambda: nn.Conv3d(4, 4, 3, 2, "same"), "Conv3d: padding='same' needs stride 1"),
        (
            lambda: nn.Conv2d(4, 4, 3, padding_mode="mirror"),
            "Conv2d: padding_mode is one of zeros, reflect, replicate, circular, not 'mirror'",
        ),
        (
            lambda: nn.ConvTranspose2d(4, 4, 3, padding_mode="reflect"),
            "ConvTranspose2d: padding_mode is 'zeros' alone, not 'reflect'",
        ),
        (lambda: nn.ConvTranspose2d(4, 4, 3, padding="same"), "ConvTranspose2d: padding must be"),
        (lambda: nn.ConvTranspose1d(4, 4, 3, output_padding=-1), "ConvTranspose1d: output_padding"),
        (lambda: nn.ConvTranspose3d(4, 6, 3, groups=4), "ConvTranspose3d: groups=4 must divide"),
        (lambda: nn.Conv2d("3", 4, 3), "Conv2d: in_channels must be an integer of at least 0"),
        (lambda: nn.Conv2d(3, -4, 3), "Conv2d: out_channels must be an integer of .* not -4"),
        (lambda: nn.Conv2d(3, 4, 3, groups="1"), "Conv2d: groups must be an integer of .* not '1'"),
        (lambda: nn.ConvTranspose3d(4, 6, (3, 3)), "ConvTranspose3d: kernel_size must be"),
    ],
)
def test_a_layer_that_cannot_be_is_refused_when_it_is_made(make, message):
    with pytest.raises(ValueError, match="^" + message):
        make()


@pytest.mark.parametrize("options", [{}, {"dilation": 2, "padding": (1, 2), "stride": (2, 1)}])
def test_unfold_and_fold_are_pytorchs(options):
    make = lambda n: n.Unfold((2, 3), **options)  # noqa: E731
    compare_modules(make(nn), make(tnn), images(2))
    columns = normal(*make(nn)(images(2)).shape)
    make = lambda n: n.Fold(SIZES[2], (2, 3), **options)  # noqa: E731
    compare_modules(make(nn), make(tnn), columns)
    compare_modules(make(nn), make(tnn), columns[0])
