"""What is done to volumes, held against what MONAI makes of the same ones, and the way back to the source."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from zstore import UsageError
from zstore.format.payloads.chain import MERLIN, VolumeChain, Window
from zstore.format.payloads.error import PayloadError
from zstore.format.payloads.grid import SourceGrid, check_affine

LIMIT = 1 << 28
GOLDEN = json.loads((Path(__file__).parent / "volume_grids.json").read_text())["cases"]
"""Figures that MONAI 1.6.1 made of `volume`: orientations, odd spacings, sizes of exactly one half, leaning grids."""


def volume(shape: tuple[int, ...]) -> NDArray[np.int16]:
    """Rough enough that no voxel is like its neighbours."""
    i, j, k = np.indices(shape, dtype=np.int64)
    values: NDArray[np.int16] = ((i * 7919 + j * 104729 + k * 1299709 + i * j * k * 31) % 2801 - 1200).astype(np.int16)
    return values


def grid(shape: tuple[int, ...], affine: list[float] | NDArray[Any]) -> SourceGrid:
    return SourceGrid((shape[0], shape[1], shape[2]), np.array([*np.ravel(affine)[:12], 0, 0, 0, 1.0]).reshape(4, 4))


def straight(codes: str, zooms: tuple[float, ...]) -> NDArray[np.float64]:
    """An affine whose axes run as the codes say."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, code in enumerate(codes):
        row = next(n for n, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        affine[row, axis] = zooms[axis] * (1 if code in "RAS" else -1)
    affine[:3, 3] = (-31.5, 12.25, 99)
    return affine


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_grids_and_values_are_those_of_monai(case: dict[str, Any], order: Any) -> None:
    raw, source = np.asarray(volume(case["shape"]), order=order), grid(case["shape"], case["affine"])
    spaced = VolumeChain("RAS", tuple(case["spacing"]))
    values = spaced.apply(raw, source, LIMIT)
    assert values.shape == tuple(case["spaced_shape"])
    np.testing.assert_allclose(spaced.grid(source).affine.ravel()[:12], case["spaced_affine"], atol=1e-6)
    assert np.float64(values.astype(np.float64).sum()) == pytest.approx(case["spaced_sum"], abs=1e-3 * values.size)
    for *index, value in case["spaced"]:
        assert values[tuple(index)] == pytest.approx(value, abs=1e-3)
    chain = replace(spaced, window=Window(-1000, 1000), shape=tuple(case["final_shape"]))
    final = chain.apply(raw, source, LIMIT)
    assert final.shape == tuple(case["final_shape"])
    np.testing.assert_allclose(chain.grid(source).affine.ravel()[:12], case["final_affine"], atol=1e-6)
    assert np.float64(final.astype(np.float64).sum()) == pytest.approx(case["final_sum"], abs=1e-6 * final.size)
    for *index, value in case["final"]:
        assert final[tuple(index)] == pytest.approx(value, abs=5e-7)  # 1e-3 HU


shapes = st.tuples(*[st.integers(1, 9)] * 3)
codes = st.sampled_from(["RAS", "LPS", "PIR", "ASL", "ILA", "SAR", "LAI", "RSP"])
zooms = st.tuples(*[st.sampled_from([0.7, 1.0, 1.5, 2.2, 3.0])] * 3)


@given(shapes, codes, zooms, st.booleans(), st.data())
def test_resampling_is_linear_between_the_corners_of_a_cell(
    shape: tuple[int, int, int], code: str, zoom: tuple[float, float, float], leaning: bool, data: st.DataObject
) -> None:
    affine = straight(code, zoom)
    if leaning:
        affine[:3, :3] += np.array([[0, 0.1, 0.02], [-0.05, 0, 0.1], [0.03, 0, 0]])
    source, raw = grid(shape, affine), volume(shape)
    chain = VolumeChain("RAS", data.draw(zooms))
    target, values = chain.grid(source), chain.apply(raw, source, LIMIT)
    turned = np.flip(raw.transpose(target.axes), target.flips).astype(np.float64)
    index = tuple(data.draw(st.integers(0, n - 1)) for n in values.shape)
    at = np.clip((target.matrix @ [*index, 1.0])[:3], 0, np.array(turned.shape) - 1)
    low = np.minimum(at.astype(int), np.maximum(np.array(turned.shape) - 2, 0))
    expected = 0.0
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod([at[n] - low[n] if corner[n] else 1 - (at[n] - low[n]) for n in range(3)])
        cell = tuple(min(low[n] + corner[n], turned.shape[n] - 1) for n in range(3))
        expected += weight * turned[cell]
    assert values[index] == pytest.approx(expected, abs=1e-3)


@given(shapes, codes, st.data())
def test_turning_is_exact_and_keeps_every_voxel_at_its_place_in_the_patient(
    shape: tuple[int, int, int], code: str, data: st.DataObject
) -> None:
    source, raw = grid(shape, straight(code, (0.7, 1.5, 2.2))), volume(shape)
    chain = VolumeChain(data.draw(codes), dtype="int16")
    values, affine = chain.apply(raw, source, LIMIT), chain.grid(source).affine
    index = tuple(data.draw(st.integers(0, n - 1)) for n in values.shape)
    back = np.rint(np.linalg.solve(source.affine, affine @ [*index, 1.0])).astype(int)[:3]
    assert raw[tuple(back)] == values[index]
    np.testing.assert_array_equal(raw, chain.original_grid(values, source))


@given(shapes, codes, st.tuples(*[st.integers(1, 12)] * 3), st.integers(-5, 5))
def test_a_volume_is_cropped_and_padded_around_its_middle(
    shape: tuple[int, int, int], code: str, wanted: tuple[int, int, int], fill: int
) -> None:
    source, raw = grid(shape, straight("RAS", (1, 1, 1))), volume(shape)
    values = VolumeChain(shape=wanted, fill=fill, dtype="int16").apply(raw, source, LIMIT)
    expected = raw
    for axis, (size, n) in enumerate(zip(shape, wanted, strict=True)):
        first = max(size // 2 - n // 2, 0)
        before = max(n - size, 0) // 2
        after = max(n - size, 0) - before
        expected = expected.take(range(first, first + min(n, size)), axis)
        expected = np.pad(expected, [(before, after) if a == axis else (0, 0) for a in range(3)], constant_values=fill)
    np.testing.assert_array_equal(expected, values)


@given(codes, st.sampled_from([(2.0, 1.5, 1.1), (1.0, 1.0, 1.0), (0.6, 1.7, 0.9)]), st.booleans())
def test_a_label_map_comes_back_to_the_voxels_of_its_source(
    code: str, spacing: tuple[float, float, float], leaning: bool
) -> None:
    shape = (12, 15, 10)
    labels = np.zeros(shape, np.uint8)
    labels[2:7, 3:9, 1:6], labels[7:11, 6:13, 5:9] = 1, 2
    affine = straight(code, (2.1, 1.8, 2.4))
    if leaning:
        affine[:3, :3] += 1e-4
    source = grid(shape, affine)
    chain = VolumeChain("RAS", spacing, "nearest", shape=(60, 60, 60), dtype="uint8")  # finer: every voxel is there
    np.testing.assert_array_equal(labels, chain.original_grid(chain.apply(labels, source, LIMIT), source))


def test_voxels_that_were_cropped_away_come_back_as_what_is_asked_for() -> None:
    source = grid((6, 6, 6), straight("LPS", (1, 1, 1)))
    chain = VolumeChain("RAS", shape=(2, 2, 2), dtype="int16")
    back = chain.original_grid(np.full((2, 2, 2), 7, np.int16), source, fill=-1)
    np.testing.assert_array_equal(np.unique(back, return_counts=True), [[-1, 7], [6**3 - 8, 8]])
    with pytest.raises(PayloadError, match="shape"):
        chain.original_grid(np.zeros((3, 2, 2)), source)


def test_a_chain_survives_json_and_pickle_and_has_a_digest_of_its_own() -> None:
    chain = replace(MERLIN, fill=0.5, dtype="float16")
    assert VolumeChain.from_json(json.loads(json.dumps(chain.to_json()))) == chain == pickle.loads(pickle.dumps(chain))  # noqa: S301  # our own bytes
    assert hash(VolumeChain.from_json(chain.to_json())) == hash(chain)
    assert len({chain.digest(), MERLIN.digest(), replace(chain, spacing=(1.5, 1.5, 3.0001)).digest()}) == 3
    assert VolumeChain.from_json({"spacing": [1.5, 1.5, 3]}).digest() == VolumeChain(spacing=(1.5, 1.5, 3.0)).digest()


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ({"orientation": "RAX"}, "orientation"),
        ({"orientation": "RAR"}, "orientation"),
        ({"orientation": "RASS"}, "orientation"),
        ({"orientation": 7}, "orientation"),
        ({"spacing": [1, 2]}, "spacing"),
        ({"spacing": [1, 2, 0]}, "spacing"),
        ({"spacing": [1, 2, float("nan")]}, "spacing"),
        ({"spacing": "1 2 3"}, "spacing"),
        ({"shape": [1, 2, 2.5]}, "shape"),
        ({"shape": [1, 2, 1 << 40]}, "shape"),
        ({"window": [0, 1]}, "window"),
        ({"window": {"low": 0}}, "window"),
        ({"window": {"low": 1, "high": 0}}, "window"),
        ({"window": {"low": 0, "high": 1, "clip": False}}, "clip"),
        ({"interpolation": "cubic"}, "interpolation"),
        ({"dtype": "object"}, "dtype"),
        ({"dtype": "uint8", "fill": -1}, "dtype"),
        ({"dtype": "uint8", "window": {"low": 0, "high": 1, "to_high": 300}}, "dtype"),
        ({"fill": True}, "fill"),
        ({"spacings": [1, 1, 1]}, "spacings"),
        ({1: 2}, "1"),
    ],
)
def test_a_chain_that_cannot_be_meant_is_refused_by_name(document: dict[Any, Any], names: str) -> None:
    with pytest.raises(UsageError, match=names) as refused:
        VolumeChain.from_json(document, where="chain.yaml")
    assert "chain.yaml" in str(refused.value)


