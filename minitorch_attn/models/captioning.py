"""Describe a picture in words: a decoder that looks at the picture anew before every word."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from .. import nn
from ..attention import AdditiveAttention
from ..attention.arguments import as_images
from ..engine import ShapeError, Tensor, array_module
from ..engine.tensor import operand
from ..ops.arguments import integer
from .seq2seq import PADDING, State


class Coordinates(nn.Module):
    """Two channels more: how far down and how far right each place is, from -scale to scale.

    (N, C, H, W) -> (N, C + 2, H, W). Attention alone does not know where a place is: what it
    weighs must carry it. An axis of one place has 0.

    Parameters
    ----------
    scale : float
        Two channels among many are hardly heard at first; larger numbers are heard sooner.

    References
    ----------
    Liu et al., "An Intriguing Failing of Convolutional Neural Networks and the CoordConv Solution"
    (NeurIPS 2018), section 3, with numbers from -1 to 1.
    """

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        x = as_images(self, x)
        N, _, H, W = x.shape
        xp = array_module(x.data)
        down, right = (xp.linspace(-1, 1, L) if L > 1 else xp.zeros(1) for L in (H, W))
        grid = self.scale * xp.stack(xp.meshgrid(down, right, indexing="ij"))  # (2, H, W)
        return F.cat([x, Tensor(xp.broadcast_to(grid, (N, 2, H, W)).astype(x.dtype))], 1)

    def extra_repr(self) -> str:
        return "" if self.scale == 1 else f"{self.scale}"


class SoftAttention(nn.Module):
    r"""The look of "Show, attend and tell": one place after another, softly, and a gate.

    .. math::

        e_j = v^\top \tanh(W h + b + U x_j), \qquad \alpha = \mathrm{softmax}(e), \qquad
        z = \sigma(w_\beta^\top h + b_\beta) \sum_j \alpha_j\, x_j

    Parameters
    ----------
    channels : int
        Channels C of the map: a place is known by C numbers x_j.
    state : int
        Features of the decoder's state h.
    hidden : int
        Units of the small network that scores the places.
    gate : bool
        Whether the factor :math:`\sigma(\dots)` is there, one number a picture and word: how much
        the picture counts for this word. It is in the paper, and off at first in its code.

    Attributes
    ----------
    attention : AdditiveAttention
        A forward hook on its `softmax` sees :math:`\alpha`, (N, H W).
    gate : Sequential or None
        A forward hook on it sees the gate, (N, 1).
    features : int
        Of what it returns: C.

    References
    ----------
    Xu et al., "Show, Attend and Tell: Neural Image Caption Generation with Visual Attention" (ICML
    2015), sections 3.1.2 and 4.2.
    """

    def __init__(self, channels: int, state: int, hidden: int, gate: bool = True):
        super().__init__()
        self.attention = AdditiveAttention(state, channels, hidden, bias=True)
        self.gate = nn.Sequential(nn.Linear(state, 1), nn.Sigmoid()) if gate else None
        self.features = channels

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """What there is to see in a map x (N, C, H, W) for a state h (N, D): (N, C)."""
        z, _ = self.attention(h, x.flatten(2).transpose(1, 2))
        return z if self.gate is None else z * self.gate(h)


class SCALayers(nn.Module):
    r"""The look of SCA-CNN: the last layers of the network, run anew for each word.

    .. math::

        x^{(0)} = x, \qquad x^{(k)} = f_k\bigl(A_k(x^{(k-1)}, h)\bigr), \qquad
        z = \frac{1}{HW} \sum_{ij} x^{(m)}_{ij}

    All m attentions hear of the same state h.

    Parameters
    ----------
    *stages : (Module, Module) or Module
        Pairs of an attention :math:`A_k`, an `SCAAttention`, and the layers :math:`f_k` behind it;
        an attention alone has none behind it.
    features : int
        Channels of the last map, so of what it returns.

    Raises
    ------
    ValueError
        If there is no stage, or `features` is no integer of at least 1.

    Attributes
    ----------
    attentions, layers : ModuleList
        Forward hooks on ``attentions[k].channel.weights`` and ``attentions[k].spatial.weights`` see
        the weights.

    References
    ----------
    Chen et al., "SCA-CNN: Spatial and Channel-wise Attention in Convolutional Networks for Image
    Captioning" (CVPR 2017), section 3.1. Its program divides z by its norm, too.
    """

    def __init__(self, *stages: Any, features: int):
        super().__init__()
        if not stages:
            raise ValueError(
                "SCALayers: needs a stage at least: an attention, or (attention, layers)"
            )
        pairs = [stage if isinstance(stage, tuple) else (stage, nn.Identity()) for stage in stages]
        self.attentions = nn.ModuleList([attention for attention, _ in pairs])
        self.layers = nn.ModuleList([layer for _, layer in pairs])
        self.features = integer("SCALayers", "features", features, least=1)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """What there is to see in a map x (N, C, H, W) for a state h (N, D): (N, features)."""
        for attend, layer in zip(self.attentions, self.layers):
            x = layer(attend(x, h))
        return x.mean(dim=(2, 3))


class CaptionDecoder(nn.Module):
    r"""An LSTM that writes a caption, word by word, and looks at the picture before each.

    .. math::

        h_0 &= \tanh(W_h \bar x), \qquad c_0 = \tanh(W_c \bar x) \\
        z_t &= \mathrm{look}(x, h_{t-1}) \\
        h_t, c_t &= \mathrm{LSTM}([E y_{t-1}; z_t], h_{t-1}, c_{t-1}) \\
        p(y_t) &= \mathrm{softmax}\bigl(L_o (E y_{t-1} + L_h h_t + L_z z_t)\bigr)

    with :math:`\bar x` the mean of the map x over its places. (Biases are not written.)

    Parameters
    ----------
    num_embeddings : int
        Number K of tokens that it writes; 1 starts a caption, 2 ends it.
    embedding_dim : int
        Features of a token.
    hidden_size : int
        Features of the state h.
    channels : int
        Channels C of the map x.
    look : Module, optional
        ``look(x (N, C, H, W), h (N, hidden_size)) -> z (N, look.features)``: `SoftAttention`,
        `SCALayers`. Left out, z is :math:`\bar x` for every word.

    Raises
    ------
    ValueError
        If a size is no integer of at least 1.

    Attributes
    ----------
    embedding, first_state, first_cell, look, rnn, from_state, from_look, output : Module
        Its parts: E, W_h, W_c, the look, the LSTM cell, L_h, L_z and L_o.

    References
    ----------
    Xu et al. (ICML 2015), section 3.1.2, equations 1 to 7. Its code makes the words' scores of h_t
    alone, with a tanh before L_o; the one of SCA-CNN is made from it.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        hidden_size: int,
        channels: int,
        look: Any = None,
    ):
        super().__init__()
        self.channels = integer("CaptionDecoder", "channels", channels, least=1)
        features = channels if look is None else look.features
        self.embedding = nn.Embedding(num_embeddings, embedding_dim, padding_idx=PADDING)
        self.first_state = nn.Linear(channels, hidden_size)
        self.first_cell = nn.Linear(channels, hidden_size)
        self.look = look
        self.rnn = nn.LSTMCell(embedding_dim + features, hidden_size)
        self.from_state = nn.Linear(hidden_size, embedding_dim)
        self.from_look = nn.Linear(features, embedding_dim, bias=False)
        self.output = nn.Linear(embedding_dim, num_embeddings)

    def start(self, x: Any) -> State:
        """The state before the first word, of maps x (N, C, H, W): tensors with a first axis N."""
        x = as_images(self, x, self.channels)
        mean = x.mean(dim=(2, 3))
        hidden, cell = (F.tanh(first(mean)) for first in (self.first_state, self.first_cell))
        return {"map": x, "mean": mean, "hidden": hidden, "cell": cell}

    def step(self, tokens: Any, state: State) -> tuple[Tensor, State]:
        """Scores (N, K) for the words that follow the last ones (N,), and the state after them.

        Raises
        ------
        ShapeError
            If the tokens are no integers (N,), one for each picture.
        """
        tokens, hidden = operand(tokens), state["hidden"]
        if tokens.shape != hidden.shape[:1] or tokens.dtype.kind not in "iu":
            raise ShapeError(
                f"CaptionDecoder: needs one token, an integer, for each of {len(hidden)} pictures, "
                f"got {tokens.shape} of {tokens.dtype}"
            )
        z = state["mean"] if self.look is None else self.look(state["map"], hidden)
        word = self.embedding(tokens)
        hidden, cell = self.rnn(F.cat([word, z], 1), (hidden, state["cell"]))
        scores = self.output(word + self.from_state(hidden) + self.from_look(z))
        return scores, {**state, "hidden": hidden, "cell": cell}


