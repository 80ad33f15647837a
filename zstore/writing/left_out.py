"""Rows left out because a payload of theirs cannot be stored, where bad rows are set aside.

Payloads are read when everything else of a row has been sorted, so a bad one is found late. The rows that name it are
left out as sources are parsed again, and what is written then is what comes of sources without them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from zstore.format.manifest import digest
from zstore.format.payloads.grid import grid_name
from zstore.storage.protocol import Storage
from zstore.writing.sources.channels import Categories, ChannelValues, NumberValues
from zstore.writing.sources.payloads import BadPayload, FieldSpec, PayloadReader
from zstore.writing.sources.workspace import NOTE

_NAME = "left-out-"


@dataclass(frozen=True)
class LeftOutRow:
    """A row that was left out.

    Parameters
    ----------
    number
        Among all rows of its task that are good, left out or not.
    reason, expected
        What is wrong with its payloads, and what would be right.
    """

    number: int
    reason: str
    expected: str


@dataclass(frozen=True)
class LeftOut:
    """Payloads that were found bad.

    Parameters
    ----------
    bad
        In the order in which they were found.
    """

    bad: tuple[BadPayload, ...] = ()

    @property
    def suffix(self) -> str:
        """What the names of notes end with, so that nothing is taken that was parsed with other rows."""
        return f"-{digest(repr(self.bad).encode())}" if self.bad else ""

    def and_these(self, bad: Sequence[BadPayload]) -> LeftOut:
        """With further ones; what was said of one first stays."""
        all_bad = {(each.field, each.holder, each.position): each for each in reversed((*self.bad, *bad))}
        return LeftOut(tuple(reversed(all_bad.values())))

    def rows(self, fields: Sequence[FieldSpec], references: Sequence[ChannelValues]) -> dict[int, list[BadPayload]]:
        """Rows of a block that name one of them, and what they name.

        Parameters
        ----------
        fields
            All fields.
        references
            Of each field, holders and positions of the payloads of the rows.
        """
        found: dict[int, list[BadPayload]] = {}
        for field, holders, positions in zip(fields, references[::2], references[1::2], strict=True):
            some = self._by_field.get(field.name)
            if some is None or not isinstance(holders, Categories) or not isinstance(positions, NumberValues):
                continue
            words = holders.words.to_pylist()
            named = [code for code, word in enumerate(words) if word in some]
            for row in np.flatnonzero(np.isin(holders.codes, named)).tolist():
                bad = some[words[int(holders.codes[row])]].get(int(positions.values[row]))
                if bad is not None:
                    found.setdefault(row, []).append(bad)
        return found

    @cached_property
    def _by_field(self) -> dict[str, dict[str, dict[int, BadPayload]]]:
        """By field, holder and position."""
        found: dict[str, dict[str, dict[int, BadPayload]]] = {}
        for each in self.bad:
            found.setdefault(each.field, {}).setdefault(each.holder, {})[each.position] = each
        return found

    def note(self, scratch: Storage, fields: Sequence[FieldSpec]) -> None:
        """Note them for the run after one that was killed, with what tells whether they have changed."""
        readers = {field.name: field.reader for field in fields}
        document = [[asdict(each), _origin(readers[each.field], each)] for each in self.bad]
        scratch.write_stream(f"{_NAME}{len(self.bad)}{NOTE}", (json.dumps(document).encode(),))

    @classmethod
    def noted(cls, notes: Mapping[str, bytes], fields: Sequence[FieldSpec]) -> LeftOut:
        """What a run that was killed has found, as far as nothing of it has changed since."""
        numbers = sorted((int(name.removeprefix(_NAME)) for name in notes if name.startswith(_NAME)), reverse=True)
        readers = {field.name: field.reader for field in fields}
        for number in numbers:
            try:
                pairs = [(BadPayload(**each), origin) for each, origin in json.loads(notes[f"{_NAME}{number}"])]
            except (TypeError, ValueError):  # cut short when its writer was killed
                continue
            if all(_origin(readers[each.field], each) == origin for each, origin in pairs):
                return cls(tuple(each for each, _ in pairs))
        return cls()


NOTHING = LeftOut()


def _origin(reader: PayloadReader, bad: BadPayload) -> str:
    return reader.origins(bad.holder, [bad.position])[0].hex()


def told(bad: Sequence[BadPayload]) -> tuple[str, str]:
    """What is wrong with a row that names these, and what would be right; of a volume and its grid once."""
    grids = {(grid_name(each.field), each.holder) for each in bad}
    bad = [each for each in bad if (each.field, each.holder) not in grids]
    reasons = [f"{each.field} {each.place}: {each.reason} (expected {each.expected})" for each in bad]
    return "; ".join(reasons), "; ".join(dict.fromkeys(each.expected for each in bad))


def kept_rows(n_rows: int, rows: Iterator[int] | Sequence[int]) -> NDArray[np.int64]:
    """Rows but for some."""
    kept = np.ones(n_rows, np.bool_)
    kept[list(rows)] = False
    return np.flatnonzero(kept)
