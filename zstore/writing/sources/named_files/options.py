"""What the user says of files that columns name, as fields: ``--file``, ``--file-root`` and those beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zstore.errors import UsageError
from zstore.format.payloads.chain import PRESETS, VolumeChain
from zstore.sizes import bytes_of
from zstore.storage.urls import is_remote
from zstore.writing.sources.named_files.reader import DEFAULT_LIMIT_BYTES, FileReader
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
    units
        For each field, its unit, to record.
    """

    file: Mapping[str, str] = field(default_factory=dict)
    file_root: str | Path | None = None
    file_limit: int | str | None = None
    file_position: Mapping[str, str] = field(default_factory=dict)
    file_member: Mapping[str, str] = field(default_factory=dict)
    file_chain: Mapping[str, str | Path | VolumeChain] = field(default_factory=dict)
    keep_encoded: Sequence[str] = ()
    units: Mapping[str, str] = field(default_factory=dict)

    def fields(self) -> tuple[FieldSpec, ...]:
        """The fields, in the order in which the user names them.

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
        return tuple(
            FieldSpec(
                name,
                FileReader(
                    root,
                    self.file_member.get(name),
                    name in self.file_position,
                    name in self.keep_encoded,
                    chain_of(self.file_chain[name], name) if name in self.file_chain else None,
                    limit_bytes,
                ),
                column,
                self.file_position.get(name),
                units=self.units.get(name),
            )
            for name, column in self.file.items()
        )

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


def chain_of(given: str | Path | VolumeChain, name: str) -> VolumeChain:
    """A chain by what the user says of it.

    Parameters
    ----------
    given
        The name of a preset, a YAML file, or the chain itself.
    name
        The field, for messages.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    if isinstance(given, VolumeChain):
        return given
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
