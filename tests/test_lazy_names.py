"""Public names of zstore are imported when they are first asked for, and are all where type checkers see them."""

import ast
import subprocess
import sys
from importlib import import_module

import pytest
from conftest import REPOSITORY

import zstore


def seen_by_type_checkers() -> dict[str, str]:
    """By public name, the module that the text of the package imports it from."""
    tree = ast.parse((REPOSITORY / "zstore" / "__init__.py").read_text())
    found = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return {alias.name: str(node.module) for node in found for alias in node.names}


def test_type_checkers_see_the_public_names_and_no_others() -> None:
    names = set(seen_by_type_checkers()) - {"import_module", "TYPE_CHECKING"}
    assert sorted(names) == zstore.__all__


@pytest.mark.parametrize("name", zstore.__all__)
def test_a_public_name_is_what_type_checkers_see(name: str) -> None:
    module = seen_by_type_checkers()[name]
    expected = import_module(f"zstore.{name}") if module == "zstore" else getattr(import_module(module), name)
    assert getattr(zstore, name) is expected


def test_all_public_names_are_listed_before_they_are_imported() -> None:
    code = "import zstore; print(*sorted(set(zstore.__all__) - set(dir(zstore))))"
    assert ran(code) == ""


def test_a_name_that_is_not_there_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match=r"module 'zstore' has no attribute 'open_stroe'"):
        zstore.open_stroe  # type: ignore[attr-defined]  # noqa: B018


def test_importing_zstore_imports_neither_numpy_nor_arrow_nor_zarr() -> None:
    code = "import sys, zstore; print(*sorted({'numpy', 'pyarrow', 'zarr', 'numcodecs', 'yaml'} & set(sys.modules)))"
    assert ran(code) == ""


@pytest.mark.parametrize("first", ["zstore.mistyped", "zstore.look.svg", "zstore.view.app", "zstore.progress"])
def test_a_name_is_the_same_whatever_module_was_imported_before(first: str) -> None:
    code = (
        f"import {first}, zstore, types; "
        "print(*(n for n in zstore.__all__ if isinstance(getattr(zstore, n), types.ModuleType)))"
    )
    assert ran(code) == "look view"


def ran(code: str) -> str:
    """What Python prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
