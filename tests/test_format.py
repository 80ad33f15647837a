"""Encodings, moments, names and manifest: pure functions, tried on anything."""

import json
import math
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from zstore import Moments
from zstore.arrow import text_array
from zstore.format import layout
from zstore.format.arrays import encode_small, strings
from zstore.format.codecs import CANDIDATES
from zstore.format.encodings import FAMILIES, restored
from zstore.format.encodings.base import NumberForm
from zstore.format.encodings.numbers import Plain, count_inexact, observe_numbers, scale_of
from zstore.format.encodings.words import observe_codes
from zstore.format.index import cut_runs, usual_step
from zstore.format.shards import ArrayPlan

decimals_or_floats = st.one_of(
    st.decimals(-99999, 99999, places=4, allow_nan=False).map(float),
    st.integers(-(10**7), 10**7).map(float),
    st.floats(width=64),
    st.sampled_from([float("nan"), float("inf"), -0.0, 16777217.0, 0.1]),
)


def assert_same(restored: np.ndarray, source: np.ndarray) -> None:
    """Equal numbers as float32, and missing where missing."""
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(restored, source.astype(np.float32), strict=True)


@given(st.lists(decimals_or_floats, max_size=40))
def test_a_block_that_is_brought_to_its_own_encoding_unpacks_to_the_same_float32(values: list[float]) -> None:
    source = np.array(values, np.float64)
    column, form = observe_numbers(source, "float32", finite=False)
    encoding = FAMILIES["number"].choose([form], "float32")
    assert_same(encoding.unpack(encoding.bringer(form)(column)), source)


@given(st.lists(st.lists(decimals_or_floats, min_size=1, max_size=10), min_size=1, max_size=5))
def test_blocks_observed_alone_are_exact_in_the_encoding_of_the_whole_channel(blocks: list[list[float]]) -> None:
    sources = [np.array(values, np.float64) for values in blocks]
    columns = [observe_numbers(source, "float32", finite=False) for source in sources]
    chosen = FAMILIES["number"].choose([column.form for column in columns], "float32")
    for source, (values, form) in zip(sources, columns, strict=True):
        stored = chosen.bringer(form)(values)
        assert str(stored.dtype) == chosen.dtype
        assert_same(chosen.unpack(stored), source)
        assert chosen.is_missing(stored).tolist() == np.isnan(source).tolist()
        assert chosen.count_infinite(stored) == np.count_nonzero(np.isinf(chosen.unpack(stored)))


words_of_blocks = st.lists(st.lists(st.none() | st.text(max_size=3), max_size=8), min_size=1, max_size=4)


@given(words_of_blocks, st.integers(0, 3))
def test_words_observed_block_by_block_are_the_same_words_in_the_encoding_of_all_and_after_more_came(
    blocks: list[list[str | None]], n_before: int
) -> None:
    observed = []
    for block in blocks:
        words = sorted({word for word in block if word is not None}, key=str.encode)
        codes = np.array([-1 if word is None else words.index(word) for word in block], np.int32)
        observed.append(observe_codes(codes, text_array(words)))
    forms = [form for _, form in observed]
    before = FAMILIES["category"].choose(forms[:n_before], "float32")
    chosen = FAMILIES["category"].choose(forms, "float32", before)
    assert chosen.words[: len(before.words)] == before.words
    assert set(chosen.words) == {word for block in blocks for word in block} - {None}
    for encoding in (chosen, chosen.tidied()):
        for block, (values, form) in zip(blocks, observed, strict=True):
            stored = encoding.bringer(form)(values)
            missing = encoding.is_missing(stored)
            read = [None if lost else encoding.words[code] for code, lost in zip(stored, missing, strict=True)]
            assert read == block
            again = encoding.bringer(encoding.form_of(0))(stored)
            assert again.tolist() == stored.tolist()


@pytest.mark.parametrize(
    "document",
    [
        {"stored": "int16", "decimals": 2, "categories": None},
        {"stored": "float64", "decimals": None, "categories": None},
        {"stored": "int16", "decimals": 0, "categories": ["a", "b"]},
        {"stored": "int16", "decimals": 0, "categories": []},
    ],
)
def test_missing_rows_are_missing_in_every_encoding(document: dict[str, Any]) -> None:
    encoding = restored(document)
    stored = encoding.bringer(encoding.empty_form)(np.full(3, np.iinfo(np.int16).min, np.int16))
    assert (str(stored.dtype), encoding.is_missing(stored).tolist()) == (encoding.dtype, [True] * 3)
    assert np.isnan(encoding.unpack(stored)).all()


