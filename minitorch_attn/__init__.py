"""Attention for vision, built from scratch in NumPy: a small autograd engine and its course."""

from . import amp, cuda, engine, functional, nn, optim
from .amp import autocast
from .engine import *  # noqa: F403
from .engine import __all__ as _engine_names
from .nn.summary import summary
from .serialization import load, save

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "amp",
    "autocast",
    "cuda",
    "engine",
    "functional",
    "load",
    "nn",
    "optim",
    "save",
    "summary",
    *_engine_names,
]
