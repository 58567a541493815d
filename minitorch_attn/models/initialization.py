"""How the weights of residual and dense networks begin."""

from __future__ import annotations

from .. import nn


def initialize(model: nn.Module) -> None:
    r"""Draw the first values of a residual or dense network, as the authors' programs do.

    Kernels are normal with variance :math:`2 / (O R S)`, which keeps the variance of the gradient
    on its way back through a ReLU; the biases of linear maps are zero. Batch normalisation begins
    with weight 1 and bias 0 anyway.

    Parameters
    ----------
    model : Module
        All its convolutions and linear maps are written to.

    References
    ----------
    He et al., "Delving Deep into Rectifiers" (2015), equation 14.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
