"""Fields, runs, splits, films and kept forecasts in a real browser, at any width, light and dark: as numpy has them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray
import yaml
from conftest import write_table
from hdf5files import aloha
from numpy.typing import NDArray
from PIL import Image, ImageSequence
from playwright.sync_api import Browser
from test_rollout import CONFIG as REACH
from test_view_browser import WIDTHS, Seen, pixels, served
from test_view_runs import config

import zstore
from lightning_app.audit import audit, module_of
from lightning_app.demo.reach import write_store
from zstore import Store

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("default")]

LOOKS = [(width, theme) for width in WIDTHS for theme in ("light", "dark")]


def command(folder: Path, *words: str) -> None:
    """Runs ``python -m lightning_app`` in a folder."""
    done = subprocess.run([sys.executable, "-m", "lightning_app", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    """Four series of 150 days with places and gaps, and a run with intervals that has forecast tomorrow, too."""
    folder, random = tmp_path_factory.mktemp("run"), np.random.default_rng(0)
    first: list[list[Any]] = []
    last: list[list[Any]] = []
    for number in range(4):
        for day in range(150):
            v = 10 * number + np.sin(day / 4) + random.normal(0, 0.2)
            if not (number == 1 and 60 <= day < 70):
                (last if day == 149 else first).append(
                    [f"s {number}", np.datetime64("2024-01-01") + np.timedelta64(day, "D"), f"{v:.3f}", day % 7]
                )
    places = [[f"s {number}", 50 + number, 3 * number] for number in range(4)]
    statics = write_table(folder / "p.csv", ["id", "lat", "lon"], places)
    header = ["id", "t", "v", "w"]
    zstore.ingest(write_table(folder / "t.csv", header, first), folder / "s.zarr", id="id", time="t", static=statics)
    document = {**config(folder / "s.zarr", "plain", channels=["v"]), "intervals": {"levels": [0.8]}}
    (folder / "c.yaml").write_text(yaml.safe_dump(document))
    command(folder, "fit", "--config", "c.yaml")
    command(folder, "predict", "--config", "c.yaml", "--data.predict_on", "future")
    command(folder, "test", "--config", "c.yaml")
    command(folder, "predict", "--config", "c.yaml")
    zstore.append(write_table(folder / "u.csv", header, last), folder / "s.zarr")
    return zstore.open_store(folder / "s.zarr"), folder / "runs" / "c"


@pytest.fixture(scope="module")
def acted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    """Demonstrations with images and vectors, and a policy that was trained on them and has acted."""
    folder = tmp_path_factory.mktemp("acted")
    write_store(folder, 20)
    data = {**REACH["data"], "store": "reach.zarr", "cache": str(folder / "cache")}
    trainer = {"max_epochs": 3, "accelerator": "cpu", "limit_val_batches": 0}
    (folder / "p.yaml").write_text(yaml.safe_dump({**REACH, "data": data, "trainer": trainer}))
    command(folder, "fit", "--config", "p.yaml")
    command(folder, "rollout", "--config", "p.yaml", "--acting.episodes", "3", "--acting.steps", "20")
    return zstore.open_store(folder / "reach.zarr"), folder / "runs" / "p"


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, NDArray[Any]]:
    """One volume of int16 with a class, and its values."""
    folder = tmp_path_factory.mktemp("scans")
    volume = np.random.default_rng(0).integers(-1000, 1000, (1, 9, 11, 13)).astype("i2")
    np.save(folder / "v.npy", volume)
    table = write_table(folder / "v.csv", ["id", "t", "file", "row", "grade"], [["p", 0, "v.npy", 0, "mild"]])
    options: dict[str, Any] = {"file": {"scan": "file"}, "file_position": {"scan": "row"}, "file_root": folder}
    zstore.ingest(table, folder / "v.zarr", id="id", time="t", **options)
    return zstore.open_store(folder / "v.zarr"), volume[0]


def drawn(seen: Seen, number: int = 0) -> NDArray[np.uint8]:
    """(y, x, 4) colours of a picture of the page, once it is there."""
    there = "(n) => document.querySelectorAll('img.frame')[n]?.complete"
    seen.page.wait_for_function(there, arg=number)
    size, values = seen.page.evaluate(
        """(n) => {
          const image = document.querySelectorAll("img.frame")[n];
          const canvas = document.createElement("canvas");
          const { naturalWidth: width, naturalHeight: height } = image;
          [canvas.width, canvas.height] = [width, height];
          const context = canvas.getContext("2d");
          context.drawImage(image, 0, 0);
          return [[height, width, 4], Array.from(context.getImageData(0, 0, width, height).data)];
        }""",
        number,
    )
    return np.array(values, np.uint8).reshape(size)


@pytest.mark.parametrize(("width", "theme"), LOOKS)
def test_frames_and_what_is_beside_them_are_those_of_the_store(
    acted: tuple[Store, Path], browser: Browser, width: int, theme: str
) -> None:
    store, _ = acted
    id_ = str(store.ids[2])
    first, last = store.index.row_start[2:4].tolist()
    with served(store.path) as address:
        seen = Seen(browser, address, width, theme)
        shown = seen.told("field", f"#fields?id={id_}&field=image&row=3")
        assert (shown["n"], shown["row"]) == (last - first, 3)
        np.testing.assert_array_equal(drawn(seen)[..., :3], store.read_field("image", first + 3, first + 4)[0])
        seen.page.locator("main").focus()
        seen.page.keyboard.press("ArrowRight")
        seen.page.wait_for_function("() => window.zstoreView.shown.field.row === 4")
        np.testing.assert_array_equal(drawn(seen)[..., :3], store.read_field("image", first + 4, first + 5)[0])
        charts = {each["name"]: each for each in seen.page.evaluate("() => window.zstoreView.shown.series")["charts"]}
        assert list(charts) == [f"state.{n}" for n in range(4)] + ["action.0", "action.1"]
        for name, chart in charts.items():
            np.testing.assert_allclose(chart["lines"][0]["y"], store.read(name, first, last))
        assert seen.page.locator("figure.chart").count() == 2  # a picture of each vector
        for vector in ("state", "action"):
            assert pixels(seen.page, f"figure[data-channel={vector}] canvas") > 3
        seen.check()


@pytest.mark.parametrize(("width", "theme"), LOOKS)
def test_three_planes_of_a_volume_are_its_slices(
    scans: tuple[Store, NDArray[Any]], browser: Browser, width: int, theme: str
) -> None:
    store, volume = scans
    low, high = np.quantile(volume, [0.01, 0.99])
    with served(store.path) as address:
        seen = Seen(browser, address, width, theme)
        axes = seen.told("field", "#fields")["axes"]
        assert seen.page.locator("img.frame").count() == 3
        for number, axis in enumerate(axes):
            at = 2 * number + 1
            seen.page.locator(f"input[aria-label={axis}]").fill(str(at))
            of_place = "([n, at]) => document.querySelectorAll('img.frame')[n].src.includes(`at=${at}`)"
            seen.page.wait_for_function(of_place, arg=[number, at])
            found = drawn(seen, number)[..., 0]
            wanted = np.round(255 * (np.clip(volume.take(at, number), low, high) - low) / (high - low))
            turned = wanted.T[::-1] if found.shape == wanted.T.shape else wanted
            assert np.abs(found.astype(int) - turned).max() <= 1
        assert "mild" in seen.page.locator("main").inner_text()
        seen.check()


@pytest.mark.parametrize(("width", "theme"), LOOKS)
def test_runs_show_forecasts_scores_and_losses_as_they_were_written(
    run: tuple[Store, Path], browser: Browser, width: int, theme: str
) -> None:
    store, folder = run
    found = xarray.open_zarr(folder / "predictions.zarr").load()
    with served(store.path, [str(folder)]) as address:
        seen = Seen(browser, address, width, theme)
        scores = seen.told("scores", "#runs?id=s+2&step=2")[0]["scores"]
        error = {id_: (own.v - own.v_observed).values for id_, own in found.groupby("id")}
        rmse = {id_: float(np.sqrt(np.nanmean(each**2))) for id_, each in error.items()}
        assert scores["rmse"] == pytest.approx([rmse[str(id_)] for id_ in store.ids])
        worst = sorted(rmse, key=lambda id_: -rmse[id_])
        lines = seen.page.locator("[aria-label='series, worst first'] tr[data-id]")
        assert [line.split("\t")[0] for line in lines.all_inner_texts()] == worst
        cells = lines.first.locator("td").all_text_contents()
        assert float(cells[1]) == pytest.approx(rmse[worst[0]], rel=1e-3)
        seen.page.wait_for_function("() => window.zstoreView.shown.forecast")
        forecast = seen.page.evaluate("() => window.zstoreView.shown.forecast")[0]
        drawn_ = {line["kind"]: line for line in forecast["charts"][0]["lines"]}
        own = found.isel(window=found.id.values == "s 2")
        np.testing.assert_allclose(drawn_["forecast"]["y"], own.v.values[:, 1])
        np.testing.assert_allclose(drawn_["lower"]["y"], own.v_lower.values[:, 1, -1])
        curves = seen.page.evaluate("() => window.zstoreView.shown.curves")[0]
        logged = pd.read_csv(folder / "logs" / "metrics.csv")
        assert curves["val/mse"]["value"] == pytest.approx(logged["val/mse"].dropna().tolist())
        metrics = json.loads((folder / "test_metrics.json").read_text())
        head = seen.page.locator("main table").first.locator("th").all_text_contents()
        told = dict(zip(head, seen.page.locator("tr[data-id=c] td").all_text_contents(), strict=True))
        assert float(told["test rmse"]) == pytest.approx(metrics["test/rmse"], rel=1e-3)
        assert pixels(seen.page, "canvas[aria-label='map of the series']") > 3
        seen.check()


@pytest.mark.parametrize(("width", "theme"), LOOKS)
def test_kept_forecasts_are_shown_beside_what_has_come(
    run: tuple[Store, Path], browser: Browser, width: int, theme: str
) -> None:
    store, folder = run
    (path,) = (folder / "forecasts").glob("*.parquet")
    frame = pd.read_parquet(path)
    own = frame[frame["id"] == "s 3"].sort_values("step")
    with served(store.path, [str(folder)]) as address:
        seen = Seen(browser, address, width, theme)
        answer = seen.told("kept_forecast", "#runs?kept=s+3")[0]
        drawn_ = {line["kind"]: line for line in answer["charts"][0]["lines"]}
        np.testing.assert_array_equal(drawn_["forecast"]["y"], own["forecast"])
        np.testing.assert_array_equal(drawn_["upper"]["y"], own["upper80"])
        came = store.series("s 3").to_pandas()["v"].reindex(own["time"])
        assert drawn_["observed"]["y"] == [came.iloc[0], None, None]
        seen.page.wait_for_function("() => window.zstoreView.shown.kept_scores")
        scores = seen.page.evaluate("() => window.zstoreView.shown.kept_scores")[0]
        truth = np.array([store.series(id_).to_pandas()["v"].iloc[-1] for id_ in store.ids])
        error = frame[frame["step"] == 1].set_index("id")["forecast"][store.ids.tolist()].to_numpy() - truth
        assert scores["by_step"][0]["mae"] == pytest.approx(np.abs(error).mean())
        text = seen.page.locator("main").inner_text()
        assert "4 forecasts of rows to come: 0 scored, 4 in part, 0 waiting" in text
        seen.check()


@pytest.mark.parametrize(("width", "theme"), LOOKS)
def test_splits_are_counted_as_the_audit_does_and_a_window_is_that_of_the_loader(
    run: tuple[Store, Path], browser: Browser, width: int, theme: str
) -> None:
    store, folder = run
    data = module_of([str(folder / "config.yaml")], [f"--data.store={store.path}"])
    expected = audit(data).to_json()["parts"]
    batch = next(iter(data.loaders.in_order(data.index("val", data.evaluation_stride))))
    with served(store.path, [str(folder)]) as address:
        seen = Seen(browser, address, width, theme)
        shown = seen.told("window", "#splits?split=val&window=2")
        table = seen.page.locator("main table").first.locator("tbody tr")
        rows = [line.split("\t") for line in table.all_inner_texts()]
        assert [(row[0], row[1].replace(",", "")) for row in rows] == [
            (part["name"], str(part["n_windows"])) for part in expected
        ]
        inputs = np.array([line["y"] for line in shown["inputs"]], np.float64).T
        np.testing.assert_allclose(inputs, batch["x"][2].numpy(), atol=1e-6)
        wide = "() => [...document.querySelectorAll('figure.chart')].map((own) => own.scrollWidth - own.clientWidth)"
        assert set(seen.page.evaluate(wide)) == {0}  # whole, and not cut at the edge of its figure
        assert pixels(seen.page, "canvas[aria-label='targets of each split over time']") > 2
        seen.check()


def test_what_a_run_writes_while_it_is_looked_at_is_shown(
    run: tuple[Store, Path], browser: Browser, tmp_path: Path
) -> None:
    store, folder = run
    shutil.copytree(folder, tmp_path / "c", ignore=shutil.ignore_patterns("predictions.zarr", "forecasts", "logs"))
    with served(store.path, [str(tmp_path / "c")]) as address:
        seen = Seen(browser, address)
        seen.told("curves", "#runs")
        assert "none yet: python -m lightning_app predict" in seen.page.locator("main").inner_text()
        lines = (folder / "logs" / "metrics.csv").read_text().splitlines(keepends=True)
        n_losses = "(n) => window.zstoreView.shown.curves[0]['val/mse']?.step.length === n"
        (tmp_path / "c" / "logs").mkdir()
        logged = pd.read_csv(folder / "logs" / "metrics.csv")["val/mse"]
        for number, row in enumerate(np.flatnonzero(logged.notna()), 1):  # an epoch after the other
            (tmp_path / "c" / "logs" / "metrics.csv").write_text("".join(lines[: row + 2]))
            seen.page.wait_for_function(n_losses, arg=number, timeout=15_000)
        shutil.copytree(folder / "predictions.zarr", tmp_path / "c" / "predictions.zarr")
        seen.page.wait_for_function("() => window.zstoreView.shown.forecast", timeout=15_000)
        shutil.copytree(folder / "forecasts", tmp_path / "c" / "forecasts")
        seen.page.wait_for_function("() => window.zstoreView.shown.kept_forecast", timeout=30_000)
        seen.check()


def test_a_film_of_a_run_is_what_its_environment_drew(acted: tuple[Store, Path], browser: Browser) -> None:
    store, folder = acted
    report = json.loads((folder / "rollout.json").read_text())
    with Image.open(folder / "rollout_best.gif") as film:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)]
    with served(store.path, [str(folder)]) as address:
        seen = Seen(browser, address, 480)
        seen.told("films", "#runs")
        assert seen.page.locator("img.frame").count() == 2
        shown = drawn(seen)[..., :3]
        assert any(np.array_equal(shown, frame) for frame in frames)
        assert len(frames) > 1
        best = max(report["episodes"], key=lambda each: (each["max_reward"], -each["n_steps"]))
        text = seen.page.locator("main").inner_text()
        assert f"in {best['n_steps']} steps, seed {best['seed']}" in text
        assert "in 3 episodes" in text
        assert f"{report['mean_max_reward']:.4g}" in text
        seen.check()


def test_a_camera_is_shown_with_all_its_joints_stacked(browser: Browser, tmp_path: Path) -> None:
    aloha(tmp_path / "0.hdf5", n_rows=30, cameras=("cam",))
    zstore.ingest(tmp_path / "0.hdf5", tmp_path / "s.zarr", mapping="aloha")
    store = zstore.open_store(tmp_path / "s.zarr")
    vectors = [name for name, own in store.named_channels.items() if len(own) > 1]
    with served(str(tmp_path / "s.zarr")) as address:
        seen = Seen(browser, address)
        seen.told("series", "#series")
        titles = seen.page.locator("figure.chart .title").all_text_contents()
        assert [title.split()[0] for title in titles] == vectors[:4]
        seen.page.locator("figure.chart .u-over").first.hover(position={"x": 200, "y": 30})
        name = store.named_channels[vectors[0]]
        said = "(names) => names.some((name) => document.querySelector('figure.chart .title').innerText.includes(name))"
        seen.page.wait_for_function(said, arg=list(name))
        seen.check()
