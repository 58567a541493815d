from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from .. import functional as F
from ..engine import ShapeError, Tensor, array_module, get_default_dtype, zeros
from ..engine.dtypes import is_floating
from ..engine.tensor import operand
from ..ops import recurrent
from ..ops.arguments import integer
from . import init
from .module import Module
from .parameter import Parameter
from .representation import settings
from .sequences import PackedSequence

NONLINEARITIES = {"tanh": (F.tanh, recurrent.rnn_tanh), "relu": (F.relu, recurrent.rnn_relu)}


class _Recurrent(Module):
    """What cells and layers share: sizes, and the first values."""

    gates: int  # G: how many parts of the hidden size a step computes

    def __init__(self, input_size: int, hidden_size: int, bias: bool):
        super().__init__()
        self.input_size = integer(self._name, "input_size", input_size, least=1)
        self.hidden_size = integer(self._name, "hidden_size", hidden_size, least=1)
        self.bias = bias

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _add_parameters(self, input_size: int, suffix: str = "") -> None:
        """The weights and biases of a step, (G D, D_in), (G D, D), (G D,) and (G D,)."""
        D, rows = self.hidden_size, self.gates * self.hidden_size
        setattr(self, f"weight_ih{suffix}", Parameter(zeros(rows, input_size)))
        setattr(self, f"weight_hh{suffix}", Parameter(zeros(rows, D)))
        for share in ("ih", "hh"):
            setattr(self, f"bias_{share}{suffix}", Parameter(zeros(rows)) if self.bias else None)

    def reset_parameters(self) -> None:
        """Draw the first values anew."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)


# -- cells: one step, in the words of the equations ------------------------------------------------


class _Cell(_Recurrent):
    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True):
        super().__init__(input_size, hidden_size, bias)
        self._add_parameters(input_size)
        self.reset_parameters()

    def _shares(self, input: Any, h: Tensor) -> tuple[Tensor, Tensor]:
        """What goes into a step from the input and from the state: (N, G D) each."""
        return (
            F.linear(input, self.weight_ih, self.bias_ih),
            F.linear(h, self.weight_hh, self.bias_hh),
        )

    def _operands(self, input: Any, hx: Any) -> tuple[Tensor, Tensor]:
        """The input as a tensor, and the state before the step: zeros if it was left out."""
        x, D = operand(input), self.hidden_size
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{self._name}: needs an input (N, D_in) or (D_in,) with D_in = {self.input_size} "
                f"features, got {x.shape}; a whole sequence goes into {self._name[:-4]}"
            )
        shape = (*x.shape[:-1], D)
        h = _zeros(shape, like=x) if hx is None else operand(hx)
        if h.shape != shape:
            raise ShapeError(
                f"{self._name}: an input {x.shape} needs a state of shape {shape}, got {h.shape}"
            )
        return x, h

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + settings(bias=(self.bias, True))


class RNNCell(_Cell):
    r"""One step of a recurrent network: a state that remembers what came before.

    .. math:: h' = \tanh(W_{ih} x + b_{ih} + W_{hh} h + b_{hh})

    Parameters
    ----------
    input_size, hidden_size : int
        Features D_in of the input and D of the state.
    bias : bool
        Whether the two biases are there.
    nonlinearity : str
        "tanh" or "relu".

    Attributes
    ----------
    weight_ih, weight_hh : Parameter (D, D_in), (D, D)
        At first uniform in [-1/sqrt(D), 1/sqrt(D)].
    bias_ih, bias_hh : Parameter (D,) or None
        Likewise. One would do; PyTorch and cuDNN have two.

    Raises
    ------
    ValueError
        If a size is below 1, or the nonlinearity unknown.
    ShapeError
        If input or state have another shape than the cell takes.

    References
    ----------
    Elman, "Finding Structure in Time" (Cognitive Science 1990).
    """

    gates = 1

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh"
    ):
        super().__init__(input_size, hidden_size, bias)
        self.nonlinearity = _known_nonlinearity(self._name, nonlinearity)

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        """(N, D_in), and the state (N, D) or None for zeros, to the next state (N, D)."""
        x, h = self._operands(input, hx)
        a, u = self._shares(x, h)
        bend, _ = NONLINEARITIES[self.nonlinearity]
        return bend(a + u)

    def extra_repr(self) -> str:
        return super().extra_repr() + settings(nonlinearity=(self.nonlinearity, "tanh"))


class LSTMCell(_Cell):
    r"""One step of a long short-term memory: gates decide what is kept, written and shown.

    .. math::

        (i, f, g, o) &= W_{ih} x + b_{ih} + W_{hh} h + b_{hh} \\
        c' &= \sigma(f)\, c + \sigma(i) \tanh(g) && \text{the memory} \\
        h' &= \sigma(o) \tanh(c') && \text{what it shows}

    The gradient of c is that of c' times the forget gate :math:`\sigma(f)`, and no matrix.

    Parameters
    ----------
    input_size, hidden_size : int
        Features D_in of the input and D of the state.
    bias : bool
        Whether the two biases are there.

    Attributes
    ----------
    weight_ih, weight_hh : Parameter (4 D, D_in), (4 D, D)
        The rows of i, f, g, o in this order. At first uniform in [-1/sqrt(D), 1/sqrt(D)].
    bias_ih, bias_hh : Parameter (4 D,) or None
        Likewise.

    Raises
    ------
    ValueError
        If a size is below 1.
    ShapeError
        If input or state have another shape than the cell takes.

    References
    ----------
    Hochreiter and Schmidhuber, "Long Short-Term Memory" (Neural Computation 1997); the forget gate
    is from Gers, Schmidhuber and Cummins, "Learning to Forget" (Neural Computation 2000).
    """

    gates = 4

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        """(N, D_in), and the state (h, c) or None for zeros, to the next (h, c), (N, D) each."""
        h, c = (None, None) if hx is None else _pair(self._name, hx)
        _, c = self._operands(input, c)
        x, h = self._operands(input, h)
        a, u = self._shares(x, h)
        i, f, g, o = (a + u).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class GRUCell(_Cell):
    r"""One step of a gated recurrent unit: a share z of the state is kept, the rest is written.

    .. math::

        r &= \sigma(W_{ir} x + b_{ir} + W_{hr} h + b_{hr}) && \text{reset} \\
        z &= \sigma(W_{iz} x + b_{iz} + W_{hz} h + b_{hz}) && \text{update} \\
        n &= \tanh(W_{in} x + b_{in} + r\, (W_{hn} h + b_{hn})) && \text{what is new} \\
        h' &= (1 - z)\, n + z\, h

    The paper resets the state before the matrix, :math:`W_{hn} (r h)`; PyTorch and cuDNN, and this
    cell with them, after it. Bahdanau's and Chung's papers exchange z and 1 - z.

    Parameters
    ----------
    input_size, hidden_size : int
        Features D_in of the input and D of the state.
    bias : bool
        Whether the two biases are there.

    Attributes
    ----------
    weight_ih, weight_hh : Parameter (3 D, D_in), (3 D, D)
        The rows of r, z, n in this order. At first uniform in [-1/sqrt(D), 1/sqrt(D)].
    bias_ih, bias_hh : Parameter (3 D,) or None
        Likewise.

    Raises
    ------
    ValueError
        If a size is below 1.
    ShapeError
        If input or state have another shape than the cell takes.

    References
    ----------
    Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
    Translation" (EMNLP 2014), section 2.3.
    """

    gates = 3

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        """(N, D_in), and the state (N, D) or None for zeros, to the next state (N, D)."""
        x, h = self._operands(input, hx)
        a, u = self._shares(x, h)
        a_r, a_z, a_n = a.chunk(3, -1)
        u_r, u_z, u_n = u.chunk(3, -1)
        r, z = (a_r + u_r).sigmoid(), (a_z + u_z).sigmoid()
        n = (a_n + r * u_n).tanh()
        return n + z * (h - n)


# -- layers: whole sequences, one operation a layer and direction ----------------------------------


class _Layers(_Recurrent):
    """Layers of cells over whole sequences."""

    _step: Callable  # of ops/recurrent.py

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ):
        super().__init__(input_size, hidden_size, bias)
        self.num_layers = integer(self._name, "num_layers", num_layers, least=1)
        if not 0 <= dropout <= 1:
            raise ValueError(f"{self._name}: dropout is a probability, 0 to 1, not {dropout}")
        if dropout > 0 and self.num_layers == 1:
            warnings.warn(
                f"{self._name}: dropout={dropout} acts between layers, and there is one alone",
                stacklevel=3,
            )
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.suffixes = [
            [f"_l{layer}{direction}" for direction in ["", "_reverse"][: 1 + bidirectional]]
            for layer in range(self.num_layers)
        ]
        for directions in self.suffixes:
            for suffix in directions:
                self._add_parameters(input_size, suffix)
            input_size = len(directions) * hidden_size
        self.reset_parameters()

    def _read(self, input: Any, state: list[Any]) -> tuple[Any, list[Tensor]]:
        """Outputs in the layout of the input, and the last states.

        `state` has one entry a part of the state (h; or h and c), None for zeros.
        """
        if isinstance(input, PackedSequence):
            rows, batch_sizes, order, back = input
            sizes = tuple(batch_sizes.numpy().tolist())
            state = [self._first(s, rows, (sizes[0],)) for s in state]
            if order is not None:
                state = [s.index_select(1, order) for s in state]
            rows, last = self._all_layers(rows, sizes, state)
            if back is not None:
                last = [s.index_select(1, back) for s in last]
            return PackedSequence(rows, batch_sizes, order, back), last
        x = self._checked(operand(input))
        alone = x.ndim == 2  # one sequence, without an axis for the batch
        batch = () if alone else (x.shape[0 if self.batch_first else 1],)
        state = [self._first(s, x, batch) for s in state]
        if alone:
            x, state = x.unsqueeze(1), [s.unsqueeze(1) for s in state]
        elif self.batch_first:
            x = x.transpose(0, 1)
        L, N, _ = x.shape
        rows, last = self._all_layers(x.reshape(L * N, self.input_size), (N,) * L, state)
        y = rows.reshape(L, N, rows.shape[1])
        if alone:
            return y.squeeze(1), [s.squeeze(1) for s in last]
        return y.transpose(0, 1) if self.batch_first else y, last

    def _all_layers(
        self, rows: Tensor, batch_sizes: tuple[int, ...], state: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Packed rows (B, D_in) through all layers: (B, directions * D), and the last states."""
        if rows.shape[-1] != self.input_size:
            raise ShapeError(
                f"{self._name}: needs D_in = {self.input_size} features, got rows {rows.shape}"
            )
        B, S, N = len(rows), len(state), batch_sizes[0]
        last: list[Tensor] = []
        for directions in self.suffixes:
            outputs = []
            if last:
                rows = F.dropout(rows, self.dropout, self.training)
            for suffix in directions:
                w_ih, w_hh, b_ih, b_hh = self._parameters(suffix)
                y = recurrent.recurrence(
                    F.linear(rows, w_ih, b_ih),
                    w_hh,
                    b_hh,
                    *(s[len(last)] for s in state),
                    step=self._step,
                    batch_sizes=batch_sizes,
                    reverse=suffix.endswith("reverse"),
                )
                outputs.append(y[:B])
                last.append(y[B:].reshape(S, N, self.hidden_size))
            rows = F.cat(outputs, 1) if self.bidirectional else outputs[0]
        return rows, list(F.stack(last, 1).unbind())

    def _parameters(self, suffix: str) -> list[Any]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [getattr(self, name + suffix) for name in names]

    def _checked(self, x: Tensor) -> Tensor:
        batched = "(N, L, D_in)" if self.batch_first else "(L, N, D_in)"
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{self._name}: needs an input {batched} or (L, D_in) with D_in = "
                f"{self.input_size} features, or a PackedSequence; got {x.shape}"
            )
        time = 1 if self.batch_first and x.ndim == 3 else 0
        if x.shape[time] == 0:
            raise ShapeError(f"{self._name}: the sequences of an input {x.shape} have no element")
        return x

    def _first(self, state: Any, x: Tensor, batch: tuple[int, ...]) -> Tensor:
        """A part of the state before the first step, (layers * directions, N, D)."""
        shape = (sum(map(len, self.suffixes)), *batch, self.hidden_size)
        if state is None:
            return _zeros(shape, like=x)
        state = operand(state)
        if state.shape != shape:
            raise ShapeError(
                f"{self._name}: this input needs a state of shape {shape}, one (N, D) for each "
                f"layer and direction, got {state.shape}"
            )
        return state

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + settings(
            num_layers=(self.num_layers, 1),
            bias=(self.bias, True),
            batch_first=(self.batch_first, False),
            dropout=(self.dropout, 0),
            bidirectional=(self.bidirectional, False),
        )


