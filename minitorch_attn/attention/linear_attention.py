from __future__ import annotations

from .. import functional as F
from .. import nn
from ..engine import ShapeError, Tensor


class LinearAttention(nn.Module):
    r"""Linear attention: a kernel of two feature maps in place of the exponential.

    .. math::

        y_i = \frac{\sum_j \bigl(\phi(q_i) \cdot \phi(k_j)\bigr) v_j}
                   {\epsilon + \sum_j \phi(q_i) \cdot \phi(k_j)}
            = \frac{\phi(q_i)^T \sum_j \phi(k_j) v_j^T}
                   {\epsilon + \phi(q_i)^T \sum_j \phi(k_j)},
        \qquad \phi(x) = \mathrm{elu}(x) + 1

    The sums over j on the right do not depend on i: they are worked out once, and time and memory
    grow with L, not with its square. If causal, j runs up to i: the sums become running sums
    :math:`S_i = S_{i-1} + \phi(k_i) v_i^T`, and attention a recurrent network with the state S.

    Parameters
    ----------
    is_causal : bool
        Whether position i sees only j up to i. The running sums are kept for all i, (L, D, D')
        numbers a head.
    eps : float
        Keeps the quotient finite.

    References
    ----------
    Katharopoulos, Vyas, Pappas and Fleuret, "Transformers are RNNs: Fast Autoregressive
    Transformers with Linear Attention" (ICML 2020), equations 4 to 7 and 9 to 12.
    """

    def __init__(self, is_causal: bool = False, eps: float = 1e-6):
        super().__init__()
        self.is_causal = is_causal
        self.eps = eps

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries (..., L, D), keys (..., M, D), values (..., M, D') -> (..., L, D')."""
        _check_tokens(query, key, value, self.is_causal)
        q, k = F.elu(query) + 1, F.elu(key) + 1
        if self.is_causal:
            memory = F.cumsum(k.unsqueeze(-1) * value.unsqueeze(-2), dim=-3)  # (..., L, D, D')
            read = (q.unsqueeze(-2) @ memory).squeeze(-2)
            total = (q * F.cumsum(k, dim=-2)).sum(dim=-1, keepdim=True)
        else:
            read = q @ (k.transpose(-2, -1) @ value)
            total = (q * k.sum(dim=-2, keepdim=True)).sum(dim=-1, keepdim=True)
        return read / (total + self.eps)

    def extra_repr(self) -> str:
        return f"is_causal={self.is_causal}"


def _check_tokens(query: Tensor, key: Tensor, value: Tensor, is_causal: bool) -> None:
    if min(query.ndim, key.ndim, value.ndim) < 2 or query.shape[-1] != key.shape[-1]:
        raise ShapeError(
            "LinearAttention: needs queries (..., L, D) and keys (..., M, D) of the same D, got "
            f"{query.shape} and {key.shape}"
        )
    if key.shape[-2] != value.shape[-2]:
        raise ShapeError(
            "LinearAttention: needs a value for each key, (..., M, D) and (..., M, D'), got "
            f"{key.shape} and {value.shape}"
        )
    if is_causal and query.shape[-2] != key.shape[-2]:
        raise ShapeError(
            "LinearAttention: causal attention needs as many queries as keys, got "
            f"{query.shape} and {key.shape}"
        )
