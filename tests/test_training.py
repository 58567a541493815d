import doctest
import json
import math
import os
import subprocess
import sys
import types

import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn, optim, training
from minitorch_attn.amp import scale_gradients
from minitorch_attn.checkpoint import CheckpointError
from minitorch_attn.data import DataLoader, TensorDataset
from minitorch_attn.models import auxiliary_cross_entropy
from minitorch_attn.optim import lr_scheduler
from minitorch_attn.training import DivergedError, accuracy, evaluate, fit

safetensors = pytest.importorskip("safetensors")


def samples(count=40):
    """Two clouds of points, told apart by a line."""
    rng = np.random.default_rng(3)
    labels = np.arange(count) % 2
    points = rng.standard_normal((count, 4)) + 2 * labels[:, None]
    return points, labels


def loader(count=40, **settings):
    settings = {"batch_size": 8, "shuffle": True, "generator": 5} | settings
    return DataLoader(TensorDataset(*samples(count)), **settings)


class Net(nn.Module):
    """Has all that a checkpoint must bring back: parameters, running statistics, random zeros."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.dropout = nn.Dropout(0.3)
        self.fc2 = nn.Linear(6, 2)

    def forward(self, x):
        return self.fc2(self.dropout(F.relu(self.norm(self.fc1(x)))))


def parts(make_optimizer=optim.Adam, **settings):
    mt.manual_seed(1)
    model = Net().double()
    return model, make_optimizer(model.parameters(), **{"lr": 0.05} | settings)


def train(epochs, model=None, optimizer=None, **settings):
    if model is None:
        model, optimizer = parts()
    settings = {"train_loader": loader(), "valid_loader": loader(20)} | settings
    return model, fit(model, optimizer=optimizer, epochs=epochs, seed=0, **settings)


def weights(model):
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


# -- what it measures ---------------------------------------------------------------------


def test_history_has_one_plain_number_an_epoch():
    _, history = train(3)
    assert list(history) == [
        "epoch",
        "learning_rate",
        "train_loss",
        "train_accuracy",
        "valid_loss",
        "valid_accuracy",
    ]
    assert history["epoch"] == [1, 2, 3]
    for values in history.values():
        assert len(values) == 3
        assert all(type(value) in (int, float) for value in values)
    json.dumps(history)


def test_training_learns():
    _, history = train(20)
    assert history["train_loss"][-1] < 0.5 * history["train_loss"][0]
    assert history["valid_accuracy"][-1] >= 0.9


def test_a_step_is_that_of_the_plain_loop():
    """Two epochs of fit against the loop that lesson 04 writes out."""
    model, optimizer = parts(optim.SGD, momentum=0.9)
    fit(model, loader(), optimizer=optimizer, epochs=2, seed=7)

    other, optimizer = parts(optim.SGD, momentum=0.9)
    mt.manual_seed(7)
    batches = loader()
    for _ in range(2):
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(other(x), y).backward()
            optimizer.step()
    assert weights(model) == weights(other)


def test_means_are_over_samples_even_if_the_last_batch_is_small():
    model, _ = parts()
    points, labels = samples(21)
    whole = evaluate(model, [(mt.tensor(points), mt.tensor(labels))])
    by_batches = evaluate(model, loader(21, batch_size=8))
    assert by_batches == pytest.approx(whole)


def test_evaluate_uses_running_statistics_and_no_dropout_and_changes_nothing():
    model, _ = parts()
    before = weights(model)
    assert evaluate(model, loader()) == evaluate(model, loader())
    assert weights(model) == before
    assert all(p.grad is None for p in model.parameters())


def test_evaluate_puts_every_part_back_into_the_mode_it_was_in():
    model, _ = parts()
    model.norm.eval()
    evaluate(model, loader())
    assert model.training
    assert model.dropout.training
    assert not model.norm.training


def test_evaluate_of_no_data_says_so():
    with pytest.raises(ValueError, match="no batch"):
        evaluate(parts()[0], [])


def test_the_example_of_fit_is_true():
    pytest.importorskip("sklearn")
    names = {"nn": nn, "optim": optim, "fit": fit}
    (example,) = doctest.DocTestFinder().find(fit, "fit", globs=names)
    mt.manual_seed(0)
    assert doctest.DocTestRunner().run(example) == (0, 6)


def test_accuracy_counts_greatest_scores():
    scores = mt.tensor([[0.1, 0.9], [2.0, 1.0], [0.0, 3.0], [5.0, 4.0]])
    assert accuracy(scores, mt.tensor([1, 0, 0, 0])) == 0.75


def test_other_metrics_and_losses_can_be_measured():
    def error(output, target):
        return float(np.abs(output.numpy() - target.numpy()).max())

    x = np.linspace(-1, 1, 16)[:, None]
    data = DataLoader(TensorDataset(x, 3 * x), 4)
    model = nn.Linear(1, 1).double()
    history = fit(
        model,
        data,
        optimizer=optim.SGD(model.parameters(), lr=0.3),
        epochs=20,
        loss=F.mse_loss,
        metrics={"largest_error": error},
    )
    assert set(history) == {"epoch", "learning_rate", "train_loss", "train_largest_error"}
    assert history["train_largest_error"][-1] < 0.1


def regression(outputs):
    """Numbers to be predicted, (N,) or (N, 1)."""
    x = np.linspace(-1, 1, 16)[:, None]
    y = 3 * x if outputs == "(N, 1)" else 3 * x[:, 0]
    layers = [nn.Linear(1, 1)] + ([] if outputs == "(N, 1)" else [nn.Flatten(0)])
    return nn.Sequential(*layers).double(), DataLoader(TensorDataset(x, y), 4)


@pytest.mark.parametrize("outputs", ["(N,)", "(N, 1)"])
def test_accuracy_is_measured_only_of_classes(outputs):
    model, data = regression(outputs)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    history = fit(model, data, optimizer=optimizer, epochs=1, loss=F.mse_loss, valid_loader=data)
    assert list(history) == ["epoch", "learning_rate", "train_loss", "valid_loss"]
    assert list(evaluate(model, data, loss=F.mse_loss)) == ["loss"]


class TwoScores(nn.Linear):
    """Scores of a network and of an auxiliary classifier while it is trained, as GoogLeNet has."""

    def forward(self, x):
        y = super().forward(x)
        return (y, y) if self.training else y


def test_of_several_outputs_the_loss_alone_is_measured():
    model = TwoScores(2, 3)
    data = DataLoader(TensorDataset(np.ones((4, 2), np.float32), np.arange(4) % 3), 2)
    settings = {"epochs": 1, "loss": auxiliary_cross_entropy, "valid_loader": data}
    history = fit(model, data, optimizer=optim.SGD(model.parameters(), lr=0.1), **settings)
    assert "train_accuracy" not in history and "valid_accuracy" in history


def test_a_train_loader_that_is_used_up_after_an_epoch_is_refused():
    model, optimizer = parts()
    with pytest.raises(TypeError, match="a generator does not: pass a DataLoader or a list of"):
        fit(model, (batch for batch in loader()), optimizer=optimizer, epochs=2)


def test_large_gradients_are_not_taken_for_infinite_ones():
    p = nn.Parameter(np.zeros(4, dtype="float16"))
    p.grad = mt.tensor(np.full(4, 6e4, dtype="float16"))
    with np.errstate(over="ignore", invalid="ignore"):
        assert scale_gradients([p])
        p.grad = mt.tensor(np.array([1, np.inf, -np.inf, 0], dtype="float16"))
        assert not scale_gradients([p])


def test_a_batch_that_is_no_pair_is_named():
    with pytest.raises(ValueError, match=r"pair \(inputs, targets\), got 3 parts"):
        train(1, train_loader=[(1, 2, 3)])


# -- what it does on the way --------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "expected"), [("epoch", [1.0, 0.5, 0.25]), ("batch", [1.0, 0.5**5, 0.5**10])]
)
def test_the_schedule_steps_every_epoch_or_every_batch(every, expected):
    model, optimizer = parts(optim.SGD, lr=1.0)
    scheduler = lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    _, history = train(3, model, optimizer, scheduler=scheduler, scheduler_every=every)
    assert history["learning_rate"] == expected  # with five batches an epoch


def test_an_unknown_time_for_the_schedule_is_refused():
    with pytest.raises(ValueError, match="'epoch' or 'batch'"):
        train(1, scheduler_every="step")


def test_clipping_bounds_the_step():
    model, optimizer = parts(optim.SGD, lr=1.0)
    before = [p.numpy().copy() for p in model.parameters()]
    fit(model, [next(iter(loader()))], optimizer=optimizer, epochs=1, clip_grad=0.01)
    steps = [p.numpy() - b for p, b in zip(model.parameters(), before)]
    norm = math.sqrt(sum((s**2).sum() for s in steps))
    assert norm == pytest.approx(0.01, rel=1e-3)


def test_the_same_seed_gives_the_same_numbers_and_another_gives_others():
    first, second = train(2), train(2)
    assert first[1] == second[1]
    assert weights(first[0]) == weights(second[0])
    model, optimizer = parts()
    assert fit(model, loader(), optimizer=optimizer, epochs=2, seed=99) != first[1]


def test_a_given_history_is_filled_and_can_be_gone_on_with():
    model, optimizer = parts()
    history = {}
    assert train(2, model, optimizer, history=history)[1] is history
    train(5, model, optimizer, history=history)
    assert history["epoch"] == [1, 2, 3, 4, 5]


def test_after_epoch_sees_the_history_grow():
    seen = []
    train(3, after_epoch=lambda history: seen.append(len(history["epoch"])))
    assert seen == [1, 2, 3]


# -- the bar ------------------------------------------------------------------------------


def bar_of(monkeypatch, **settings):
    """What was asked of tqdm."""
    calls = []

    class Bar(training._NoBar):
        def __init__(self, **settings):
            calls.append(settings)

        def update(self):
            calls.append("update")

    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=Bar))
    train(2, **settings)
    return calls


def test_the_bar_is_quiet_where_nobody_looks(monkeypatch):
    assert bar_of(monkeypatch) == []


def test_the_bar_shows_in_a_terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert bar_of(monkeypatch) == [
        {"total": 10, "initial": 0, "unit": "batch"},
        *["update"] * 10,
    ]


def test_the_bar_shows_in_a_notebook(monkeypatch):
    shell = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert len(bar_of(monkeypatch)) == 11


def test_the_bar_is_quiet_on_request(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert bar_of(monkeypatch, progress=False) == []


def test_training_works_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert train(1, progress=True)[1]["epoch"] == [1]


# -- checkpoints --------------------------------------------------------------------------


def schedule(optimizer):
    warm_up = lr_scheduler.LinearLR(optimizer, total_iters=2)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    return lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], milestones=[2])


def test_going_on_from_a_checkpoint_gives_the_numbers_of_an_uninterrupted_run(tmp_path):
    path = tmp_path / "runs" / "a.safetensors"
    model, optimizer = parts()
    whole, expected = train(6, model, optimizer, scheduler=schedule(optimizer))

    model, optimizer = parts()
    train(2, model, optimizer, scheduler=schedule(optimizer), checkpoint=path)
    mt.manual_seed(12345)  # another process, in another state
    model, optimizer = parts()
    resumed, history = train(6, model, optimizer, scheduler=schedule(optimizer), checkpoint=path)
    assert history == expected
    assert weights(resumed) == weights(whole)


def test_a_finished_training_is_loaded_and_not_repeated(tmp_path):
    path = tmp_path / "a.safetensors"
    model, history = train(2, checkpoint=path)
    again, same = train(2, checkpoint=path)
    assert same == history
    assert weights(again) == weights(model)


def test_resume_can_be_declined(tmp_path):
    path = tmp_path / "a.safetensors"
    train(3, checkpoint=path)
    _, history = train(1, checkpoint=path, resume=False)
    assert history["epoch"] == [1]
    assert train(1, checkpoint=path)[1] == history


SCRIPT = """
import json, sys, time
import minitorch_attn as mt
from tests.test_training import loader, parts, train, weights

