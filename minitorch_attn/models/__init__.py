"""Whole networks."""

from .alexnet import AlexNet, alexnet
from .bam_resnet import BAMResNet, bam_resnet
from .captioning import CaptionDecoder, Captioner, Coordinates, SCALayers, SoftAttention
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
from .danet import DANet, DilatedResNet, danet_resnet50, danet_resnet101
from .decoding import beam_search, greedy_decode
from .delf import (
    DELF,
    AffineFit,
    LocalFeatures,
    ReceptiveField,
    delf_resnet50,
    fit_affine,
    match_features,
    receptive_field,
)
from .densenet import (
    DenseNet,
    cifar_densenet,
    densenet121,
    densenet161,
    densenet169,
    densenet201,
)
from .dpn import DPN, dpn68, dpn92, dpn98, dpn107, dpn131
from .googlenet import GoogLeNet, auxiliary_cross_entropy, googlenet
from .inception_v3 import InceptionV3, inception_v3
from .mobilenet_v1 import MobileNetV1, mobilenet_v1
from .mobilenet_v2 import MobileNetV2, mobilenet_v2
from .nasnet import NASNetA, nasnet_a_cifar, nasnet_a_large, nasnet_a_mobile
from .polynet import PolyNet, polynet
from .preact_resnet import (
    PreActResNet,
    preact_resnet,
    preact_resnet110,
    preact_resnet164,
    preact_resnet1001,
)
from .pyramidnet import PyramidNet, pyramidnet
from .residual_attention_network import (
    ResidualAttentionNetwork,
    attention56,
    attention92,
    cifar_attention,
    residual_attention_network,
)
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
from .resnext import (
    cifar_resnext,
    resnext50_32x4d,
    resnext101_32x4d,
    resnext101_32x8d,
    resnext101_64x4d,
)
from .se_resnet import SEBlock, SEResNet, se_resnet
from .senet import (
    SENet,
    SENetBlock,
    se_googlenet,
    se_resnet50,
    se_resnet101,
    se_resnet152,
    se_resnext50_32x4d,
    se_resnext101_32x4d,
    senet154,
)
from .seq2seq import Seq2Seq
from .shufflenet_v1 import ShuffleNetV1, shufflenet_v1
from .shufflenet_v2 import (
    ShuffleNetV2,
    shufflenet_v2_x0_5,
    shufflenet_v2_x1_0,
    shufflenet_v2_x1_5,
    shufflenet_v2_x2_0,
)
from .squeezenet import SqueezeNet, squeezenet1_0, squeezenet1_1
from .transformer import Seq2SeqTransformer
from .vgg import VGG, vgg11, vgg13, vgg16, vgg19
from .vision_transformer import VisionTransformer, vit_b_16, vit_b_32, vit_l_16
from .wide_resnet import wide_resnet50_2, wide_resnet101_2, wrn
from .xception import Xception, xception

__all__ = [
    "AffineFit",
    "AlexNet",
    "BAMResNet",
    "BasicBlock",
    "Bottleneck",
    "CaptionDecoder",
    "Captioner",
    "CifarResNet",
    "Coordinates",
    "DANet",
    "DELF",
    "DPN",
    "DenseNet",
    "DilatedResNet",
    "GoogLeNet",
    "InceptionV3",
    "LocalFeatures",
    "MobileNetV1",
    "MobileNetV2",
    "NASNetA",
    "PolyNet",
    "PreActResNet",
    "PyramidNet",
    "ReceptiveField",
    "ResNet",
    "ResidualAttentionNetwork",
    "SCALayers",
    "SEBlock",
    "SENet",
    "SENetBlock",
    "SEResNet",
    "Seq2Seq",
    "Seq2SeqTransformer",
    "ShuffleNetV1",
    "ShuffleNetV2",
    "SoftAttention",
    "SqueezeNet",
    "VGG",
    "VisionTransformer",
    "Xception",
    "alexnet",
    "attention56",
    "attention92",
    "auxiliary_cross_entropy",
    "bam_resnet",
    "beam_search",
    "cifar_attention",
    "cifar_densenet",
    "cifar_resnet",
    "cifar_resnext",
    "danet_resnet101",
    "danet_resnet50",
    "delf_resnet50",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "dpn107",
    "dpn131",
    "dpn68",
    "dpn92",
    "dpn98",
    "fit_affine",
    "googlenet",
    "greedy_decode",
    "inception_v3",
    "match_features",
    "mobilenet_v1",
    "mobilenet_v2",
    "nasnet_a_cifar",
    "nasnet_a_large",
    "nasnet_a_mobile",
    "polynet",
    "preact_resnet",
    "preact_resnet1001",
    "preact_resnet110",
    "preact_resnet164",
    "pyramidnet",
    "receptive_field",
    "residual_attention_network",
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
    "resnext101_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "resnext50_32x4d",
    "se_googlenet",
    "se_resnet",
    "se_resnet101",
    "se_resnet152",
    "se_resnet50",
    "se_resnext101_32x4d",
    "se_resnext50_32x4d",
    "senet154",
    "shufflenet_v1",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0",
    "squeezenet1_0",
    "squeezenet1_1",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "vit_b_16",
    "vit_b_32",
    "vit_l_16",
    "wide_resnet101_2",
    "wide_resnet50_2",
    "wrn",
    "xception",
]