class RNN(_Layers):
    r"""Recurrent network over whole sequences; its step is that of `RNNCell`.

    .. math:: h_t = \tanh(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})

    Parameters
    ----------
    input_size, hidden_size : int
        Features D_in of the input and D of the state.
    num_layers : int
        Each layer reads the outputs of the one before.
    nonlinearity : str
        "tanh" or "relu".
    bias : bool
        Whether the two biases are there.
    batch_first : bool
        Whether inputs and outputs are (N, L, *) instead of (L, N, *). States are not.
    dropout : float
        In training, the probability of a zero in what one layer hands to the next.
    bidirectional : bool
        Whether each layer also reads the sequence from its end; the outputs of both directions
        stand side by side.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, ... : Parameter
        As of `RNNCell`, for each layer (_l0, _l1, ...) and, with the ending _reverse, the other
        direction.

    Raises
    ------
    ValueError
        If a size is below 1, the nonlinearity unknown or dropout no probability.
    ShapeError
        If input or state have another shape than the layer takes.

    References
    ----------
    Elman, "Finding Structure in Time" (Cognitive Science 1990); both directions: Schuster and
    Paliwal, "Bidirectional Recurrent Neural Networks" (IEEE Trans. Signal Processing 1997).
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ):
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        )
        self.nonlinearity = _known_nonlinearity(self._name, nonlinearity)
        _, self._step = NONLINEARITIES[nonlinearity]

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Tensor]:
        """Read sequences.

        Parameters
        ----------
        input : (L, N, D_in), (N, L, D_in) with `batch_first`, (L, D_in), or PackedSequence
        hx : (layers * directions, N, D), optional
            The states before the first step; zeros if left out. Without N for one sequence alone.

        Returns
        -------
        (L, N, directions * D), in the layout of the input
            The states of the last layer after each element.
        (layers * directions, N, D)
            The last state of each layer and direction; for a PackedSequence, of each sequence.
        """
        y, (h,) = self._read(input, [hx])
        return y, h

    def extra_repr(self) -> str:
        return super().extra_repr() + settings(nonlinearity=(self.nonlinearity, "tanh"))


class LSTM(_Layers):
    r"""Long short-term memory over whole sequences; its step is that of `LSTMCell`.

    .. math::

        (i, f, g, o) &= W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh} \\
        c_t &= \sigma(f)\, c_{t-1} + \sigma(i) \tanh(g) \\
        h_t &= \sigma(o) \tanh(c_t)

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As of `RNN`.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, ... : Parameter
        As of `LSTMCell`, for each layer (_l0, _l1, ...) and, with the ending _reverse, the other
        direction.

    Raises
    ------
    ValueError, ShapeError
        As of `RNN`.

    References
    ----------
    As of `LSTMCell`.
    """

    gates = 4
    _step = staticmethod(recurrent.lstm)

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, tuple[Tensor, Tensor]]:
        """Read sequences, as `RNN` does; the state, before and after, is a pair (h, c)."""
        y, (h, c) = self._read(input, [None, None] if hx is None else _pair(self._name, hx))
        return y, (h, c)


class GRU(_Layers):
    r"""Gated recurrent units over whole sequences; their step is that of `GRUCell`.

    .. math::

        r &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
        z &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
        n &= \tanh(W_{in} x_t + b_{in} + r\, (W_{hn} h_{t-1} + b_{hn})) \\
        h_t &= (1 - z)\, n + z\, h_{t-1}

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As of `RNN`.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, ... : Parameter
        As of `GRUCell`, for each layer (_l0, _l1, ...) and, with the ending _reverse, the other
        direction.

    Raises
    ------
    ValueError, ShapeError
        As of `RNN`.

    References
    ----------
    As of `GRUCell`.
    """

    gates = 3
    _step = staticmethod(recurrent.gru)

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Tensor]:
        """Read sequences, as `RNN` does."""
        y, (h,) = self._read(input, [hx])
        return y, h


# -- what they share -------------------------------------------------------------------------------


def _known_nonlinearity(layer: str, nonlinearity: str) -> str:
    if nonlinearity not in NONLINEARITIES:
        known = " or ".join(map(repr, NONLINEARITIES))
        raise ValueError(f"{layer}: nonlinearity must be {known}, not {nonlinearity!r}")
    return nonlinearity


def _pair(layer: str, state: Any) -> list[Any]:
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        given = type(state).__name__
        if isinstance(state, (tuple, list)):
            given = f"a {given} of {len(state)}"
        raise TypeError(f"{layer}: its state is a pair (h, c) of tensors, not {given}")
    return list(state)


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    dtype = like.dtype if is_floating(like.dtype) else None
    return Tensor(array_module(like.data).zeros(shape, dtype or get_default_dtype()))
