"""The audit of dependencies: what it looks up, and that no answer is never taken for a good one."""

from __future__ import annotations

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import audit

needs_pip_audit = pytest.mark.skipif(
    importlib.util.find_spec("pip_audit") is None, reason="pip-audit comes with `make audit`, for upkeep alone"
)


@pytest.fixture
def service(monkeypatch):
    """A service on this machine that speaks as osv.dev does. `known` names packages that it has something against."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = asked["package"]["name"]
            server.asked.append(f"{name}=={asked['version']}")
            fixed = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}]
            affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": fixed}]
            vuln = {"id": "PYSEC-2026-1", "summary": "bad", "affected": affected, "schema_version": "1.4.0"}
            body = json.dumps({"vulns": [vuln]} if name in server.known else {}).encode()
            self.send_response(500 if len(server.asked) > server.answers else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.known, server.asked, server.answers = set(), [], 10_000
    server.url = f"http://127.0.0.1:{server.server_port}/v1/query"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()


def test_every_pin_of_both_locks_is_looked_up():
    wanted = audit.pins()
    assert {"torch==2.13.0", "learn2learn==0.2.0"} <= set(wanted) and any(pin.startswith("sphinx==") for pin in wanted)
    lines = [line for lock in audit.LOCKS for line in (audit.ROOT / lock).read_text().splitlines()]
    assert len(wanted) == len({line.split(";")[0].strip() for line in lines if line and line[0] not in "# "}) + 1


@needs_pip_audit
def test_nothing_known(service, capsys):
    assert audit.main(["--url", service.url]) == audit.CLEAN == 0
    assert f"any of the {len(audit.pins())} pinned packages" in capsys.readouterr().out
    assert {audit.plain(pin) for pin in service.asked} == {audit.plain(pin) for pin in audit.pins()}


@needs_pip_audit
def test_something_known(service, capsys):
    service.known = {"torch"}
    assert audit.main(["--url", service.url]) == audit.FOUND == 1
    assert "torch 2.13.0: PYSEC-2026-1, mended in 99.1" in capsys.readouterr().out


@needs_pip_audit
@pytest.mark.parametrize("how", ["unreachable", "it breaks half-way"])
def test_no_answer_is_told_as_that(service, capsys, how):
    service.answers = 20
    url = "http://127.0.0.1:9/v1/query" if how == "unreachable" else service.url
    assert audit.main(["--url", url]) == audit.NOT_RUN == 3
    said = capsys.readouterr()
    assert "NOT AUDITED" in said.err and said.out == ""


ENTRY = {"name": "Torch", "version": "1", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "not found on PyPI"}
VULN = {"name": "torch", "version": "1", "vulns": [{"id": "X-1", "fix_versions": [], "aliases": [], "description": ""}]}


@pytest.mark.parametrize(
    ("returned", "entries", "status"),
    [
        (0, [ENTRY], audit.CLEAN),
        (1, [VULN], audit.FOUND),
        (0, [SKIPPED], audit.NOT_RUN),
        (0, [], audit.NOT_RUN),
        (1, [ENTRY], audit.NOT_RUN),
        (1, None, audit.NOT_RUN),
    ],
)
def test_what_an_answer_means(returned, entries, status):
    out = "" if entries is None else json.dumps({"dependencies": entries, "fixes": []})
    found, lines = audit.verdict(["torch==1"], returned, out, "Traceback ...\nConnectionError: no route\n")
    assert found == status
    assert any("NOT AUDITED" in line for line in lines) == (status == audit.NOT_RUN)
    if entries is None:
        assert "It said: ConnectionError: no route" in lines


def test_the_make_target_has_its_exit_status():
    recipe = (audit.ROOT / "Makefile").read_text(encoding="utf-8").partition("\naudit:")[2].split("\n\n")[0]
    assert "tools/audit.py" in recipe and "||" not in recipe and "-$(BIN)" not in recipe
