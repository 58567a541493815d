import numpy as np
import pytest

import minitorch_attn as mt
import minitorch_attn.functional as F
from minitorch_attn import nn
from minitorch_attn.attention import SpatialTransformer
from minitorch_attn.attention.spatial_transformer import (
    GRIDS,
    AffineGrid,
    LocalisationNet,
    ProjectiveGrid,
    ThinPlateSplineGrid,
    control_points,
    target_grid,
)

from ..nn.parity import compare_modules, normal

IMAGES = normal(3, 2, 6, 5)
SIZES = {
    "translation": 2,
    "attention": 3,
    "similarity": 4,
    "affine": 6,
    "projective": 8,
    "thin_plate_spline": 32,
}
EACH_TRANSFORM = pytest.mark.parametrize("transform", SIZES)
EITHER_CONVENTION = pytest.mark.parametrize("align_corners", [False, True])


@pytest.fixture
def float64():
    mt.set_default_dtype("float64")
    yield
    mt.set_default_dtype("float32")


def transformer(transform="affine", size=(6, 5), features=4, **settings):
    """A transformer whose localisation network is one linear layer."""
    pixels = 2 * size[0] * size[1]
    net = nn.Sequential(nn.Flatten(), nn.Linear(pixels, features), nn.Tanh())
    return SpatialTransformer(2, transform, net, features, **settings)


def paper_module(torch, transform, localisation, features, out_size=None, align_corners=False):
    """Sections 3.1 to 3.3 of the paper, written out with PyTorch; the spline as Bookstein has it,
    solved for its coefficients anew for each image."""

    def places(theta, x, y):  # x, y (P Q,)
        one = torch.ones_like(x)
        if transform == "translation":
            return x + theta[:, :1], y + theta[:, 1:]
        if transform == "attention":
            s, t_x, t_y = theta.split(1, dim=1)
            return s * x + t_x, s * y + t_y
        if transform == "similarity":
            c, s, t_x, t_y = theta.split(1, dim=1)
            return c * x - s * y + t_x, s * x + c * y + t_y
        if transform == "affine":
            a, b, c, d, e, f = theta.split(1, dim=1)
            return a * x + b * y + c, d * x + e * y + f
        if transform == "projective":
            a, b, c, d, e, f, g, h = theta.split(1, dim=1)
            w = g * x + h * y + 1
            return (a * x + b * y + c) / w, (d * x + e * y + f) / w
        p = torch.linspace(-1, 1, 4, dtype=x.dtype)
        p = torch.cartesian_prod(p, p).flip(1)  # (x, y), row by row

        def phi(a, b):
            r = (a[:, None] - b[None]).norm(dim=2)
            return torch.where(r > 0, r**2 * torch.log(r.clamp_min(1e-30)), torch.zeros_like(r))

        ones = torch.ones(16, 1, dtype=x.dtype)
        side = torch.cat([ones, p], dim=1)
        zeros = torch.zeros(3, 3, dtype=x.dtype)
        system = torch.cat([torch.cat([phi(p, p), side], dim=1), torch.cat([side.T, zeros], dim=1)])
        q = theta.reshape(-1, 16, 2)
        right = torch.cat([q, torch.zeros(len(q), 3, 2, dtype=x.dtype)], dim=1)
        coefficients = torch.linalg.solve(system, right)  # (N, 19, 2)
        g = torch.stack([x, y], dim=1)
        rows = torch.cat([phi(g, p), one[:, None], g], dim=1)
        sampled = rows @ coefficients
        return sampled[..., 0], sampled[..., 1]

    class Paper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.localisation = localisation
            self.fc = torch.nn.Linear(features, SIZES[transform])

        def forward(self, u):
            theta = self.fc(self.localisation(u))
            P, Q = out_size or u.shape[2:]
            along = [
                torch.linspace(-1, 1, n, dtype=u.dtype)
                if align_corners
                else (2 * torch.arange(n, dtype=u.dtype) + 1) / n - 1
                for n in (P, Q)
            ]
            y, x = torch.meshgrid(*along, indexing="ij")
            xs, ys = places(theta, x.flatten(), y.flatten())
            H, W = u.shape[2:]
            if align_corners:
                w, h = (xs + 1) * (W - 1) / 2, (ys + 1) * (H - 1) / 2
            else:
                w, h = ((xs + 1) * W - 1) / 2, ((ys + 1) * H - 1) / 2
            kernel_w = (1 - (w[..., None] - torch.arange(W)).abs()).clamp_min(0)  # equation 5
            kernel_h = (1 - (h[..., None] - torch.arange(H)).abs()).clamp_min(0)
            v = torch.einsum("ncij,npi,npj->ncp", u, kernel_h, kernel_w)
            return v.reshape(*u.shape[:2], P, Q)

    return Paper()


