"""What options that an error names are called in Python: a note below the traceback, which nobody else sees."""

from __future__ import annotations

import re

SWITCHES = frozenset({"allow_new_channels", "fill_gaps", "force", "no_header", "overwrite", "statics", "units_row"})
"""Parameters of public functions that are False unless they are asked for."""

OTHERWISE = {"append": "zstore.append()", "to": "folder=…"}
"""Options whose Python has another form than an argument of their name."""

NOT_IN_PYTHON = frozenset(
    {
        *("help", "help-all", "debug", "quiet", "json", "log-file", "config", "print_config", "dry-run", "html"),
        *("fail-on", "port", "no-browser", "write", "machines", "batch-size", "memory-budget", "run", "source"),
    }
)
"""Options of commands only."""

_OPTION = re.compile(r"(?<![\w-])--([a-z]\w*(?:[-.]\w+)*)")


def in_python(text: str) -> str:
    """The arguments that options in a text stand for; ``""`` where there are none."""
    options = dict.fromkeys(_OPTION.findall(text))
    told = [f"{_argument(option)} for --{option}" for option in options if option not in NOT_IN_PYTHON]
    return f"In Python: {', '.join(told)}." if told else ""


def _argument(option: str) -> str:
    if option in OTHERWISE:
        return OTHERWISE[option]
    *owners, name = option.replace("-", "_").split(".")
    value = "True" if name in SWITCHES and not owners else "…"
    return " of ".join([f"{name}={value}", *reversed(owners)])