path, hang_in_epoch, hang_in = sys.argv[1], int(sys.argv[2]), sys.argv[3]
batches = loader()

class Hanging:
    def __init__(self):
        self.epoch = 0
    def __len__(self):
        return len(batches)
    def __iter__(self):
        self.epoch += 1
        for i, batch in enumerate(batches):
            if hang_in == "batch" and self.epoch == hang_in_epoch and i == 2:
                hang()
            yield batch
    def state_dict(self):
        return batches.state_dict()
    def load_state_dict(self, state):
        batches.load_state_dict(state)

def hang():
    print("now", flush=True)
    time.sleep(600)

if hang_in == "save":
    import os
    calls, fsync = [], os.fsync
    def hang_at_last(descriptor):
        calls.append(descriptor)
        fsync(descriptor)
        if len(calls) == hang_in_epoch:
            hang()
    os.fsync = hang_at_last

model, history = train(5, train_loader=Hanging(), checkpoint=path)
print(json.dumps([history, {k: v.hex() for k, v in weights(model).items()}]))
"""


def run_script(path, hang_in_epoch, hang_in):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path), str(hang_in_epoch), hang_in],
        stdout=subprocess.PIPE,
        text=True,
        cwd=os.path.dirname(os.path.dirname(__file__)),
    )


@pytest.mark.parametrize("hang_in", ["batch", "save"])
def test_a_killed_training_resumes_to_the_very_same_numbers(tmp_path, hang_in):
    path = tmp_path / "a.safetensors"
    with run_script(path, 3, hang_in) as process:
        assert process.stdout.readline() == "now\n"
        process.kill()
    assert path.exists()
    with run_script(path, 0, "never") as process:
        history, state = json.loads(process.stdout.read())
    model, expected = train(5)
    assert history == expected
    assert state == {name: value.hex() for name, value in weights(model).items()}
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]  # and nothing half written


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_checkpoint_that_was_cut_off_is_refused(tmp_path, share):
    path = tmp_path / "a.safetensors"
    train(1, checkpoint=path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    model, optimizer = parts()
    before = weights(model)
    with pytest.raises(CheckpointError, match=r"a\.safetensors .*resume=False to start anew"):
        train(2, model, optimizer, checkpoint=path)
    assert weights(model) == before


def test_a_checkpoint_with_one_wrong_bit_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    train(1, checkpoint=path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged, its numbers do not agree"):
        train(2, checkpoint=path)


def test_a_saved_model_is_not_taken_for_a_checkpoint(tmp_path):
    from minitorch_attn.serialization import save

    path = tmp_path / "model.safetensors"
    save(parts()[0].state_dict(), path)
    with pytest.raises(CheckpointError, match="no checkpoint of a training"):
        train(1, checkpoint=path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"make_optimizer": optim.SGD}, r"optimizer: Adam .* in the file, SGD .* here"),
        ({"lr": 0.5}, r"optimizer: Adam .*0\.05.* in the file, Adam .*0\.5.* here"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, settings, said):
    path = tmp_path / "a.safetensors"
    train(1, checkpoint=path)
    with pytest.raises(CheckpointError, match=said):
        train(2, *parts(**settings), checkpoint=path)


class Renamed(nn.Module):
    """As many parameters as Net has, and other names."""

    def __init__(self):
        super().__init__()
        self.net = Net()


Renamed.__name__ = "Net"


def test_a_checkpoint_whose_parts_do_not_fit_changes_nothing(tmp_path):
    path = tmp_path / "a.safetensors"
    train(1, checkpoint=path)
    model, optimizer = parts()
    order = [{"params": [p]} for p in model.parameters()]  # the same settings, other groups
    optimizer = optim.Adam(order, lr=0.05)
    before, generator = weights(model), mt.default_generator().bit_generator.state
    history = {"epoch": [1], "train_loss": [9.0]}
    with pytest.raises(
        CheckpointError, match=r"a\.safetensors, its optimizer does not fit: .*\[6\]"
    ):
        train(2, model, optimizer, checkpoint=path, history=history)
    assert weights(model) == before
    assert mt.default_generator().bit_generator.state == generator
    assert history == {"epoch": [1], "train_loss": [9.0]}

    renamed = Renamed().double()
    with pytest.raises(CheckpointError, match=r"its model does not fit: .*\n.*missing: 'net\."):
        train(2, renamed, optim.Adam(renamed.parameters(), lr=0.05), checkpoint=path)


def test_a_checkpoint_with_other_parts_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    train(1, checkpoint=path)
    with pytest.raises(CheckpointError, match="only one of the two has a state for valid_loader"):
        train(2, checkpoint=path, valid_loader=None)


def test_a_note_that_differs_is_another_training(tmp_path):
    path = tmp_path / "a.safetensors"
    train(1, checkpoint=path, notes={"data": "digits"})
    with pytest.raises(CheckpointError, match="data: digits in the file, None here"):
        train(2, checkpoint=path)


def test_another_schedule_is_another_training(tmp_path):
    path = tmp_path / "a.safetensors"
    model, optimizer = parts()
    train(1, model, optimizer, scheduler=schedule(optimizer), checkpoint=path)
    model, optimizer = parts()
    other = lr_scheduler.StepLR(optimizer, 3)
    with pytest.raises(CheckpointError, match="scheduler: SequentialLR .* in the file, StepLR"):
        train(2, model, optimizer, scheduler=other, checkpoint=path)


# -- when it goes wrong -------------------------------------------------------------------


class Bad(nn.Module):
    """Takes the logarithm of a number that the data can make negative."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)
        self.head = Log()

    def forward(self, x):
        return self.head(self.fc(x))