@pytest.mark.parametrize(
    "affine",
    [
        np.zeros((4, 4)),
        np.diag([1.0, 1, 0, 1]),
        np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        np.diag([1.0, np.nan, 1, 1]),
        np.diag([1.0, np.inf, 1, 1]),
        np.diag([1e300, 1, 1, 1]),
    ],
)
def test_an_affine_that_is_singular_or_not_finite_is_refused(affine: NDArray[Any]) -> None:
    with pytest.raises(PayloadError, match="affine"):
        check_affine(affine)
    with pytest.raises(PayloadError, match="affine"):
        MERLIN.grid(SourceGrid((4, 4, 4), affine))


def test_a_result_beyond_the_limit_is_refused_before_memory_is_taken() -> None:
    source = grid((4, 4, 4), straight("RAS", (9e5, 9e5, 9e5)))
    with pytest.raises(PayloadError, match="--file-limit") as refused:
        VolumeChain(spacing=(1.0, 1.0, 1.0)).apply(volume((4, 4, 4)), source, LIMIT)
    assert "2700001 × 2700001 × 2700001" in refused.value.reason
    with pytest.raises(PayloadError, match="voxels"):
        VolumeChain(spacing=(1.0, 1.0, 1e-9)).grid(source)


@pytest.mark.parametrize(
    ("dtype", "value", "fits"),
    [
        ("uint8", 255, True),
        ("uint8", 256, False),
        ("uint8", -1, False),
        ("int16", 32767.4, True),
        ("int16", np.nan, False),
        ("float16", 65504, True),
        ("float16", 1e5, False),
        ("float32", np.nan, True),
    ],
)
def test_a_voxel_that_does_not_fit_the_dtype_is_refused_and_never_wrapped(dtype: str, value: float, fits: bool) -> None:
    raw = np.full((2, 2, 2), value, np.float32)
    chain, source = VolumeChain(dtype=dtype), grid((2, 2, 2), straight("RAS", (1, 1, 1)))
    if fits:
        np.testing.assert_array_equal(np.full((2, 2, 2), value).round(), chain.apply(raw, source, LIMIT))
    else:
        with pytest.raises(PayloadError, match="voxel"):
            chain.apply(raw, source, LIMIT)


def test_a_slope_and_an_intercept_come_before_everything_else() -> None:
    source, raw = grid((5, 4, 3), straight("LAS", (1.1, 1.7, 2.9))), volume((5, 4, 3))
    chain = VolumeChain("RAS", (1.5, 1.5, 1.5), window=Window(-500, 500))
    scaled = (raw.astype(np.float64) * 0.5 - 10.25).astype(np.float32)
    np.testing.assert_array_equal(chain.apply(scaled, source, LIMIT), chain.apply(raw, source, LIMIT, 0.5, -10.25))
