"""Whole networks."""

from .alexnet import AlexNet, alexnet
from .cifar_resnet import (
    CifarResNet,
    cifar_resnet,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
    resnet1202,
)
from .densenet import (
    DenseNet,
    cifar_densenet,
    densenet121,
    densenet161,
    densenet169,
    densenet201,
)
from .preact_resnet import (
    PreActResNet,
    preact_resnet,
    preact_resnet110,
    preact_resnet164,
    preact_resnet1001,
)
from .pyramidnet import PyramidNet, pyramidnet
from .resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)
from .resnext import cifar_resnext, resnext50_32x4d, resnext101_32x8d, resnext101_64x4d
from .se_resnet import SEBlock, SEResNet, se_resnet
from .squeezenet import SqueezeNet, squeezenet1_0, squeezenet1_1
from .vgg import VGG, vgg11, vgg13, vgg16, vgg19
from .wide_resnet import wide_resnet50_2, wide_resnet101_2, wrn

__all__ = [
    "AlexNet",
    "BasicBlock",
    "Bottleneck",
    "CifarResNet",
    "DenseNet",
    "PreActResNet",
    "PyramidNet",
    "ResNet",
    "SEBlock",
    "SEResNet",
    "SqueezeNet",
    "VGG",
    "alexnet",
    "cifar_densenet",
    "cifar_resnet",
    "cifar_resnext",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "preact_resnet",
    "preact_resnet1001",
    "preact_resnet110",
    "preact_resnet164",
    "pyramidnet",
    "resnet101",
    "resnet110",
    "resnet1202",
    "resnet152",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "resnext50_32x4d",
    "se_resnet",
    "squeezenet1_0",
    "squeezenet1_1",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "wide_resnet101_2",
    "wide_resnet50_2",
    "wrn",
]
