"""The course plan: which lessons there are, in which order, and what each of them builds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .files import ROOT

PARTS = {
    "0": "Start here",
    "I": "The engine",
    "II": "Convolution",
    "III": "Attention in sequences",
    "IV": "Recalibration",
    "V": "Self-attention on images",
    "VI": "Attention at work",
    "VII": "Scale",
    "VIII": "Capstone",
}


@dataclass(frozen=True)
class Lesson:
    """One lesson and its exercise set; both carry its name in every folder.

    Attributes
    ----------
    number : int
        Place in the order of reading: a lesson uses only what lower numbers built.
    slug : str
        ``"squeeze_and_excitation"``.
    title : str
        As a reader sees it.
    part : str
        Key of `PARTS`.
    minutes : int
        Time to read and run it, without the exercises.
    """

    number: int
    slug: str
    title: str
    part: str
    minutes: int

    @property
    def name(self) -> str:
        """``"13_squeeze_and_excitation"``, the name of its files."""
        return f"{self.number:02d}_{self.slug}"

    @property
    def is_written(self) -> bool:
        """Whether the lesson's text is there yet."""
        return (ROOT / "notebooks" / "source" / f"{self.name}.py").is_file()

    @property
    def checks(self) -> Path:
        """The file of its exercise set's checks."""
        return ROOT / "minitorch_attn" / "course" / "checks" / f"{self.name}.py"

    @property
    def has_exercises(self) -> bool:
        """Whether its exercise set has checks yet."""
        return self.checks.is_file()


LESSONS = (
    Lesson(0, "start_here", "Start here", "0", 20),
    Lesson(1, "computational_graphs", "Computational graphs", "I", 50),
    Lesson(2, "tensors_and_broadcasting", "Tensors and broadcasting", "I", 45),
    Lesson(3, "gradient_checking", "Gradient checking", "I", 40),
    Lesson(4, "modules_losses_optimisers", "Modules, losses, optimisers", "I", 60),
    Lesson(5, "convolution", "Convolution", "II", 70),
    Lesson(6, "convolution_backward", "Convolution, backward", "II", 70),
    Lesson(7, "pooling_and_normalisation", "Pooling and normalisation", "II", 70),
    Lesson(8, "cnn_review", "A review of convolutional networks", "II", 60),
    Lesson(9, "seq2seq", "Sequence to sequence", "III", 60),
    Lesson(
        10,
        "additive_and_multiplicative_attention",
        "Additive and multiplicative attention",
        "III",
        60,
    ),
    Lesson(11, "transformer", "The Transformer", "III", 75),
    Lesson(12, "local_global_recalibration", "Local and global recalibration", "IV", 40),
    Lesson(13, "squeeze_and_excitation", "Squeeze and excitation", "IV", 70),
    Lesson(14, "bam", "Bottleneck attention module (BAM)", "IV", 50),
    Lesson(15, "cbam", "Convolutional block attention module (CBAM)", "IV", 50),
    Lesson(16, "spatial_transformer", "Spatial transformers", "IV", 60),
    Lesson(17, "residual_attention", "Residual attention", "IV", 50),
    Lesson(18, "non_local", "Non-local networks", "V", 50),
    Lesson(19, "dual_attention", "Dual attention", "V", 50),
    Lesson(20, "memory_efficient_attention", "Memory-efficient attention", "V", 60),
    Lesson(21, "beyond", "Beyond", "V", 60),
    Lesson(22, "regional_attention", "Regional attention", "VI", 60),
    Lesson(23, "crow", "Cross-dimensional weighting (CroW)", "VI", 45),
    Lesson(24, "delf", "Attentive local features (DELF)", "VI", 60),
    Lesson(25, "parameter_free_attention", "Parameter-free attention", "VI", 40),
    Lesson(26, "sca_cnn", "Spatial and channel-wise attention for captions (SCA-CNN)", "VI", 60),
    Lesson(27, "gpu", "On the GPU", "VII", 75),
    Lesson(28, "data_parallel", "Data parallel training", "VII", 50),
    Lesson(30, "capstone", "Every mechanism side by side", "VIII", 90),
)


def lesson(number: int) -> Lesson:
    """The lesson of a number; a KeyError names the numbers there are."""
    for candidate in LESSONS:
        if candidate.number == number:
            return candidate
    raise KeyError(f"there is no lesson {number}: the plan has {[one.number for one in LESSONS]}")


