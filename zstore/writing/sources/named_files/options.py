"""What the user says of files that columns name, as fields: ``--file``, ``--file-root`` and those beside them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zstore.errors import StoreError, UsageError
from zstore.format.payloads.chain import PRESETS, VolumeChain
from zstore.format.payloads.grid import grid_name
from zstore.sizes import bytes_of
from zstore.storage.urls import is_remote
from zstore.writing.sources.named_files.reader import DEFAULT_LIMIT_BYTES, FileReader, GridReader
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.payloads import FieldSpec
from zstore.yamlfiles import read_yaml


@dataclass(frozen=True)
class FileOptions:
    """Fields whose values are files that a column names.

    Parameters
    ----------
    file
        For each field, the column with the paths of its files.
    file_root
        The folder that paths start from, and none leads out of.
    file_limit
        The most bytes of a value, such as ``2GiB``; None for 1 GiB.
    file_position
        For each field that is chosen from arrays, the column with the number of the row in them.
    file_member
        For each field, the name of the array in ``.npz`` files; they need none where they have one array, or where the
        path goes on to it, as in ``scans.npz/train``.
    file_chain
        For each field of volumes, what is done to them: a YAML file, the name of a preset, or a chain.
    keep_encoded
        Fields of images that stay the bytes that they are in their files.
    """

    file: Mapping[str, str] = field(default_factory=dict)
    file_root: str | Path | None = None
    file_limit: int | str | None = None
    file_position: Mapping[str, str] = field(default_factory=dict)
    file_member: Mapping[str, str] = field(default_factory=dict)
    file_chain: Mapping[str, str | Path | Mapping[str, Any] | VolumeChain] = field(default_factory=dict)
    keep_encoded: Sequence[str] = ()

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> FileOptions:
        """The options among arguments of :func:`zstore.ingest`; those that are not there, or None, are as usual.

        Raises
        ------
        UsageError
            If what should be pairs, or names, are none.
        """
        given: dict[str, Any] = {
            each.name: arguments[each.name] for each in dataclasses.fields(cls) if arguments.get(each.name) is not None
        }
        for name, value in given.items():
            flag = f"--{name.replace('_', '-')}"
            if isinstance(getattr(_USUAL, name), Mapping):
                if not isinstance(value, Mapping):
                    raise UsageError(f"{flag} {value!r}", expected="a mapping", fix=f"as in {name}={{'image': …}}")
                given[name] = dict(value)
            elif name == "keep_encoded":
                given[name] = (value,) if isinstance(value, str) else tuple(value)
        options = cls(**given)
        if options.file_chain:
            options = replace(options, file_chain={n: chain_of(one, n) for n, one in options.file_chain.items()})
        return options

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are read for fields, and are no channels."""
        return tuple(dict.fromkeys((*self.file.values(), *self.file_position.values())))

    def to_json(self) -> dict[str, Any]:
        """Plain values for the store's own record: what the user has used, and chains as they were."""
        document = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        if self.file_root is not None:
            document["file_root"] = os.path.abspath(self.file_root)
        document["file_chain"] = {n: chain_of(one, n).to_json() for n, one in self.file_chain.items()}
        document["keep_encoded"] = list(self.keep_encoded)
        del document["file_limit"]  # no value depends on it
        return {name: value for name, value in document.items() if value}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> FileOptions:
        """Read :meth:`to_json` back; what else the document has is left alone.

        Raises
        ------
        StoreError
            If no release of zstore wrote it like this.
        """
        known = {each.name: document[each.name] for each in dataclasses.fields(cls) if each.name in document}
        for name, value in known.items():
            usual: Any = "" if name in ("file_root", "file_limit") else getattr(_USUAL, name)
            inner = dict if name == "file_chain" else str
            texts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            like = isinstance(value, str if usual == "" else dict if isinstance(usual, dict) else list)
            if not like or not all(isinstance(one, inner) for one in texts):
                raise _unreadable(name, value)
        try:
            chains = {name: VolumeChain.from_json(chain) for name, chain in known.get("file_chain", {}).items()}
        except UsageError as error:
            raise _unreadable("file_chain", known["file_chain"]) from error
        return cls(**{**known, "file_chain": chains, "keep_encoded": tuple(known.get("keep_encoded", ()))})

    def check_table(self, options: TableOptions) -> None:
        """Refuse columns that the options of tables have another use for.

        Raises
        ------
        UsageError
            Naming the option.
        """
        if self.file and options.layout != "long":
            raise UsageError(
                f"--file with --layout {options.layout}",
                expected="a table with a row per id and time",
                fix="--layout long",
            )
        uses = {
            "--id": options.id_names,
            "--time": options.time,
            "--leave-out": options.leave_out,
            "--percent": options.percent,
            "--censored": options.censored,
            "--rename": tuple(options.rename),
        }
        for flag, names in uses.items():
            both = next((name for name in self.columns if name in names), None)
            if both is not None:
                raise UsageError(
                    f"column {both!r} of --file and of {flag}",
                    expected="a column that has one use",
                    fix=f"drop it from {flag}",
                )
        numbers = next((name for name in self.file.values() if name in self.file_position.values()), None)
        if numbers is not None:
            raise UsageError(
                f"column {numbers!r} of --file and of --file-position",
                expected="paths, and numbers",
                fix="name two columns",
            )

    def fields(self, units: Mapping[str, str] | None = None) -> tuple[FieldSpec, ...]:
        """The fields, in the order in which the user names them; behind each with a chain, the grids of its sources.

        Parameters
        ----------
        units
            By column, as :func:`zstore.ingest` has them: that of a path is the unit of what it leads to.

        Raises
        ------
        UsageError
            If an option names a field that `file` does not, the folder is not there, options exclude each other, or a
            chain is none.
        """
        self._check()
        if not self.file:
            return ()
        root, limit_bytes = self._root(), bytes_of(self.file_limit, "--file-limit") or DEFAULT_LIMIT_BYTES
        specs = []
        for name, column in self.file.items():
            chain = chain_of(self.file_chain[name], name) if name in self.file_chain else None
            indexed, keep = name in self.file_position, name in self.keep_encoded
            reader = FileReader(root, self.file_member.get(name), indexed, keep, chain, limit_bytes)
            unit = (units or {}).get(column)
            position = self.file_position.get(name)
            specs.append(FieldSpec(name, reader, column, position, units=unit, encoded=keep, named=True))
            if chain is not None:
                axes = ("grid_row", "grid_column")
                specs.append(FieldSpec(grid_name(name), GridReader(reader), column, dimensions=axes, named=True))
        return tuple(specs)

    def _check(self) -> None:
        beside = {
            "--file-position": self.file_position,
            "--file-member": self.file_member,
            "--file-chain": self.file_chain,
            "--keep-encoded": self.keep_encoded,
        }
        for flag, names in beside.items():
            odd = next((name for name in names if name not in self.file), None)
            if odd is not None:
                raise UsageError(
                    f"{flag} of {odd!r}, which is no field of files",
                    expected=f"one of {', '.join(self.file)}" if self.file else "a field that --file names",
                    fix=f"as in --file {odd}=COL",
                )
        for flag, pairs in (("--file", self.file), ("--file-position", self.file_position)):
            empty = next((name for name, column in pairs.items() if not name or not column), None)
            if empty is not None:
                raise UsageError(
                    f"{flag} {empty}={pairs[empty]}", expected="a field and a column", fix=f"{flag} image=COL"
                )
        for name in self.file_chain:
            if name in self.keep_encoded:
                raise UsageError(
                    f"--file-chain and --keep-encoded of {name!r}",
                    expected="a chain, which volumes go through, or images as they are",
                    fix="drop one",
                )
            if name in self.file_position or name in self.file_member:
                raise UsageError(
                    f"--file-chain of {name!r}, whose files are arrays",
                    expected="NIfTI, NRRD or DICOM, which say where voxels lie",
                    fix="drop --file-chain",
                )
        if not self.file:
            for flag, value in (("--file-root", self.file_root), ("--file-limit", self.file_limit)):
                if value is not None:
                    raise UsageError(
                        f"{flag} without --file", expected="a field of files", fix="as in --file image=COL"
                    )

    def _root(self) -> str:
        if self.file_root is None:
            raise UsageError(
                f"--file {next(iter(self.file))}=… without --file-root",
                expected="the folder that paths start from",
                fix="add --file-root DIR; --file-root . for the one that you are in",
            )
        if is_remote(str(self.file_root)):
            raise UsageError(
                f"--file-root {self.file_root}",
                expected="a folder on this machine's disks",
                fix="fetch the files first",
            )
        try:
            root = Path(self.file_root).resolve(strict=True)
            if not root.is_dir():
                raise NotADirectoryError("no folder")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(
                f"--file-root {self.file_root} ({reason})", expected="a folder", fix="check the path"
            ) from error
        return str(root)


