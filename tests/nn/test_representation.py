from minitorch_attn import nn


def test_a_network_prints_its_parts_and_counts_their_parameters():
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Sequential(nn.Flatten(), nn.Linear(1024, 10)),
    )
    assert repr(net) == (
        "Sequential()                                                10,426 parameters\n"
        "  (0): Conv2d(1, 16, kernel_size=3, padding=1, bias=False)     144\n"
        "  (1): BatchNorm2d(16)                                          32\n"
        "  (2): ReLU()\n"
        "  (3): Sequential()                                         10,250\n"
        "    (0): Flatten()\n"
        "    (1): Linear(1024, 10)                                   10,250"
    )


def test_a_layer_prints_as_it_was_made():
    shown = [
        nn.Linear(3, 4, bias=False),
        nn.Embedding(3, 4, padding_idx=0),
        nn.Flatten(2),
        nn.Conv2d(2, 4, (3, 1), stride=(2, 1), padding="valid", dilation=2, groups=2),
        nn.BatchNorm1d(3, eps=0.1, momentum=None, affine=False, track_running_stats=False),
        nn.LayerNorm(3),
        nn.LayerNorm((2, 3), bias=False),
        nn.LayerNorm(3, elementwise_affine=False),
        nn.MaxPool2d(3, stride=2, padding=1, dilation=2, ceil_mode=True),
        nn.MaxPool2d(2),
        nn.AvgPool2d(3, stride=2, count_include_pad=False, divisor_override=4),
        nn.AdaptiveAvgPool2d((1, None)),
        nn.AdaptiveMaxPool2d(1),
        nn.LeakyReLU(),
        nn.ELU(),
        nn.GELU(),
        nn.GELU("tanh"),
        nn.Softplus(),
        nn.Softplus(beta=2.0),
        nn.Softmax(1),
        nn.LogSoftmax(dim=1),
        nn.Dropout(0.1),
    ]
    assert [repr(layer).split("  ")[0] for layer in shown] == [
        "Linear(3, 4, bias=False)",
        "Embedding(3, 4, padding_idx=0)",
        "Flatten(2, -1)",
        "Conv2d(2, 4, kernel_size=(3, 1), stride=(2, 1), padding='valid', dilation=2, groups=2)",
        "BatchNorm1d(3, eps=0.1, momentum=None, affine=False, track_running_stats=False)",
        "LayerNorm(3)",
        "LayerNorm((2, 3), bias=False)",
        "LayerNorm(3, elementwise_affine=False)",
        "MaxPool2d(3, stride=2, padding=1, dilation=2, ceil_mode=True)",
        "MaxPool2d(2)",
        "AvgPool2d(3, stride=2, count_include_pad=False, divisor_override=4)",
        "AdaptiveAvgPool2d((1, None))",
        "AdaptiveMaxPool2d(1)",
        "LeakyReLU(0.01)",
        "ELU(1.0)",
        "GELU()",
        "GELU(approximate='tanh')",
        "Softplus()",
        "Softplus(beta=2.0)",
        "Softmax(dim=1)",
        "LogSoftmax(dim=1)",
        "Dropout(0.1)",
    ]


def test_the_total_says_how_many_are_frozen():
    net = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 1, bias=False))
    net[0].requires_grad_(False)
    assert repr(net).splitlines()[0].endswith("5 parameters, 4 of them frozen")
    assert repr(net[1]) == "Linear(1, 1, bias=False)  1 parameter"


def test_shared_parameters_count_once_in_the_total():
    shared = nn.Linear(2, 2)
    assert repr(nn.Sequential(shared, shared)).splitlines()[0].endswith("6 parameters")
