"""A figure with its description in words, which a notebook keeps as alt text and as plain text: it can be read
aloud, searched, and compared when the notebook is run again."""

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
        """Return an HTML image with its alt text, for widgets. It shrinks where there is less room."""
        data = base64.b64encode(self.png()).decode("ascii")
        return f'<img alt="{html.escape(self.alt)}" src="data:image/png;base64,{data}" style="max-width:100%">'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        image = base64.b64encode(self.png()).decode("ascii")
        return {"image/png": image, "text/plain": self.alt}, {"image/png": {"alt": self.alt}}
