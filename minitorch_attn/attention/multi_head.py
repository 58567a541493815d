"""Multi-head attention, which is PyTorch's too and so is found in `nn` under its name there."""

from ..nn import MultiheadAttention

__all__ = ["MultiheadAttention"]
