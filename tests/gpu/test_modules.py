"""Every module on a GPU: the same outputs, gradients and buffers as on the CPU, and no waiting."""

import copy

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import attention, models, nn
from minitorch_attn.attention.non_local_means import non_local_means, non_local_weights
from minitorch_attn.models.seq2seq import Decoder, Encoder

from ..attention.test_arguments import MODULES as ON_IMAGES

TOLERANCE = {"float32": 2e-4, "float64": 1e-9}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


IMAGES, MAPS = normal(2, 6, 8, 8), normal(2, 16, 8, 8)
TOKENS, MEMORY = normal(2, 5, 8), normal(2, 7, 8, seed=1)
HIDDEN = np.arange(7) > np.array([[6], [4]])  # the padding of MEMORY
CLASSES, TEXT = np.array([1, 0, 2, 2]), np.array([[1, 4, 5, 6], [1, 3, 2, 0]])
LINES = {1: normal(2, 6, 10), 2: normal(2, 6, 8, 10), 3: normal(2, 6, 4, 4, 6)}


def of_dimensions(name, *settings, **options):
    """A layer for sequences, images and volumes, under its three names."""
    return {
        f"{name}{n}d": (lambda n=n: getattr(nn, f"{name}{n}d")(*settings, **options), [LINES[n]])
        for n in (1, 2, 3)
    }


class Unpool(nn.Module):
    """Max pooling, and the way back with its places."""

    def __init__(self, dims):
        super().__init__()
        self.pool = getattr(nn, f"MaxPool{dims}d")(2, return_indices=True)
        self.unpool = getattr(nn, f"MaxUnpool{dims}d")(2)

    def forward(self, x):
        return self.unpool(*self.pool(x))


