"""A figure with its description in words.

A notebook shows it as an image whose alt text is also its plain-text form, so that the numbers behind a figure
can be read aloud, searched, and compared when the notebook is run again.
"""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure and its description. Shows itself as the last value of a notebook cell."""

    figure: Figure
    alt: str

    def png(self) -> bytes:
        """Return the figure as a PNG image, at 110 dots an inch."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
        return buffer.getvalue()

    def html(self) -> str:
        """Return an HTML image with the alt text in place, for widgets. It shrinks where there is less room."""
        alt, data = html.escape(self.alt, quote=True), base64.b64encode(self.png()).decode("ascii")
        return f'<img alt="{alt}" src="data:image/png;base64,{data}" style="max-width:100%">'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        image = base64.b64encode(self.png()).decode("ascii")
        return {"image/png": image, "text/plain": self.alt}, {"image/png": {"alt": self.alt}}