def test_integers_of_a_store_become_floats_where_new_rows_need_them() -> None:
    old = restored({"stored": "int16", "decimals": 2, "categories": None})
    new = FAMILIES["number"].choose([NumberForm(None, 0)], "float32", old, 3.25)
    assert new == Plain("float32")
    brought = new.bringer(old.form_of(3.25))(np.array([325, np.iinfo(np.int16).min], np.int16))
    np.testing.assert_array_equal(brought, np.array([3.25, np.nan], np.float32))


@given(st.integers(-(2**23), 2**23 - 1), st.integers(0, 7), st.integers(0, 7))
def test_more_decimals_give_the_same_float32(whole: int, few: int, more: int) -> None:
    few, more = sorted((few, more))
    factor = 10 ** (more - few)
    if abs(whole * factor) < 2**24:
        exact = np.float32(whole * scale_of(few))
        assert np.float32(whole * factor * scale_of(more)) == exact


@given(st.integers(-9_999_999, 9_999_999), st.integers(-30, 30))
def test_a_number_is_inexact_if_seven_digits_of_its_float32_do_not_give_it_back(whole: int, power: int) -> None:
    source = np.array([float(f"{whole}e{power}")])
    kept = source.astype(np.float32)
    back = float(f"{kept.astype(np.float64)[0]:.7g}")
    if abs(kept[0]) > 1e-37 or not whole:  # denormals keep less
        assert count_inexact(source, kept) == int(back != source[0])


@pytest.mark.parametrize(
    ("value", "inexact"), [(16777217.0, 1), (0.123456789, 1), (5e-324, 1), (2.0**-20, 0), (0.1, 0)]
)
def test_numbers_of_more_digits_than_a_float32_keeps_are_counted(value: float, inexact: int) -> None:
    assert observe_numbers(np.array([value, np.nan, np.inf]), "float32", finite=False).form.n_inexact == inexact


def test_two_decimals_become_int16_and_wide_ones_int32() -> None:
    assert observe_numbers(np.array([1.25, -300.01]), "float32").values.dtype == np.int16
    assert observe_numbers(np.array([1.25, 400.01]), "float32").values.dtype == np.int32


def test_a_negative_zero_is_a_zero_and_does_not_keep_a_channel_from_packing() -> None:
    values, form = observe_numbers(np.array([-0.0, 1.5]), "float32")
    assert (form, values.tolist()) == (NumberForm(1, 15), [0, 15])


def test_a_number_too_large_for_float32_is_told_from_an_infinity() -> None:
    with pytest.raises(OverflowError):
        observe_numbers(np.array([1e39]), "float32")
    assert observe_numbers(np.array([1e39]), "float64").values.tolist() == [1e39]
    assert observe_numbers(np.array([np.inf]), "float32", finite=False).values.tolist() == [np.inf]


def test_float64_channels_pack_only_whole_numbers() -> None:
    assert observe_numbers(np.array([1.0, 2.0]), "float64").form == NumberForm(0, 2)
    assert observe_numbers(np.array([0.1]), "float64").form == NumberForm(None, 0)


@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e6, 1e6, width=32) | st.just(float("nan"))),
    st.data(),
)
def test_moments_of_segments_merge_to_the_moments_of_all(values: np.ndarray, data: st.DataObject) -> None:
    inner = data.draw(st.sets(st.integers(1, max(len(values) - 1, 1)), max_size=5))
    starts = np.array(sorted({0} | {cut for cut in inner if cut < len(values)}), np.int64)
    total = Moments.of_segments(values, starts).total()
    seen = values[~np.isnan(values)].astype(np.float64)
    assert (int(total.count), int(total.n_missing)) == (len(seen), len(values) - len(seen))
    if len(seen):
        assert (total.low, total.high) == (seen.min(), seen.max())
        np.testing.assert_allclose(total.mean, seen.mean(), rtol=1e-9, atol=1e-6)
        np.testing.assert_allclose(total.std, seen.std(), rtol=1e-6, atol=1e-5)


@given(st.lists(st.text(max_size=20), unique=True, max_size=20))
def test_every_column_name_gets_a_safe_name_of_its_own(names: list[str]) -> None:
    safe = layout.safe_names(names)
    assert len({name.lower() for name in safe}) == len(names)
    for made in safe:
        assert made.lower() not in layout.RESERVED
        assert set(made) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
        assert made[0].isalpha()


def test_names_of_the_data_never_steer_a_path() -> None:
    assert layout.safe_names(["../x", "a/b", "time", "zarr.json", ".hidden"]) == [
        "x",
        "a_b",
        "time_2",
        "zarr_json",
        "hidden",
    ]


def test_shards_cover_the_rows_without_overlap() -> None:
    bounds = [layout.shard_bounds(n, 25, shard_rows=10) for n in range(layout.n_shards(25, 10))]
    assert bounds == [(0, 10), (10, 20), (20, 25)]
    assert list(layout.shards_of(9, 11, 10)) == [0, 1]
    assert list(layout.shards_of(10, 10, 10)) == []