class Packed(nn.Module):
    """A recurrent layer on sequences of different lengths."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        packed = nn.pack_padded_sequence(x, [5, 3], batch_first=True)
        y, state = self.layer(packed)
        return nn.pad_packed_sequence(y, batch_first=True)[0], state


class Call(nn.Module):
    """A module called with more than its inputs; arrays move with it, as its buffers."""

    def __init__(self, module, **options):
        super().__init__()
        self.module, self.options = module, options
        self.arrays = [name for name, value in options.items() if isinstance(value, np.ndarray)]
        for name in self.arrays:
            self.register_buffer(name, mt.tensor(options[name]))

    def forward(self, *inputs):
        options = self.options | {name: getattr(self, name) for name in self.arrays}
        return self.module(*inputs, **options)


def layer(kind, **options):
    return kind(8, 2, 12, dropout=0.0, batch_first=True, **options)


# What each module is made by, and its inputs: floats have gradients.
LAYERS = {
    **of_dimensions("Conv", 6, 4, 3, padding=1, groups=2),
    **of_dimensions("ConvTranspose", 6, 4, 3, stride=2),
    **of_dimensions("MaxPool", 3, 2, padding=1),
    **of_dimensions("AvgPool", 3, 2, padding=1),
    **of_dimensions("LPPool", 2, 3),
    **of_dimensions("AdaptiveAvgPool", 3),
    **of_dimensions("AdaptiveMaxPool", 3),
    **{f"MaxUnpool{n}d": (lambda n=n: Unpool(n), [LINES[n]]) for n in (1, 2, 3)},
    **of_dimensions("BatchNorm", 6),
    **of_dimensions("InstanceNorm", 6, affine=True),
    **of_dimensions("ConstantPad", 1, 0.5),
    **of_dimensions("ZeroPad", 1),
    **of_dimensions("ReflectionPad", 1),
    **of_dimensions("ReplicationPad", 1),
    **of_dimensions("CircularPad", 1),
    **{
        name: (getattr(nn, name), [IMAGES])
        for name in (
            *("ELU", "GELU", "Hardsigmoid", "Hardswish", "Identity", "LeakyReLU", "LogSigmoid"),
            *("ReLU", "ReLU6", "SiLU", "Sigmoid", "Softplus", "Tanh", "Flatten"),
        )
    },
    "Softmax": (lambda: nn.Softmax(dim=1), [IMAGES]),
    "LogSoftmax": (lambda: nn.LogSoftmax(dim=1), [IMAGES]),
    "MaskedSoftmax": (lambda: Call(nn.MaskedSoftmax(), mask=HIDDEN[:, None]), [normal(2, 5, 7)]),
    "Linear": (lambda: nn.Linear(8, 3), [TOKENS]),
    "Embedding": (lambda: nn.Embedding(7, 4, padding_idx=0), [TEXT]),
    "Dropout": (lambda: nn.Dropout(0.0), [IMAGES]),
    "Dropout2d": (lambda: nn.Dropout2d(0.0), [IMAGES]),
    "GroupNorm": (lambda: nn.GroupNorm(3, 6), [IMAGES]),
    "LayerNorm": (lambda: nn.LayerNorm(8), [TOKENS]),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(3), [IMAGES]),
    "Unfold": (lambda: nn.Unfold(3, padding=1), [IMAGES]),
    "Fold": (lambda: nn.Fold((6, 6), 3, stride=3), [normal(2, 18, 4)]),
    "PixelShuffle": (lambda: nn.PixelShuffle(2), [MAPS]),
    "PixelUnshuffle": (lambda: nn.PixelUnshuffle(2), [IMAGES]),
    "ChannelShuffle": (lambda: nn.ChannelShuffle(3), [IMAGES]),
    "Upsample": (lambda: nn.Upsample(scale_factor=2, mode="bicubic"), [IMAGES]),
    "UpsamplingNearest2d": (lambda: nn.UpsamplingNearest2d(scale_factor=2), [IMAGES]),
    "UpsamplingBilinear2d": (lambda: nn.UpsamplingBilinear2d(size=(11, 5)), [IMAGES]),
    "CosineSimilarity": (nn.CosineSimilarity, [normal(4, 5), normal(4, 5, seed=1)]),
    "PairwiseDistance": (nn.PairwiseDistance, [normal(4, 5), normal(4, 5, seed=1)]),
    "RNN": (lambda: Packed(nn.RNN(8, 3, batch_first=True)), [TOKENS]),
    "GRU": (lambda: Packed(nn.GRU(8, 3, 2, batch_first=True)), [TOKENS]),
    "LSTM": (lambda: Packed(nn.LSTM(8, 3, bidirectional=True, batch_first=True)), [TOKENS]),
    "RNNCell": (lambda: nn.RNNCell(5, 3), [normal(4, 5)]),
    "GRUCell": (lambda: nn.GRUCell(5, 3), [normal(4, 5), normal(4, 3)]),
    "LSTMCell": (lambda: nn.LSTMCell(5, 3), [normal(4, 5)]),
    "SinusoidalEncoding": (lambda: nn.SinusoidalEncoding(8, 9), [TOKENS]),
    "LearnedEncoding": (lambda: nn.LearnedEncoding(8, 9), [TOKENS]),
    "RotaryEncoding": (lambda: nn.RotaryEncoding(8), [TOKENS]),
    "MultiheadAttention": (
        lambda: Call(nn.MultiheadAttention(8, 2, batch_first=True), key_padding_mask=HIDDEN),
        [TOKENS, MEMORY, MEMORY],
    ),
    "TransformerEncoderLayer": (lambda: layer(nn.TransformerEncoderLayer), [TOKENS]),
    "TransformerDecoderLayer": (
        lambda: Call(layer(nn.TransformerDecoderLayer), memory_key_padding_mask=HIDDEN),
        [TOKENS, MEMORY],
    ),
    "TransformerEncoder": (
        lambda: nn.TransformerEncoder(layer(nn.TransformerEncoderLayer), 2, nn.LayerNorm(8)),
        [TOKENS],
    ),
    "TransformerDecoder": (
        lambda: nn.TransformerDecoder(layer(nn.TransformerDecoderLayer, norm_first=True), 2),
        [TOKENS, MEMORY],
    ),
    "Transformer": (
        lambda: nn.Transformer(8, 2, 1, 1, 12, dropout=0.0, batch_first=True),
        [MEMORY, TOKENS],
    ),
    "L1Loss": (nn.L1Loss, [normal(4, 3), normal(4, 3, seed=1)]),
    "MSELoss": (nn.MSELoss, [normal(4, 3), normal(4, 3, seed=1)]),
    "SmoothL1Loss": (nn.SmoothL1Loss, [normal(4, 3), normal(4, 3, seed=1)]),
    "CrossEntropyLoss": (lambda: nn.CrossEntropyLoss(label_smoothing=0.1), [normal(4, 3), CLASSES]),
    "BCEWithLogitsLoss": (nn.BCEWithLogitsLoss, [normal(4, 3), (normal(4, 3, seed=1) > 0) * 1.0]),
    "TripletMarginLoss": (nn.TripletMarginLoss, [normal(4, 3, seed=i) for i in range(3)]),
    "BatchHardTripletLoss": (nn.BatchHardTripletLoss, [normal(4, 3), np.array([0, 0, 1, 1])]),
    "Sequential": (lambda: nn.Sequential(nn.Linear(8, 3), nn.ReLU()), [TOKENS]),
}
NO_LAYERS = {"Module", "ModuleDict", "ModuleList", "PackedSequence", "Parameter"}

MECHANISMS = {
    **{name: (make, [abs(MAPS)]) for name, make in ON_IMAGES.items()},
    "AdditiveAttention": (
        lambda: Call(attention.AdditiveAttention(8, 8, 6), mask=~HIDDEN),
        [normal(2, 8), MEMORY],
    ),
    "MultiplicativeAttention": (
        lambda: Call(attention.MultiplicativeAttention(8, 8), mask=~HIDDEN),
        [normal(2, 8), MEMORY],
    ),
    "LinearAttention": (
        lambda: attention.LinearAttention(is_causal=True),
        [TOKENS, TOKENS, TOKENS],
    ),
    "MultiheadAttention": LAYERS["MultiheadAttention"],
    "ScaledDotProductAttention": (
        attention.ScaledDotProductAttention,
        [TOKENS, MEMORY, MEMORY],
    ),
    "DualAttentionHead": (
        lambda: attention.DualAttentionHead(16, 3, 2, dropout=0.0, query_reduction=2),
        [MAPS],
    ),
    "RegionalAttention": (lambda: attention.RegionalAttention(8, 6), [MEMORY, normal(2, 8)]),
    "ResidualAttentionModule": (
        lambda: attention.ResidualAttentionModule(16, lambda C: nn.Conv2d(C, C, 3, padding=1)),
        [MAPS],
    ),
    "SCAAttention": (lambda: attention.SCAAttention(16, 8, 6), [MAPS, normal(2, 8)]),
    "BAM, trained": (lambda: attention.BAM(16, 4, dilation=1), [MAPS]),
    "NonLocalBlock, in tiles": (lambda: attention.NonLocalBlock(16, make_map=False), [MAPS]),
}


def captioner():
    look = models.SoftAttention(16, 6, 5)
    return models.Captioner(nn.Conv2d(16, 16, 3), models.CaptionDecoder(7, 5, 6, 16, look))


def seq2seq():
    decoder = Decoder(7, 3, 4, 8, attention.AdditiveAttention(4, 8, 5))
    return Call(models.Seq2Seq(Encoder(7, 3, 4), decoder), source_lengths=[4, 3])


NETWORKS = {
    "CifarResNet with squeeze and excitation": (
        lambda: models.cifar_resnet(
            8, in_channels=6, attention=lambda C: attention.SqueezeExcitation(C, 4)
        ),
        [IMAGES],
    ),
    "ResNet": (
        lambda: models.ResNet(models.BasicBlock, (1, 1, 1, 1), 3, in_channels=6),
        [normal(2, 6, 40, 40)],
    ),
    "DenseNet": (
        lambda: models.DenseNet((2, 2), 4, 3, 6, stem_channels=8, small_images=True),
        [IMAGES],
    ),
    "VisionTransformer": (
        lambda: models.VisionTransformer(
            8, 4, layers=1, features=8, heads=2, hidden=12, num_classes=3, in_channels=6
        ),
        [IMAGES],
    ),
    "Captioner": (captioner, [normal(2, 16, 5, 5), TEXT]),
    "Seq2Seq": (seq2seq, [TEXT, TEXT]),
}


def numbers(value):
    """All tensors in a module's output, in order."""
    if isinstance(value, mt.Tensor):
        return [value]
    return [x for part in value for x in numbers(part)] if isinstance(value, tuple) else []


