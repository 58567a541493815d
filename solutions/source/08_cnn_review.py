# %% [markdown]
# # Exercises 08: the blocks of convolutional networks
#
# From counting to a block of your own. The letters are those of
# [lesson 08](../notebooks/08_cnn_review.ipynb): `x` is a feature map (N, C, H, W), `O` are output
# channels, `G` groups, (R, S) is the size of a kernel, (P, Q) that of the output.
#
# Run a cell, then its check. `hint("08.conv_cost")` gives one hint at a time, and after a try
# `solution("08.conv_cost")` shows a way to do it.

# %%
import numpy as np

import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.course import check

# %% [markdown]
# ## 1. What a convolution costs
#
# Return two numbers, the parameters of a convolution without bias and the multiply-adds for one image:
#
# $$O \cdot \tfrac{C}{G} \cdot R S \qquad\text{and}\qquad P Q \cdot O \cdot \tfrac{C}{G} \cdot R S$$
#
# For example, one 3 x 3 kernel over one channel, at 2 x 2 places, has 9 parameters and 36
# multiply-adds.


# %% exercise="conv_cost"
def conv_cost(C, O, kernel, places, groups=1):
    """Channels C and O, kernel (R, S), places (P, Q) -> (parameters, multiply-adds)."""
    ### BEGIN SOLUTION
    R, S = kernel
    P, Q = places
    parameters = O * (C // groups) * R * S
    return parameters, P * Q * parameters
    ### END SOLUTION


# %% check="conv_cost" points=1
check("08.conv_cost", conv_cost)

# %% [markdown]
# ## 2. The channel shuffle
#
# Channel $c = g \cdot \tfrac{C}{G} + j$ goes to place $j \cdot G + g$. In primitive form: return the output
# and the rule, `return y, vjp_x`. Six channels 0 to 5 in two groups come out as 0, 3, 1, 4, 2, 5.


# %% exercise="channel_shuffle"
def channel_shuffle(x, groups):
    """x (N, C, H, W) -> y (N, C, H, W), and the rule dy -> dx."""
    ### BEGIN SOLUTION
    N, C, H, W = x.shape

    def transposed(x, rows):
        return x.reshape(N, rows, C // rows, H, W).swapaxes(1, 2).reshape(N, C, H, W)

    def vjp_x(dy):
        return transposed(dy, C // groups)

    return transposed(x, groups), vjp_x
    ### END SOLUTION


# %% check="channel_shuffle" points=2
check("08.channel_shuffle", channel_shuffle)

# %% [markdown]
# ## 3. A shortcut without parameters
#
# Where a ResNet halves the positions and doubles the channels, its simplest shortcut ("option A") takes
# every second position, beginning with the first, and puts channels of zeros *behind* those there are,
# until there are `channels`. In primitive form: `return y, vjp_x`.
#
# For example, a channel `[[1, 2], [3, 4]]` becomes `[[1]]`, and with `channels=2` a second one, `[[0]]`,
# follows.


# %% exercise="shortcut"
def shortcut(x, channels):
    """x (N, C, H, W) -> y (N, channels, H/2 rounded up, W/2 rounded up), and dy -> dx."""
    ### BEGIN SOLUTION
    N, C = x.shape[:2]
    kept = x[:, :, ::2, ::2]
    y = np.zeros((N, channels, *kept.shape[2:]))
    y[:, :C] = kept

    def vjp_x(dy):
        dx = np.zeros(x.shape)
        dx[:, :, ::2, ::2] = dy[:, :C]
        return dx

    return y, vjp_x
    ### END SOLUTION


# %% check="shortcut" points=2
check("08.shortcut", shortcut)

# %% [markdown]
# ## 4. A grouped convolution is an ordinary one
#
# ... most of whose weights are zero. Given the weights (O, C/G, R, S) of a convolution with $G$ groups,
# return the weights (O, C, R, S) of the ordinary convolution that computes the same.
#
# The first O/G kernels belong to the first group; it reads the first C/G channels. For example, two
# groups of one channel and one kernel each, `[[[[1]]], [[[2]]]]`, become `[[[[1]], [[0]]], [[[0]], [[2]]]]`.


# %% exercise="full_kernel"
def full_kernel(w, groups):
    """w (O, C/G, R, S) -> (O, C, R, S), so that an ordinary convolution does the same."""
    ### BEGIN SOLUTION
    O, D, R, S = w.shape
    full = np.zeros((O, D * groups, R, S))
    for g in range(groups):
        kernels = slice(g * O // groups, (g + 1) * O // groups)
        full[kernels, g * D : (g + 1) * D] = w[kernels]
    return full
    ### END SOLUTION


# %% check="full_kernel" points=2
check("08.full_kernel", full_kernel)

# %% [markdown]
# ## 5. Keep everything
#
# A layer of a DenseNet, with a $1 \times 1$ convolution to keep it short: $k$ new channels are laid behind
# the $C$ old ones,
#
# $$r_{nkhw} = \max\Big(\sum_c w_{kc}\, x_{nchw},\, 0\Big), \qquad y = [\,x, r\,]$$
#
# In primitive form, with the rules of `x` and of `w`: `return y, (vjp_x, vjp_w)`. Mind that `x` is read
# twice. For example, one position with channels 1 and 2, and `w = [[1, 1], [1, -1]]`, gives 1, 2, 3, 0.


# %% exercise="dense_layer"
def dense_layer(x, w):
    """x (N, C, H, W), w (k, C) -> y (N, C + k, H, W), and a rule for each."""
    ### BEGIN SOLUTION
    C = x.shape[1]
    a = np.einsum("kc,nchw->nkhw", w, x)

    def back_to_a(dy):
        return dy[:, C:] * (a > 0)

    def vjp_x(dy):
        return dy[:, :C] + np.einsum("kc,nkhw->nchw", w, back_to_a(dy))

    def vjp_w(dy):
        return np.einsum("nkhw,nchw->kc", back_to_a(dy), x)

    return np.concatenate([x, np.maximum(a, 0)], axis=1), (vjp_x, vjp_w)
    ### END SOLUTION


# %% check="dense_layer" points=3
check("08.dense_layer", dense_layer)

# %% [markdown]
# ## 6. A pre-activation block
#
# The block of the pre-activation ResNet, as a module:
#
# $$a = \mathrm{relu}(\mathrm{BN}_1(x)), \qquad
# y = s + w_2 * \mathrm{relu}(\mathrm{BN}_2(w_1 * a))$$
#
# with two $3 \times 3$ convolutions without bias, padding 1; the first has the stride. If channels and
# positions stay as they are, the shortcut $s$ is $x$. If not, it is a $1 \times 1$ convolution with the
# same stride and without bias, and it reads $a$.
#
# Call the parts `bn1`, `conv1`, `bn2`, `conv2` and `shortcut`; where the shortcut is $x$, make it an
# `nn.Identity()`.


# %% exercise="PreActivationBlock"
class PreActivationBlock(nn.Module):
    """BN, ReLU, convolution, twice, added to a shortcut: (N, C, H, W) -> (N, O, P, Q)."""

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        ### BEGIN SOLUTION
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        ### END SOLUTION

    def forward(self, x):
        """Map x (N, C, H, W) to (N, O, P, Q)."""
        ### BEGIN SOLUTION
        a = F.relu(self.bn1(x))
        s = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(a)
        return s + self.conv2(F.relu(self.bn2(self.conv1(a))))
        ### END SOLUTION


# %% check="PreActivationBlock" points=4
check("08.PreActivationBlock", PreActivationBlock)