@pytest.mark.parametrize(
    ("steps", "counts", "expected"), [([1, 2], [5, 4], 1), ([1, 2], [5, 5], None), ([], [], None), ([7], [1], 7)]
)
def test_the_usual_step_is_that_of_more_than_half(steps: list[int], counts: list[int], expected: int | None) -> None:
    assert usual_step(np.array(steps, np.int64), np.array(counts, np.int64), sum(counts)) == expected


def test_runs_end_where_a_series_ends_or_time_jumps() -> None:
    ten, zero = np.array([0, 10]), np.array([0, 1])
    runs = cut_runs(ten, zero, 15, np.array([4]), np.array([9]), np.array([0, 100]))
    assert (runs.start.tolist(), runs.stop.tolist()) == ([0, 4, 10], [4, 10, 15])
    assert (runs.series.tolist(), runs.time.tolist()) == ([0, 0, 1], [0, 9, 100])


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("n_rows", [1, 63, 64, 200, 256])
@pytest.mark.parametrize("codec", [*CANDIDATES, "blosc-zstd-1-noshuffle"])
def test_a_shard_put_together_here_is_one_zarr_reads_and_writes(dtype: str, n_rows: int, codec: str) -> None:
    values = np.random.default_rng(0).integers(-99, 99, n_rows).astype(dtype)
    plan = ArrayPlan(dtype, 0, codec, chunk_rows=64, shard_rows=256, attributes={})
    content = plan.encode_shard(values)
    objects = {"zarr.json": json.dumps(plan.document(n_rows)).encode(), "c/0": content}
    buffers = {key: default_buffer_prototype().buffer.from_bytes(value) for key, value in objects.items()}
    np.testing.assert_array_equal(zarr.open_array(MemoryStore(buffers), mode="r")[:], values)
    if n_rows == 256:
        written = MemoryStore({"zarr.json": buffers["zarr.json"]})
        zarr.open_array(written, mode="r+")[:] = values
        assert written._store_dict["c/0"].to_bytes() == content


def written_by_zarr(**settings: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What zarr-python writes for an array: its document, and its chunks."""
    objects: dict[str, Any] = {}
    values = settings.pop("values", None)
    array = zarr.create_array(MemoryStore(objects), config={"write_empty_chunks": True}, **settings)
    if values is not None and values.size:
        array[...] = values
    contents = {key: buffer.to_bytes() for key, buffer in objects.items()}
    return json.loads(contents.pop("zarr.json")), contents


@pytest.mark.parametrize(
    "values",
    [
        strings(["01", "", "é", "e\u0301", "\n", "x" * 5000]),
        strings([]),
        np.arange(10),
        np.arange(25, dtype="int32"),
        np.array([1.5, np.nan, -0.0]),
        np.zeros((0, 2)),
        np.random.default_rng(0).normal(size=(23, 3)),
    ],
    ids=["text", "no text", "int64", "int32 in three chunks", "float64", "no rows", "two axes in three chunks"],
)
def test_a_small_array_is_byte_for_byte_what_zarr_writes(values: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zstore.format.arrays._SMALL_CHUNK", 10)
    dimensions = ("series", "channel")[: values.ndim]
    made = encode_small(values, dimensions, {"units": "m"})
    document, chunks = written_by_zarr(
        values=values,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(min(max(len(values), 1), 10), *values.shape[1:]),
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        fill_value=float("nan") if values.dtype.kind == "f" else None,
        dimension_names=list(dimensions),
        attributes={"units": "m"},
    )
    assert json.loads(made.pop("zarr.json")) == document
    assert made == chunks


@pytest.mark.parametrize("codec", CANDIDATES)
@pytest.mark.parametrize(("dtype", "fill"), [("int16", -32768), ("int32", -(2**31)), ("float32", math.nan)])
def test_the_document_of_a_variable_is_what_zarr_writes(codec: str, dtype: str, fill: float) -> None:
    plan = ArrayPlan(dtype, fill, codec, chunk_rows=64, shard_rows=256, attributes={"scale_factor": 0.1})
    library, *rest = codec.removeprefix("blosc-").split("-")
    block = 1 << 18
    shuffled: Any = {"cname": library, "clevel": int(rest[0]), "shuffle": rest[-1], "blocksize": block}
    chosen = BloscCodec(**shuffled, typesize=np.dtype(dtype).itemsize) if "blosc" in codec else ZstdCodec(level=3)
    document, _ = written_by_zarr(
        shape=(1000,),
        dtype=dtype,
        chunks=(64,),
        shards=(256,),
        compressors=[chosen, Crc32cCodec()],
        fill_value=fill,
        dimension_names=["row"],
        attributes={"scale_factor": 0.1},
    )
    assert plan.document(1000) == document
