import copy

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn, optim

SETTINGS = {
    "SGD": ("SGD", {"lr": 0.1}),
    "SGD with momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "SGD with decay": ("SGD", {"lr": 0.1, "weight_decay": 0.05}),
    "SGD with dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    "Nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    "Adam": ("Adam", {}),
    "Adam with settings": ("Adam", {"lr": 0.1, "betas": (0.7, 0.9), "eps": 1e-3}),
    "Adam with decay": ("Adam", {"lr": 0.1, "weight_decay": 0.1}),
    "AdamW": ("AdamW", {"lr": 0.1}),
    "AdamW with settings": ("AdamW", {"lr": 0.1, "betas": (0.7, 0.9), "weight_decay": 0.2}),
}
STEPS = 60


SHAPES = ((3, 4), (4,), ())


def start(dtype):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]


def gradients(step, dtype):
    """The third parameter has no gradient in every third step."""
    rng = np.random.default_rng([1, step])
    drawn = [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]
    return drawn if step % 3 else [*drawn[:2], None]


def our_path(name, settings, dtype, steps=STEPS):
    params = [nn.Parameter(x) for x in start(dtype)]
    optimizer = getattr(optim, name)(params, **settings)
    for step in range(steps):
        for p, g in zip(params, gradients(step, dtype)):
            p.grad = None if g is None else mt.tensor(g)
        optimizer.step()
        yield [p.numpy().copy() for p in params]


def their_path(name, settings, dtype):
    torch = pytest.importorskip("torch")
    params = [torch.nn.Parameter(torch.tensor(x)) for x in start(dtype)]
    optimizer = getattr(torch.optim, name)(params, **settings)
    for step in range(STEPS):
        for p, g in zip(params, gradients(step, dtype)):
            p.grad = None if g is None else torch.tensor(g)
        optimizer.step()
        yield [p.detach().numpy().copy() for p in params]


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
def test_every_step_is_pytorchs(kind, dtype, tolerance):
    paths = zip(our_path(*SETTINGS[kind], dtype), their_path(*SETTINGS[kind], dtype), strict=True)
    for ours, theirs in paths:
        for a, b in zip(ours, theirs):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def test_groups_have_settings_of_their_own_as_in_pytorch():
    torch = pytest.importorskip("torch")
    ours = [nn.Parameter(x) for x in start("float64")]
    theirs = [torch.nn.Parameter(torch.tensor(x)) for x in start("float64")]

    def make(module, params):
        groups = [{"params": params[:1]}, {"params": params[1], "lr": 0.5, "momentum": 0.0}]
        return module.SGD(groups, lr=0.1, momentum=0.9)

    a, b = make(optim, ours), make(torch.optim, theirs)
    for step in range(1, 5):
        for p, t, g in zip(ours, theirs, gradients(step, "float64")):
            if g is not None:
                p.grad, t.grad = mt.tensor(g), torch.tensor(g)
        a.step()
        b.step()
    for p, t in zip(ours, theirs):
        np.testing.assert_allclose(p.numpy(), t.detach().numpy(), rtol=0, atol=1e-13)
    assert (ours[2].numpy() == start("float64")[2]).all()


@pytest.mark.parametrize("kind", ["Nesterov", "Adam with settings", "AdamW"])
def test_a_run_that_is_resumed_equals_one_that_was_not(kind, tmp_path):
    name, settings = SETTINGS[kind]
    whole = list(our_path(name, settings, "float64", 10))
    params = [nn.Parameter(x) for x in start("float64")]
    optimizer = getattr(optim, name)(params, **settings)

    def walk(params, optimizer, steps):
        for step in steps:
            for p, g in zip(params, gradients(step, "float64")):
                p.grad = None if g is None else mt.tensor(g)
            optimizer.step()

    walk(params, optimizer, range(5))
    mt.save({"p": params, "optimizer": optimizer.state_dict()}, tmp_path / "c.safetensors")
    walk(params, optimizer, range(5, 7))  # what happens after the snapshot is not in it
    saved = mt.load(tmp_path / "c.safetensors")
    again = [nn.Parameter(p) for p in saved["p"]]
    resumed = getattr(optim, name)(again, lr=99.0)
    resumed.load_state_dict(saved["optimizer"])
    walk(again, resumed, range(5, 10))
    for p, expected in zip(again, whole[-1]):
        np.testing.assert_array_equal(p.numpy(), expected)


