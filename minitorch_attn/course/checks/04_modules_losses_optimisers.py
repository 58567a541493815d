import numpy as np

from minitorch_attn import functional as F
from minitorch_attn import nn
from minitorch_attn.course.exercise import Case, Exercise, module, rules

# -- linear ---------------------------------------------------------------------------------


def linear_reference(x, weight, bias):
    def vjp_x(dy):
        return dy @ weight

    def vjp_weight(dy):
        return dy.T @ x

    def vjp_bias(dy):
        return dy.sum(axis=0)

    return x @ weight.T + bias, (vjp_x, vjp_weight, vjp_bias)


def _layer(rng, N, D_in, D_out):
    return rng.normal(size=(N, D_in)), rng.normal(size=(D_out, D_in)), rng.normal(size=D_out)


linear = Exercise(
    "04.linear",
    reference=linear_reference,
    observe=rules,
    cases=[
        Case(
            "two samples, two features, one output",
            np.array([[1.0, 2.0], [-1.0, 0.5]]),
            np.array([[3.0, 4.0]]),
            np.array([10.0]),
        ),
        Case("as many outputs as features", *_layer(np.random.default_rng(0), 2, 2, 2)),
        Case(
            "four samples, three features, two outputs", *_layer(np.random.default_rng(1), 4, 3, 2)
        ),
    ],
    more=lambda rng: Case("any sizes", *_layer(rng, *rng.integers(1, 6, size=3))),
    hints=[
        "In y_nk the weight has the indices kd, and the sum runs over d: `x @ weight.T`.",
        "x_nd takes part in all outputs k of its sample, with the factor W_kd. Which product of "
        "matrices sums dy_nk W_kd over k?",
        "The shapes decide: dx is (N, D_in), so `dy @ weight`; dweight is (D_out, D_in), so "
        "`dy.T @ x`.",
        "The bias is added to every sample, so its gradient is the sum over them: "
        "`dy.sum(axis=0)`.",
    ],
)


def _wrong_linear(inputs, **wrong):
    """The layer with some of its rules replaced: functions of dy by the names of the inputs."""
    y, right = linear_reference(*inputs)
    names = "x", "weight", "bias"
    return y, tuple(wrong.get(name, rule) for name, rule in zip(names, right, strict=True))


@linear.mutant(
    "The weight is (D_out, D_in): a row of x meets its rows, so `x @ weight.T`.", raises=True
)
def weight_not_transposed(x, weight, bias):
    rules = (lambda dy: dy @ weight.T, lambda dy: x.T @ dy, lambda dy: dy.sum(axis=0))
    return x @ weight + bias, rules


@linear.mutant("The bias is missing in the output.")
def bias_forgotten(x, weight, bias):
    _, rules = linear_reference(x, weight, bias)
    return x @ weight.T, rules


@linear.mutant(
    "The rule of x is `dy @ weight`: the way back sums over outputs, untransposed.", raises=True
)
def transposed_on_the_way_back(x, weight, bias):
    return _wrong_linear((x, weight, bias), x=lambda dy: dy @ weight.T)


@linear.mutant("The gradient of the weight is transposed: (D_out, D_in) is `dy.T @ x`.")
def weight_gradient_transposed(x, weight, bias):
    return _wrong_linear((x, weight, bias), weight=lambda dy: x.T @ dy)


@linear.mutant("The bias takes part in every sample: its gradient sums dy over them, to (D_out,).")
def bias_gradient_not_summed(x, weight, bias):
    return _wrong_linear((x, weight, bias), bias=lambda dy: dy)


@linear.mutant("You averaged dy over the samples for the bias; the loss has its mean already: sum.")
def bias_gradient_averaged(x, weight, bias):
    return _wrong_linear((x, weight, bias), bias=lambda dy: dy.mean(axis=0))


@linear.mutant("You divided the gradient of the weight by N; if there is a mean, dy contains it.")
def weight_gradient_averaged(x, weight, bias):
    return _wrong_linear((x, weight, bias), weight=lambda dy: dy.T @ x / len(x))


# -- cross_entropy --------------------------------------------------------------------------


