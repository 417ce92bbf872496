"""Links: every kind of broken one is found, working ones are left alone, and the web is asked only when told to."""

from __future__ import annotations

import http.server
import threading

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import links
import spelling
from links import Link


@pytest.fixture
def project(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "README.md").write_text("# Top\n\n[a](docs/a.md#two-words) [b](notebooks/b.ipynb#A-Heading)\n")
    (tmp_path / "docs" / "a.md").write_text('# Two words!\n\n<a id="here"></a>[up](../README.md) [in](#here)\n')
    cells = [new_markdown_cell("## A Heading\n[back](../README.md#top)"), new_code_cell("# [no](link.md)")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / "b.ipynb")
    return tmp_path


def test_the_courses_own_links_all_lead_somewhere():
    assert len(links.pages()) > 20
    assert links.broken() == []


def test_a_sound_project_has_no_broken_links(project):
    assert links.broken(project) == []


@pytest.mark.parametrize(
    "target",
    ["gone.md", "docs/a.md#two-word", "#none", "notebooks/b.ipynb#a-heading", "../outside.md", "docs/gone.png"],
)
@pytest.mark.parametrize("form", ["[x]({})", "![x]({})", '<a href="{}">x</a>', '<img src="{}" alt="x">', "| [x]({}) |"])
def test_a_broken_link_is_named_with_its_page(project, target, form):
    page = project / "README.md"
    page.write_text(page.read_text() + "\n" + form.format(target) + "\n")
    assert links.broken(project) == [Link("README.md", target)]


def test_a_broken_link_in_a_notebook_is_found(project):
    cells = [new_markdown_cell("[x](../docs/b.md)")]
    nbformat.write(new_notebook(cells=cells), project / "notebooks" / "b.ipynb")
    (project / "README.md").write_text("# Top\n")
    assert links.broken(project) == [Link("notebooks/b.ipynb", "../docs/b.md")]


def test_what_only_looks_like_a_link_is_none():
    assert links.targets("`[a](b.md)`\n\n```\n[c](d.md)\n```\n\n[e](f.md) [g]: h") == ["f.md"]


@pytest.fixture
def site():
    """A site on this machine: / is there, /gone is not, /busy says so."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response({"/gone": 404, "/busy": 503}.get(self.path, 200))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.enable_socket
def test_addresses_that_are_gone_are_told_from_those_that_cannot_be_reached(site, monkeypatch, capsys):
    found: dict[str, list[str]] = {}
    monkeypatch.setattr(links, "external", lambda: found)
    monkeypatch.setattr(links, "ask", lambda address, ask=links.ask: ask(address, timeout=5))
    for path, status, said in (("/", 0, "1 of 1"), ("/gone", 1, "broken (404)"), ("/busy", 2, "nothing is known")):
        found.clear()
        found[site + path] = ["README.md"]
        assert links.main(["--external"]) == status
        assert said in capsys.readouterr().out
    found.clear()
    found["http://127.0.0.1:9/"] = ["README.md"]
    assert links.main(["--external"]) == 2
    assert "nothing is known" in capsys.readouterr().out


def test_addresses_are_listed_once_with_their_pages(project):
    (project / "README.md").write_text("[a](https://x.example/y#z) [b](https://x.example/y) [c](docs/a.md)")
    assert links.external(project) == {"https://x.example/y": ["README.md", "README.md"]}


def test_misspellings_are_found_where_people_write_and_not_in_outputs(project):
    pytest.importorskip("codespell_lib", reason="comes with what looking after the course takes: make lint")
    one, other = "recie" + "ve", "sepe" + "rate"  # in two pieces, or this file would be found too
    cell = new_code_cell(f"x = 1  # {one}")
    cell.outputs = [nbformat.v4.new_output("stream", text=f"{other} " * 3)]
    nbformat.write(new_notebook(cells=[cell]), project / "notebooks" / "b.ipynb")
    (project / "docs" / "a.md").write_text(f"A {other} page about boxs.\n")
    found = spelling.misspelled(project)
    assert len(found) == 2
    assert any(f"notebooks/b.ipynb.txt:1: {one} ==> receive" in line for line in found)
    assert any(f"docs/a.md:1: {other} ==> separate" in line for line in found)
