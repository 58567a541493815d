"""Whole steps of training on a card: the CPU's numbers, and no wait for the card in between."""

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import models, nn
from minitorch_attn.training import evaluate, fit


def images(N=4, C=3, H=8):
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, C, H, H)), rng.integers(0, 5, N)


def tokens(N=3, L=6, D=8):
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, L, D)), rng.integers(0, 5, N)


class Classifier(nn.Module):
    """A Transformer's encoder layer, and a linear one on the mean of its tokens."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.encoder(x).mean(dim=1))


NETWORKS = {
    "SE-ResNet": (lambda: models.se_resnet(5, 3, widths=(4, 8, 8), reduction=2), images),
    "Transformer": (Classifier, tokens),
}
OPTIMIZERS = {
    "SGD": lambda p: mt.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "AdamW": lambda p: mt.optim.AdamW(p, lr=0.01),
}


def trained(network, optimizer, device, dtype, steps=3, watch=None):
    """The parameters and losses after some steps; what `watch` saw in the last but the loss."""
    make, data = NETWORKS[network]
    mt.manual_seed(0)
    model = make().to(dtype).to(device)
    step_of = OPTIMIZERS[optimizer](model.parameters())
    x, labels = data()
    x, labels = mt.tensor(x, dtype, device=device), mt.tensor(labels, device=device)
    losses, before = [], None
    for _ in range(steps):
        before = watch and (watch.to_host, watch.synchronisations)
        step_of.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        step_of.step()
        losses.append(loss)
    seen = watch and (watch.to_host - before[0], watch.synchronisations - before[1])
    return [p.numpy() for p in model.parameters()], [loss.item() for loss in losses], seen


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_training_gives_the_same_as_on_the_cpu(card, network, optimizer):
    """In float32 losses only: where a gradient is 0 but for rounding, Adam takes whole steps."""
    for dtype, tolerance in (("float64", 1e-9), ("float32", 1e-4)):
        _, losses, _ = trained(network, optimizer, "cpu", dtype)
        _, moved_losses, _ = trained(network, optimizer, "cuda", dtype)
        np.testing.assert_allclose(moved_losses, losses, rtol=tolerance)
    parameters, *_ = trained(network, optimizer, "cpu", "float64", steps=1)
    moved, *_ = trained(network, optimizer, "cuda", "float64", steps=1)
    for there, here in zip(moved, parameters, strict=True):
        np.testing.assert_allclose(there, here, atol=1e-9 if optimizer == "SGD" else 1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_copies_nothing_to_the_host_and_waits_for_nothing(card, network, optimizer):
    if card is None:
        pytest.skip("counted on the simulated card")
    *_, seen = trained(network, optimizer, "cuda", "float32", watch=card)
    assert seen == (0, 0)


def test_a_step_in_mixed_precision_waits_once_for_whether_its_gradients_are_finite(card):
    if card is None:
        pytest.skip("counted on the simulated card")
    make, data = NETWORKS["SE-ResNet"]
    mt.manual_seed(0)
    model = make().to("cuda")
    optimizer, scaler = OPTIMIZERS["SGD"](model.parameters()), mt.amp.GradScaler(init_scale=256.0)
    x, labels = (mt.tensor(a, device="cuda") for a in data())
    x, losses, copies = x.float(), [], []
    for _ in range(3):
        before = card.to_host
        optimizer.zero_grad()
        with mt.autocast("float16"):
            loss = F.cross_entropy(model(x), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss)
        copies.append(card.to_host - before)
    assert copies == [1, 1, 1]
    assert {p.dtype.name for p in model.parameters()} == {"float32"}
    _, expected, _ = trained("SE-ResNet", "SGD", "cpu", "float32")
    np.testing.assert_allclose([loss.item() for loss in losses], expected, rtol=0.02)


def test_batches_of_arrays_go_to_the_model(card):
    mt.manual_seed(0)
    x, y = images()
    model = models.se_resnet(5, 3, widths=(4, 8, 8), reduction=2).to("float64").to("cuda")
    tensors, arrays = [(mt.tensor(x), mt.tensor(y))], [(x, y)]
    before = evaluate(model, tensors)["loss"]
    assert evaluate(model, arrays)["loss"] == before
    optimizer = mt.optim.SGD(model.parameters(), lr=0.05)
    fit(model, arrays, optimizer=optimizer, epochs=5, progress=False)
    assert evaluate(model, tensors)["loss"] < before


@pytest.mark.gpu
def test_a_network_learns_on_a_real_card():
    if not mt.cuda.is_available():
        pytest.skip("needs a GPU and CuPy")
    make, data = NETWORKS["SE-ResNet"]
    _, losses, _ = trained("SE-ResNet", "AdamW", "cuda", "float32", steps=60)
    assert losses[-1] < 0.1 * losses[0]
