"""The sheet that every picture is drawn on; imported when the first picture is."""

import io
from typing import Any

import matplotlib.figure

from .style import use_style


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that pyplot does not know of: a notebook shows it once, as a value."""

    def savefig(self, fname: Any, **options: Any) -> None:
        """Write the picture to a file, in the style that it was drawn in."""
        with use_style():
            super().savefig(fname, **options)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", metadata={"Software": None})
        return file.getvalue()
