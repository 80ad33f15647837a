"""``lightning-app configs``: the configurations that come with the package, listed and copied."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from zstore import UsageError, whole_file

_WIDTH = 96  # characters of what is said of a configuration


def configurations() -> dict[str, Path]:
    """The files there are, by name, such as ``demo_lstm`` or ``ingest/camels``.

    Raises
    ------
    UsageError
        If the package was installed without them.
    """
    package = Path(__file__).parent
    places = (package / "configs", package.parent / "configs")  # of a wheel, of the repository
    root = next((place for place in places if (place / "demo_lstm.yaml").is_file()), None)
    if root is None:
        raise UsageError(
            "no configurations in this installation",
            expected="those that a wheel brings",
            where=str(places[0]),
            fix="install zstore anew from its wheel, or take configs/ from the repository",
        )
    found = {path.relative_to(root).with_suffix("").as_posix(): path for path in root.rglob("*.yaml")}
    return dict(sorted(found.items(), key=lambda item: ("/" in item[0], item[0])))


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_app configs",
        description="List the configurations that come with the package, or copy some of them.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to copy, such as demo_lstm or ingest/camels")
    parser.add_argument("--out", type=Path, default=Path("configs"), help="folder to copy to (default: configs)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that differ")
    return parser


def main(words: Sequence[str]) -> int:
    """List or copy configurations.

    Returns
    -------
    0 if that went well.

    Raises
    ------
    UsageError
        If there is no such configuration, or a file that differs is in its place.
    """
    options = make_parser().parse_args(words)
    known = configurations()
    if not options.names:
        width = max(map(len, known)) + 2
        for name, path in known.items():
            print(f"{name:<{width}}{_about(path)}".rstrip())
        return 0
    for name in options.names:
        if name not in known:
            similar = get_close_matches(name, known, 3)
            raise UsageError(
                f"configuration {name!r}",
                expected=" or ".join(similar) or "a name that python -m lightning_app configs lists",
                fix="correct it",
            )
    for name in options.names:
        path, text = options.out / f"{name}.yaml", known[name].read_bytes()
        if path.exists() and path.read_bytes() == text:
            continue
        if path.exists() and not options.overwrite:
            raise UsageError(
                f"{path} exists, and differs", expected="no such file", fix="--overwrite, or another --out"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, "configuration") as temporary:
            temporary.write_bytes(text)
        print(path)
    return 0


def _about(path: Path) -> str:
    """The first sentence of the comment that a configuration begins with."""
    comment = re.match(r"(?:# ?(?! ).*\n)*", path.read_text(encoding="utf-8"))
    text = " ".join(line.lstrip("# ") for line in (comment[0] if comment else "").splitlines())
    text = re.split(r"(?<!et al)\.(?: (?=[A-Z0-9])|$)", text)[0]
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1].rsplit(" ", 1)[0].rstrip(",:;") + " …"
