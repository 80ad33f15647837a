"""Mistakes in code of one's own, such as a model or a callback, told in one line that says where they are."""

from __future__ import annotations

import importlib
import re
import sysconfig
import traceback
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from jsonargparse import ArgumentParser

import zstore
from zstore import UsageError

_INSTALLED = {"site-packages", "dist-packages"}
_PATHS = sysconfig.get_paths()
_NOT_OWN = [Path(_PATHS["stdlib"]), Path(_PATHS["platstdlib"]), Path(__file__).parent, Path(zstore.__file__).parent]
_FIX = "correct it; --debug shows the whole traceback"


def mistake_in(error: BaseException) -> UsageError | None:
    """What an exception says that came up in a file which is neither installed nor of this project.

    Parameters
    ----------
    error
        As it was caught. Of a chain of exceptions the first that came up in such a file counts.

    Returns
    -------
    Names the exception, the function and the line; None if no such file was running, or the error is one of ours.
    """
    for each in _chain(error):
        if isinstance(each, zstore.ZstoreError):
            continue
        if isinstance(each, SyntaxError) and each.filename is not None and _is_own(each.filename):
            return _told(each, "", each.filename, each.lineno)
        own = [frame for frame in traceback.extract_tb(each.__traceback__) if _is_own(frame.filename)]
        if own:
            within = "" if own[-1].name == "<module>" else f" in {own[-1].name}"
            return _told(each, within, own[-1].filename, own[-1].lineno)
    return None


def made_wrongly(error: ValueError) -> UsageError | None:
    """What kept the command line from making an object of a class that a configuration names; None if unknown."""
    own = mistake_in(error)
    if own is not None:
        return own
    named = re.search(r"Problem with given class_path '([^']+)':\n\s*(.+)", str(error))
    reasons = [named[2]] if named else re.findall(r"^ +- (?!Not a |Expected a |a class |a dict )(.+)", str(error), re.M)
    if not reasons:
        return None
    return UsageError(
        f"{named[1] if named else 'one of several objects'} that cannot be made: {reasons[0]}",
        expected="arguments that its class takes together, and what it imports",
        fix=_FIX,
    )


def class_mistake(message: str) -> UsageError | None:
    """What is wrong with a class that a configuration or a flag names, or with an argument of it.

    Parameters
    ----------
    message
        Of the parser, which nests what it says of an argument in what it says of the class.

    Returns
    -------
    None if it is about something else.
    """
    keys = re.findall(r'Parser key "([^"]+)"', message)
    if not keys:
        return None
    key, innermost = ".".join(keys), message.rpartition("Parser key")[2]
    value = re.search(r"Expected a <class '(\w+)'>\. Got value: (.+)", innermost)
    if value is not None and len(keys) > 1:
        return UsageError(f"{key} {value[2]}", expected=value[1], fix=f"correct --{key}")
    kind = re.search(r"Subtypes: \[.*?<class '(\w+(?:\.\w+)+)'>", innermost)
    if kind is None:
        return None
    problem = re.search(r"class_path '([^']+)':\n\s*(.+)", innermost)
    if problem is not None:
        lacking = problem[2].partition("arguments are required: ")[2]
        unknown = re.fullmatch(r"Option '(\S+)' is not accepted", problem[2])
        if lacking:
            return UsageError(
                f"{key} {problem[1]} without {lacking}",
                expected="a value for each of its arguments that has no default",
                fix=f"say it in init_args, or as --{key}.{lacking.split(',')[0]}",
            )
        if unknown is not None and _last(problem[1]) == _last(kind[1]):
            return UsageError(
                f"--{key}.{unknown[1]} without --{key}",
                expected=f"the {_last(kind[1])} that this is an argument of",
                fix=f"name its class in --{key}" + (", such as Adam" if key == "optimizer" else ""),
            )
        if unknown is not None:
            return UsageError(
                f"{key} {problem[1]} with {unknown[1]}",
                expected=_arguments(problem[1]),
                fix="correct it",
            )
    path = re.search(r"class_path'?:? '([\w.]+)'|Given value: ([\w.]+)$|import path string: (\w+)", innermost, re.M)
    if path is None:
        return None
    return _class_at(next(filter(None, path.groups())), key, kind[1])


def _arguments(path: str) -> str:
    """The arguments of a class, those included that it hands on to the class that it is derived from."""
    names = ArgumentParser().add_class_arguments(_class(path), fail_untyped=False)
    known = [name for name in names if name not in ("shape", "params", "optimizer")]  # which are not asked for
    return f"one of {', '.join(known)}" if known else "no arguments"


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _shipped(kind: str, name: str) -> list[str]:
    """Names, similar to one, of classes of a kind that need no module before them."""
    found, pending = set(), [_class(kind)]
    while pending:
        pending += pending.pop().__subclasses__()
        found |= {each.__name__ for each in pending}
    return get_close_matches(name, sorted(found))


def _class_at(path: str, key: str, kind_path: str) -> UsageError | None:
    """What is wrong with the class at a path, which should be of a kind; None if nothing is."""
    module_name, _, name = path.rpartition(".")
    kind = _last(kind_path)
    if not module_name:
        similar = _shipped(kind_path, path)
        return UsageError(
            f"{key} {path}",
            expected=f"{' or '.join(similar) or f'the name of a {kind}'}, or one of your own by its module, such as "
            f"mymodule.{path}",
            fix=f"correct --{key}",
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            return UsageError(
                f"no module {error.name!r}, which {key} {path} names",
                expected=f"{error.name}.py in the folder that the command is run in, or a package that is installed",
                fix=f"correct --{key}, or add the folder to PYTHONPATH",
            )
        return mistake_in(error)
    except Exception as error:
        return mistake_in(error)
    found = getattr(module, name, None)
    if found is None:
        return UsageError(
            f"no {name} in {module_name}",
            expected=_candidates(module, name),
            where=str(module.__file__),
            fix=f"correct --{key}",
        )
    if kind in {each.__name__ for each in getattr(found, "__mro__", ())}:
        return None
    return UsageError(f"{key} {path}, which is no {kind}", expected=f"a class derived from {kind}", fix="derive it")


def _candidates(module: ModuleType, name: str) -> str:
    """Classes that are defined in a module, those with similar names first."""
    classes = [each for each, value in vars(module).items() if _is_defined_in(value, module)]
    return f"one of {', '.join(get_close_matches(name, classes) or classes[:8])}" if classes else "a class in it"


def _is_defined_in(value: Any, module: ModuleType) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__


def _chain(error: BaseException | None) -> list[BaseException]:
    """An exception and those that it came of, the first of them first."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.insert(0, error)
        error = error.__cause__ or error.__context__
    return found


def _is_own(file: str) -> bool:
    path = Path(file).resolve()
    installed = file.startswith("<") or bool(_INSTALLED.intersection(path.parts))
    return not installed and not any(path.is_relative_to(folder.resolve()) for folder in _NOT_OWN)


def _told(error: BaseException, within: str, file: str, line: int | None) -> UsageError:
    return UsageError(
        f"{type(error).__name__} ({_first_line(error)}){within}",
        expected="code that runs",
        where=f"{file} line {line}",
        fix=_FIX,
    )


def _first_line(error: BaseException) -> str:
    return str(getattr(error, "msg", None) or error).strip().partition("\n")[0]
