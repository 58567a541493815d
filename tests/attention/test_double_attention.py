import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn.attention import DoubleAttention

from ..nn.parity import compare_modules, normal

IMAGES = normal(3, 8, 5, 4)


def paper_module(torch, channels, hidden):
    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.features = torch.nn.Conv2d(channels, hidden, 1)
            self.gather = torch.nn.Conv2d(channels, hidden, 1)
            self.distribute = torch.nn.Conv2d(channels, hidden, 1)
            self.output = torch.nn.Conv2d(hidden, channels, 1)

        def forward(self, x):
            a, b, v = (f(x).flatten(2) for f in (self.features, self.gather, self.distribute))
            b = torch.exp(b) / torch.exp(b).sum(dim=2, keepdim=True)
            v = torch.exp(v) / torch.exp(v).sum(dim=1, keepdim=True)
            z = torch.einsum("nmj,nkj,nki->nmi", a, b, v)
            return x + self.output(z.reshape(len(x), hidden, *x.shape[2:]))

    return Paper()


def test_outputs_and_all_gradients_are_those_of_the_papers_equations():
    torch = pytest.importorskip("torch")
    compare_modules(DoubleAttention(8, reduction=2), paper_module(torch, 8, 4), IMAGES)


def test_the_gradient_check_passes():
    mt.manual_seed(0)
    report = mt.gradcheck(DoubleAttention(4, reduction=2).double(), normal(2, 4, 3, 2))
    assert len(report.inputs) == 9


def test_hooks_see_where_it_gathers_and_to_whom_it_hands_out():
    module, seen = DoubleAttention(8, reduction=2).double(), []
    parts = module.gather_weights, module.distribute_weights
    hooks = [p.register_forward_hook(lambda m, i, w: seen.append(w.numpy())) for p in parts]
    module(mt.tensor(IMAGES))
    for hook in hooks:
        hook.remove()
    gather, distribute = seen
    assert gather.shape == distribute.shape == (3, 4, 20)
    np.testing.assert_allclose(gather.sum(axis=2), 1)
    np.testing.assert_allclose(distribute.sum(axis=1), 1)


def test_what_passes_between_positions_has_the_rank_of_the_bottleneck():
    module, seen = DoubleAttention(8, reduction=4).double(), []
    for part in (module.gather_weights, module.distribute_weights):
        part.register_forward_hook(lambda m, i, w: seen.append(w.numpy()))
    module(mt.tensor(IMAGES))
    gather, distribute = seen
    mixing = gather[0].T @ distribute[0]  # (HW, HW)
    assert np.linalg.matrix_rank(mixing) == 2


def test_bad_settings_and_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match="DoubleAttention: reduction=4 leaves no unit"):
        DoubleAttention(3)
    with pytest.raises(mt.ShapeError, match=r"DoubleAttention: needs .* C = 8 channels"):
        DoubleAttention(8)(mt.ones(2, 6, 3, 3))
