"""What a report of a bug says of the machine."""

from importlib import metadata

import numpy as np
import pytest

import zstore
from zstore.cli import main
from zstore.commands import about


def test_about_has_the_versions_of_zstore_and_of_every_dependency_that_is_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["about"]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (said["zstore"], said["numpy"]) == (zstore.__version__, np.__version__)
    assert said["torch"] == metadata.version("torch")
    assert {"python", "system", "cores", "memory", "zarr", "dask", "pytorch-lightning"} <= set(said)


def test_about_leaves_out_what_is_not_here_and_works_in_a_tree_that_was_never_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", lambda _: ["no-such-thing>=1 ; extra == 'x'", "numpy>=2"])
    assert list(about.about())[-1] == "numpy"
    monkeypatch.setattr(metadata, "requires", nothing)
    assert list(about.about()) == ["zstore", "python", "system", "cores", "memory"]