class Log(nn.Module):
    def forward(self, x):
        return F.log(x)


def bad_parts():
    mt.manual_seed(0)
    model = Bad().double()
    with mt.no_grad():
        model.fc.weight.copy_(np.ones((2, 4)))
        model.fc.bias.copy_(np.ones(2))
    return model, optim.SGD(model.parameters(), lr=0.001)


def positive_then(x, good_epochs):
    """Batches that are all right for some epochs, then one that is `x`."""
    good = (mt.tensor(np.ones((3, 4))), mt.tensor([0, 1, 0]))
    bad = (mt.tensor(x), mt.tensor([0, 1, 0]))

    class Batches:
        epoch = 0

        def __len__(self):
            return 2

        def __iter__(self):
            self.epoch += 1
            yield good
            yield good if self.epoch <= good_epochs else bad

    return Batches()


def test_nan_stops_training_and_names_the_operation_and_the_layer(tmp_path):
    path = tmp_path / "a.safetensors"
    model, optimizer = bad_parts()
    batches = positive_then(np.full((3, 4), -5.0), good_epochs=2)
    with pytest.raises(DivergedError) as caught:
        fit(model, batches, optimizer=optimizer, epochs=5, checkpoint=path)
    message = str(caught.value)
    assert "epoch 3, batch 2: the loss is not a finite number" in message
    assert (
        "the forward of 'log' in layer 'Bad.head' produced NaN from inputs without NaN" in message
    )
    assert "2 epochs are finished and in the history" in message
    assert str(path) in message
    assert caught.value.history["epoch"] == [1, 2]
    _, kept = fit_again(path)
    assert kept == caught.value.history


