"""What a network is made of and what it costs: shapes, parameters and multiply-adds by layer."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ..engine import ShapeError, Tensor, no_grad, zeros
from ..engine.anomaly import Inspector, inspecting
from ..ops.multiply_adds import multiply_adds
from .module import Module
from .representation import count_parameters, title

HEADINGS = ("layer", "output shape", "parameters", "multiply-adds")


@dataclass(frozen=True)
class Row:
    """One layer of a summary. Its counts include those of its parts.

    Attributes
    ----------
    name : str
        Dotted name within the network, "" for the network itself.
    layer : str
        The layer as it could be made: ``"Linear(3, 8)"``.
    output_shape : tuple of int, or None
        Of the last call; None for a layer that was not called, or that gave no single tensor.
    parameters : int
        Elements of all its parameters; what is shared counts once.
    multiply_adds : int
        Products summed up in all its calls.
    """

    name: str
    layer: str
    output_shape: tuple[int, ...] | None
    parameters: int
    multiply_adds: int

    @property
    def depth(self) -> int:
        """How deep it lies: 0 is the network, 1 a part of it, 2 a part of that."""
        return len(self.name.split(".")) if self.name else 0

    def _cells(self) -> tuple[str, str, str, str]:
        last_name = self.name.rpartition(".")[2]
        return (
            "  " * self.depth + (f"({last_name}): " if last_name else "") + self.layer,
            "" if self.output_shape is None else str(self.output_shape),
            f"{self.parameters:,}" if self.parameters else "",
            f"{self.multiply_adds:,}" if self.multiply_adds else "",
        )


@dataclass(frozen=True, repr=False)
class Summary:
    """The layers of a network, one a row; printed, it is a table.

    Attributes
    ----------
    rows : tuple of Row
        The network first, then its parts, each before what it is made of.
    """

    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """Elements of all parameters."""
        return self.rows[0].parameters

    @property
    def multiply_adds(self) -> int:
        """Products summed up for one input."""
        return self.rows[0].multiply_adds

    def __str__(self) -> str:
        lines = [HEADINGS, *(row._cells() for row in self.rows)]
        layer, shape, parameters, products = (max(map(len, column)) for column in zip(*lines))
        return "\n".join(
            f"{a:<{layer}}  {b:<{shape}}  {c:>{parameters}}  {d:>{products}}".rstrip()
            for a, b, c, d in lines
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f'<pre style="line-height: 1.3; white-space: pre">{escape(str(self))}</pre>'


def summary(model: Module, input_shape: Sequence[int], depth: int | None = None) -> Summary:
    r"""Run a network on one input of zeros, and tell what each layer puts out and costs.

    Multiply-adds are counted where they happen, in the operations, so that a module made of matrix
    products counts as well as a layer:

    =======================  ==================================================================
    convolution              :math:`N\, O\, P\, Q\, (C / G)\, R\, S`
    transposed convolution   :math:`N\, C\, H\, W\, (O / G)\, R\, S`
    linear map               :math:`N\, D_{in}\, D_{out}`
    matrix product, einsum   the product of all sizes, that of the summed axis too
    attention                :math:`N\, L\, S\, (D + D_v)`, whatever a mask hides
    recurrence               :math:`N\, L\, G\, D^2`: state by weights, with G gates, in L steps
    =======================  ==================================================================

    Everything else counts nothing: biases, activations, normalisation, pooling, scaling.

    Parameters
    ----------
    model : Module
        It runs in evaluation mode and without a graph; afterwards it is as it was.
    input_shape : tuple of int
        Of one input, without the batch: (C, H, W) for images.
    depth : int, optional
        List parts down to this depth only: 1 for what the network is directly made of. All parts
        are counted anyway.

    Returns
    -------
    Summary
        Its `rows`, and the totals `parameters` and `multiply_adds`; `print` shows the table.

    Raises
    ------
    ShapeError
        By the layer that such an input does not fit; a note says which input it was.
    """
    weight = next(model.parameters(), None)
    x = zeros(1, *input_shape)
    x = x if weight is None else x.to(dtype=weight.dtype, device=weight.device)
    watch = _Watch()
    with _evaluating(model), no_grad(), inspecting(watch), watch.calls_of(model):
        try:
            model(x)
        except ShapeError as error:
            error.add_note(
                f"summary ran {type(model).__name__} on an input of shape {x.shape}: input_shape="
                f"{tuple(input_shape)} is taken for that of one input, without the batch"
            )
            raise
    rows = (
        Row(name, title(m), watch.shapes.get(m), count_parameters(m), watch.cost(m))
        for name, m in model.named_modules()
    )
    return Summary(tuple(row for row in rows if depth is None or row.depth <= depth))


class _Watch(Inspector):
    """Adds up the multiply-adds of each module that is running, and notes what it puts out."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[Module] = []
        self.shapes: dict[Module, tuple[int, ...]] = {}
        self.called: set[Module] = set()
        self.multiply_adds: Counter[Module] = Counter()

    def cost(self, module: Module) -> int:
        """Multiply-adds in all calls of a module, or of its parts if only they are called."""
        if module in self.called:
            return self.multiply_adds[module]
        return sum(self.cost(part) for part in module.children())

    def after_op(
        self, op: str, output: Tensor, inputs: Sequence[Any], settings: Mapping[str, Any]
    ) -> None:
        count = multiply_adds(op, output.data, inputs, settings)
        for module in set(self.running):
            self.multiply_adds[module] += count

    @contextlib.contextmanager
    def calls_of(self, model: Module) -> Iterator[None]:
        """Watch every call of a network and of its parts."""
        with contextlib.ExitStack() as hooks:
            for module in model.modules():
                hooks.enter_context(module.register_forward_pre_hook(self._before))
                hooks.enter_context(module.register_forward_hook(self._after))
            yield

    def _before(self, module: Module, inputs: tuple) -> None:
        self.called.add(module)
        self.running.append(module)

    def _after(self, module: Module, inputs: tuple, output: Any) -> None:
        self.running.pop()
        if isinstance(output, Tensor):
            self.shapes[module] = output.shape


@contextlib.contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