def cross_entropy_reference(z, *, target):
    N = len(z)
    rows = np.arange(N)
    shifted = z - z.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    def vjp_z(dloss):
        dz = np.exp(log_p)
        dz[rows, target] -= 1
        return dloss * dz / N

    return -log_p[rows, target].mean(), vjp_z


def _scores(rng, N, K):
    return Case("any sizes", 2 * rng.normal(size=(N, K)), target=rng.integers(K, size=N))


cross_entropy = Exercise(
    "04.cross_entropy",
    reference=cross_entropy_reference,
    observe=rules,
    cases=[
        Case("one sample, equal scores", np.array([[1.0, 1.0]]), target=np.array([0])),
        Case(
            "three samples, four classes",
            np.array([[0.0, 1.0, 2.0, -1.0], [2.0, 0.5, 0.0, 1.0], [-1.0, 0.0, 3.0, 1.0]]),
            target=np.array([2, 3, 0]),
        ),
        Case(
            "as many samples as classes",
            np.array([[1.0, 0.0, 2.0], [0.5, -1.0, 0.0], [0.0, 3.0, 1.0]]),
            target=np.array([1, 1, 2]),
        ),
        Case(
            "scores of 1000 and -1000",
            np.array([[1000.0, 999.0, 0.0], [-1000.0, -1001.0, -999.0]]),
            target=np.array([1, 0]),
        ),
        Case("a sure mistake", np.array([[-1000.0, 1000.0]]), target=np.array([0])),
    ],
    more=lambda rng: _scores(rng, *rng.integers(2, 6, size=2)),
    hints=[
        "First subtract each row's largest score: `z - z.max(axis=1, keepdims=True)`. The loss "
        "does not change, and the exponentials are at most 1.",
        "The logarithm of softmax is the shifted score minus the logarithm of the sum of "
        "exponentials. Do not take `np.log` of a softmax: that may be 0.",
        "`log_p[np.arange(N), target]` picks one element from each row, at the right class.",
        "The rule: a copy of the softmax, `np.exp(log_p)`, from which 1 is subtracted at "
        "`[np.arange(N), target]`; times dloss, divided by N.",
    ],
)


def _log_softmax(z):
    shifted = z - z.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@cross_entropy.mutant(
    "exp overflows for large scores: subtract each row's largest score before np.exp."
)
def overflow(z, *, target):
    N = len(z)
    rows = np.arange(N)
    e = np.exp(z)
    p = e / e.sum(axis=1, keepdims=True)
    return -np.log(
        p[rows, target]
    ).mean(), lambda dloss: dloss * (p - np.eye(z.shape[1])[target]) / N


@cross_entropy.mutant(
    "The softmax is safe, but its logarithm is not: a probability that is rounded to 0 gives an "
    "infinite loss. Compute the logarithm as the shifted score minus the log of the sum."
)
def logarithm_of_softmax(z, *, target):
    _, vjp_z = cross_entropy_reference(z, target=target)
    p = np.exp(_log_softmax(z))
    return -np.log(p[np.arange(len(z)), target]).mean(), vjp_z


@cross_entropy.mutant("You added the losses of the samples up; the loss is their mean.")
def sum_for_mean(z, *, target):
    loss, vjp_z = cross_entropy_reference(z, target=target)
    return loss * len(z), lambda dloss: vjp_z(dloss) * len(z)


@cross_entropy.mutant(
    "The loss is a mean over N samples, so its rule divides by N: that is missing."
)
def mean_forgotten_in_the_rule(z, *, target):
    loss, vjp_z = cross_entropy_reference(z, target=target)
    return loss, lambda dloss: vjp_z(dloss) * len(z)


@cross_entropy.mutant(
    "The rule gives the softmax alone: subtract 1 at the right class of each row."
)
def one_hot_not_subtracted(z, *, target):
    loss, _ = cross_entropy_reference(z, target=target)
    return loss, lambda dloss: dloss * np.exp(_log_softmax(z)) / len(z)


