"""Einstein's summation: any sum of products, written with a letter for each axis.

Two operands at a time are multiplied, as a batch of matrix products: a letter that both have and
that is kept is part of the batch, one that both have and that is not kept is summed over, and the
letters of only one are the rows or the columns.
"""

from __future__ import annotations

import math
import string

import numpy as np

from ..engine import ShapeError, array_module, primitive
from ..engine.tensor import as_operands
from .products import matrix_product


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
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        (operands,) = operands
    tensors = as_operands(*operands)
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


@primitive(floats="half")
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


@primitive(floats="half", takes_half=True)
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
    y = matrix_product(left, right) if summed else left * right
    order = batch + rows + columns
    y = y.reshape([sizes[label] for label in order])
    return y.transpose([order.index(label) for label in kept])


# -- the equation ----------------------------------------------------------------------------------


def _parse(equation, shapes):
    """The labels of each operand's axes, and of the result's.

    The axes that `...` stands for get labels of their own, the same for the same axis from the
    right: so they broadcast like any other label.
    """
    if not set(equation) <= {*string.ascii_letters, *" ,.->"}:
        raise ShapeError(f"einsum: {equation!r} may hold letters, commas, '...' and '->'")
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise ShapeError(f"einsum: {equation!r} describes {len(terms)} operands, not {len(shapes)}")
    if not arrow:
        right = "..." + "".join(sorted(c for c in left if c.isalpha() and left.count(c) == 1))
    dotted = [_count_dotted(equation, term, shape) for term, shape in zip(terms, shapes)]
    unused = [letter for letter in string.ascii_letters if letter not in equation]
    dots = "".join(unused[: max(dotted)])
    labels = [term.replace("...", dots[len(dots) - n :]) for term, n in zip(terms, dotted)]
    output = right.replace("...", dots)
    _check_output(equation, output, "".join(labels))
    _check_sizes(equation, labels, shapes)
    return labels, output


def _count_dotted(equation, term, shape):
    """How many axes of an operand `...` stands for."""
    letters = term.replace("...", "", 1)
    dotted = len(shape) - len(letters)
    if "." in letters or dotted < 0 or (dotted and "..." not in term):
        raise ShapeError(f"einsum: {term!r} in {equation!r} does not fit the shape {shape}")
    return dotted


def _check_output(equation, output, known):
    for label in output:
        if output.count(label) > 1 or label not in known:
            raise ShapeError(
                f"einsum: {label!r} must be once in the result and in an operand of {equation!r}"
            )


def _check_sizes(equation, terms, shapes):
    """One label has one size; or also 1, in another operand, which broadcasts."""
    sizes: dict[str, list[set[int]]] = {}  # of each label, what it stands for in each operand
    for term, shape in zip(terms, shapes):
        for label in _distinct(term):
            found = {n for c, n in zip(term, shape) if c == label}
            sizes.setdefault(label, []).append(found)
    for label, by_operand in sizes.items():
        different = set().union(*by_operand)
        if len(different - {1}) > 1 or any(len(found) > 1 for found in by_operand):
            shown = label if label in equation else "..."
            numbers = " and ".join(map(str, sorted(different)))
            raise ShapeError(
                f"einsum: {shown!r} in {equation!r} stands for the sizes {numbers} "
                f"(shapes {', '.join(map(str, shapes))})"
            )


def _distinct(labels):
    return "".join(dict.fromkeys(labels))
