"""Runs the code blocks of a Markdown page as a reader would: in order, in one folder, in one shell and one Python."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conftest import REPOSITORY

RUN = ("bash", "python", "yaml", "crontab")
NOT_CODE = ("text", "output", "{toctree}", "{eval-rst}", "{program-output}")
"""Pictures made of letters; what a block printed; and what Sphinx runs when the pages are built."""

_FENCE = re.compile(r"^```(\S*)(?: needs ([\w ]+)| [^\n]*)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"# ([\w.-]+\.(?:py|yaml))\n")
_MAKE = f"""
make() {{  # would take minutes: tried dry, but for the tables that the demo simulates
  command make --dry-run --directory "{REPOSITORY}" "$@" > /dev/null
  [ "$1" != demo ] || python -m lightning_app.demo simulate
}}
"""

_LOOP = """
import sys, warnings
warnings.simplefilter("error")
names = {"__name__": "__main__"}
for line in sys.stdin:
    exec(compile(eval(line), "<page>", "exec"), names)
    print(sys.argv[1], flush=True)
"""


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, the line it begins at, what it is said to print, packages it needs."""

    language: str
    text: str
    line: int
    printed: str | None
    needs: tuple[str, ...] = ()

    @property
    def can_run(self) -> bool:
        """Whether the packages are installed that the block needs beside those of this project."""
        return all(importlib.util.find_spec(name) for name in self.needs)


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page; an ``output`` block belongs to the one before it."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in _FENCE.finditer(text):
        language, content = match[1], match[3]
        if language == "output":
            last = found.pop()
            found.append(replace(last, printed=content))
        else:
            needs = tuple((match[2] or "").split())
            found.append(Block(language, content, text[: match.start()].count("\n") + 1, None, needs))
    return found


def _free_port() -> str:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


class Reader:
    """Someone who types what a page says, in a folder that has nothing but the repository's configurations.

    Parameters
    ----------
    folder
        An empty one.
    environment
        Further variables.
    python
        Path of the Python to run, with ``zstore`` beside it.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], python: str) -> None:
        self.folder, self._mark, self._imported = folder, uuid.uuid4().hex, python
        shutil.copytree(REPOSITORY / "configs", folder / "configs")
        demo = folder / "configs" / "demo_lstm.yaml"  # takes a minute: one epoch shows that it runs
        demo.write_text(re.sub(r"(?<=max_epochs: )\d+", "1", demo.read_text()))
        installed, bin_ = Path(sys.executable).parent, folder / ".venv" / "bin"
        bin_.mkdir(parents=True)
        (bin_ / "python").symlink_to(python)
        (bin_ / "zstore").symlink_to(installed / "zstore")
        (bin_ / "activate").touch()  # the PATH is as it would make it
        path = os.pathsep.join([str(Path(python).parent), str(installed), os.environ["PATH"]])
        paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        own = {"ZSTORE_CACHE": str(folder / "cache"), "MPLBACKEND": "agg", "PYTHONPATH": paths}
        own["PORT"] = _free_port()
        own["OMP_NUM_THREADS"] = "1"  # other pages are read at the same time
        self._environment = {**os.environ, "PATH": path, **own, **environment}
        self._shell = self._start("bash", "--norc", "-eo", "pipefail", "-s")
        self._send(self._shell, _MAKE)
        self._python: Any = None

    def _start(self, *command: str) -> Any:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, block: Block) -> str:
        """What the block printed."""
        name = _NAMED.match(block.text)
        if name is not None:
            (self.folder / name[1]).write_text(block.text, encoding="utf-8")
            return ""
        if block.language == "bash":
            return self._ask(self._shell, f"{block.text}\necho {self._mark}\n")
        if block.language == "crontab":
            fields = block.text.split(maxsplit=5)
            assert all(re.fullmatch(r"[\d*/,-]+", field) for field in fields[:5])
            return self._ask(self._shell, f"{fields[5].replace('/data/', f'{self.folder}/data/')}\necho {self._mark}\n")
        if block.language == "python":
            if self._python is None:
                self._python = self._start(self._imported, "-c", _LOOP, self._mark)
            return self._ask(self._python, f"{block.text!r}\n")
        raise AssertionError(f"a {block.language} block without a file name")

    def _ask(self, process: Any, text: str) -> str:
        self._send(process, text)
        printed: list[str] = []
        for line in process.stdout:
            if line.rstrip("\n") == self._mark:
                return "".join(printed)
            printed.append(line)
        raise AssertionError("stopped with:\n" + "".join(printed))

    @staticmethod
    def _send(process: Any, text: str) -> None:
        process.stdin.write(text)
        process.stdin.flush()

    def close(self) -> None:
        """End the shell, Python, and whatever they have started."""
        for process in (self._shell, self._python):
            if process is not None:
                process.stdin.close()
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                process.stdout.close()


def same(expected: str, found: str) -> bool:
    """Whether that was printed; ``…`` on a line of its own stands for any lines."""
    parts = [re.escape(part) for part in re.split(r"^…\n", expected, flags=re.MULTILINE)]
    return re.fullmatch(r"(?:.*\n)*?".join(parts), found) is not None


def commands(page: Path) -> Iterator[list[str]]:
    """Words of the commands that stand within sentences, in tables and in blocks that are not run."""
    text = page.read_text(encoding="utf-8")
    shown = [block.text.replace("\\\n", " ") for block in blocks(page) if block.language == "text"]
    lines = [line for each in shown for line in each.splitlines()]
    for code in [*re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)), *lines]:
        if re.match(r"(zstore|python -m lightning_app) [a-z]", code) and "→" not in code:
            yield shlex.split(re.sub(r"\s#.*", "", code))


def links(page: Path) -> Iterator[str]:
    """Targets of the links to other files of the repository."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            yield target
