"""The kernels of optimisers, clipping and loss scaling: the CPU's numbers, in few launches."""

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim
from minitorch_attn.amp import GradScaler
from minitorch_attn.data import DataLoader, TensorDataset
from minitorch_attn.engine import backend
from minitorch_attn.engine.many_arrays import PART
from minitorch_attn.nn.utils import clip_grad_norm_
from minitorch_attn.training import evaluate, fit

# An element, none at all, a whole part of a block, one more, several parts: in no order of size.
SHAPES = ((3, 4), (), (0, 5), (PART,), (2, PART // 2 + 3), (PART + 1,), (7,))

SETTINGS = {
    "SGD": (optim.SGD, {"lr": 0.1}),
    "SGD with decay": (optim.SGD, {"lr": 0.1, "weight_decay": 0.05}),
    "SGD with dampening": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    "Nesterov": (
        optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
    ),
    "Adam": (optim.Adam, {"lr": 0.1, "betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    "AdamW": (optim.AdamW, {"lr": 0.1, "weight_decay": 0.2}),
}
every_kind = pytest.mark.parametrize("kind", SETTINGS)


@pytest.fixture(params=["float32", "float64", "float16", "bfloat16"])
def dtype(request):
    if request.param == "bfloat16":
        pytest.importorskip("ml_dtypes")
    return request.param


def parameters(device, dtype, shapes=SHAPES):
    rng = np.random.default_rng(0)
    drawn = [mt.tensor(rng.standard_normal(shape), dtype=dtype) for shape in shapes]
    return [nn.Parameter(x.to(device)) for x in drawn]


def give_gradients(params, step):
    """One parameter after the other goes without."""
    for i, p in enumerate(params):
        g = np.random.default_rng([1, step, i]).standard_normal(p.shape)
        p.grad = None if (i + step) % 4 == 0 else mt.tensor(g, dtype=p.dtype).to(p.device)


def walk(params, optimizer, steps):
    for step in steps:
        give_gradients(params, step)
        optimizer.step()


def on_host(params):
    return [p.cpu().numpy().astype("float64") for p in params]


def assert_near(got, expected, dtype):
    """Equal but for the last digit: of half precision the rounding of the same float32 number."""
    tolerance = {"float64": 1e-14, "float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# -- steps --------------------------------------------------------------------------------------


@every_kind
def test_steps_are_those_of_the_cpu(card, kind, dtype):
    make, settings = SETTINGS[kind]
    results, remembered = [], []
    for device in ("cpu", "cuda"):
        params = parameters(device, dtype)
        groups = [{"params": params[:3]}, {"params": params[3:], "lr": 0.02}]
        optimizer = make(groups, **settings)
        walk(params, optimizer, range(5))
        results.append(on_host(params))
        remembered.append(optimizer.state_dict()["state"])
    assert_near(results[1], results[0], dtype)
    exact = "float64" if dtype == "float64" else "float32"
    for here, there in zip(*remembered, strict=True):
        assert here.keys() == there.keys()
        for name in here:
            assert_near([there[name]], [here[name]], exact)
            assert getattr(there[name], "dtype", exact) == exact
    assert (results[1][0] != on_host(parameters("cpu", dtype))[0]).any()


@every_kind
def test_a_step_is_one_launch_for_each_group_and_dtype_and_waits_for_nothing(card, kind):
    if card is None:
        pytest.skip("counted on the simulated card")
    make, settings = SETTINGS[kind]
    params = parameters("cuda", "float32") + parameters("cuda", "float64")
    optimizer = make([{"params": params[:9]}, {"params": params[9:]}], **settings)
    walk(params, optimizer, range(1))
    give_gradients(params, 1)
    before = card.launches, card.to_host, card.synchronisations
    optimizer.step()
    after = card.launches, card.to_host, card.synchronisations
    assert np.subtract(after, before).tolist() == [3, 0, 0]


@every_kind
def test_a_state_moves_between_devices(card, kind, dtype):
    make, settings = SETTINGS[kind]
    whole = parameters("cpu", dtype)
    walk(whole, make(whole, **settings), range(6))
    params = parameters("cpu", dtype)
    optimizer = make(params, **settings)
    for device, steps in (("cuda", range(2)), ("cpu", range(2, 4)), ("cuda", range(4, 6))):
        params = [nn.Parameter(p.detach().to(device)) for p in params]
        state, optimizer = optimizer.state_dict(), make(params, lr=99.0)
        optimizer.load_state_dict(state)
        walk(params, optimizer, steps)
    assert_near(on_host(params), on_host(whole), dtype)


@every_kind
def test_what_is_remembered_follows_its_parameter(card, kind):
    make, settings = SETTINGS[kind]
    whole = parameters("cpu", "float64")
    walk(whole, make(whole, **settings), range(6))
    net = nn.Module()
    for i, p in enumerate(parameters("cpu", "float32")):
        setattr(net, f"p{i}", p)
    params = list(net.parameters())
    optimizer = make(params, **settings)
    for steps, where in (
        (0, ("cpu", "float32")),
        (2, ("cuda", "float32")),
        (4, ("cuda", "float64")),
    ):
        net.to(*where)
        walk(params, optimizer, range(steps, steps + 2))
    assert_near(on_host(params), on_host(whole), "float32")


@pytest.mark.parametrize("clipped", [False, True])
def test_gradients_may_lie_in_memory_in_another_order(card, clipped):
    p = nn.Parameter(mt.zeros(2, 3, device="cuda"))
    p.grad = mt.tensor(np.arange(6.0).reshape(3, 2), dtype="float32").to("cuda").T
    if clipped:
        clip_grad_norm_([p], 0.1 * 55**0.5)
    optim.SGD([p], lr=1.0).step()
    expected = -np.arange(6.0).reshape(3, 2).T * (0.1 if clipped else 1)
    np.testing.assert_allclose(p.cpu().numpy(), expected, rtol=1e-5)


def test_what_is_loaded_may_lie_in_memory_in_another_order(card):
    p = nn.Parameter(mt.zeros(2, 3, device="cuda"))
    optimizer = optim.SGD([p], lr=1.0, momentum=1.0)
    state = optimizer.state_dict()
    state["state"][0]["momentum_buffer"] = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    optimizer.load_state_dict(state)
    p.grad = mt.zeros(2, 3, device="cuda")
    optimizer.step()
    np.testing.assert_array_equal(p.cpu().numpy(), -np.arange(6.0).reshape(2, 3))


def test_the_engine_hears_of_a_step_by_a_kernel(card):
    p = nn.Parameter(mt.ones(2, device="cuda"))
    loss = (p * p).sum()
    p.grad = mt.ones(2, device="cuda")
    optim.SGD([p], lr=0.1).step()
    with pytest.raises(mt.GraphError, match="changed in place"):
        loss.backward()


def test_an_update_of_ones_own_takes_the_place_of_the_kernel(card):
    class Signs(optim.SGD):
        def update(self, p, g, state, group):
            p -= group["lr"] * backend.array_module(g).sign(g)

    p = nn.Parameter(mt.zeros(3, device="cuda"))
    p.grad = mt.tensor([5.0, -7.0, 0.0], device="cuda")
    Signs([p], lr=0.5).step()
    assert p.cpu().tolist() == [-0.5, 0.5, 0]


# -- half precision -----------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_steps_too_small_for_half_precision_add_up(card, device):
    p = nn.Parameter(mt.ones(1, dtype="float16", device=device))
    optimizer = optim.SGD([p], lr=1e-4)
    p.grad = mt.ones(1, dtype="float16", device=device)
    for _ in range(30):
        optimizer.step()  # alone it is less than half of the next number's distance
    assert p.dtype == np.float16
    np.testing.assert_allclose(p.item(), 1 - 30e-4, atol=5e-4)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_parameter_that_was_written_to_is_not_overwritten_by_what_was_remembered(card, device):
    p = nn.Parameter(mt.ones(2, dtype="float16", device=device))
    optimizer = optim.SGD([p], lr=1.0)
    p.grad = mt.ones(2, dtype="float16", device=device)
    optimizer.step()
    with mt.no_grad():
        p.copy_(mt.tensor([0.0, 8.0]))
    optimizer.step()
    assert p.cpu().tolist() == [-1, 7]


# -- clipping and scaling -------------------------------------------------------------------------


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.5, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clipping_is_that_of_the_cpu(card, dtype, norm_type, max_norm):
    results = []
    for device in ("cpu", "cuda"):
        params = parameters(device, dtype)
        give_gradients(params, 1)
        norm = clip_grad_norm_(params, max_norm, norm_type)
        assert norm.device == device and norm.shape == ()
        results.append([norm.item(), *(p.grad.cpu().numpy() for p in params if p.grad is not None)])
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-5)
    relative = {"float64": 1e-6, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}[dtype]
    for a, b in zip(results[1][1:], results[0][1:], strict=True):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a.astype(float), b.astype(float), rtol=relative, atol=1e-7)


@pytest.mark.parametrize("norm_type", [2.0, float("inf")])
def test_clipping_by_a_norm_that_is_none_spreads_and_can_be_refused(card, norm_type):
    params = parameters("cuda", "float32")
    give_gradients(params, 1)
    params[5].grad[3] = np.nan
    with pytest.raises(mt.AnomalyError, match="the norm of the gradients is nan"):
        clip_grad_norm_(params, 1.0, norm_type, error_if_nonfinite=True)
    clip_grad_norm_(params, 1.0, norm_type)
    assert all(np.isnan(p.grad.cpu().numpy()).all() for p in params if p.grad is not None)


def test_clipping_waits_for_nothing_and_scaling_for_one_flag(card):
    if card is None:
        pytest.skip("counted on the simulated card")
    params = parameters("cuda", "float32")
    optimizer, scaler = optim.AdamW(params), GradScaler(init_scale=4.0)
    give_gradients(params, 1)
    before = card.to_host, card.synchronisations
    clip_grad_norm_(params, 1.0)
    assert (card.to_host, card.synchronisations) == before
    scaler.step(optimizer)
    scaler.update()
    waits = card.synchronisations - before[1]
    assert waits == 1


def test_a_step_is_left_out_where_any_gradient_overflows(card):
    for bad in (np.inf, -np.inf, np.nan):
        params = parameters("cuda", "float32")
        before = on_host(params)
        give_gradients(params, 1)
        params[4].grad[1, -1] = bad
        optimizer, scaler = optim.AdamW(params), GradScaler(init_scale=4.0)
        assert not scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == 2
        for p, q in zip(on_host(params), before, strict=True):
            np.testing.assert_array_equal(p, q)
        give_gradients(params, 1)
        unscaled = on_host([p.grad for p in params if p.grad is not None])
        assert scaler.step(optimizer)
        scaled = on_host([p.grad for p in params if p.grad is not None])
        for g, scaled_g in zip(unscaled, scaled, strict=True):
            np.testing.assert_array_equal(scaled_g, g / 2)
        assert (on_host(params)[0] != before[0]).all()


# -- the training loop ----------------------------------------------------------------------------


def history(device, precision):
    rng = np.random.default_rng(3)
    labels = np.arange(24) % 2
    points = (rng.standard_normal((24, 4)) + 2 * labels[:, None]).astype("float32")
    mt.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).to(device)
    loader = DataLoader(TensorDataset(points, labels), batch_size=8, shuffle=True, generator=5)
    found = fit(
        net,
        loader,
        optimizer=optim.AdamW(net.parameters(), lr=0.05),
        epochs=3,
        seed=0,
        valid_loader=loader,
        clip_grad=1.0,
        precision=precision,
    )
    assert net[0].weight.device == device
    assert evaluate(net, loader, precision=precision)["accuracy"] == found["valid_accuracy"][-1]
    return found


@pytest.mark.parametrize("precision", [None, "float16", "bfloat16"])
def test_fit_moves_each_batch_to_the_model_and_learns_the_same(card, precision):
    if precision == "bfloat16":
        pytest.importorskip("ml_dtypes")
    here, there = history("cpu", precision), history("cuda", precision)
    assert there["train_loss"] == pytest.approx(here["train_loss"], rel=0.03 if precision else 1e-4)


def test_autocast_on_a_card_gives_the_cpus_numbers(card):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((2, 3, 6, 6)).astype("float32")
    weight = rng.standard_normal((4, 3, 3, 3)).astype("float32")
    results = []
    for device in ("cpu", "cuda"):
        x, w = mt.tensor(images, device=device), mt.tensor(weight, device=device)
        w.requires_grad = True
        with mt.autocast("float16"):
            y = F.conv2d(x, w)
            loss = F.softmax(y.flatten(1), dim=1).square().sum()
        loss.backward()
        results.append([str(y.dtype), str(loss.dtype), str(w.grad.dtype)])
        results.append([loss.cpu().numpy(), w.grad.cpu().numpy()])
    assert results[0] == results[2] == ["float16", "float32", "float32"]
    for a, b in zip(results[1], results[3], strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=5e-3 * np.abs(a).max())
