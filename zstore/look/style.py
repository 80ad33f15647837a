"""Colours and CSS of everything that is drawn, in notebooks, reports and pictures."""

BLUE = "#4878a8"
"""What is there: rows, values, the training split."""

RED = "#b04848"
"""What is looked for or found: targets, findings, the test split."""

AMBER = "#e0a030"
"""A third of the kind of the two: the validation split."""

GROUND = "#dddddd"
"""Behind bars: what could be there."""

PAPER = "#f4f0ea"
"""Behind a map of cells."""

MARKED = "#f3d6c4"
"""Behind the values that a finding is about."""

QUIET = "#777"
"""Text beside the text: paths, units, captions of axes."""

LABEL = "var(--jp-ui-font-color2,var(--vscode-descriptionForeground,#555))"
"""Text below a heading, and below a figure; in notebooks that of their theme, which may be dark."""

PICTURE = f"image-rendering:pixelated;max-width:100%;border:1px solid {GROUND}"
"""Inline style of a small image, whose pixels are seen where it is enlarged."""

BESIDE = "display:inline-block;margin:0 8px 4px 0;vertical-align:top"
"""Inline style of figures that stand beside each other as far as there is room."""

CARD = (
    f"font-family:sans-serif;font-size:13px;line-height:1.4;border-left:3px solid {BLUE};padding:2px 0 2px 12px;"
    "overflow-x:auto"
)
"""Inline style of what shows itself in a notebook, whose pages have style sheets of their own."""

PAGE = f"""
body{{font-family:sans-serif;font-size:14px;line-height:1.45;color:#222;max-width:60em;margin:2em auto;padding:0 1em}}
h1{{font-size:1.5em}}h2{{font-size:1.15em;margin-top:2em;border-bottom:1px solid #ccc}}
table{{border-collapse:collapse}}td,th{{padding:2px 10px 2px 0;text-align:left;vertical-align:top}}
svg{{max-width:100%;height:auto}}.quiet{{color:{QUIET}}}figure{{margin:0 0 1em}}figcaption{{color:{LABEL}}}
.plot{{display:flex;gap:6px;max-width:640px}}.plot svg{{min-width:0;flex:0 1 560px}}
.ends{{display:flex;flex-direction:column;justify-content:space-between;white-space:nowrap}}
.axis{{display:flex;justify-content:space-between;max-width:560px}}.ends,.axis{{font-size:12px;color:{QUIET}}}
.side{{display:flex;flex-wrap:wrap;gap:12px 28px}}
@media print{{body{{margin:0;max-width:none}}figure,tr{{break-inside:avoid}}h2{{break-after:avoid}}}}
"""
"""Style sheet of a page of its own."""
