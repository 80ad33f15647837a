"""Whatever changes in a store is found: by `verify`, and by whoever reads what was changed. Never a wrong number."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import write_table
from partly import small_parts

from zstore import StoreError, append, ingest, open_store, verify

MUTATIONS = ["flip", "cut", "remove", "swap", "stale"]


def grown(folder: Path) -> Path:
    """A store of two versions, and one of another content whose objects have the same keys."""
    random_ = np.random.default_rng(0)
    for name in ("s", "other"):
        rows = [[f"s{n % 3}", n // 3, f"{random_.normal():.2f}", "xyz"[n % 3]] for n in range(90)]
        for part, number in ((rows[:60], 1), (rows[60:], 2)):
            path = write_table(folder / f"{name}{number}.csv", ["id", "t", "v", "w"], part)
            if number == 1:
                ingest(path, folder / f"{name}.zarr", id="id", time="t")
            else:
                append(path, folder / f"{name}.zarr")
    return folder / "s.zarr"


def everything(path: Path) -> list[object]:
    """All that a reader can ask for."""
    store = open_store(path)
    found: list[object] = [store.ids.tolist(), store.times(0, store.n_rows).tolist(), store.index.row_size.tolist()]
    found += [store.read(name, 0, store.n_rows).tolist() for name in store.channels]
    found += [values.tolist() for values in store.moments.fields().values()]
    found += [store.index.runs.start.tolist(), store.index.time_stop.tolist(), [r.digest for r in store.ledger]]
    rows = np.empty((store.n_rows, 2), np.float32)
    store.decode(store.channels, rows)
    return [*found, rows.tolist(), str(store.schema)]


def mutate(path: Path, mutation: str, keys: list[str], shuffler: random.Random) -> list[str]:
    """Change one object, or two; returns their keys, none if nothing changed."""
    key = shuffler.choice(keys)
    content = (path / key).read_bytes()
    if mutation == "flip":
        place, bit = shuffler.randrange(len(content)), shuffler.randrange(8)
        (path / key).write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
    elif mutation == "cut":
        (path / key).write_bytes(content[: shuffler.randrange(len(content))])
    elif mutation == "remove":
        (path / key).unlink()
    elif mutation == "swap":
        other = shuffler.choice(keys)
        (path / key).write_bytes((path / other).read_bytes())
        (path / other).write_bytes(content)
        return [key, other] if (path / key).read_bytes() != content else []
    else:  # the same object of another store, or of the version before
        older = "manifest/00000001/root.json" if key == "zarr.json" else key.replace("/00000002/", "/00000001/")
        sources = [path.with_name("other.zarr") / key, path / older]
        source = shuffler.choice([s for s in sources if s.exists() and s.read_bytes() != content] or [path / key])
        (path / key).write_bytes(source.read_bytes())
        return [key] if source != path / key else []
    return [key]


def try_mutations(tmp_path: Path, n_mutations: int) -> dict[str, int]:
    path, shuffler = grown(tmp_path), random.Random(0)
    truth, store = everything(path), open_store(path)
    mirrors = [f"{name}/zarr.json" for name in ("time", "v", "w")]
    keys = sorted({*store.objects.keys, *mirrors, "zarr.json"})
    counts = dict.fromkeys(MUTATIONS, 0)
    shutil.copytree(path, tmp_path / "sound.zarr")
    silent: list[tuple[str, list[str], str]] = []
    while sum(counts.values()) < n_mutations:
        mutation = shuffler.choice(MUTATIONS)
        changed = mutate(path, mutation, keys, shuffler)
        if not changed:
            continue
        counts[mutation] += 1
        try:
            faults = verify(open_store(path)).faults
        except StoreError as error:
            faults = (str(error),)
        if not faults and (mutation, changed) != ("remove", ["manifest/00000002/root.json"]):  # as if killed before
            silent.append((mutation, changed, "verify"))
        try:
            if everything(path) != truth:
                silent.append((mutation, changed, "reader"))
        except StoreError:
            pass
        for key in changed:
            shutil.copyfile(tmp_path / "sound.zarr" / key, path / key)
    assert silent == []
    assert everything(path) == truth
    return counts


def test_no_change_of_a_store_goes_unnoticed(tmp_path: Path) -> None:
    try_mutations(tmp_path, 150)


def test_no_change_of_a_store_whose_manifest_is_in_parts_goes_unnoticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch)
    try_mutations(tmp_path, 100)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_none_of_ten_thousand_changes_of_a_store_goes_unnoticed(tmp_path: Path) -> None:
    counts = try_mutations(tmp_path, 10_000)
    assert min(counts.values()) > 1000
