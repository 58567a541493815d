"""Packages that only some features need, imported when such a feature is used."""

import importlib
from types import ModuleType


def require(module: str, *, extra: str, purpose: str, note: str = "") -> ModuleType:
    """Import an optional module, or say what it is needed for and how to install it.

    Parameters
    ----------
    module : str
        Name to import, e.g. ``"safetensors.numpy"``.
    extra : str
        The extra of this package that installs it, e.g. ``"course"``.
    purpose : str
        What it is needed for, as a phrase that follows "to": ``"save a state dict"``.
    note : str
        A sentence to add, such as what else to install it with.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    ImportError
        If the package is not installed. A package that is installed but fails while it is
        imported raises its own error.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
    raise ImportError(
        f"To {purpose}, the package {package!r} is needed, and it is not installed here. "
        f'Install it with: python -m pip install "minitorch-attn[{extra}]" '
        f'(in a checkout: python -m pip install -e ".[{extra}]").' + (note and f" {note}"),
        name=package,
    )