@EACH_TRANSFORM
@EITHER_CONVENTION
@pytest.mark.parametrize("out_size", [None, (3, 7)])
def test_outputs_and_all_gradients_are_those_of_the_papers_equations(
    transform, align_corners, out_size
):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(60, 4), torch.nn.Tanh())
    theirs = paper_module(torch, transform, net, 4, out_size, align_corners)
    ours = transformer(transform, output_size=out_size, align_corners=align_corners)
    compare_modules(ours, theirs, IMAGES, dtypes=("float64",))


@EITHER_CONVENTION
def test_in_float32_too(align_corners):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(60, 4), torch.nn.Tanh())
    theirs = paper_module(torch, "affine", net, 4, None, align_corners)
    compare_modules(transformer(align_corners=align_corners), theirs, IMAGES, dtypes=("float32",))


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@EITHER_CONVENTION
def test_the_sampler_is_pytorchs_in_every_padding_mode(padding_mode, align_corners):
    torch = pytest.importorskip("torch")

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.localisation = torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.Linear(60, 4), torch.nn.Tanh()
            )
            self.fc = torch.nn.Linear(4, 6)

        def forward(self, x):
            theta = self.fc(self.localisation(x)).reshape(-1, 2, 3)
            f = torch.nn.functional
            grid = f.affine_grid(theta, x.shape, align_corners=align_corners)
            return f.grid_sample(x, grid, padding_mode=padding_mode, align_corners=align_corners)

    ours = transformer(padding_mode=padding_mode, align_corners=align_corners)
    compare_modules(ours, Theirs(), IMAGES, dtypes=("float64",))


def test_the_default_localisation_network_is_pytorchs_of_the_same_layers():
    torch = pytest.importorskip("torch")
    tnn = torch.nn
    theirs = tnn.Sequential(
        tnn.Conv2d(1, 20, 5, padding=2),
        tnn.ReLU(),
        tnn.MaxPool2d(2),
        tnn.Conv2d(20, 20, 5, padding=2),
        tnn.ReLU(),
        tnn.AdaptiveAvgPool2d(4),
        tnn.Flatten(),
        tnn.Linear(320, 20),
        tnn.ReLU(),
    )
    compare_modules(LocalisationNet(1), theirs, normal(2, 1, 14, 11), dtypes=("float64",))


@EACH_TRANSFORM
@EITHER_CONVENTION
def test_the_gradient_check_passes_for_every_transform(transform, align_corners, float64):
    mt.manual_seed(0)
    module = transformer(transform, size=(4, 5), align_corners=align_corners)
    with mt.no_grad():
        weight = module.fc.weight
        weight.copy_(np.random.default_rng(1).normal(0, 0.04, weight.shape))
        module.fc.bias.copy_(module.grid.identity + 0.037)  # off the kinks at whole pixels
    report = mt.gradcheck(module, normal(2, 2, 4, 5))
    assert report.ok and len(report.inputs) == 5
    assert all(np.abs(each.numeric).max() > 1e-3 for each in report.inputs)


@EACH_TRANSFORM
@EITHER_CONVENTION
@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_starts_as_the_identity_bit_for_bit(transform, align_corners, padding_mode, dtype):
    try:
        mt.set_default_dtype(dtype)
        for size in range(1, 65):
            x = normal(2, 1, size, 65 - size).astype(dtype)
            module = SpatialTransformer(
                1,
                transform,
                nn.Flatten(),
                features=size * (65 - size),
                padding_mode=padding_mode,
                align_corners=align_corners,
            )
            y = module(mt.tensor(x)).numpy()
            assert y.dtype == dtype
            np.testing.assert_array_equal(y, x, err_msg=f"of {x.shape}")
    finally:
        mt.set_default_dtype("float32")


@EACH_TRANSFORM
def test_with_its_own_localisation_network_too_it_starts_as_the_identity(transform):
    x = normal(2, 3, 7, 12).astype("float32")
    y = SpatialTransformer(3, transform)(mt.tensor(x))
    np.testing.assert_array_equal(y.numpy(), x)