def computed(module, inputs, dtype, device):
    """By name: outputs, gradients of inputs and parameters, and buffers, as arrays of the host."""
    module = copy.deepcopy(module).to(dtype).to(device)
    tensors = [mt.tensor(x, dtype if x.dtype.kind == "f" else x.dtype) for x in inputs]
    tensors = [x.to(device) for x in tensors]
    floats = [x.requires_grad_() for x in tensors if x.dtype.kind == "f"]
    outputs = numbers(module(*tensors))
    total = sum(
        (y * mt.tensor(normal(*y.shape, seed=i), dtype).to(device)).sum()
        for i, y in enumerate(outputs)
    )
    total.backward()
    found = {f"output {i}": y.detach() for i, y in enumerate(outputs)}
    found |= {f"gradient of input {i}": x.grad for i, x in enumerate(floats)}
    found |= {f"gradient of {name}": p.grad for name, p in module.named_parameters()}
    found |= dict(module.named_buffers())
    assert all(x is None or x.device == device for x in found.values())
    return {name: None if x is None else x.cpu().numpy() for name, x in found.items()}


def compare(module, inputs, dtype):
    ours, theirs = (computed(module, inputs, dtype, device) for device in ("cpu", "cuda"))
    assert ours.keys() == theirs.keys()
    # A bias before a batch normalisation has no gradient but what roundings leave of others.
    largest = max(abs(x).max(initial=1) for x in ours.values() if x is not None)
    for name, expected in ours.items():
        if expected is None:
            assert theirs[name] is None, name
            continue
        assert theirs[name].dtype == expected.dtype, name
        atol = TOLERANCE[dtype] * largest
        np.testing.assert_allclose(theirs[name], expected, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(card, name):
    make, inputs = LAYERS[name]
    mt.manual_seed(0)
    compare(make(), inputs, "float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MECHANISMS)
def test_mechanisms(card, name, dtype):
    make, inputs = MECHANISMS[name]
    mt.manual_seed(0)
    compare(make(), inputs, dtype)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(card, name):
    make, inputs = NETWORKS[name]
    mt.manual_seed(0)
    compare(make(), inputs, "float64")


def test_non_local_means_of_an_array_on_the_device(card):
    image, settings = abs(normal(3, 12, 14)), {"h": 0.5, "patch_size": 3, "search_size": 5}
    there = mt.tensor(image).to("cuda").data
    for function, more in ((non_local_means, ()), (non_local_weights, ((4, 7),))):
        found = mt.as_tensor(function(there, *more, **settings))
        assert found.device == "cuda"
        expected = function(image, *more, **settings)
        np.testing.assert_allclose(found.cpu().numpy(), expected, rtol=1e-10)


def test_no_module_is_left_out():
    rooms = ((nn, LAYERS | dict.fromkeys(NO_LAYERS)), (attention, MECHANISMS))
    for room, tried in rooms:
        kinds = {name for name in room.__all__ if isinstance(getattr(room, name), type)}
        assert kinds <= tried.keys(), kinds - tried.keys()


# Those that look at their inputs' values before they compute: one question each.
ASKING = {"CroW"}


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_host_waits_for_no_mechanism(card, name):
    if card is None:
        pytest.skip("the simulated card counts")
    make, inputs = MECHANISMS[name]
    module = make().to("cuda")
    tensors = [mt.tensor(x, "float32").to("cuda").requires_grad_() for x in inputs]
    for _ in range(2):  # some tables are copied to the device at the first call
        card.reset()
        sum(y.sum() for y in numbers(module(*tensors))).backward()
    waits = card.to_host + card.to_device + card.synchronisations
    assert waits == 0 or name in ASKING, card