def fit_again(path):
    model, optimizer = bad_parts()
    return model, fit(
        model, positive_then(np.ones((3, 4)), 9), optimizer=optimizer, epochs=2, checkpoint=path
    )


def test_a_gradient_that_is_nan_stops_before_it_reaches_the_parameters():
    """sqrt(0) * 0: the value is fine, its slope is infinite."""

    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return F.sqrt(self.fc(x) ** 2)

    model = Root().double()
    with mt.no_grad():
        model.fc.weight.zero_()
        model.fc.bias.zero_()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    batches = [(mt.tensor(np.ones((3, 4))), mt.tensor([0, 1, 0]))]
    with pytest.raises(DivergedError, match="a gradient is not") as e:
        fit(model, batches, optimizer=optimizer, epochs=1)
    assert "the backward of" in str(e.value)
    assert np.isfinite(model.fc.weight.numpy()).all()
    assert all(p.grad is None for p in model.parameters())


def test_nan_is_explained_and_not_warned_of(recwarn):
    model, optimizer = bad_parts()
    with pytest.raises(DivergedError, match="No epoch was finished"):
        fit(model, positive_then(np.full((3, 4), -5.0), 0), optimizer=optimizer, epochs=1)
    assert not recwarn.list


def test_nan_in_the_data_is_told_from_nan_that_arose():
    x = np.ones((3, 4))
    x[1, 2] = np.nan
    model, optimizer = bad_parts()
    with pytest.raises(DivergedError, match="inputs of the batch hold NaN or infinity already"):
        fit(model, positive_then(x, 0), optimizer=optimizer, epochs=1)


