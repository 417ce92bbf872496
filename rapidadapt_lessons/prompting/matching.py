"""Whether a reply says the answer somewhere, for replies that are sentences."""

from __future__ import annotations

import re
import unicodedata


def lenient_match(reply: str, answer: str) -> bool:
    """Return whether the reply contains the answer as whole words, whatever the case and the punctuation between them.

    "The capital is St. John's!" contains "st. johns" no more than "Londonderry" contains "London", and "forty-two" is
    one word. Accents count. What else the reply says does not: "not Paris" contains "Paris". An answer without a letter
    or digit is never contained.
    """
    said, wanted = _words(reply), _words(answer)
    return bool(wanted) and any(said[i : i + len(wanted)] == wanted for i in range(len(said)))


def _words(text: str) -> list[str]:
    composed = unicodedata.normalize("NFC", text)  # "é" is then one letter, however it was typed
    return re.findall(r"\w+(?:-\w+)*", composed.casefold())
