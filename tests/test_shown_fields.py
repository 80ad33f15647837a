"""How fields show themselves: the right rows as images, slices and lines, in a page that nothing is fetched for."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL_GRID, write_table
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from payload_files import AFFINE, image, nifti
from PIL import Image

import zstore
from lightning_app.data.batches.fields import FieldOptions
from lightning_app.data.datamodule import WindowDataModule
from zstore.amounts import show_size
from zstore.format.payloads.chain import VolumeChain
from zstore.format.payloads.png import decode
from zstore.look.pixels import MOST_PX, drawn_slice, png
from zstore.look.report import to_html
from zstore.printing import print_info
from zstore.rows import shown_rows
from zstore.upkeep.doctor import examine

HOSTILE = "<b>cam</b>"
Values = NDArray[Any]


def parsed(html: str) -> ElementTree.Element:
    closed = re.sub(r"<(meta[^>]*)>", r"<\1/>", html.removeprefix("<!doctype html>"))
    return ElementTree.fromstring(f"<body>{closed}</body>")  # noqa: S314  # ours


def images(page: ElementTree.Element) -> list[Values]:
    """What the images of a page show."""
    found = []
    for each in page.iter("img"):
        source = str(each.get("src"))
        assert source.startswith("data:image/png;base64,")
        found.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))))
    return found


def frames(n: int = 40) -> Values:
    return np.random.default_rng(3).integers(1, 256, (n, 6, 5, 3)).astype(np.uint8)


def store_of(folder: Path, values: Values, name: str = "camera") -> zstore.Store:
    """Two series of a field of some values, the tenth row of which has none."""
    np.save(folder / "a.npy", values)
    half = len(values) // 2
    rows = [[f"s{n // half}", n % half, n % 7, "" if n == 9 else "a.npy", n] for n in range(len(values))]
    zstore.ingest(
        write_table(folder / "t.csv", ["id", "t", "v", "path", "number"], rows),
        folder / "s.zarr",
        id="id",
        time="t",
        file={name: "path"},
        file_position={name: "number"},
        file_root=folder,
        **SMALL_GRID,
    )
    return zstore.open_store(folder / "s.zarr")


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])).flatmap(
        lambda shape: arrays(np.uint8, shape)
    )
)
def test_a_png_holds_the_pixels_it_was_made_of(pixels: Values) -> None:
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    np.testing.assert_array_equal(pixels, decode(png(pixels), 1 << 20))


@given(
    st.sampled_from(["bool", "uint8", "int16", "int64", "float16", "float64"]).flatmap(
        lambda dtype: st.lists(st.integers(1, 9), min_size=2, max_size=5).flatmap(
            lambda shape: arrays(dtype, tuple(shape))
        )
    ),
    st.booleans(),
)
def test_any_value_of_two_axes_or_more_is_an_image_of_bounded_size(values: Values, coloured: bool) -> None:
    names = [f"axis_{n}" for n in range(values.ndim)]
    names[-1:] = ["colour"] if coloured and values.ndim > 2 else names[-1:]
    pixels = drawn_slice(values, names).pixels
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 2 or pixels.shape[2] == 3
    assert len(png(pixels)) < 4 * MOST_PX * MOST_PX


def test_a_large_image_is_drawn_as_means_of_blocks() -> None:
    values = np.zeros((300, 500), np.uint8)
    values[:4, :4] = 200
    values[4:8, 4] = 100
    pixels = drawn_slice(values, ("y", "x")).pixels
    assert pixels.shape == (75, 125)
    assert pixels[:3, :3].tolist() == [[200, 0, 0], [0, 25, 0], [0, 0, 0]]


def test_a_volume_is_drawn_as_its_middle_slice_with_x_to_the_right_and_y_up() -> None:
    values = np.zeros((4, 3, 7), np.int16)
    values[3, 2, 3] = 900  # right, front
    drawn = drawn_slice(values, ("x", "y", "z"))
    assert drawn.about == "z 3 of 7"
    assert drawn.pixels.shape == (3, 4)
    assert np.argwhere(drawn.pixels).tolist() == [[0, 3]]
    turned = drawn_slice(values.transpose(2, 1, 0), ("z", "y", "x"))
    assert np.argwhere(turned.pixels).tolist() == [[2, 3]]


def test_intensities_are_drawn_from_the_first_to_the_99th_percentile() -> None:
    values = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    values[0, 0], values[99, 99], values[50, 50] = -1e30, np.inf, np.nan
    pixels = drawn_slice(values, ("y", "x")).pixels
    assert (pixels[0, 0], pixels[99, 99], pixels[50, 50]) == (0, 255, 0)
    assert int(pixels[50, 51]) == pytest.approx(128, abs=2)


def test_a_store_and_a_series_show_the_rows_of_a_field_that_they_name(tmp_path: Path) -> None:
    values = frames()
    store = store_of(tmp_path, values, HOSTILE)
    page = parsed(store._repr_html_())
    for drawn, row in zip(images(page), [0, 19], strict=True):  # between them, row 9 has none
        np.testing.assert_array_equal(values[row], drawn)
    text = "".join(page.itertext())
    assert HOSTILE in text
    assert "6 x 5 x 3 (y, x, colour) of uint8" in text
    assert "no value" in text
    assert not list(page.iter("b"))[1:]
    of_series = images(parsed(store["s1"]._repr_html_()))
    np.testing.assert_array_equal(values[[20, 24, 29, 34, 39]], of_series)


def test_windows_show_what_they_have_of_fields(tmp_path: Path) -> None:
    windows = store_of(tmp_path, frames(), HOSTILE).windows(4, 1, fields={HOSTILE: 2}, cache=tmp_path / "cache")
    assert repr(windows).endswith(f"{HOSTILE} (2, 6, 5, 3)>")
    page = parsed(windows._repr_html_())
    assert f"fields: {HOSTILE} 2 x 6 x 5 x 3" in "".join(page.itertext())
    assert len(list(page.iter("b"))) == 1


def test_showing_a_store_decodes_three_rows_of_a_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tmp_path, frames())
    read: list[tuple[int, int]] = []
    plain = zstore.Store.read_field

    def reading(self: zstore.Store, name: str, start: int, stop: int) -> Values:
        read.append((start, stop))
        return plain(self, name, start, stop)

    monkeypatch.setattr(zstore.Store, "read_field", reading)
    store._repr_html_()
    assert read == [(0, 1), (19, 20)]


def test_the_report_shows_each_field_and_the_rows_that_look_wrong(tmp_path: Path) -> None:
    values = frames()
    values[[25, 26]] = 0
    store = store_of(tmp_path, values)
    html = str(to_html(examine(store)))
    assert "http" not in html
    page = parsed(html)
    assert not {"script", "link", "iframe"} & {element.tag for element in page.iter()}
    shown = images(page)
    of_black = next(n for n, drawn in enumerate(shown) if not drawn.any())
    for drawn, row in zip(shown[of_black - 1 :], [24, 25, 26], strict=False):
        np.testing.assert_array_equal(values[row], drawn)
    assert "What fields hold" in "".join(page.itertext())
    np.testing.assert_array_equal(values[[0, 7, 15, 23, 31, 39]], shown[-6:])
    captions = [caption.text for caption in page.iter("figcaption")]
    assert captions[-6:] == ["s0 0", "s0 7", "s0 15", "s1 3", "s1 11", "s1 19"]


def test_encoded_images_are_drawn_and_what_is_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    for n in range(3):
        image(tmp_path / f"{n}.png", frames()[n])
        rows.append(["a", n, n, f"{n}.png"])
    zstore.ingest(
        write_table(tmp_path / "t.csv", ["id", "t", "v", "path"], rows),
        tmp_path / "s.zarr",
        id="id",
        time="t",
        file={"camera": "path"},
        file_root=tmp_path,
        keep_encoded=["camera"],
    )
    store = zstore.open_store(tmp_path / "s.zarr")
    np.testing.assert_array_equal(frames(3), images(parsed(store._repr_html_())))
    monkeypatch.setattr(zstore.Store, "read_bytes", lambda *_: [b"<i>no</i>"])
    page = parsed(store._repr_html_())
    assert "a file that begins with" in "".join(page.itertext())
    assert not list(page.iter("i"))


def test_a_field_of_one_axis_is_drawn_as_lines(tmp_path: Path) -> None:
    store = store_of(tmp_path, np.random.default_rng(0).normal(size=(40, 90)).astype(np.float32))
    page = parsed(store._repr_html_())
    drawn = [svg for svg in page.iter("svg") if str(svg.get("aria-label")).startswith("camera at")]
    assert [svg.get("aria-label") for svg in drawn] == ["camera at 0", "camera at 19"]


def test_where_voxels_lay_is_said_and_not_drawn(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii.gz", np.arange(120, dtype=np.int16).reshape(6, 5, 4), AFFINE)
    chain = VolumeChain("RAS", (2.0, 2.0, 2.0), shape=(8, 8, 8), dtype="int16")
    zstore.ingest(
        write_table(tmp_path / "t.csv", ["id", "t", "v", "path"], [["p", 0, 1, "a.nii.gz"]]),
        tmp_path / "s.zarr",
        id="id",
        time="t",
        file={"scan": "path"},
        file_chain={"scan": chain.to_json()},
        file_root=tmp_path,
    )
    page = parsed(zstore.open_store(tmp_path / "s.zarr")._repr_html_())
    assert len(images(page)) == 1
    assert "where the voxels of scan lay in their sources" in "".join(page.itertext())
    assert "z 4 of 8" in "".join(page.itertext())


def test_a_vector_is_one_line_of_all_its_channels(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(60, 16)).round(2)
    rows = [["a", t, *values[t], t] for t in range(60)]
    head = ["id", "t", *(f"emg.{n}" for n in range(16)), "other"]
    zstore.ingest(write_table(tmp_path / "t.csv", head, rows), tmp_path / "s.zarr", id="id", time="t")
    store = zstore.open_store(tmp_path / "s.zarr")
    assert repr(store).endswith("60 rows, 1 series, channels emg (16), other>")
    for page in (parsed(store._repr_html_()), parsed(store["a"]._repr_html_())):
        labels = [svg.get("aria-label") for svg in page.iter("svg")]
        assert labels[:2] == ["emg", "other"]
    cells = {str(row[0].text).strip(): [cell.text for cell in row] for row in parsed(store._repr_html_()).iter("tr")}
    assert [float(str(cell)) for cell in cells["emg"][2:6]] == pytest.approx(
        [values.mean(), values.std(), values.min(), values.max()], rel=1e-3, abs=1e-6
    )
    zstore_info = said(print_info, store)
    assert re.search(r"^emg \(16\) +int16, 2 decimals +0 ", zstore_info, re.MULTILINE)
    assert "emg.0" not in zstore_info


def said(show: Callable[[zstore.Store], None], store: zstore.Store) -> str:
    """What a function prints."""
    with redirect_stdout(io.StringIO()) as out:
        show(store)
    return out.getvalue()


def test_info_says_what_a_field_is_and_how_large(tmp_path: Path) -> None:
    store = store_of(tmp_path, frames().astype(np.float32))
    n_bytes = sum(path.stat().st_size for path in tmp_path.glob("s.zarr/camera*/c/**/*") if path.is_file())
    line = next(line for line in said(print_info, store).splitlines() if line.startswith("field"))
    codec = store.schema.fields[0].codec
    assert line == (
        f"field camera: 6 x 5 x 3 (y, x, colour) of uint8 (float32 in the source), {codec}, 16 rows a chunk; "
        f"{show_size(n_bytes)}, {4 * frames().size / n_bytes:.2f}x"
    )


def test_show_says_of_each_row_what_a_field_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zstore.rows._BLOCK_BYTES", 500)  # several blocks
    values = frames().astype(np.float32) / 2
    values[3, 0, 0, 0] = np.nan
    store = store_of(tmp_path, values)
    lines = list(shown_rows(store, 0, 20))
    expected = [
        f"{n},{n % 7}," + ("" if n == 9 else f"float32 6x5x3 {np.nanmin(values[n]):g}..{np.nanmax(values[n]):g}")
        for n in range(20)
    ]
    assert lines == ["time,v,camera", *expected]


def test_show_says_the_kind_the_shape_and_the_bytes_of_encoded_images(tmp_path: Path) -> None:
    rows = []
    for n, ending in enumerate(("png", "jpg", "png")):
        image(tmp_path / f"{n}.{ending}", frames()[n] if n < 2 else frames()[n, ..., 0])
        rows.append(["a", n, n, f"{n}.{ending}"])
    zstore.ingest(
        write_table(tmp_path / "t.csv", ["id", "t", "v", "path"], [*rows, ["a", 3, 3, ""]]),
        tmp_path / "s.zarr",
        id="id",
        time="t",
        file={"camera": "path"},
        file_root=tmp_path,
        keep_encoded=["camera"],
    )
    sizes = [(tmp_path / str(row[3])).stat().st_size for row in rows]
    store = zstore.open_store(tmp_path / "s.zarr")
    cells = [line.split(",")[2] for line in shown_rows(store, 0, 4)]
    assert cells[1:] == [f"PNG 6x5x3 {sizes[0]} bytes", f"JPEG 6x5x3 {sizes[1]} bytes", f"PNG 6x5 {sizes[2]} bytes", ""]
    assert "field camera: bytes, as in the source; " in said(print_info, store)


def test_a_data_module_names_vectors_and_says_what_windows_have_of_fields(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", frames(60))
    rows = [["s", t, t % 7, t % 5, t % 3, "a.npy", t] for t in range(60)]
    zstore.ingest(
        write_table(tmp_path / "t.csv", ["id", "t", "emg.0", "emg.1", "v", "path", "number"], rows),
        tmp_path / "s.zarr",
        id="id",
        time="t",
        file={"camera": "path"},
        file_position={"camera": "number"},
        file_root=tmp_path,
    )
    data = WindowDataModule(
        str(tmp_path / "s.zarr"), 8, 1, fields={"camera": FieldOptions(2, 4)}, targets=["emg.1"], cache=str(tmp_path)
    )
    assert "emg (2), v to emg.1, camera of the last 2 rows, 4 apart, auto; " in repr(data)
    text = "".join(parsed(data._repr_html_()).itertext())
    assert "fields: camera of the last 2 rows, 4 apart, auto" in text
    assert "inputs: emg (2), v" in text