def test_a_parameter_that_was_nan_is_named():
    model, optimizer = bad_parts()
    with mt.no_grad():
        model.fc.bias[1] = np.nan
    with pytest.raises(DivergedError, match=r"parameter 'fc\.bias' holds NaN"):
        fit(model, positive_then(np.ones((3, 4)), 1), optimizer=optimizer, epochs=1)


def test_the_batch_is_repeated_with_the_same_random_numbers():
    """Dropout lets a bad unit through now and then: the repetition must meet it again."""

    class Rare(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)
            self.dropout = nn.Dropout(0.9)

        def forward(self, x):
            kept = self.dropout(mt.ones(1))
            return self.fc(x) + F.log(1.0 - kept.sum())  # log(-9) once the unit is kept

    mt.manual_seed(0)
    model = Rare().double()
    optimizer = optim.SGD(model.parameters(), lr=0.001)
    batches = [(mt.tensor(np.ones((3, 4))), mt.tensor([0, 1, 0]))] * 200
    with pytest.raises(DivergedError, match="the forward of 'log'"):
        fit(model, batches, optimizer=optimizer, epochs=1)


def test_stopping_by_hand_keeps_the_history_and_the_checkpoint(tmp_path):
    path = tmp_path / "a.safetensors"

    def stop(history):
        if len(history["epoch"]) == 2:
            raise KeyboardInterrupt

    history = {}
    with pytest.raises(KeyboardInterrupt) as caught:
        train(5, after_epoch=stop, history=history, checkpoint=path)
    assert history["epoch"] == [1, 2]
    assert "2 epochs are finished" in caught.value.__notes__[0]
    assert train(2, checkpoint=path)[1] == history
