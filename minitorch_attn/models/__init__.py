"""Whole networks."""

from .se_resnet import SEBlock, SEResNet, se_resnet

__all__ = ["SEBlock", "SEResNet", "se_resnet"]
