from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import functional as F
from ..engine import ShapeError, Tensor, as_tensor, get_default_dtype, tensor, zeros
from . import init
from .module import Module
from .parameter import Parameter


class SinusoidalEncoding(Module):
    r"""Add to each token what tells its place: sines and cosines of falling frequency.

    .. math::
        y_t = x_t + p_t, \qquad
        p_{t,2i} = \sin(\omega_i t), \quad p_{t,2i+1} = \cos(\omega_i t), \quad
        \omega_i = 10000^{-2i/D}

    A shift by k places turns each pair by the angle :math:`\omega_i k`, so it is a linear map of
    :math:`p_t`; and :math:`p_s \cdot p_t = \sum_i \cos \omega_i (s - t)` tells the distance alone.

    Parameters
    ----------
    d_model : int
        Features D, an even number.
    max_len : int
        Number of places for which there is an encoding.

    Attributes
    ----------
    table : Tensor (max_len, D)
        The encodings, not trained and not part of the state dict.

    Raises
    ------
    ValueError
        If the features cannot be paired.

    References
    ----------
    Vaswani et al., "Attention Is All You Need" (2017), section 3.5.
    """

    table: Tensor

    def __init__(self, d_model: int, max_len: int = 5000):
        super().__init__()
        self.d_model, self.max_len = d_model, max_len
        angles = _angles("SinusoidalEncoding", d_model, max_len)
        pairs = np.stack([np.sin(angles), np.cos(angles)], axis=-1)  # (max_len, D / 2, 2)
        table = tensor(pairs.reshape(max_len, d_model), get_default_dtype())
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Any, start: int = 0) -> Tensor:
        """Tokens x (N, L, D) with their places; the first of them stands at place `start`.

        Raises
        ------
        ShapeError
            If a token has other features, or stands beyond the last place.
        ValueError
            If `start` is negative.
        """
        x = as_tensor(x)
        return x + self.table[_places(self, x, start)]

    def extra_repr(self) -> str:
        return f"{self.d_model}, max_len={self.max_len}"


class LearnedEncoding(Module):
    r"""Add to each token a vector learned for its place: :math:`y_t = x_t + p_t`.

    Parameters
    ----------
    d_model : int
        Features D.
    max_len : int
        Number of places.

    Attributes
    ----------
    weight : Parameter (max_len, D)
        At first normal with standard deviation 0.02.

    References
    ----------
    Gehring et al., "Convolutional Sequence to Sequence Learning" (2017), section 3.1;
    Vaswani et al., "Attention Is All You Need" (2017), table 3, row E, found it equally good.
    """

    def __init__(self, d_model: int, max_len: int = 512):
        super().__init__()
        self.d_model, self.max_len = d_model, max_len
        self.weight = Parameter(zeros(max_len, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the first values anew."""
        init.normal_(self.weight, std=0.02)

    def forward(self, x: Any, start: int = 0) -> Tensor:
        """Tokens x (N, L, D) with their places, as in `SinusoidalEncoding`."""
        x = as_tensor(x)
        return x + self.weight[_places(self, x, start)]

    def extra_repr(self) -> str:
        return f"{self.d_model}, max_len={self.max_len}"


class RotaryEncoding(Module):
    r"""Turn each pair of features of a query or key by an angle that grows with its place.

    .. math::
        \begin{pmatrix} y_{2i} \\ y_{2i+1} \end{pmatrix} =
        \begin{pmatrix} \cos \omega_i t & -\sin \omega_i t \\
                        \sin \omega_i t & \cos \omega_i t \end{pmatrix}
        \begin{pmatrix} x_{2i} \\ x_{2i+1} \end{pmatrix},
        \qquad \omega_i = b^{-2i/d}

    Nothing is added to the tokens: queries and keys are turned, values are not. Then
    :math:`q_s \cdot k_t` depends on the places through s - t alone. Pairs are neighbours, as in
    the paper; much published code pairs feature i with feature i + d/2, which is the same up to
    the order of the features.

    Parameters
    ----------
    head_dim : int
        Features d of a head, an even number.
    base : float
        b.

    Raises
    ------
    ValueError
        If the features cannot be paired.

    References
    ----------
    Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021), equation 15.
    """

    def __init__(self, head_dim: int, base: float = 10000.0):
        super().__init__()
        self.head_dim, self.base = head_dim, base
        _angles("RotaryEncoding", head_dim, 0)

    def forward(self, x: Any, start: int = 0) -> Tensor:
        """Queries or keys x (..., L, d), turned; the first of them stands at place `start`.

        Raises
        ------
        ShapeError
            If they have other features.
        ValueError
            If `start` is negative.
        """
        x = as_tensor(x)
        _check_start("RotaryEncoding", start)
        if x.ndim < 2 or x.shape[-1] != self.head_dim:
            raise ShapeError(
                f"RotaryEncoding: needs queries or keys (..., L, {self.head_dim}), not {x.shape}"
            )
        L = x.shape[-2]
        angles = _angles("RotaryEncoding", self.head_dim, start + L, self.base)[start:]
        cos, sin = (tensor(f(angles), x.dtype).to(x.device) for f in (np.cos, np.sin))  # (L, d/2)
        even, odd = x[..., 0::2], x[..., 1::2]
        turned = F.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
        return turned.reshape(x.shape)

    def extra_repr(self) -> str:
        return str(self.head_dim)


def _angles(module: str, features: int, places: int, base: float = 10000.0) -> np.ndarray:
    """omega_i t for each place t and each pair i of features: (places, features / 2)."""
    if features < 2 or features % 2:
        raise ValueError(f"{module}: features come in pairs, so an even number, not {features}")
    frequencies = np.exp(-math.log(base) * np.arange(0, features, 2) / features)
    return np.arange(places)[:, None] * frequencies


def _places(module: SinusoidalEncoding | LearnedEncoding, x: Tensor, start: int) -> slice:
    """The rows of the table that belong to tokens (N, L, D)."""
    name, D = type(module).__name__, module.d_model
    if x.ndim < 2 or x.shape[-1] != D:
        raise ShapeError(f"{name}: needs tokens (N, L, {D}), not {x.shape}")
    _check_start(name, start)
    stop = start + x.shape[-2]
    if stop > module.max_len:
        raise ShapeError(
            f"{name}: tokens up to place {stop - 1}, but it has {module.max_len} places: make it "
            f"with max_len={stop} or more"
        )
    return slice(start, stop)


def _check_start(module: str, start: int) -> None:
    if start < 0:
        raise ValueError(f"{module}: places count from 0, so no token starts at place {start}")