def chain_of(given: str | Path | Mapping[str, Any] | VolumeChain, name: str) -> VolumeChain:
    """A chain by what the user says of it.

    Parameters
    ----------
    given
        The name of a preset, a YAML file, what stands in one, or the chain itself.
    name
        The field, for messages.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    if isinstance(given, VolumeChain):
        return given
    if isinstance(given, Mapping):
        return VolumeChain.from_json(given, where=f"--file-chain {name}")
    if str(given) in PRESETS:
        return PRESETS[str(given)]
    if Path(given).suffix not in (".yaml", ".yml"):
        raise UsageError(
            f"--file-chain {name}={given}", expected=f"a YAML file, or {', '.join(PRESETS)}", fix="name a .yaml file"
        )
    document = read_yaml(given, "chain of volumes")
    if not document:
        raise UsageError(
            f"chain of volumes {given}, which is empty", expected="what is to be done", fix="as in orientation: RAS"
        )
    return VolumeChain.from_json(document, where=str(given))


def _unreadable(name: str, value: object) -> StoreError:
    return StoreError(
        f"option {name} {value!r} of the store's record of its sources",
        expected="an option as zstore ingest records it",
        fix="do not append to this store: no release of zstore wrote it like this; ingest its sources",
    )


_USUAL = FileOptions()
