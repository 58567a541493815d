"""Scaling the loss, so that gradients in float16 neither vanish nor overflow."""

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim
from minitorch_attn.amp import GradScaler
from minitorch_attn.checkpoint import CheckpointError
from minitorch_attn.data import DataLoader, TensorDataset
from minitorch_attn.nn.utils import clip_grad_norm_
from minitorch_attn.training import DivergedError, evaluate, fit


def parameter(*gradient, dtype="float32"):
    p = nn.Parameter(np.zeros(len(gradient), dtype))
    p.grad = mt.tensor(gradient, dtype=dtype)
    return p


# -- what it is for -----------------------------------------------------------------------------

UNIT = 1e-3


def small_quantities(seed, precision, scaled, steps=60):
    """Learn an edge filter whose answers are some thousandths, over many pixels.

    The gradient of a pixel is its error divided by their number, then multiplied by weights as
    small as the answers: about 1e-10, and nothing in float16.

    Returns
    -------
    The share of gradients that are 0 in the first step, and the first and the last loss.
    """
    mt.manual_seed(seed)
    images = np.random.default_rng(seed).standard_normal((16, 1, 32, 32))
    edges = UNIT * np.maximum(images - np.roll(images, 1, axis=-1), 0)
    x, y = mt.tensor(images, dtype="float32"), mt.tensor(edges, dtype="float32")
    first, last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 1)
    with mt.no_grad():
        last.weight *= UNIT
        last.bias *= UNIT
    optimizer = optim.Adam(first.parameters(), lr=0.02, eps=1e-15)
    scaler = GradScaler(enabled=scaled)
    losses, vanished = [], None
    for _ in range(steps):
        optimizer.zero_grad()
        with mt.autocast(precision, enabled=precision != "float32"):
            loss = F.mse_loss(last(F.relu(first(x))), y)
        scaler.scale(loss).backward()
        if vanished is None:
            vanished = (first.weight.grad.numpy() == 0).mean()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    return vanished, losses[0], losses[-1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_float16_cannot_learn_it_learns_with_a_scaled_loss(seed):
    _, start, reached = small_quantities(seed, "float32", scaled=False)
    assert reached < 0.6 * start
    vanished, unscaled_start, unscaled = small_quantities(seed, "float16", scaled=False)
    assert vanished == 1 and unscaled == unscaled_start  # not one step moved anything
    vanished, _, scaled = small_quantities(seed, "float16", scaled=True)
    assert vanished == 0
    assert scaled == pytest.approx(reached, rel=0.03)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bfloat16_has_the_range_without_a_scaler(seed):
    pytest.importorskip("ml_dtypes")
    _, _, reached = small_quantities(seed, "float32", scaled=False)
    vanished, _, low = small_quantities(seed, "bfloat16", scaled=False)
    assert vanished == 0
    assert low == pytest.approx(reached, rel=0.03)


# -- steps and the scale --------------------------------------------------------------------------


def test_a_step_is_that_of_the_unscaled_loss():
    results = []
    for scaled in (False, True):
        mt.manual_seed(0)
        net = nn.Linear(4, 2)
        optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        scaler = GradScaler(init_scale=1024.0, enabled=scaled)
        for step in range(3):
            optimizer.zero_grad()
            loss = F.mse_loss(net(mt.ones(3, 4) * (step + 1)), mt.zeros(3, 2))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        results.append(net.weight.numpy().copy())
    np.testing.assert_array_equal(*results)  # a power of two changes no digit


def test_a_gradient_that_overflows_leaves_the_step_out_and_halves_the_scale():
    good, bad = parameter(1.0, 2.0), parameter(np.inf, 1.0)
    optimizer = optim.SGD([good, bad], lr=1.0)
    scaler = GradScaler(init_scale=8.0)
    assert not scaler.step(optimizer)
    assert good.tolist() == bad.tolist() == [0, 0]
    scaler.update()
    assert scaler.get_scale() == 4
    bad.grad = mt.tensor([4.0, np.nan])
    assert not scaler.step(optimizer)
    scaler.update()
    bad.grad = mt.tensor([4.0, 2.0])
    good.grad = mt.tensor([2.0, 2.0])
    assert scaler.step(optimizer)
    assert bad.tolist() == [-2, -1] and good.tolist() == [-1, -1]


def test_the_scale_grows_after_an_interval_without_overflow_as_in_pytorch():
    torch = pytest.importorskip("torch")
    settings = {"init_scale": 4.0, "growth_factor": 3.0, "growth_interval": 3}
    ours, theirs = GradScaler(**settings), torch.amp.GradScaler("cpu", **settings)
    theirs.scale(torch.zeros(()))  # it makes its state only now
    p, t = parameter(1.0), torch.nn.Parameter(torch.zeros(1))
    a, b = optim.SGD([p], lr=1e-3), torch.optim.SGD([t], lr=1e-3)
    for value in (1, 2, np.inf, 1, 1, 1, 1, np.nan, 1, 1, 1, 1, 1, 1):
        p.grad, t.grad = mt.tensor([float(value)]), torch.tensor([float(value)])
        ours.step(a)
        theirs.step(b)
        ours.update()
        theirs.update()
        assert ours.get_scale() == theirs.get_scale()
        np.testing.assert_allclose(p.numpy(), t.detach().numpy(), rtol=1e-6)
    state = theirs.state_dict()
    assert ours.state_dict() == state


def test_a_scaler_goes_on_from_its_state():
    scaler = GradScaler(init_scale=8.0, growth_interval=5)
    optimizer = optim.SGD([parameter(1.0)], lr=0.0)
    for _ in range(3):
        scaler.step(optimizer)
        scaler.update()
    other = GradScaler()
    other.load_state_dict(scaler.state_dict())
    for s in (scaler, other):
        for _ in range(2):
            s.step(optimizer)
            s.update()
        assert s.get_scale() == 16 and s.state_dict()["_growth_tracker"] == 0


def test_clipping_sees_the_unscaled_gradients():
    p = parameter(30.0 * 128, 40.0 * 128)
    optimizer = optim.SGD([p], lr=1.0)
    scaler = GradScaler(init_scale=128.0)
    assert scaler.unscale_(optimizer)
    assert clip_grad_norm_([p], 5.0).item() == pytest.approx(50)
    scaler.step(optimizer)
    np.testing.assert_allclose(p.numpy(), [-3, -4], rtol=1e-5)


def test_several_optimisers_share_a_scale():
    a, b = parameter(1.0), parameter(np.inf)
    first, second = optim.SGD([a], lr=1.0), optim.SGD([b], lr=1.0)
    scaler = GradScaler(init_scale=2.0)
    assert scaler.step(first) and not scaler.step(second)
    scaler.update()
    assert a.tolist() == [-0.5] and b.tolist() == [0] and scaler.get_scale() == 1


def test_a_loss_of_float16_is_scaled_in_float32():
    scaled = GradScaler().scale(mt.tensor(3.0, dtype="float16"))
    assert scaled.dtype == np.float32 and scaled.item() == 3 * 65536


def test_not_enabled_it_does_nothing():
    p = parameter(np.inf)
    optimizer = optim.SGD([p], lr=1.0)
    scaler = GradScaler(enabled=False)
    loss = mt.tensor(1.0)
    assert scaler.scale(loss) is loss and scaler.get_scale() == 1
    assert scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert p.tolist() == [-np.inf] and p.grad.tolist() == [np.inf]


def test_calls_out_of_order_are_told():
    p = parameter(1.0)
    optimizer = optim.SGD([p], lr=1.0)
    scaler = GradScaler()
    with pytest.raises(mt.GraphError, match=r"update\(\) follows step\(\)"):
        scaler.update()
    scaler.unscale_(optimizer)
    with pytest.raises(mt.GraphError, match="unscaled already"):
        scaler.unscale_(optimizer)
    p.grad = None
    with pytest.raises(mt.GraphError, match=r"no gradient: call scale\(loss\).backward\(\) first"):
        GradScaler().step(optimizer)


def test_gradients_in_float16_are_refused():
    with pytest.raises(mt.DTypeError, match="keep the parameters in float32, and let mt.autocast"):
        GradScaler().step(optim.SGD([parameter(1.0, dtype="float16")], lr=1.0))


@pytest.mark.parametrize(
    "settings",
    [{"init_scale": 0}, {"growth_factor": 1}, {"backoff_factor": 1}, {"growth_interval": 0}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match="must be at least|needs init_scale above 0"):
        GradScaler(**settings)


def test_a_device_as_for_pytorchs_scaler_is_refused():
    with pytest.raises(TypeError, match="not 'cuda': a GradScaler names no device"):
        GradScaler("cuda")


# -- the training loop ----------------------------------------------------------------------------


def clouds():
    rng = np.random.default_rng(3)
    labels = np.arange(48) % 2
    points = rng.standard_normal((48, 4)) + 2 * labels[:, None]
    return TensorDataset(points.astype("float32"), labels)


def trained(precision, **settings):
    mt.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = optim.Adam(net.parameters(), lr=0.05)
    loader = DataLoader(clouds(), batch_size=16, shuffle=True, generator=5)
    settings = {"epochs": 4, "seed": 0, "precision": precision} | settings
    return net, fit(net, loader, optimizer=optimizer, **settings)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_training_in_half_precision_learns_as_one_in_float32(precision):
    if precision == "bfloat16":
        pytest.importorskip("ml_dtypes")
    _, exact = trained(None)
    net, history = trained(precision)
    assert history["train_loss"] != exact["train_loss"]
    assert history["train_loss"] == pytest.approx(exact["train_loss"], rel=0.05)
    assert {p.dtype for p in net.parameters()} == {np.dtype("float32")}
    seen = []

    def loss(output, targets):
        seen.append(str(output.dtype))
        return F.cross_entropy(output, targets)

    evaluate(net, DataLoader(clouds(), 48), loss=loss, precision=precision)
    assert seen == [precision]


def large_loss(output, targets):
    """Times 65536 it is more than float16 holds: the first steps are left out."""
    return F.cross_entropy(output, targets) * 1e3


@pytest.mark.parametrize("precision", ["float32", "half", np.float16])
def test_another_precision_is_refused_rather_than_left_without_a_scaled_loss(precision):
    model = nn.Linear(4, 2)
    with pytest.raises(ValueError, match="precision is 'float16' or 'bfloat16', not .*leave it"):
        fit(model, [], optimizer=optim.SGD(model.parameters(), lr=1), epochs=1, precision=precision)
    with pytest.raises(ValueError, match="precision is 'float16' or 'bfloat16', not .*leave it"):
        evaluate(model, [], precision=precision)


def test_a_batch_whose_scaled_gradients_overflow_takes_no_step_and_stops_nothing():
    _, history = trained("float16", loss=large_loss, clip_grad=1.0, epochs=12)
    assert history["train_loss"][-1] < 0.5 * history["train_loss"][0]


def test_gradients_that_overflow_whatever_the_scale_stop_the_training():
    def loss(output, targets):
        return F.cross_entropy(output, targets) * 1e9

    with pytest.raises(DivergedError, match="a gradient is not a finite number"):
        trained("float16", loss=loss, epochs=20)


def test_a_checkpoint_brings_the_scale_back_and_compares_the_precision(tmp_path):
    path = tmp_path / "c.safetensors"
    settings = {"loss": large_loss, "clip_grad": 1.0}
    _, whole = trained("float16", **settings)
    trained("float16", epochs=2, checkpoint=path, **settings)
    _, resumed = trained("float16", checkpoint=path, **settings)
    assert resumed == whole
    with pytest.raises(CheckpointError, match="precision: float16 in the file, None here"):
        trained(None, checkpoint=path, **settings)


def test_a_model_of_bfloat16_can_be_trained_and_gone_on_with(tmp_path):
    pytest.importorskip("ml_dtypes")

    def trained_for(epochs, **settings):
        mt.manual_seed(1)
        net = nn.Linear(4, 2).to("bfloat16")
        data = clouds()
        halves = TensorDataset(mt.tensor(data.arrays[0], dtype="bfloat16"), data.arrays[1])
        optimizer = optim.AdamW(net.parameters(), lr=1e-2)
        return fit(net, DataLoader(halves, 16), optimizer=optimizer, epochs=epochs, **settings)

    path = tmp_path / "c.safetensors"
    whole = trained_for(4)
    trained_for(2, checkpoint=path)
    assert trained_for(4, checkpoint=path) == whole
    assert whole["train_loss"][-1] < whole["train_loss"][0]


def test_fit_refuses_half_precision_of_float64_rather_than_leaving_it_undone():
    model = nn.Linear(2, 3).double()
    optimizer = optim.SGD(model.parameters(), lr=1)
    said = r"precision='float16' casts no float64.*model\.float\(\)"
    with pytest.raises(ValueError, match=said):
        fit(model, [], optimizer=optimizer, epochs=1, precision="float16")
    with pytest.raises(ValueError, match=said):
        evaluate(model, [], precision="float16")