@EACH_TRANSFORM
@EITHER_CONVENTION
def test_the_identitys_grid_is_that_of_the_pixels_themselves(transform, align_corners, float64):
    grid = GRIDS[transform](align_corners=align_corners)
    assert grid.identity.shape == (SIZES[transform],)
    g = grid(mt.tensor(grid.identity[None]), (5, 7)).numpy()[0]
    np.testing.assert_allclose(g, target_grid((5, 7), align_corners), rtol=0, atol=1e-15)


@EACH_TRANSFORM
def test_from_the_identity_it_learns_at_once(transform):
    """Zero weights stop the gradient to the localisation net, not that to theta."""
    module = SpatialTransformer(2, transform)
    assert {p.dtype for p in module.parameters()} == {np.dtype("float32")}
    module(mt.tensor(IMAGES.astype("float32"))).backward(normal(3, 2, 6, 5, seed=1))
    assert np.abs(module.fc.bias.grad.numpy()).max() > 0
    assert np.abs(module.fc.weight.grad.numpy()).max() > 0


@pytest.mark.parametrize(
    ("transform", "theta", "point", "place"),
    [
        ("translation", [0.25, -0.5], (0.5, 0.0), (0.75, -0.5)),
        ("attention", [0.5, 0.25, -0.5], (0.5, 1.0), (0.5, 0.0)),
        ("similarity", [0.0, 1.0, 0.0, 0.0], (0.5, 0.0), (0.0, 0.5)),  # a quarter turn
        ("affine", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], (0.5, -0.5), (2.5, 5.5)),
        ("projective", [1.0, 0, 0, 0, 1, 0, 0.5, 0], (0.5, 1.0), (0.4, 0.8)),
    ],
)
def test_a_place_is_where_the_equation_says(transform, theta, point, place):
    column, row = (round(2 * (u + 1)) for u in point)  # of a table of 5 x 5 corners
    grid = GRIDS[transform](align_corners=True)(mt.tensor([theta]), (5, 5)).numpy()
    np.testing.assert_allclose(grid[0, row, column], place, atol=1e-6)


def test_a_spline_takes_its_control_points_to_their_places(float64):
    grid = ThinPlateSplineGrid(points=4, align_corners=True)
    q = control_points(4) + 0.1 * normal(16, 2)
    g = grid(mt.tensor(q.reshape(1, 32)), (10, 7)).numpy()[0]  # which hold all 16 at every 3, 2
    np.testing.assert_allclose(g[::3, ::2].reshape(16, 2), q, atol=1e-13)


def test_a_spline_of_an_affine_map_is_that_map(float64):
    linear, shift = np.array([[0.9, 0.2], [-0.3, 0.7]]), np.array([0.1, -0.2])
    q = control_points(5) @ linear.T + shift
    g = ThinPlateSplineGrid(points=5)(mt.tensor(q.reshape(1, 50)), (6, 7)).numpy()[0]
    np.testing.assert_allclose(g, target_grid((6, 7)) @ linear.T + shift, atol=1e-13)


def test_all_channels_are_read_at_the_same_places_that_a_hook_sees():
    mt.manual_seed(0)
    module, seen = transformer(), []
    with mt.no_grad():
        module.fc.weight.copy_(normal(6, 4))
    with module.grid.register_forward_hook(lambda m, inputs, g: seen.append(g)):
        y = module(mt.tensor(IMAGES))
    (g,) = seen
    assert g.shape == (3, 6, 5, 2)
    for c in range(2):
        alone = F.grid_sample(IMAGES[:, c : c + 1].astype("float32"), g)
        np.testing.assert_allclose(alone.numpy()[:, 0], y.numpy()[:, c], atol=1e-6)


def test_it_cuts_out_a_window_of_whole_pixels():
    digit = normal(1, 1, 4, 4)
    scene = np.pad(digit, ((0, 0), (0, 0), (1, 3), (2, 2))).astype("float32")  # (8, 8)
    module = SpatialTransformer(1, "attention", output_size=4)
    with mt.no_grad():
        module.fc.bias.copy_([0.5, 0.0, -0.25])  # half the width, its middle one pixel higher
    np.testing.assert_allclose(module(mt.tensor(scene)).numpy(), digit, atol=1e-6)


@EACH_TRANSFORM
def test_beside_the_localisation_net_it_costs_n_times_d_plus_one_parameters(transform):
    module = SpatialTransformer(3, transform, nn.Flatten(), features=48)
    assert sum(p.numel() for p in module.parameters()) == SIZES[transform] * (48 + 1)


def test_a_grid_of_ones_own_takes_part():
    class Rotation(nn.Module):
        identity = np.zeros(1)

        def forward(self, theta, size):
            c, s = F.cos(theta), F.sin(theta)
            zero = 0 * c
            maps = F.stack([c, -s, zero, s, c, zero], dim=1).reshape(-1, 2, 3)
            return F.affine_grid(maps, size=(len(maps), 1, *size))

    module = SpatialTransformer(1, Rotation())
    with mt.no_grad():
        module.fc.bias.fill_(np.pi / 2)
    x = normal(1, 1, 5, 5).astype("float32")
    turned = module(mt.tensor(x)).numpy()[0, 0]
    np.testing.assert_allclose(turned, np.rot90(x[0, 0]), atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 4, 4), (2, 2)])
def test_an_input_of_another_shape_is_refused_by_name(shape):
    with pytest.raises(mt.ShapeError, match=r"an input \(N, C, H, W\) with C = 2 channels, got"):
        SpatialTransformer(2)(mt.ones(*shape))


def test_a_localisation_network_of_another_shape_is_refused():
    with pytest.raises(mt.ShapeError) as caught:
        SpatialTransformer(1, localisation=nn.Flatten(), features=8)(mt.ones(2, 1, 3, 3))
    assert str(caught.value).startswith(
        "SpatialTransformer: the localisation network must return (N, D) with D = 8 features, "
        "got (2, 9) for an input (2, 1, 3, 3): end it with nn.Flatten(), and pass features=D"
    )


def test_unknown_transforms_and_families_are_refused():
    with pytest.raises(ValueError, match="transform must be one of translation, .*, not 'warp'"):
        SpatialTransformer(1, "warp")
    with pytest.raises(ValueError, match="family must be one of .*affine, not 'projective'"):
        AffineGrid("projective")
    with pytest.raises(ValueError, match="transform must be one of .*, not \\['affine'\\]"):
        SpatialTransformer(1, ["affine"])


def test_a_grid_of_the_other_convention_or_without_an_identity_is_refused():
    with pytest.raises(ValueError, match="align_corners is True in AffineGrid and False here"):
        SpatialTransformer(1, AffineGrid(align_corners=True))
    SpatialTransformer(1, AffineGrid(align_corners=True), align_corners=True)
    with pytest.raises(ValueError, match="ReLU needs an attribute `identity`"):
        SpatialTransformer(1, nn.ReLU())


@pytest.mark.parametrize("size", [0, (3, 0), (8, 8, 8)])
def test_an_output_without_pixels_or_of_other_dimensions_is_refused(size):
    with pytest.raises(ValueError, match=r"output_size must be one size or two \(P, Q\)"):
        SpatialTransformer(1, output_size=size)


def test_an_output_size_is_whole_numbers_of_any_kind():
    assert SpatialTransformer(1, output_size=np.int64(8)).output_size == (8, 8)
    with pytest.raises(ValueError, match="output_size must be an integer or a tuple of integers"):
        SpatialTransformer(1, output_size=2.5)


def test_a_spline_needs_two_points_along_each_axis():
    with pytest.raises(ValueError, match="points must be at least 2 along each axis, not 1"):
        ThinPlateSplineGrid(points=1)


@pytest.mark.parametrize("grid", [AffineGrid(), ProjectiveGrid(), ThinPlateSplineGrid()])
def test_a_theta_of_another_length_is_refused(grid):
    n = len(grid.identity)
    with pytest.raises(mt.ShapeError, match=rf"theta must be \(N, {n}\), not \(2, 5\)"):
        grid(mt.ones(2, 5), (4, 4))


def test_it_prints_its_parts():
    text = repr(SpatialTransformer(1, "attention", nn.Flatten(), 9, output_size=4))
    assert text == (
        "SpatialTransformer(1, output_size=(4, 4))  30 parameters\n"
        "  (localisation): Flatten()\n"
        "  (grid): AffineGrid('attention')\n"
        "  (fc): Linear(9, 3)                       30"
    )
