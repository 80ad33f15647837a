"""``lightning-app completion``: what makes a shell complete commands and flags, by way of shtab."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser, set_parsing_settings
from pytorch_lightning.cli import LightningArgumentParser

from lightning_app import audit, backtest, evaluation, shipped, table
from lightning_app.app_cli import AppCLI
from lightning_app.batch import BatchShape
from lightning_app.demo import whole

_PROGRAM = "lightning-app"
_BESIDE = {
    "backtest": backtest,
    "configs": shipped,
    "demo": whole,
    "evaluate": evaluation,
    "splits": audit,
    "table": table,
}


class _Commands(AppCLI):
    """All commands under one parser."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser of the console script, whose name a shell can complete."""
        return super().init_parser(**{**kwargs, "prog": _PROGRAM})

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        super()._add_subcommands(parser, **kwargs)
        commands = parser._subcommands_action
        assert commands is not None
        for name, module in _BESIDE.items():
            asked = module.make_parser()
            own = ArgumentParser(description=asked.description)  # zsh and fish show it
            for action in asked._actions:
                if action.option_strings and action.dest != "help":
                    own.add_argument(*action.option_strings, help=action.help)
            commands.add_subcommand(name, own)


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = argparse.ArgumentParser(prog=f"{_PROGRAM} completion", description=__doc__)
    parser.add_argument(
        "shell",
        choices=["bash", "zsh", "fish", "tcsh"],
        help=f"as in: {_PROGRAM} completion bash > ~/.local/share/bash-completion/completions/{_PROGRAM}",
    )
    return parser


def main(words: Sequence[str]) -> int:
    """Print the script; 0 if that went well."""
    shell = make_parser().parse_args(words).shell
    set_parsing_settings(subclasses_enabled=[BatchShape], add_print_completion_argument=True)
    try:
        _Commands([f"--print_completion=shtab-{shell}"], None, execute=False)
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        set_parsing_settings(add_print_completion_argument=False)
    return 1
