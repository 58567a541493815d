"""Whole networks against the same ones written in PyTorch: a residual block, a step of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn.models import SEBlock, se_resnet

from .measure import case, peer


def in_torch(block: Any) -> Any:
    """The same SEBlock in PyTorch, with the same parameters in the same order."""
    torch = peer("torch")
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            first = block.conv1
            C, O, stride = first.in_channels, first.out_channels, first.stride
            self.conv1 = nn.Conv2d(C, O, 3, stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(O)
            self.conv2 = nn.Conv2d(O, O, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(O)
            self.shortcut = nn.Identity()
            if not isinstance(block.shortcut, mt.nn.Identity):
                project = nn.Conv2d(C, O, 1, stride, bias=False)
                self.shortcut = nn.Sequential(project, nn.BatchNorm2d(O))
            self.attention = None
            if not isinstance(block.attention, mt.nn.Identity):
                hidden = next(block.attention.parameters()).shape[0]
                self.attention = nn.Sequential(
                    nn.Linear(O, hidden, bias=False),
                    nn.ReLU(),
                    nn.Linear(hidden, O, bias=False),
                    nn.Sigmoid(),
                )

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            if self.attention is not None:
                y = y * self.attention(y.mean(dim=(2, 3)))[:, :, None, None]
            return torch.relu(y + self.shortcut(x))

    return Block()


def network_in_torch(network: Any) -> Any:
    """The same SE-ResNet in PyTorch."""
    nn = peer("torch").nn
    conv, fc = network.conv1, network.fc
    blocks = [in_torch(block) for stage in network.stages for block in stage]
    return nn.Sequential(
        nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(conv.out_channels),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(fc.in_features, fc.out_features),
    )


@case("residual block 16,64,28")
def residual_block() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Forward and backward of a block in the middle of a network: x needs a gradient as well."""
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 16, 64, 28, 28)).astype(np.float32)
    block = SEBlock(64, 64, reduction=None)
    images = mt.tensor(x, requires_grad=True)

    def ours() -> None:
        block.zero_grad()
        images.grad = None
        block(images).backward(dy)

    yield "minitorch_attn", ours
    if torch := peer("torch"):
        theirs, their_images = in_torch(block), torch.from_numpy(x).requires_grad_()

        def in_pytorch() -> None:
            theirs.zero_grad()
            their_images.grad = None
            theirs(their_images).backward(torch.from_numpy(dy))

        yield "torch", in_pytorch


@case("SE-ResNet training step")
def training_step() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Forward, loss, backward and SGD with momentum, on a batch of 64 images of 28x28."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 1, 28, 28)).astype(np.float32)
    labels = rng.integers(0, 10, 64)
    network = se_resnet(num_classes=10, in_channels=1, widths=(16, 32, 64))
    optimizer = mt.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images = mt.tensor(x)

    def ours() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    yield "minitorch_attn", ours
    if torch := peer("torch"):
        theirs = network_in_torch(network)
        their_optimizer = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9)
        their_images, their_labels = torch.from_numpy(x), torch.from_numpy(labels)

        def in_pytorch() -> None:
            their_optimizer.zero_grad()
            torch.nn.functional.cross_entropy(theirs(their_images), their_labels).backward()
            their_optimizer.step()

        yield "torch", in_pytorch
