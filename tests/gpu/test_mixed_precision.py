"""Whole networks in mixed precision on a card: the CPU's numbers, in half precision all the way."""

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import models, nn, optim
from minitorch_attn.amp import GradScaler


class Classifier(nn.Module):
    """A Transformer's encoder layer, and a linear one on the mean of its tokens."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        return self.fc(self.encoder(x).mean(dim=1))


class Reader(nn.Module):
    """A recurrent layer, and a linear one on its last state."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(16, 8, batch_first=True)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.rnn(x)[0][:, -1])


NETWORKS = {
    "SE-ResNet": (lambda: models.se_resnet(5, 3, widths=(8, 8, 16), reduction=2), (8, 3, 8, 8)),
    "Transformer": (Classifier, (8, 6, 16)),
    "LSTM": (Reader, (8, 6, 16)),
}


def types_of_layers(net):
    """Filled by every forward pass: which dtype each kind of layer gave."""
    found = {}

    def note(module, inputs, output):
        if isinstance(output, mt.Tensor):
            found.setdefault(type(module).__name__, set()).add(str(output.dtype))

    for module in net.modules():
        module.register_forward_hook(note)
    return found


def trained(network, device, precision, steps=3, watch=None):
    """Losses and types; and how often a step waits for the card."""
    make, shape = NETWORKS[network]
    rng = np.random.default_rng(0)
    x = mt.tensor(rng.standard_normal(shape), dtype="float32", device=device)
    y = mt.tensor(rng.integers(0, 5, shape[0]), device=device)
    mt.manual_seed(0)
    net = make().to(device)
    found = types_of_layers(net)
    optimizer = optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    scaler = GradScaler(init_scale=1024.0, enabled=precision == "float16")
    losses = []
    for _ in range(steps):
        before = watch.synchronisations if watch else 0
        optimizer.zero_grad()
        with mt.autocast(precision):
            loss = F.cross_entropy(net(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss)
    waits = watch.synchronisations - before if watch else None
    assert all(p.grad.dtype == p.dtype == np.float32 for p in net.parameters())
    assert all(loss.dtype == np.float32 for loss in losses)
    return [loss.item() for loss in losses], found, waits


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("network", NETWORKS)
def test_training_in_mixed_precision_gives_about_the_cpus_losses(card, network, precision):
    if precision == "bfloat16":
        pytest.importorskip("ml_dtypes")
    here, types_here, _ = trained(network, "cpu", precision)
    there, types_there, waits = trained(network, "cuda", precision, watch=card)
    assert there == pytest.approx(here, rel=2e-2 if precision == "float16" else 0.1)
    assert types_there == types_here
    if card is not None:
        assert waits == (1 if precision == "float16" else 0)
    if network == "SE-ResNet":
        layers = ("Conv2d", "BatchNorm2d", "Linear")
        assert {name: types_there[name] for name in layers} == dict.fromkeys(layers, {precision})


def test_the_gpus_kernels_are_given_half_precision_as_it_is(card, monkeypatch):
    """No layer of the network widens its inputs before a kernel of its own reads them."""
    from minitorch_attn.engine import kernels

    seen, launch = {}, kernels.Kernel.__call__

    def noted(kernel, grid, block, *arguments, **constants):
        if "T" in constants:
            seen.setdefault(kernel.name, set()).add(kernels.c_constant(constants["T"]))
        return launch(kernel, grid, block, *arguments, **constants)

    monkeypatch.setattr(kernels.Kernel, "__call__", noted)
    trained("SE-ResNet", "cuda", "float16", steps=1)
    in_float32 = {name for name, types in seen.items() if types != {"half_t"}}
    # Running statistics, the loss, the gradients of parameters and their step.
    assert in_float32 == {"moved", "cross_entropy", "cross_entropy_backward", "scale", "sgd"}
    assert {"implicit_gemm", "batch_norm", "relu_forward"} <= seen.keys() - in_float32
