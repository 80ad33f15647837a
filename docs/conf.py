"""How the documentation is built: ``make docs``. A reference that leads nowhere is an error."""

import os
import sys
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.highlighting import lexers

from zstore import __version__

project = "zstore + lightning_app"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.programoutput"]
html_theme = "furo"
html_show_copyright = False  # the licence is in LICENSE
html_static_path, html_css_files = ["static"], ["code.css"]
html_title = f"zstore {__version__}"
myst_heading_anchors = 3
napoleon_google_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88

# Commands whose help is shown are those of this environment.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ["COLUMNS"] = "110"
lexers["crontab"] = TextLexer()  # Pygments knows none
