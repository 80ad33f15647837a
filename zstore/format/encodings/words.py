"""Categories: each distinct word is a number, its code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from zstore.arrow import as_numpy, text_array, union
from zstore.format.encodings.base import Encoding, Form, Observed, Values, WordForm, fill_of, narrowest


@dataclass(frozen=True)
class Categorical(Encoding):
    """Codes of words.

    Parameters
    ----------
    dtype
        ``int16`` or ``int32``.
    words
        (code,) the words.
    """

    kind = "category"
    dtype: str
    words: tuple[str, ...] = ()

    @property
    def decimals(self) -> int:
        """Codes are whole."""
        return 0

    def attributes(self) -> dict[str, Any]:
        """CF flags."""
        return {"_FillValue": int(self.fill), **flag_attributes(self.words)}

    def form_of(self, largest: float) -> WordForm:
        """Codes of its own words."""
        return WordForm(self._lexicon)

    @property
    def empty_form(self) -> WordForm:
        """Codes of no words."""
        return WordForm(text_array([]))

    def bringer(self, form: Form) -> Callable[[Values], Values]:
        """Looks each code of a block up."""
        codes = as_numpy(pc.index_in(words_of(form), value_set=self._lexicon), "int32")
        return partial(_recode, codes=codes, dtype=self.dtype)

    def is_missing(self, stored: Values) -> NDArray[np.bool_]:
        """Where the fill value is."""
        missing: NDArray[np.bool_] = stored == fill_of(stored.dtype)
        return missing

    def unpack(self, stored: Values, dtype: str = "float32") -> Values:
        """Codes as floats."""
        values: Values = stored.astype(dtype)
        values[self.is_missing(stored)] = np.nan
        return values

    def count_infinite(self, stored: Values) -> int:
        """No code is."""
        return 0

    def tidied(self) -> Categorical:
        """With its words in order."""
        return Categorical(self.dtype, tuple(sorted(self.words, key=str.encode)))

    @property
    def _lexicon(self) -> Any:
        return text_array(self.words)


class Words:
    """The encodings of words: there is one."""

    def choose(
        self, forms: Sequence[Form], dtype: str, before: Encoding | None = None, largest: float = 0.0
    ) -> Categorical:
        """All words in order of their UTF-8 bytes, behind those that are stored already."""
        known = before.words if before is not None else ()
        found = union([words_of(form) for form in forms]).to_pylist()
        words = (*known, *(found if not known else sorted(set(found).difference(known), key=str.encode)))
        return Categorical(narrowest(len(words)), words)

    def restored(self, document: dict[str, Any]) -> Categorical:
        """From ``stored`` and ``categories``."""
        return Categorical(document["stored"], tuple(document["categories"]))


def observe_codes(codes: NDArray[np.int32], words: Any) -> Observed:
    """Codes of one block, (row,), -1 for missing, in the narrowest integers."""
    dtype = np.dtype(narrowest(int(codes.max(initial=0))))
    return Observed(np.where(codes < 0, fill_of(dtype), codes).astype(dtype), WordForm(words))


def flag_attributes(words: Sequence[str]) -> dict[str, Any]:
    """CF attributes of codes; `categories` has the exact words, which CF's own list joined by spaces cannot keep."""
    return {
        "flag_values": list(range(len(words))),
        "flag_meanings": " ".join("_".join(word.split()) or "_" for word in words),
        "categories": list(words),
    }


def words_of(form: Form) -> Any:
    """(word,) words of a block of categories."""
    return form.words if isinstance(form, WordForm) else text_array([])


def _recode(values: Values, codes: NDArray[np.int32], dtype: str) -> Values:
    """Codes of a block as codes of the field: those of its words, in order, are `codes`."""
    missing = values == fill_of(values.dtype)
    known = codes[np.where(missing, 0, values)] if len(codes) else np.zeros(len(values), np.int32)
    return np.where(missing, np.int32(fill_of(np.dtype(dtype))), known).astype(dtype)
