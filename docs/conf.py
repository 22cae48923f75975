"""Sphinx: `python -m sphinx -W --keep-going -b html docs built-docs` builds these pages and fails for a dead link."""

from pygments.lexers.shell import BashLexer
from sphinx.application import Sphinx

project = "Voice cloning and AI covers"
author = "the project's contributors"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
nitpicky = True

# Every heading down to the third level can be linked to, by the name that code hosts give it too.
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

html_theme = "furo"
html_title = project
html_show_sphinx = html_show_copyright = False
html_copy_source = False
# Furo loads nothing from other hosts. Its "edit this page" button would point to one.
html_theme_options: dict[str, list[str]] = {"top_of_page_buttons": []}


def setup(app: Sphinx) -> None:
    app.add_lexer("dotenv", BashLexer)  # what code hosts call an .env file