def test_a_snapshot_does_not_change_with_later_steps():
    p = nn.Parameter(np.ones(2))
    optimizer = optim.Adam([p])
    p.grad = mt.tensor(np.ones(2))
    optimizer.step()
    (remembered,) = optimizer.state_dict()["state"]
    before = remembered["exp_avg"].copy()
    optimizer.step()
    np.testing.assert_array_equal(remembered["exp_avg"], before)
    assert remembered["step"] == 1


def test_a_state_that_does_not_fit_changes_nothing():
    optimizer = optim.Adam([nn.Parameter(np.ones(2))], lr=0.1)
    with pytest.raises(
        ValueError, match=r"with \[2\] parameters in its groups, this one has \[1\]"
    ):
        optimizer.load_state_dict(optim.Adam([nn.Parameter(np.ones(2)) for _ in "ab"]).state_dict())
    other = optim.Adam([nn.Parameter(np.ones(3))], lr=0.2)
    other.param_groups[0]["params"][0].grad = mt.ones(3)
    other.step()
    with pytest.raises(ValueError, match=r"'exp_avg' of shape \(3,\) is no state of a parameter"):
        optimizer.load_state_dict(other.state_dict())
    assert optimizer.state == {} and optimizer.param_groups[0]["lr"] == 0.1


def test_the_state_follows_the_dtype_of_its_parameter():
    p = nn.Parameter(np.ones(2))
    optimizer = optim.Adam([p])
    p.grad = mt.tensor(np.ones(2))
    optimizer.step()
    single = optim.Adam([nn.Parameter(np.ones(2, dtype="float32"))])
    single.load_state_dict(optimizer.state_dict())
    (state,) = single.state.values()
    assert state["exp_avg"].dtype == np.float32 and state["step"] == 1


def test_learning_rates_can_be_changed_between_steps():
    p = nn.Parameter(np.zeros(1))
    optimizer = optim.SGD([p], lr=1.0)
    for lr in (1.0, 0.5):
        optimizer.param_groups[0]["lr"] = lr
        p.grad = mt.ones(1)
        optimizer.step()
    assert p.tolist() == [-1.5]


def test_the_engine_sees_a_step_between_forward_and_backward():
    p = nn.Parameter(np.ones(2))
    loss = (p * p).sum()
    p.grad = mt.tensor(np.ones(2))
    optim.SGD([p], lr=0.1).step()
    with pytest.raises(mt.GraphError, match="changed in place"):
        loss.backward()


def test_a_step_writes_to_no_gradient_and_leaves_the_parameter_a_leaf():
    for name in ("SGD", "Adam", "AdamW"):
        p = nn.Parameter(np.ones(2))
        p.grad = mt.tensor(np.array([1.0, -2.0]))
        settings = {"momentum": 0.9} if name == "SGD" else {}
        optimizer = getattr(optim, name)([p], lr=0.1, weight_decay=0.1, **settings)
        optimizer.step()
        optimizer.step()
        assert p.grad.tolist() == [1, -2] and p.is_leaf and p.requires_grad


def test_zero_grad_forgets_the_gradients():
    p = nn.Parameter(np.ones(2))
    p.grad = mt.ones(2)
    optim.SGD([p]).zero_grad()
    assert p.grad is None


def test_a_step_without_any_gradient_says_what_is_missing():
    with pytest.raises(mt.GraphError, match=r"SGD.step\(\) found no gradient .* loss.backward\(\)"):
        optim.SGD([nn.Parameter(np.ones(2))]).step()