@cross_entropy.mutant(
    "The rule's sign is turned round: softmax minus one-hot, not one-hot minus softmax."
)
def sign_of_the_rule(z, *, target):
    loss, vjp_z = cross_entropy_reference(z, target=target)
    return loss, lambda dloss: -vjp_z(dloss)


@cross_entropy.mutant("The loss is negative: it is MINUS the mean log-probability.")
def sign_of_the_loss(z, *, target):
    loss, vjp_z = cross_entropy_reference(z, target=target)
    return -loss, lambda dloss: -vjp_z(dloss)


@cross_entropy.mutant("The rule ignores dloss: what comes in must be carried back, so multiply.")
def dloss_ignored(z, *, target):
    loss, vjp_z = cross_entropy_reference(z, target=target)
    return loss, lambda dloss: vjp_z(1.0)


@cross_entropy.mutant("Softmax runs along the classes, axis 1; you went along the samples.")
def over_the_samples(z, *, target):
    N = len(z)
    shifted = z - z.max(axis=0, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=0, keepdims=True))
    one_hot = np.eye(z.shape[1])[target]
    return -log_p[np.arange(N), target].mean(), lambda dloss: dloss * (np.exp(log_p) - one_hot) / N


@cross_entropy.mutant(
    "`log_p[:, target]` takes all rows for every target, (N, N); `log_p[np.arange(N), target]` "
    "takes one element from each row."
)
def all_rows_for_every_target(z, *, target):
    _, vjp_z = cross_entropy_reference(z, target=target)
    return -_log_softmax(z)[:, target].mean(), vjp_z


# -- sgd_momentum ---------------------------------------------------------------------------


def sgd_momentum_reference(p, g, b, lr, momentum):
    b = momentum * b + g
    return p - lr * b, b


sgd_momentum = Exercise(
    "04.sgd_momentum",
    reference=sgd_momentum_reference,
    cases=[
        Case("numbers", np.array([1.0]), np.array([2.0]), np.array([10.0]), 0.1, 0.5),
        Case("the first step", np.array([1.0, -2.0]), np.array([4.0, 0.5]), np.zeros(2), 0.1, 0.9),
        Case(
            "a later step",
            np.array([[1.0, -2.0], [0.5, 3.0]]),
            np.array([[0.5, 1.0], [-2.0, 0.0]]),
            np.array([[2.0, -1.0], [4.0, -3.0]]),
            0.25,
            0.9,
        ),
        Case("no momentum", np.array([3.0, 1.0]), np.array([1.0, -2.0]), np.ones(2), 0.5, 0.0),
    ],
    more=lambda rng: Case(
        "any shape",
        *rng.normal(size=(3, *rng.integers(1, 5, size=2))),
        float(rng.choice([0.01, 0.1, 0.3])),
        float(rng.choice([0.5, 0.8, 0.9])),
    ),
    hints=[
        "First the new b, from the old b and g; then the new p, from the new b.",
        "`b = momentum * b + g` makes a new array; `b *= momentum` would write into the old one.",
        "`return p - lr * b, b`.",
    ],
)


@sgd_momentum.mutant("p is moved with the old b: the new b, with this step's gradient, moves it.")
def old_sum(p, g, b, lr, momentum):
    return p - lr * b, momentum * b + g


@sgd_momentum.mutant(
    "The sign of the step is wrong: against the gradient, p - lr * b, is downhill."
)
def uphill(p, g, b, lr, momentum):
    b = momentum * b + g
    return p + lr * b, b


@sgd_momentum.mutant(
    "The sign of the momentum is wrong: the gradient is added to the past, not less."
)
def gradient_subtracted(p, g, b, lr, momentum):
    b = momentum * b - g
    return p - lr * b, b


@sgd_momentum.mutant(
    "You weighted the gradient by 1 - momentum, a running mean as in Adam; here b is a sum: + g."
)
def mean_for_sum(p, g, b, lr, momentum):
    b = momentum * b + (1 - momentum) * g
    return p - lr * b, b


@sgd_momentum.mutant(
    "The learning rate went into b as well; it stands outside: b adds up gradients, and p moves by "
    "lr * b."
)
def rate_inside(p, g, b, lr, momentum):
    b = momentum * b + lr * g
    return p - b, b


