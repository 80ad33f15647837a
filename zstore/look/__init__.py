"""How things show themselves: HTML with inline SVG, no scripts, nothing fetched.

What is here draws anything, and may be used by other packages. What draws stores, series, windows and diagnoses lies in
modules of its own, which are imported when one of them is shown.
"""

from zstore.look import style, svg
from zstore.look.template import Cell, Html, card, fill, listed, page, table

__all__ = ["Cell", "Html", "card", "fill", "listed", "page", "style", "svg", "table"]
