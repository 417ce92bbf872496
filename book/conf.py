"""Settings of the web book, for Sphinx. `tools/book.py` stages the pages and calls Sphinx with this folder."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]

project = "Rapid adaptation of language models"
author = ""
language = "en"
extensions = ["myst_nb", "sphinx_copybutton"]

# The lessons are stored with their outputs, and tests hold those to the code: nothing is run here.
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}  # widgets are pictures here, so no page needs what would bring them to life
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# MathJax from the book's own folder (SVG: one file, without fonts to fetch). Its menu would make each formula a stop
# of the Tab key; screen readers get MathML without it.
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {
    "options": {"enableMenu": False, "enableAssistiveMml": True},
    "tex": {"packages": {"[-]": ["noundefined"]}},  # an unknown command is an error, which a test finds
}

html_theme = "sphinx_book_theme"
html_title = project
html_favicon = "_static/favicon.svg"
html_use_index = False  # the glossary is one
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system has it
templates_path = ["_templates"]
html_sidebars = {"**": ["book-name.html", "book-search.html", "sbt-sidebar-nav.html"]}
html_css_files = ["book.css"]
html_js_files = [("book.js", {"defer": "defer"})]
html_theme_options = {
    "repository_url": REPOSITORY,
    "repository_branch": "main",
    "path_to_docs": "",  # staged pages keep their places in the repository, which Binder's and Colab's links need
    "use_repository_button": True,
    "launch_buttons": {
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
        "notebook_interface": "jupyterlab",
    },
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the sidebar has the search; a second bar would hold nothing else
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "footer_content_items": ["extra-footer"],
    "extra_footer": f'<p>Made from <a href="{REPOSITORY}">the course\'s files</a>, with the outputs stored there.</p>',
}


def without_empty_headers(app, pagename, templatename, context, doctree) -> None:
    """The empty corner of a table is no header: screen readers would announce one without a name."""
    if "body" in context:
        context["body"] = re.sub(r"<th class=\"head\">(<p></p>)?</th>", "<td></td>", context["body"])


def setup(app) -> None:
    app.connect("html-page-context", without_empty_headers)