@sgd_momentum.mutant("You took the step without b: the gradient alone moves p, without momentum.")
def momentum_without_effect(p, g, b, lr, momentum):
    return p - lr * g, momentum * b + g


@sgd_momentum.mutant(
    "`b *= momentum` wrote into the array that was given: make a new one, `b = momentum * b + g`."
)
def overwritten(p, g, b, lr, momentum):
    b *= momentum
    b += g
    return p - lr * b, b


# -- adam -----------------------------------------------------------------------------------


def _adam(p, g, m, v, t, lr, beta1, beta2, eps, *, square=True, inside=False):
    """A step; the settings switch single mistakes on."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * (g**2 if square else np.abs(g))
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    root = np.sqrt(v_hat + eps) if inside else np.sqrt(v_hat) + eps
    return p - lr * m_hat / root, m, v


def adam_reference(p, g, m, v, t, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(p, g, m, v, t, lr, beta1, beta2, eps)


def _later(rng):
    shape = tuple(rng.integers(1, 4, size=2))
    p, g, m = rng.normal(size=(3, *shape))
    return Case("any step", p, g, m, rng.uniform(0.1, 2, size=shape), int(rng.integers(2, 9)), 0.1)


adam = Exercise(
    "04.adam",
    reference=adam_reference,
    cases=[
        Case("the first step", np.array([1.0]), np.array([4.0]), np.zeros(1), np.zeros(1), 1, 0.1),
        Case(
            "the third step",
            np.array([1.0, -2.0]),
            np.array([0.5, -3.0]),
            np.array([0.2, 1.0]),
            np.array([0.01, 0.5]),
            3,
            0.1,
        ),
        Case(
            "other settings",
            np.array([[0.5, 1.5]]),
            np.array([[2.0, -0.1]]),
            np.array([[-1.0, 0.3]]),
            np.array([[0.3, 0.02]]),
            2,
            0.01,
            0.8,
            0.95,
            0.5,
        ),
        Case("no gradient yet", np.ones(2), np.zeros(2), np.zeros(2), np.zeros(2), 1, 0.1),
    ],
    more=_later,
    hints=[
        "Four lines: the new m, the new v, the two corrected means, then the new p.",
        "`beta1**t` is the power, with t = 1 in the first step; the correction divides by "
        "`1 - beta1**t`.",
        "The corrected means serve this step only. What is returned and carried on is m and v.",
        "`p - lr * m_hat / (np.sqrt(v_hat) + eps)`: eps is added to the root.",
    ],
)


@adam.mutant(
    "The bias correction is missing: m and v started at 0, so divide m by 1 - beta1**t and v by "
    "1 - beta2**t."
)
def no_bias_correction(p, g, m, v, t, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return p - lr * m / (np.sqrt(v) + eps), m, v


@adam.mutant("eps stands inside the root: it is added to the root, np.sqrt(v_hat) + eps.")
def eps_inside_the_root(p, g, m, v, t, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(p, g, m, v, t, lr, beta1, beta2, eps, inside=True)


@adam.mutant(
    "Your t starts at 0, where 1 - beta**0 = 0 is a division by zero: t is 1 in the first step, so "
    "use it as it comes."
)
def steps_counted_from_0(p, g, m, v, t, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8):
    with np.errstate(all="ignore"):
        return _adam(p, g, m, v, t - 1, lr, beta1, beta2, eps)


@adam.mutant("You used t + 1; t is the number of this step already, 1 in the first.")
def one_step_ahead(p, g, m, v, t, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(p, g, m, v, t + 1, lr, beta1, beta2, eps)


@adam.mutant("The correction has a power, beta**t; you multiplied, beta * t.")
def times_t_for_power(p, g, m, v, t, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    with np.errstate(all="ignore"):
        step = lr * (m / (1 - beta1 * t)) / (np.sqrt(v / (1 - beta2 * t)) + eps)
    return p - step, m, v


@adam.mutant("v is the running mean of the SQUARED gradient: the square is missing.")
def gradient_not_squared(p, g, m, v, t, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8):
    return _adam(p, g, m, v, t, lr, beta1, beta2, eps, square=False)


@adam.mutant("The root is missing: the step is divided by the root of the mean square.")
def root_forgotten(p, g, m, v, t, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return p - lr * (m / (1 - beta1**t)) / (v / (1 - beta2**t) + eps), m, v


@adam.mutant(
    "You returned the corrected means; the next step would correct them once more. m and v are "
    "carried on as they are."
)
def corrected_means_carried_on(p, g, m, v, t, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8):
    p, m, v = _adam(p, g, m, v, t, lr, beta1, beta2, eps)
    return p, m / (1 - beta1**t), v / (1 - beta2**t)


@adam.mutant("The weights are in each other's place: the past counts beta, the gradient 1 - beta.")
def weights_swapped(p, g, m, v, t, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8):
    m = (1 - beta1) * m + beta1 * g
    v = (1 - beta2) * v + beta2 * g**2
    return p - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps), m, v


# -- MLP ------------------------------------------------------------------------------------


class MLPReference(nn.Module):
    def __init__(self, sizes, kept_in=nn.ModuleList):
        super().__init__()
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        self.layers = kept_in(nn.Linear(D_in, D_out) for D_in, D_out in pairs)

    def forward(self, x):
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        return last(x)


def _rows(N, D):
    return np.random.default_rng(N + D).normal(size=(N, D)).round(1)


def _any_sizes(rng):
    sizes = [int(size) for size in rng.integers(2, 6, size=rng.integers(2, 5))]
    return Case("any sizes", rng.normal(size=(4, sizes[0])), sizes=sizes)


MLP = Exercise(
    "04.MLP",
    reference=MLPReference,
    observe=module,
    cases=[
        Case("one hidden layer", _rows(3, 4), sizes=[4, 5, 2]),
        Case("three hidden layers", _rows(5, 3), sizes=[3, 6, 6, 4, 3]),
        Case("a single layer", _rows(4, 3), sizes=[3, 2]),
    ],
    more=_any_sizes,
    tolerance=1e-6,
    hints=[
        "Neighbours in `sizes` belong to one layer: `zip(sizes[:-1], sizes[1:])` gives the pairs.",
        "A module looks for parameters in attributes that are modules. A list is none; "
        "`nn.ModuleList` is.",
        "`self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in ...)`.",
        "In `forward`: `*hidden, last = self.layers`; a ReLU after each hidden layer, none after "
        "the last.",
    ],
)


@MLP.mutant(
    "The layers are kept in a plain list, in which no parameter is found: use `nn.ModuleList`."
)
class plain_list(MLPReference):
    def __init__(self, sizes):
        super().__init__(sizes, kept_in=list)


@MLP.mutant("There is a ReLU behind the last layer too: scores may be negative, leave it out.")
class relu_behind_the_last(MLPReference):
    def forward(self, x):
        return F.relu(super().forward(x))


@MLP.mutant(
    "The ReLU between the layers is missing: without it they are together a single linear map."
)
class no_relu(MLPReference):
    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


@MLP.mutant("There is a softmax at the end; the loss takes it, so the scores come out as they are.")
class softmax_at_the_end(MLPReference):
    def forward(self, x):
        return F.softmax(super().forward(x), dim=1)


@MLP.mutant("The layers have no biases: leave `nn.Linear` as it is, with its bias.")
class without_biases(MLPReference):
    def __init__(self, sizes):
        super().__init__(sizes)
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairs)


@MLP.mutant("The last layer is missing: the sizes' neighbours are one fewer than the sizes.")
class last_layer_missing(MLPReference):
    def __init__(self, sizes):
        super().__init__(sizes[:-1])


@MLP.mutant(
    "The ReLU is a part of the list, so the layers' numbers have gaps: 0, 2, 4. Use `F.relu` in "
    "`forward`."
)
class relus_in_the_list(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        parts = []
        for D_in, D_out in zip(sizes[:-1], sizes[1:], strict=True):
            parts += [nn.Linear(D_in, D_out), nn.ReLU()]
        self.layers = nn.Sequential(*parts[:-1])

    def forward(self, x):
        return self.layers(x)
