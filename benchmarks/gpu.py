"""The same table on a GPU: each time is that of a result and all its gradients, or of a step of
training, against PyTorch on the same card.

PyTorch's cuDNN may look for its fastest convolution. Neither library gets another precision than
the case says: for float32 PyTorch's TF32 is off, for TF32 it is on in both.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.engine.anomaly import Inspector, inspecting
from minitorch_attn.engine.backend import gpu_module
from minitorch_attn.models import se_resnet
from minitorch_attn.ops.multiply_adds import multiply_adds

from .measure import case, peer
from .networks import network_in_torch
from .roofline import PRECISIONS, Work

Contenders = Iterator[tuple[str, Callable[[], Any]]]

small = False  # shapes that a simulated card can do: to see that every case runs


def sized(full: int, least: int = 1) -> int:
    """A size, or a small one that keeps what the case is about."""
    return max(least, full // 64) if small else full


# ---------------------------------------------------------------- turns


def turns(ours: Callable, theirs: Callable, inputs: list[np.ndarray], precision: str) -> Contenders:
    """Both libraries' way to a result and the gradients of all its inputs."""
    dtype, setting = PRECISIONS[precision]
    arrays = [x.astype(dtype) for x in inputs]
    leaves = [mt.tensor(x, requires_grad=True, device="cuda") for x in arrays]
    dy = mt.randn(*ours(*leaves).shape, dtype=dtype, device="cuda")

    def turn() -> None:
        mt.set_float32_matmul_precision(setting)
        for x in leaves:
            x.grad = None
        ours(*leaves).backward(dy)

    yield "minitorch_attn", turn
    if torch := torch_on_gpu():
        their_leaves = [torch.tensor(x, device="cuda", requires_grad=True) for x in arrays]
        their_dy = torch.tensor(dy.numpy(), device="cuda")

        def turn_of_torch() -> None:
            allow_tf32(torch, setting == "high")
            for x in their_leaves:
                x.grad = None
            theirs(torch, *their_leaves).backward(their_dy)

        yield "torch", turn_of_torch


