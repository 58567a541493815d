"""What nbval does not see in a stored notebook: each rule returns its complaints."""

import ast
import re

from minitorch_attn.course.notebook_source import NOT_RUN

MUST_RAISE = {"raises-exception", "nbval-raises-exception"}
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")


def tags(cell):
    return set(cell.metadata.get("tags", []))


def code_cells(notebook):
    """Code cells that are run, with their number among all cells, counted from 1."""
    numbered = enumerate(notebook.cells, 1)
    return [(n, c) for n, c in numbered if c.cell_type == "code" and NOT_RUN not in tags(c)]


def unrun(notebook):
    """nbval runs a cell that was never run, but compares nothing."""
    return [f"cell {n} was not run" for n, c in code_cells(notebook) if c.execution_count is None]


def wrong_errors(notebook):
    """nbval passes a cell that is marked to raise and does not."""
    complaints = []
    for number, cell in code_cells(notebook):
        raised = any(output.output_type == "error" for output in cell.outputs)
        expected = bool(tags(cell) & MUST_RAISE)
        if raised != expected:
            complaints.append(f"cell {number} {'raised' if raised else 'was to raise and did not'}")
    return complaints


def warnings(notebook):
    """A stored warning tells a learner that something is wrong, when nothing is."""
    return [
        f"cell {number} wrote to stderr: {output.text.strip()[:100]}"
        for number, cell in code_cells(notebook)
        for output in cell.outputs
        if output.get("name") == "stderr"
    ]


def comments_for_nbval(notebook):
    """A comment overrides a tag, silently; tags are the one way."""
    return [
        f"cell {number}: write a tag instead of the comment NBVAL_..."
        for number, cell in code_cells(notebook)
        if re.search(r"^\s*#+\s*(NBVAL|PYTEST_VALIDATE)_", cell.source, re.MULTILINE)
    ]


def personal_paths(notebook, folders):
    """A stored path of the author's computer holds nowhere else."""
    return [
        f"cell {number} shows the folder {folder}"
        for number, cell in code_cells(notebook)
        for folder in map(str, folders)
        if any(folder in str(output) for output in cell.outputs)
    ]


def unproved_pictures(notebook):
    """nbval compares no pictures: what one shows is asserted on its arrays, close to it.

    Close is the cell that draws, or the code cell before or after it.
    """
    cells = code_cells(notebook)
    proofs = [asserts(cell.source) for _, cell in cells]
    return [
        f"cell {number} draws, and neither it nor its neighbours assert anything"
        for i, (number, cell) in enumerate(cells)
        if draws(cell) and not any(proofs[max(i - 1, 0) : i + 2])
    ]


def draws(cell):
    return any(mime in output.get("data", {}) for output in cell.outputs for mime in PICTURES)


def asserts(source):
    """Whether code asserts: an assert statement, a call of assert_...(), or of check()."""
    plain = re.sub(r"^\s*[%!].*$", "pass", source, flags=re.MULTILINE)
    for node in ast.walk(ast.parse(plain)):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name == "check" or name.startswith("assert_"):
                return True
    return False