#: Which lesson builds what, by dotted name below `minitorch_attn`. The longest entry that a name
#: starts with decides; what has no entry (the data sets, the drawings) is there from the start.
#: A new mechanism must be entered: `attention` as a whole counts as built after the last lesson.
BUILT_IN = {
    # 01: the graph and the reverse pass
    "Tensor": 1,
    "tensor": 1,
    "as_tensor": 1,
    "no_grad": 1,
    "enable_grad": 1,
    "primitive": 1,
    "engine": 1,
    # 02: shapes
    "functional": 2,
    "ops": 2,
    "engine.sum_to_shape": 2,
    "sum_to_shape": 2,
    # 03: the gradient checker
    "gradcheck": 3,
    "check_vjp": 3,
    "engine.gradcheck": 3,
    "engine.check_vjp": 3,
    # 04: modules, losses, optimisers, training
    "nn": 4,
    "optim": 4,
    "training": 4,
    "functional.linear": 4,
    "functional.dropout": 4,
    "functional.dropout2d": 7,
    "nn.Dropout2d": 7,
    "functional.cross_entropy": 4,
    "functional.mse_loss": 4,
    "functional.l1_loss": 4,
    "functional.smooth_l1_loss": 4,
    "functional.binary_cross_entropy_with_logits": 4,
    # 05, 06: convolution
    "functional.conv1d": 5,
    "functional.conv2d": 5,
    "functional.conv3d": 5,
    "functional.unfold": 5,
    "functional.fold": 6,
    "functional.conv_transpose1d": 6,
    "functional.conv_transpose2d": 6,
    "functional.conv_transpose3d": 6,
    "nn.Conv1d": 5,
    "nn.Conv2d": 5,
    "nn.Conv3d": 5,
    "nn.Unfold": 5,
    "nn.Fold": 6,
    "nn.ConvTranspose1d": 6,
    "nn.ConvTranspose2d": 6,
    "nn.ConvTranspose3d": 6,
    # 07: pooling and normalisation
    "functional.max_pool1d": 7,
    "functional.max_pool2d": 7,
    "functional.max_pool3d": 7,
    "functional.avg_pool1d": 7,
    "functional.avg_pool2d": 7,
    "functional.avg_pool3d": 7,
    "functional.lp_pool1d": 7,
    "functional.lp_pool2d": 7,
    "functional.lp_pool3d": 7,
    "functional.adaptive_avg_pool1d": 7,
    "functional.adaptive_avg_pool2d": 7,
    "functional.adaptive_avg_pool3d": 7,
    "functional.adaptive_max_pool1d": 7,
    "functional.adaptive_max_pool2d": 7,
    "functional.adaptive_max_pool3d": 7,
    "functional.max_unpool1d": 7,
    "functional.max_unpool2d": 7,
    "functional.max_unpool3d": 7,
    "functional.batch_norm": 7,
    "functional.layer_norm": 7,
    "functional.group_norm": 7,
    "functional.instance_norm": 7,
    "functional.local_response_norm": 7,
    "nn.MaxPool1d": 7,
    "nn.MaxPool2d": 7,
    "nn.MaxPool3d": 7,
    "nn.AvgPool1d": 7,
    "nn.AvgPool2d": 7,
    "nn.AvgPool3d": 7,
    "nn.LPPool1d": 7,
    "nn.LPPool2d": 7,
    "nn.LPPool3d": 7,
    "nn.AdaptiveAvgPool1d": 7,
    "nn.AdaptiveAvgPool2d": 7,
    "nn.AdaptiveAvgPool3d": 7,
    "nn.AdaptiveMaxPool1d": 7,
    "nn.AdaptiveMaxPool2d": 7,
    "nn.AdaptiveMaxPool3d": 7,
    "nn.MaxUnpool1d": 7,
    "nn.MaxUnpool2d": 7,
    "nn.MaxUnpool3d": 7,
    "nn.BatchNorm1d": 7,
    "nn.BatchNorm2d": 7,
    "nn.BatchNorm3d": 7,
    "nn.LayerNorm": 7,
    "nn.GroupNorm": 7,
    "nn.InstanceNorm1d": 7,
    "nn.InstanceNorm2d": 7,
    "nn.InstanceNorm3d": 7,
    "nn.LocalResponseNorm": 7,
    # 08: whole networks
    "models": 8,
    "models.se_resnet": 13,
    "models.SEBlock": 13,
    "models.SEResNet": 13,
    "models.senet": 13,
    "models.SENet": 13,
    "models.SENetBlock": 13,
    "models.se_googlenet": 13,
    "models.se_resnet50": 13,
    "models.se_resnet101": 13,
    "models.se_resnet152": 13,
    "models.se_resnext50_32x4d": 13,
    "models.se_resnext101_32x4d": 13,
    "models.senet154": 13,
    "models.bam_resnet": 14,
    "models.BAMResNet": 14,
    "models.residual_attention_network": 17,
    "models.ResidualAttentionNetwork": 17,
    "models.attention56": 17,
    "models.attention92": 17,
    "models.cifar_attention": 17,
    # 09 to 11: sequences
    "functional.embedding": 9,
    "nn.Embedding": 9,
    "nn.RNN": 9,
    "nn.RNNCell": 9,
    "nn.LSTM": 9,
    "nn.LSTMCell": 9,
    "nn.GRU": 9,
    "nn.GRUCell": 9,
    "nn.recurrent": 9,
    "nn.sequences": 9,
    "nn.PackedSequence": 9,
    "nn.pack_padded_sequence": 9,
    "nn.pack_sequence": 9,
    "nn.pad_packed_sequence": 9,
    "nn.pad_sequence": 9,
    "ops.packing": 9,
    "ops.recurrent": 9,
    "models.seq2seq": 9,
    "models.Seq2Seq": 9,
    "attention.additive": 10,
    "attention.AdditiveAttention": 10,
    "attention.multiplicative": 10,
    "attention.MultiplicativeAttention": 10,
    "metrics.text": 10,
    "metrics.bleu": 10,
    "metrics.exact_match": 10,
    "models.decoding": 10,
    "models.beam_search": 10,
    "models.greedy_decode": 10,
    "nn.MaskedSoftmax": 10,
    "functional.scaled_dot_product_attention": 11,
    "nn.MultiheadAttention": 11,
    "nn.Transformer": 11,
    "nn.TransformerDecoder": 11,
    "nn.TransformerDecoderLayer": 11,
    "nn.TransformerEncoder": 11,
    "nn.TransformerEncoderLayer": 11,
    "nn.SinusoidalEncoding": 11,
    "nn.LearnedEncoding": 11,
    "nn.RotaryEncoding": 11,
    "optim.lr_scheduler.InverseSqrtLR": 11,
    "attention.multi_head": 11,
    "attention.MultiheadAttention": 11,
    "attention.scaled_dot_product": 11,
    "attention.ScaledDotProductAttention": 11,
    "models.transformer": 11,
    "models.Seq2SeqTransformer": 11,
    # 13 onwards: one mechanism each
    "attention": 99,
    "attention.squeeze_excitation": 13,
    "attention.SqueezeExcitation": 13,
    "attention.channel_spatial_se": 13,
    "attention.ChannelSpatialSE": 13,
    "attention.SpatialSE": 13,
    "attention.eca": 13,
    "attention.ECA": 13,
    "attention.bam": 14,
    "attention.BAM": 14,
    "attention.cbam": 15,
    "attention.CBAM": 15,
    "attention.ChannelAttention": 15,
    "attention.SpatialAttention": 15,
    "attention.spatial_transformer": 16,
    "attention.SpatialTransformer": 16,
    "attention.residual_attention": 17,
    "attention.ResidualAttentionModule": 17,
    # 21: what came after
    "models.vision_transformer": 21,
    "models.VisionTransformer": 21,
    "models.vit_b_16": 21,
    "models.vit_b_32": 21,
    "models.vit_l_16": 21,
    "attention.coordinate_attention": 21,
    "attention.CoordinateAttention": 21,
    "attention.criss_cross": 21,
    "attention.CrissCrossAttention": 21,
    "attention.double_attention": 21,
    "attention.DoubleAttention": 21,
    "attention.efficient_attention": 21,
    "attention.EfficientAttention": 21,
    "attention.external_attention": 21,
    "attention.ExternalAttention": 21,
    "attention.global_context": 21,
    "attention.GlobalContext": 21,
    "attention.linear_attention": 21,
    "attention.LinearAttention": 21,
    "attention.patch_embedding": 21,
    "attention.PatchEmbedding": 21,
    "attention.selective_kernel": 21,
    "attention.SelectiveKernel": 21,
    "attention.simam": 21,
    "attention.SimAM": 21,
    "attention.triplet_attention": 21,
    "attention.TripletAttention": 21,
    "attention.non_local": 18,
    "attention.NonLocalBlock": 18,
    "attention.non_local_means": 18,
    "attention.dual_attention": 19,
    "attention.ChannelSelfAttention": 19,
    "attention.DualAttentionHead": 19,
    "attention.PositionAttention": 19,
    "models.danet": 19,
    "models.DANet": 19,
    "models.DilatedResNet": 19,
    "models.danet_resnet50": 19,
    "models.danet_resnet101": 19,
    "metrics.segmentation": 19,
    "metrics.confusion_matrix": 19,
    "metrics.intersection_over_union": 19,
    "metrics.mean_iou": 19,
    "metrics.pixel_accuracy": 19,
    "functional.pairwise_distance": 25,
    "functional.triplet_margin_loss": 25,
    "nn.PairwiseDistance": 25,
    "nn.TripletMarginLoss": 25,
    "nn.BatchHardTripletLoss": 25,
    "nn.batch_hard": 25,
    "nn.hardest_triplets": 25,
    "metrics.re_identification": 25,
    "metrics.ReIdentification": 25,
    "functional.affine_grid": 16,
    "functional.grid_sample": 16,
    "attention.crow": 23,
    "attention.CroW": 23,
    "attention.delf": 24,
    "attention.DELFAttention": 24,
    "models.delf": 24,
    "models.DELF": 24,
    "models.delf_resnet50": 24,
    "models.AffineFit": 24,
    "models.LocalFeatures": 24,
    "models.ReceptiveField": 24,
    "models.fit_affine": 24,
    "models.match_features": 24,
    "models.receptive_field": 24,
    "attention.parameter_free": 25,
    "attention.ParameterFreeSpatialAttention": 25,
    "attention.regional": 22,
    "attention.RegionalAttention": 22,
    "attention.sca_cnn": 26,
    "attention.SCAAttention": 26,
    "metrics.cider": 26,
    "models.captioning": 26,
    "models.CaptionDecoder": 26,
    "models.Captioner": 26,
    "models.Coordinates": 26,
    "models.SCALayers": 26,
    "models.SoftAttention": 26,
    "retrieval": 22,
    # 27: the GPU
    "amp": 27,
    "autocast": 27,
    "cuda": 27,
    "simulator": 27,
    "distributed": 28,
    "compare": 30,
}