class Captioner(nn.Module):
    """A convolutional network that sees a picture, and a decoder that describes it.

    It works with `greedy_decode` and `beam_search`.

    Parameters
    ----------
    cnn : Module
        Pictures to maps (N, C, H, W). ``nn.Identity()`` if maps are given in place of pictures: a
        network that is not trained along makes them once and for all.
    decoder : CaptionDecoder
        For maps of C channels.

    References
    ----------
    Vinyals, Toshev, Bengio and Erhan, "Show and Tell: A Neural Image Caption Generator" (CVPR
    2015); with attention, Xu et al. (ICML 2015).
    """

    def __init__(self, cnn: nn.Module, decoder: CaptionDecoder):
        super().__init__()
        self.cnn = cnn
        self.decoder = decoder

    def forward(self, images: Any, target_in: Any) -> Tensor:
        """Scores of every next word, where the words before it are given (teacher forcing).

        Parameters
        ----------
        images : (N, C, H, W)
        target_in : (N, T) of integers
            The captions from their start, 1, to the token before the last.

        Returns
        -------
        Tensor (N, T, K)
            Logits of what follows: to be compared with the captions from their second token on.

        Raises
        ------
        ShapeError
            If the tokens are no integers (N, T), T at least 1, a row for each picture.
        """
        state, tokens = self.start(images), operand(target_in)
        N = len(state["hidden"])
        if tokens.ndim != 2 or len(tokens) != N or tokens.shape[1] == 0:
            raise ShapeError(
                f"Captioner: needs tokens (N, T), a row for each of {N} pictures, "
                f"got {tokens.shape}"
            )
        scores = []
        for t in range(tokens.shape[1]):
            logits, state = self.step(tokens[:, t], state)
            scores.append(logits)
        return F.stack(scores, 1)

    def start(self, images: Any, lengths: None = None) -> State:
        """See the pictures (which have no lengths); the state before the first word."""
        return self.decoder.start(self.cnn(operand(images)))

    def step(self, tokens: Any, state: State) -> tuple[Tensor, State]:
        """Scores (N, K) for the words that follow the last ones (N,), and the state after them."""
        return self.decoder.step(tokens, state)