def test_what_cannot_be_trained_is_refused():
    p = nn.Parameter(np.ones(2))
    with pytest.raises(ValueError, match="SGD got no parameters: was model.parameters"):
        optim.SGD(nn.ReLU().parameters())
    with pytest.raises(TypeError, match="needs several parameters, .* not a Linear"):
        optim.SGD(nn.Linear(1, 1))
    with pytest.raises(TypeError, match="needs several parameters, .* not a Parameter"):
        optim.SGD(p)
    with pytest.raises(TypeError, match=r"an optimiser trains tensors, not a tuple: \('weight'"):
        optim.SGD(nn.Linear(1, 1).named_parameters())
    with pytest.raises(TypeError, match="not tensors computed from others"):
        optim.SGD([p * 2])
    with pytest.raises(ValueError, match="must not come twice"):
        optim.SGD([p, p])
    with pytest.raises(ValueError, match="SGD has no setting 'learning_rate', only lr, momentum"):
        optim.SGD([{"params": [p], "learning_rate": 0.1}])


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("SGD", {"lr": -1}, "lr must be a number of at least 0, not -1"),
        ("SGD", {"momentum": float("nan")}, "momentum must be a number of at least 0, not nan"),
        ("SGD", {"nesterov": True}, "nesterov=True needs a momentum above 0"),
        ("Adam", {"betas": (0.9, 1.0)}, "betas must be two numbers from 0 to below 1"),
        ("AdamW", {"weight_decay": -0.1}, "weight_decay must be"),
    ],
)
def test_settings_out_of_range_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        getattr(optim, name)([nn.Parameter(np.ones(2))], **settings)


def test_an_optimiser_prints_its_groups():
    optimizer = optim.Adam([{"params": [nn.Parameter(np.ones(2))]}], lr=0.1)
    assert repr(optimizer) == (
        "Adam(1 parameters, lr=0.1, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)"
    )


def test_training_a_copy_leaves_the_original_alone():
    net = nn.Linear(2, 1)
    before = net.weight.numpy().copy()
    other = copy.deepcopy(net)
    optimizer = optim.SGD(other.parameters(), lr=1.0)
    other(mt.ones(3, 2)).sum().backward()
    optimizer.step()
    np.testing.assert_array_equal(net.weight.numpy(), before)
    assert (other.weight.numpy() != before).all()


def test_the_state_of_another_kind_of_optimiser_is_refused():
    p = nn.Parameter(np.ones(2))
    optimizer = optim.SGD([p], lr=0.1)
    with pytest.raises(ValueError, match="another kind of optimiser than SGD.* setting 'betas'"):
        optimizer.load_state_dict(optim.Adam([p], lr=0.2).state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.1 and "betas" not in optimizer.param_groups[0]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(optim.SGD, {"lr": -1.0}), (optim.SGD, {"nesterov": True}), (optim.Adam, {"betas": (0.9, 2)})],
)
def test_settings_of_a_group_out_of_range_are_refused(kind, settings):
    params = [nn.Parameter(np.ones(2)) for _ in "ab"]
    with pytest.raises(ValueError, match="must be|needs"):
        kind([{"params": params[:1], **settings}])
    optimizer = kind(params[:1])
    with pytest.raises(ValueError, match="must be|needs"):
        optimizer.add_param_group({"params": params[1:], **settings})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=np.float64(0.1), momentum=np.array(0.9), weight_decay=0.1),
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=np.float64(0.1)),
        lambda p: optim.Adam(p, betas=np.array([0.9, 0.99]), weight_decay=np.float64(0.1)),
    ],
)
def test_numpys_numbers_as_settings_keep_float32(make):
    p = nn.Parameter(np.ones(2, dtype="float32"))
    optimizer = make([p])
    p.grad = mt.tensor(np.ones(2, dtype="float32"))
    optimizer.step()
    remembered = [v.dtype for v in optimizer.state[p].values() if hasattr(v, "dtype")]
    assert remembered and set(remembered) == {np.dtype("float32")}