def built_in(name: str) -> int:
    """The number of the lesson that builds a public name, 0 if it is there from the start.

    Parameters
    ----------
    name : str
        Dotted name below the package, as in ``"nn.Conv2d"``.
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        number = BUILT_IN.get(".".join(parts[:length]))
        if number is not None:
            return number
    return 0


def built_later(source: str, number: int) -> list[str]:
    """The public names a source uses that only a later lesson builds.

    Parameters
    ----------
    source : str
        Python text of a lesson or an exercise set.
    number : int
        The number of that lesson.

    Returns
    -------
    list of str
        Sentence parts such as ``"nn.Conv2d (lesson 5)"``, each name once, in order of use.
    """
    used = dict.fromkeys(_library_names(ast.parse(source)))
    return [f"{name} (lesson {built_in(name)})" for name in used if built_in(name) > number]


def _library_names(tree: ast.AST) -> Iterator[str]:
    """Every dotted name below the package that is imported or reached through an import."""
    aliases: dict[str, str] = {}  # what a name of the source stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for imported in node.names:
                package = imported.name.partition(".")[0]
                aliases[imported.asname or package] = imported.name if imported.asname else package
                yield from _below(imported.name)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for imported in node.names:
                full = f"{node.module}.{imported.name}"
                aliases[imported.asname or imported.name] = full
                yield from _below(full)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            chain = _chain(node)
            if chain and chain[0] in aliases:
                yield from _below(".".join([aliases[chain[0]], *chain[1:]]))


def _below(name: str) -> Iterator[str]:
    package, _, rest = name.partition(".")
    if package == "minitorch_attn" and rest and not rest.startswith("course"):
        yield rest


def _chain(node: ast.expr) -> list[str]:
    """`a.b.c` as ``["a", "b", "c"]``; empty if it does not start at a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []
