"""Products of vectors and matrices: matmul and Einstein's summation."""

from __future__ import annotations

import math
import string

import numpy as np

from ..engine import ShapeError, Tensor, array_module, primitive, tensor


@primitive
def matmul(a, b):
    """Matrix product y = a b: (*, n, m), (*, m, k) -> (*, n, k), the leading axes broadcast.

    A vector on the left is a row, one on the right is a column, and that axis of size 1 is
    dropped from the result: (m,), (m,) -> (); (*, n, m), (m,) -> (*, n); (m,), (*, m, k) -> (*, k).

    With y_nk = sum_m a_nm b_mk the gradients are dy b^T and a^T dy.

    Raises
    ------
    ShapeError
        If the inner sizes differ, or an operand has no axes.
    """
    _check_inner_sizes(a.shape, b.shape)

    def as_matrix(dy):
        """The gradient with the axes that a vector's product has dropped: (*, n, k)."""
        if b.ndim == 1:
            dy = dy[..., None]
        return dy[..., None, :] if a.ndim == 1 else dy

    def vjp_a(dy):
        columns = b[:, None] if b.ndim == 1 else b
        da = as_matrix(dy) @ columns.swapaxes(-1, -2)
        return da[..., 0, :] if a.ndim == 1 else da

    def vjp_b(dy):
        rows, dy = (a[None, :] if a.ndim == 1 else a), as_matrix(dy)
        if b.ndim <= 2 and rows.ndim > 2:  # one b for the whole batch: one product over all rows
            rows, dy = _as_one_matrix(rows), _as_one_matrix(dy)
        db = rows.swapaxes(-1, -2) @ dy
        return db[..., 0] if b.ndim == 1 else db

    return a @ b, (vjp_a, vjp_b)


def _as_one_matrix(batch):
    """The rows of all matrices of a batch, one below the other."""
    return batch.reshape(math.prod(batch.shape[:-1]), batch.shape[-1])


def _check_inner_sizes(a, b):
    if not a or not b:
        raise ShapeError(f"matmul: needs vectors or matrices, got shapes {a} and {b}")
    inner = b[-2] if len(b) > 1 else b[0]
    if a[-1] != inner:
        raise ShapeError(
            f"matmul: {a} @ {b}: the inner sizes {a[-1]} and {inner} must be equal "
            "(columns of the left, rows of the right)"
        )


def dot(a, b):
    """Product of two vectors, sum_i a_i b_i: (n,), (n,) -> ()."""
    _check_axes("dot", 1, a, b)
    return matmul(a, b)


def outer(a, b):
    """All products of two vectors, y_ij = a_i b_j: (n,), (m,) -> (n, m)."""
    _check_axes("outer", 1, a, b)
    return einsum("i,j->ij", a, b)


def bmm(a, b):
    """Matrix products of a batch: (N, n, m), (N, m, k) -> (N, n, k); nothing is broadcast."""
    _check_axes("bmm", 3, a, b)
    if a.shape[0] != b.shape[0]:
        raise ShapeError(f"bmm: the batches differ: {a.shape[0]} and {b.shape[0]} matrices")
    return matmul(a, b)


def _check_axes(op, ndim, *tensors):
    if any(x.ndim != ndim for x in tensors):
        shapes = " and ".join(str(x.shape) for x in tensors)
        raise ShapeError(f"{op}: both operands need {ndim} axes, their shapes are {shapes}")


# -- Einstein's summation --------------------------------------------------------------------------


def einsum(equation, *operands):
    """Products of operands, summed over indices: `einsum("ij,jk->ik", a, b)` is a matrix product.

    Each axis has a letter. Equal letters are multiplied element by element, letters missing after
    the arrow are summed over, a letter twice in one operand takes the diagonal, and `...` stands
    for leading axes that broadcast. Without an arrow the result has the axes of `...`, then the
    letters that occur once, in alphabetical order.

    Runs as matrix products of two operands at a time, from left to right.

    Raises
    ------
    ShapeError
        If the letters do not fit the operands, or one letter stands for different sizes.
    """
    tensors = [x if isinstance(x, Tensor) else tensor(x) for x in operands]
    terms, output = _parse(equation, [x.shape for x in tensors])
    product, labels = None, ""
    for i, (x, term) in enumerate(zip(tensors, terms)):
        later = output + "".join(terms[i + 1 :])
        x, term = _needed_part(x, term, "".join(terms[:i]) + later)
        if product is None:
            product, labels = x, term
        else:
            kept = _distinct(label for label in later if label in labels + term)
            product, labels = _product(product, x, labels=(labels, term), kept=kept), kept
    return product if labels == output else _einsum(product, labels=labels, kept=output)


def _needed_part(x, labels, needed):
    """An operand as its diagonals, summed over the labels that nothing else has."""
    kept = _distinct(label for label in labels if label in needed)
    return (x, labels) if kept == labels else (_einsum(x, labels=labels, kept=kept), kept)


@primitive
def _einsum(x, *, labels, kept):
    """One operand: the diagonal where a label is repeated, the sum where it is not kept."""
    shape, distinct = x.shape, _distinct(labels)

    def vjp_x(dy):
        dx = array_module(dy).zeros(shape, dy.dtype)
        diagonal = np.einsum(f"{labels}->{distinct}", dx)  # a view: writing to it fills dx
        present = [label for label in distinct if label in kept]
        dy = dy.transpose([kept.index(label) for label in present])
        diagonal[...] = np.expand_dims(dy, [i for i, d in enumerate(distinct) if d not in kept])
        return dx

    return np.einsum(f"{labels}->{kept}", x), vjp_x


@primitive
def _product(a, b, *, labels, kept):
    """Two operands; every label is kept or in both. Each gradient is such a product again."""
    (labels_a, labels_b), shape_a, shape_b = labels, a.shape, b.shape

    def vjp_a(dy):
        return _stretched(_contract(dy, kept, b, labels_b, labels_a), shape_a)

    def vjp_b(dy):
        return _stretched(_contract(dy, kept, a, labels_a, labels_b), shape_b)

    return _contract(a, labels_a, b, labels_b, kept), (vjp_a, vjp_b)


def _stretched(dx, shape):
    """A gradient that is the same along an axis where the other operand had size 1."""
    return np.broadcast_to(dx, np.broadcast_shapes(dx.shape, shape))


def _contract(a, labels_a, b, labels_b, kept):
    """The product of two labelled arrays as a batch of matrix products."""
    batch = [label for label in kept if label in labels_a and label in labels_b]
    rows = [label for label in kept if label not in labels_b]
    columns = [label for label in kept if label not in labels_a]
    summed = [label for label in labels_a if label in labels_b and label not in kept]
    sizes = dict(zip(labels_a, a.shape))
    sizes |= {label: n for label, n in zip(labels_b, b.shape) if sizes.get(label, 1) == 1}

    def as_matrices(x, labels, first, second):
        """(*batch, first, second), where first and second are several axes merged."""
        x = x.transpose([labels.index(label) for label in batch + first + second])
        whole = [sizes[label] for label in first + second]
        x = np.broadcast_to(x, (*x.shape[: len(batch)], *whole))
        merged = (math.prod(whole[: len(first)]), math.prod(whole[len(first) :]))
        return x.reshape(*x.shape[: len(batch)], *merged)

    left = as_matrices(a, labels_a, rows, summed)
    right = as_matrices(b, labels_b, summed, columns)
    y = left @ right if summed else left * right
    order = batch + rows + columns
    y = y.reshape([sizes[label] for label in order])
    return y.transpose([order.index(label) for label in kept])


def _parse(equation, shapes):
    """The labels of each operand's axes and of the result's; the axes of `...` get labels too."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise ShapeError(f"einsum: {equation!r} describes {len(terms)} operands, not {len(shapes)}")
    if not set(equation) <= {*string.ascii_letters, *" ,.->"}:
        raise ShapeError(f"einsum: {equation!r} may hold letters, commas, '...' and '->'")
    hidden = [len(shape) - len(t.replace("...", "")) for t, shape in zip(terms, shapes)]
    for term, shape, n in zip(terms, shapes, hidden):
        if n < 0 or (n and "..." not in term):
            raise ShapeError(f"einsum: {term!r} in {equation!r} does not fit the shape {shape}")
    most = max(n if "..." in t else 0 for t, n in zip(terms, hidden))
    unused = [letter for letter in string.ascii_letters if letter not in equation]
    dots = "".join(unused[:most])
    labels = [t.replace("...", dots[most - n :]) for t, n in zip(terms, hidden)]
    if not arrow:
        once = sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1)
        right = "..." + "".join(once)
    output = right.replace("...", dots)
    _check_labels(equation, labels, output, shapes)
    return labels, output


def _check_labels(equation, terms, output, shapes):
    if "." in "".join(terms) + output:
        raise ShapeError(f"einsum: in {equation!r} a dot is not part of '...'")
    for label in output:
        if output.count(label) > 1 or label not in "".join(terms):
            raise ShapeError(
                f"einsum: {label!r} must be once in the result and in an operand of {equation!r}"
            )
    for label in _distinct("".join(terms)):
        found = {n for t, shape in zip(terms, shapes) for c, n in zip(t, shape) if c == label}
        in_one = max(len({n for c, n in zip(t, s) if c == label}) for t, s in zip(terms, shapes))
        if len(found - {1}) > 1 or in_one > 1:
            sizes = " and ".join(map(str, sorted(found)))
            shown = label if label in equation else "..."
            raise ShapeError(
                f"einsum: {shown!r} in {equation!r} stands for the sizes {sizes} "
                f"(shapes {', '.join(map(str, shapes))})"
            )


def _distinct(labels):
    return "".join(dict.fromkeys(labels))
