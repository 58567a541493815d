import numpy as np
import pytest

from minitorch_attn import nn, optim
from minitorch_attn.optim import lr_scheduler

STEPS = 25


def our_optimizer():
    a, b = nn.Parameter(np.ones(1)), nn.Parameter(np.ones(1))
    return optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.3}], lr=0.1)


def their_optimizer(torch):
    a, b = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    return torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.3}], lr=0.1)


def warm_up_then_cosine(module, optimizer):
    return module.SequentialLR(
        optimizer,
        [
            module.LinearLR(optimizer, start_factor=0.01, total_iters=5),
            module.CosineAnnealingLR(optimizer, T_max=12, eta_min=0.001),
            module.StepLR(optimizer, 2),
        ],
        milestones=[5, 17],
    )


SCHEDULES = {
    "step": lambda m, o: m.StepLR(o, step_size=4, gamma=0.5),
    "milestones": lambda m, o: m.MultiStepLR(o, [9, 3, 3], gamma=0.5),
    "cosine": lambda m, o: m.CosineAnnealingLR(o, T_max=10, eta_min=0.01),
    "warm-up": lambda m, o: m.LinearLR(o, total_iters=7),
    "cool-down": lambda m, o: m.LinearLR(o, 1.0, 0.1, 7),
    "function": lambda m, o: m.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    "warm-up, then cosine, then steps": warm_up_then_cosine,
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.filterwarnings("ignore")  # PyTorch's words about its own ways of calling
def test_every_learning_rate_is_pytorchs(name):
    torch = pytest.importorskip("torch")
    ours, theirs = our_optimizer(), their_optimizer(torch)
    schedule = SCHEDULES[name](lr_scheduler, ours)
    their_schedule = SCHEDULES[name](torch.optim.lr_scheduler, theirs)
    for _ in range(STEPS):
        assert schedule.get_last_lr() == [group["lr"] for group in ours.param_groups]
        np.testing.assert_allclose(
            schedule.get_last_lr(), [group["lr"] for group in theirs.param_groups], rtol=1e-9
        )
        theirs.step()
        schedule.step()
        their_schedule.step()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_goes_on_from_its_checkpoint(name):
    whole, optimizer = SCHEDULES[name](lr_scheduler, our_optimizer()), our_optimizer()
    part = SCHEDULES[name](lr_scheduler, optimizer)
    for _ in range(6):
        whole.step()
        part.step()
    state, optimizer_state = part.state_dict(), optimizer.state_dict()
    fresh = our_optimizer()
    fresh.load_state_dict(optimizer_state)
    resumed = SCHEDULES[name](lr_scheduler, fresh)
    resumed.load_state_dict(state)
    for _ in range(STEPS):
        assert resumed.get_last_lr() == whole.get_last_lr()
        resumed.step()
        whole.step()


def test_the_base_stays_what_it_was_before_the_first_schedule():
    optimizer = our_optimizer()
    lr_scheduler.LinearLR(optimizer, start_factor=0.1)
    lr_scheduler.StepLR(optimizer, 1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.3]


def test_sequences_need_a_milestone_between_each_two():
    optimizer = our_optimizer()
    parts = [lr_scheduler.StepLR(optimizer, 1), lr_scheduler.LinearLR(optimizer)]
    with pytest.raises(ValueError, match=r"2 schedules need 1 rising milestones .* not \[3, 4\]"):
        lr_scheduler.SequentialLR(optimizer, parts, [3, 4])


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("StepLR", {"step_size": 0}),
        ("LinearLR", {"total_iters": 0}),
        ("CosineAnnealingLR", {"T_max": 0}),
        ("InverseSqrtLR", {"warmup_steps": 0}),
    ],
)
def test_a_schedule_of_no_steps_is_refused(kind, settings):
    optimizer = optim.SGD([nn.Parameter(np.ones(1))], lr=0.1)
    (name,) = settings
    with pytest.raises(ValueError, match=f"{kind}: {name} must be at least 1 step, not 0"):
        getattr(lr_scheduler, kind)(optimizer, **settings)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_factor_of_numpys_keeps_the_learning_rate_a_plain_number():
    optimizer = optim.SGD([nn.Parameter(np.ones(1))], lr=0.1)
    lr_scheduler.LambdaLR(optimizer, lambda epoch: np.float64(0.5))
    assert type(optimizer.param_groups[0]["lr"]) is float


@pytest.mark.parametrize(
    ("features", "warmup", "peak"), [(512, 4000, 6.9877e-4), (64, 200, 8.8388e-3)]
)
def test_the_inverse_square_root_with_its_warm_up_is_the_papers(features, warmup, peak):
    base = (features * warmup) ** -0.5
    assert base == pytest.approx(peak, rel=1e-4)
    optimizer = optim.SGD([nn.Parameter(np.ones(1))], lr=base)
    schedule = lr_scheduler.InverseSqrtLR(optimizer, warmup)
    for step in range(1, 2 * warmup):
        papers = features**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert schedule.get_last_lr()[0] == pytest.approx(papers, rel=1e-12)
        assert (schedule.get_last_lr()[0] == pytest.approx(base)) == (abs(step - warmup) == 0)
        schedule.step()