def torch_on_gpu() -> Any:
    """PyTorch, if it is installed and has the card."""
    torch: Any = peer("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    torch.backends.cudnn.benchmark = True
    return torch


def allow_tf32(torch: Any, allowed: bool) -> None:
    """Let PyTorch's products and convolutions read float32 as TF32."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def normal(*shape: int) -> np.ndarray:
    """Reproducible float32 noise."""
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def itemsize(precision: str) -> int:
    """Bytes of a number as it is stored."""
    return np.dtype(PRECISIONS[precision][0]).itemsize


# ---------------------------------------------------------------- convolution


class Shape(NamedTuple):
    """N images of C channels and size x size under O kernels of k x k, with padding k // 2."""

    C: int
    O: int
    size: int
    k: int = 3
    stride: int = 1
    groups: int = 1
    N: int = 256

    @property
    def places(self) -> int:
        """P = Q of the result."""
        return (self.size + 2 * (self.k // 2) - self.k) // self.stride + 1

    def work(self, precision: str) -> Work:
        """Three products; images, kernels and results are read twice and written once."""
        x = self.N * self.C * self.size**2
        y = self.N * self.O * self.places**2
        w = self.O * self.C // self.groups * self.k**2
        products = y * self.C // self.groups * self.k**2
        return Work(6 * products, 3 * (x + y + w) * itemsize(precision), precision)

    def shrunk(self) -> Shape:
        """For a simulated card."""
        if not small:
            return self
        groups = min(self.groups, 4)
        return self._replace(C=min(self.C, 4), O=4, size=min(self.size, 6), groups=groups, N=2)

    def __str__(self) -> str:
        name = f"{self.N}x{self.C}x{self.size}x{self.size} -> {self.O}, k{self.k}"
        if self.stride > 1:
            name += f", stride {self.stride}"
        return name + (f", {self.groups} groups" if self.groups > 1 else "")


CONVOLUTIONS = (
    Shape(64, 64, 56),
    Shape(128, 128, 28),
    Shape(256, 256, 14),
    Shape(512, 512, 7),
    Shape(16, 16, 32),
    Shape(64, 256, 56, k=1),
    Shape(3, 64, 224, k=7, stride=2),
    Shape(128, 128, 28, groups=128),
)

for shape in CONVOLUTIONS:
    for precision in PRECISIONS:

        @case(f"conv {shape}, {precision}", device="cuda", work=shape.work(precision))
        def _(shape: Shape = shape, precision: str = precision) -> Contenders:
            shape = shape.shrunk()
            options = {
                "stride": shape.stride,
                "padding": shape.k // 2,
                "groups": shape.groups,
            }
            inputs = [
                normal(shape.N, shape.C, shape.size, shape.size),
                normal(shape.O, shape.C // shape.groups, shape.k, shape.k),
            ]
            yield from turns(
                lambda x, w: F.conv2d(x, w, **options),
                lambda torch, x, w: torch.nn.functional.conv2d(x, w, **options),
                inputs,
                precision,
            )
            if precision == "float32" and shape.groups == 1:
                yield from on_cupy(shape, inputs)


def on_cupy(shape: Shape, inputs: list[np.ndarray]) -> Contenders:
    """DeZero and Chainer, whose convolutions take CuPy's arrays: where they still work."""
    options = {"stride": shape.stride, "pad": shape.k // 2}
    names = {"dezero": "conv2d", "chainer": "convolution_2d"}
    for name, function in names.items():
        library = peer(name)
        conv = getattr(peer(f"{name}.functions"), function, None)
        if library is None or conv is None or small:
            continue
        run = turn_of_variables(library, conv, inputs, options)
        try:
            run()
        except Exception:  # what breaks on this CuPy does not take part
            continue
        yield name, run


def turn_of_variables(
    library: Any, conv: Callable, inputs: list[np.ndarray], options: dict[str, int]
) -> Callable[[], None]:
    """A turn of a library whose variables take the gradient of a result as an attribute."""
    x, w = (library.Variable(gpu_module().asarray(a)) for a in inputs)

    def run() -> None:
        x.cleargrad(), w.cleargrad()
        y = conv(x, w, None, **options)
        dy = gpu_module().ones_like(y.data)
        y.grad = library.Variable(dy) if library.__name__ == "dezero" else dy
        y.backward()

    return run


# ---------------------------------------------------------------- attention


def attention_work(N: int, E: int, L: int, D: int, causal: bool, precision: str) -> Work:
    """Two products forward, five backward; 4 arrays moved forward, 8 backward."""
    pairs = N * E * L * L / (2 if causal else 1)
    return Work(7 * 2 * pairs * D, 12 * N * E * L * D * itemsize(precision), precision)


for N, L in ((4, 4096), (1, 16384)):
    for causal in (False, True):
        for precision in PRECISIONS:

            @case(
                f"attention{', causal' * causal}, {N}x8x{L}x64, {precision}",
                device="cuda",
                work=attention_work(N, 8, L, 64, causal, precision),
            )
            def _(
                N: int = N, L: int = L, causal: bool = causal, precision: str = precision
            ) -> Contenders:
                E, L, D = sized(8), min(sized(L), 70) if small else L, sized(64, 16)
                rng = np.random.default_rng(0)
                return turns(
                    lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal),
                    lambda torch, q, k, v: torch.nn.functional.scaled_dot_product_attention(
                        q, k, v, is_causal=causal
                    ),
                    list(rng.standard_normal((3, sized(N), E, L, D), np.float32)),
                    precision,
                )


# ---------------------------------------------------------------- passes over memory


def passes(
    name: str, shape: tuple[int, ...], arrays: int, ours: Callable, theirs: Callable
) -> None:
    """Cases of an operation that moves so many arrays of a shape, forward and backward."""
    for precision in ("float32", "float16"):
        moved = arrays * math.prod(shape) * itemsize(precision)

        @case(
            f"{name}, {'x'.join(map(str, shape))}, {precision}",
            device="cuda",
            work=Work(0, moved, precision),
        )
        def _(precision: str = precision) -> Contenders:
            given = tuple(min(n, 5) for n in shape) if small else shape
            return turns(ours, theirs, [normal(*given)], precision)


def batch_norm(library: Any, x: Any) -> Any:
    """Batch norm of PyTorch, or of this library, by the batch's own statistics."""
    home = library.functional if library is mt else library.nn.functional
    return home.batch_norm(x, None, None, training=True)


# Of 5: x and y forward; x, dy and dx backward.
for of_images in ((256, 64, 56, 56), (256, 256, 14, 14)):
    passes("batch norm", of_images, 5, lambda x: batch_norm(mt, x), batch_norm)
passes(
    "layer norm",
    (8192, 1024),
    5,
    lambda x: F.layer_norm(x, x.shape[-1:]),
    lambda torch, x: torch.nn.functional.layer_norm(x, x.shape[-1:]),
)
passes(
    "softmax",
    (8192, 4096),
    5,
    lambda x: F.softmax(x, dim=-1),
    lambda torch, x: torch.softmax(x, dim=-1),
)
passes("gelu", (256, 197, 3072), 5, F.gelu, lambda torch, x: torch.nn.functional.gelu(x))
passes(
    "max pool 3x3, stride 2",
    (256, 64, 112, 112),
    3,  # x once and dx once; y and dy are a quarter each, and so are the indices twice
    lambda x: F.max_pool2d(x, 3, 2, 1),
    lambda torch, x: torch.nn.functional.max_pool2d(x, 3, 2, 1),
)


# ---------------------------------------------------------------- steps


@case("Adam step, 25 million parameters in 161 tensors", device="cuda", work=Work(0, 7 * 4 * 25e6))
def _() -> Contenders:
    """Reads p, g, m and v, writes p, m and v."""
    sizes = [sized(25_000_000 // 161)] * 161

    def step(library: Any) -> Callable[[], None]:
        tensors = [library.zeros(n, device="cuda", requires_grad=True) for n in sizes]
        for p in tensors:
            p.grad = library.ones(p.shape[0], device="cuda")
        options = {"fused": True} if library is not mt else {}
        return library.optim.Adam(tensors, lr=1e-3, **options).step

    yield "minitorch_attn", step(mt)
    if torch := torch_on_gpu():
        yield "torch", step(torch)


class Counted(Inspector):
    """Adds up the multiply-adds of all operations."""

    total = 0

    def after_op(self, op: str, output: Any, inputs: Any, settings: Any) -> None:
        """Called with every operation."""
        self.total += multiply_adds(op, output.data, inputs, settings)


BATCH = 256


def resnet20(attention: bool) -> Any:
    """ResNet-20 for images of 32x32, or SE-ResNet-20."""
    return se_resnet(in_channels=3, blocks=(3, 3, 3), reduction=8, attention=attention)


@functools.cache
def multiply_adds_of_an_image(attention: bool) -> int:
    """Of the forward pass."""
    with inspecting(Counted()) as counted, mt.no_grad():
        resnet20(attention)(mt.zeros(1, 3, 32, 32))
    return counted.total


def step_work(attention: bool, precision: str) -> Work:
    """Three times the products of the forward pass of one image, for the whole batch."""
    return Work(6 * BATCH * multiply_adds_of_an_image(attention), 0, precision)


for attention in (False, True):
    for precision in PRECISIONS:

        @case(
            f"{'SE-' * attention}ResNet-20 training step, {BATCH}x3x32x32, {precision}",
            device="cuda",
            work=step_work(attention, precision),
            images=BATCH,
        )
        def _(attention: bool = attention, precision: str = precision) -> Contenders:
            return training_steps(resnet20(attention), precision)


def training_steps(network: Any, precision: str) -> Contenders:
    """Forward, loss, backward and SGD with momentum; float16 by autocast and a loss scale."""
    dtype, setting = PRECISIONS[precision]
    N, size = (2, 8) if small else (BATCH, 32)
    x, labels = normal(N, 3, size, size), np.random.default_rng(0).integers(0, 10, N)
    theirs = network_in_torch(network) if torch_on_gpu() else None
    network.to("cuda")
    images, targets = mt.tensor(x, device="cuda"), mt.tensor(labels, device="cuda")
    optimizer = mt.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    half = dtype == "float16"
    scaler = mt.amp.GradScaler(enabled=half)

    def ours() -> None:
        mt.set_float32_matmul_precision(setting)
        optimizer.zero_grad()
        with mt.autocast("float16", enabled=half):
            loss = F.cross_entropy(network(images), targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    yield "minitorch_attn", ours
    if torch := torch_on_gpu():
        theirs.to("cuda")
        their_images, their_targets = (torch.tensor(a, device="cuda") for a in (x, labels))
        their_optimizer = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9)
        their_scaler = torch.amp.GradScaler("cuda", enabled=half)

        def in_torch() -> None:
            allow_tf32(torch, setting == "high")
            their_optimizer.zero_grad()
            with torch.autocast("cuda", torch.float16, enabled=half):
                loss = torch.nn.functional.cross_entropy(theirs(their_images), their_targets)
            their_scaler.scale(loss).backward()
            their_scaler.step(their_optimizer)
            their_scaler.update()

        yield "torch", in_torch
