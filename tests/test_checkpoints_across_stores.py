"""A checkpoint forecasts the same rows alike in any store that has them, whatever else is there; or it is refused.

A model is trained on one store. Another one is made of the same rows, beside others: series are renamed, removed and
added, words, channels and static attributes too, rows are appended, the store is compacted. Then every forecast of rows
that both have is compared, by id and time: of single series, and of panels, whose models may have weights by node.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import few, write_table
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pytorch_lightning.trainer.states import TrainerFn

import zstore
from lightning_app.data.columns.meaning import Meaning
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.windows.splits import Split
from lightning_app.models import LSTM, NLinear, PatchSTG
from lightning_app.models.patches import Patches
from zstore import NotFoundError, Store, UsageError, ingest, open_store

N_ROWS = 16
LAST = ("2001-01-01", "2001-01-02", "2001-01-03", "2002-01-01")  # dates that leave nearly all to test
Forecasts = dict[tuple[str, int], np.ndarray[Any, np.dtype[np.float64]]]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*:FutureWarning")  # Lightning's


@dataclass(frozen=True)
class Series:
    """Of one id: a static word, a static number, (row,) numbers and words."""

    word: str
    size: float
    rain: tuple[float | None, ...]
    flow: tuple[float | None, ...]
    kind: tuple[str, ...]


@dataclass(frozen=True)
class World:
    """What a store is made of."""

    series: dict[str, Series]
    channels: tuple[str, ...] = ("rain", "flow", "kind")
    statics: tuple[str, ...] = ("word", "size")
    n_first: int = N_ROWS  # rows that are there before an append
    compacted: bool = False
    first: tuple[str, ...] | None = None  # series that are there before an append
    day: int = 1

    def rows(self, ids: tuple[str, ...], low: int, high: int) -> list[list[Any]]:
        found = []
        for id_ in ids:
            for row in range(low, high):
                own = self.series[id_]
                values = {
                    "rain": own.rain[row],
                    "flow": own.flow[row],
                    "kind": own.kind[row],
                    "more": row % 5,
                    "other": f"w{row % 3}",
                }
                date = np.datetime64("2001-01-01") + np.timedelta64(row * self.day, "D")
                found.append([id_, date, *("" if values[name] is None else values[name] for name in self.channels)])
        return found

    def make(self, folder: Path) -> Store:
        folder.mkdir(parents=True, exist_ok=True)
        ids, header = tuple(sorted(self.series)), ["id", "date", *self.channels]
        before = ids if self.first is None else self.first
        lines = [
            [id_, *(getattr(own, name) if name != "extra" else len(id_) for name in self.statics)]
            for id_, own in self.series.items()
        ]
        options: dict[str, Any] = (
            {"static": write_table(folder / "static.csv", ["id", *self.statics], lines)} if self.statics else {}
        )
        source = write_table(folder / "rows.csv", header, self.rows(before, 0, self.n_first))
        path = folder / "s.zarr"
        ingest(source, path, id="id", time="date", freq=f"{self.day}D", **options)
        later = self.rows(before, self.n_first, N_ROWS) + self.rows(tuple(set(ids) - set(before)), 0, N_ROWS)
        if later:
            zstore.append(write_table(folder / "later.csv", header, later), path, **options)
        if self.compacted:
            zstore.compact(path)
        return open_store(path)


NUMBERS = st.one_of(st.none(), st.integers(-40, 40).map(lambda n: n / 4))
WORDS = ("m", "z", "k")
IDS = ("b", "d", "f", "h")


@st.composite
def series(draw: st.DrawFn, words: tuple[str, ...] = WORDS) -> Series:
    random = np.random.default_rng(draw(st.integers(0, 2**31)))
    missing = draw(st.booleans())

    def numbers() -> tuple[float | None, ...]:
        return tuple(
            None if missing and random.random() < 0.1 else round(float(v), 2) for v in random.normal(size=N_ROWS)
        )

    kind = tuple(random.choice(list(words), N_ROWS).tolist())
    return Series(draw(st.sampled_from(words)), float(random.integers(1, 50)), numbers(), numbers(), kind)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[World, World]:
    """A store to train on, and another one that has some of its rows."""
    ids = draw(st.lists(st.sampled_from(IDS), min_size=2, max_size=4, unique=True))
    first = World({id_: draw(series()) for id_ in sorted(ids)})
    second = dict(first.series)
    for id_ in draw(st.lists(st.sampled_from(sorted(ids)), max_size=len(ids) - 1, unique=True)):
        own = second.pop(id_)
        if draw(st.booleans()):  # renamed
            second[draw(st.sampled_from("aceg")) + id_] = own
    words = draw(st.sampled_from([WORDS, ("aaa", "m", "zz"), ("k",)]))
    for id_ in draw(st.lists(st.sampled_from(["a", "c", "i"]), max_size=2, unique=True)):
        second[id_] = draw(series(words))
    channels = draw(
        st.permutations(["rain", "flow", "kind", *draw(st.sampled_from([[], ["more"], ["more", "other"]]))])
    )
    statics = draw(st.permutations(["word", "size", *draw(st.sampled_from([[], ["extra"]]))]))
    if draw(st.integers(0, 9)) == 0:
        channels, statics = draw(st.sampled_from([(["rain", "flow"], statics), (channels, ["size"])]))
    appended = sorted(second)[: draw(st.integers(1, len(second)))]
    other = World(
        dict(draw(st.permutations(sorted(second.items())))),
        tuple(channels),
        tuple(statics),
        draw(st.integers(2, N_ROWS)),
        draw(st.booleans()),
        tuple(appended),
        draw(st.sampled_from([1] * 9 + [2])),
    )
    return first, other


OPTIONS = st.fixed_dictionaries(
    {
        "channels": st.sampled_from([["rain", "kind", "flow"], ["flow", "kind"]]),
        "targets": st.sampled_from([["flow"], ["flow", "rain"]]),
        "future": st.sampled_from([None, ["kind"]]),
        "statics": st.sampled_from([None, ["word", "size"], ["size", "word"]]),
        "scale_by": st.sampled_from(["channel", "series"]),
        "observed_inputs": st.booleans(),
        "time_features": st.sampled_from([None, ["day_of_year"]]),
        "unknown": st.sampled_from(["refuse", "own_column"]),
        "residency": st.sampled_from(["host", "device", "stream"]),
    }
)
MODELS = st.sampled_from([LSTM, LSTM, NLinear, PatchSTG])
PANELS = st.sampled_from(["none", "none", "all", "shared"])


def module(store: Store, **options: Any) -> WindowDataModule:
    given: dict[str, Any] = {"lookback": 3, "horizon": 2, "batch_size": 8, "memory_budget": "64MB", **options}
    return WindowDataModule(str(store.path), cache=str(Path(store.path).parent / "cache"), **given)


def forecasts(model: Any, data: WindowDataModule) -> Forecasts:
    """What a model predicts of every window of test, in source units, by id and time of the first target."""
    found: Forecasts = {}
    ids = data.store.ids
    model.eval()
    for batch in data.predict_dataloader():
        with torch.no_grad():
            scaled, flat = model.outputs(batch)
        values = data.to_source(scaled, flat["series"]).numpy()
        keys = zip(flat["series"].tolist(), flat["time"].tolist(), strict=True)
        found |= {(str(ids[s]), t): value for (s, t), value in zip(keys, values, strict=True)}
    return found


SIZES: dict[Any, dict[str, Any]] = {
    LSTM: {"hidden": 5},
    NLinear: {},
    PatchSTG: {"depth": 0, "layers": 1, "input_width": 4, "node_width": 4, "time_width": 4},
}


def model_of(data: WindowDataModule, kind: Any) -> Any:
    torch.manual_seed(3)
    return kind(data.shape, **SIZES[kind], **({"leaf_size": data.view.n_nodes} if kind is PatchSTG else {}))


def fitted(data: WindowDataModule, kind: Any) -> Any:
    """A model with some weights; its patches, which a fit finds, in an order that is not that of the nodes."""
    model = model_of(data, kind)
    if kind is PatchSTG:
        positions = np.random.default_rng(1).normal(size=(data.view.n_nodes, 2))
        model.place(Patches.of(positions, positions, 0))
    return model


def kept(data: WindowDataModule, model: Any, folder: Path) -> Any:
    """A checkpoint, written and read."""
    checkpoint = {"WindowDataModule": data.state_dict(), "state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, folder / "c.ckpt")
    return torch.load(folder / "c.ckpt", weights_only=True)


def restored(checkpoint: Any, data: WindowDataModule, kind: Any) -> Any:
    """The model of a checkpoint, for another store: as the command line makes it."""
    data.obey(Meaning.from_json(checkpoint["WindowDataModule"]["meaning"]))
    model = model_of(data, kind)
    model.on_load_checkpoint(checkpoint)
    model.load_state_dict(checkpoint["state_dict"])
    data.trainer = bystander(model)
    data.load_state_dict(copy.deepcopy(checkpoint["WindowDataModule"]))
    return model


def bystander(model: Any) -> Any:
    """What the data module asks of Lightning's trainer where a model is tested."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    state, world = SimpleNamespace(fn=TrainerFn.PREDICTING), {"global_rank": 0, "world_size": 1, "num_devices": 1}
    return SimpleNamespace(
        **world, strategy=strategy, state=state, lightning_module=model, current_epoch=0, overfit_batches=0
    )


def same_rows(first: World, other: World) -> set[str]:
    return {id_ for id_, own in other.series.items() if first.series.get(id_) == own}


def across(folder: Path, pair: tuple[World, World], asked: dict[str, Any], named: bool, kind: Any, panel: str) -> str:
    """Whether forecasts are equal, or refused."""
    first, other = pair
    options, nodes = with_panel(asked, kind, panel, pair)
    kind = kind if kind is LSTM or (panel != "none" and kind is PatchSTG) else NLinear
    kind = LSTM if kind is NLinear and not set(options["targets"]) <= set(options["channels"]) else kind
    split = Split(dates=("2001-01-01", "2001-01-09", "2001-01-10", "2002-01-01"))
    data = module(first.make(folder / "1"), split=split, **options)
    model = fitted(data, kind)
    wanted = forecasts(model, data)
    checkpoint = kept(data, model, folder)
    other_options = dict(options)
    if not named:  # what a checkpoint says need not be said again
        for name in ("channels", "targets", "future", "statics", "time_features"):
            other_options[name] = None
    elif options["channels"]:
        other_options["channels"] = options["channels"][::-1]
        other_options["statics"] = options["statics"] and options["statics"][::-1]
    nodes_of = [set(world.series) if nodes is None else nodes for world in pair]
    weights_fit = kind is not PatchSTG or nodes_of[0] == nodes_of[1]
    refusal = ""
    try:
        after = module(other.make(folder / "2"), split=split, **other_options)
        found = forecasts(restored(checkpoint, after, kind), after)
    except (UsageError, NotFoundError) as error:
        refusal, found = str(error), {}
    strange = unseen(first, other, options, nodes_of[1]) and options["unknown"] == "refuse"
    if lacks(other, options) or strange or not weights_fit:
        assert refusal, "not refused"
        return "refused"
    assert not refusal
    assert after.targets == data.targets
    same = same_rows(first, other) & nodes_of[0] & nodes_of[1]
    if kind is PatchSTG and same != nodes_of[1]:  # nodes see each other
        return "other rows"
    both = [key for key in wanted if key in found and key[0] in same]
    for key in both:
        np.testing.assert_allclose(found[key], wanted[key], rtol=1e-6, atol=1e-6, err_msg=str(key))
    assert {key[0] for key in both} == same
    return "equal" if both else "nothing in common"


def with_panel(
    asked: dict[str, Any], kind: Any, panel: str, pair: tuple[World, World]
) -> tuple[dict[str, Any], set[str] | None]:
    """Options for a panel of all series, or of those with the same rows in both stores; and its ids, None for all."""
    if panel == "none":
        return asked, None
    nodes = same_rows(*pair) if panel == "shared" else set()
    options = {**asked, "panel": Panel(ids=sorted(nodes, reverse=True) or None), "time_encoding": "index"}
    if kind is PatchSTG:
        options |= {"future": None, "time_features": asked["time_features"] or ["day_of_week", "day_of_year"]}
    return options, nodes or None


def unseen(first: World, other: World, options: dict[str, Any], used: set[str]) -> bool:
    """Whether windows of test in the other store have anything that the model has never seen."""
    known = {word for own in first.series.values() for word in own.kind}
    words = {own.word for own in first.series.values()}
    begin = 0 if "panel" in options else 6  # of a panel, no series may have unknown words anywhere
    for id_ in used:
        own = other.series[id_]
        new_id = options["scale_by"] == "series" and id_ not in first.series
        new_word = options["statics"] is not None and own.word not in words
        if new_id or new_word or not set(own.kind[begin:]) <= known:
            return True
    return False


def lacks(other: World, options: dict[str, Any]) -> bool:
    """Whether the other store has not what the model was trained with."""
    return (
        other.day != 1
        or "kind" not in other.channels
        or (options["statics"] is not None and "word" not in other.statics)
    )


@settings(max_examples=few(30))
@given(worlds(), OPTIONS, st.booleans(), MODELS, PANELS)
def test_the_same_rows_have_the_same_forecasts_in_another_store_or_it_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
    pair: tuple[World, World],
    options: dict[str, Any],
    named: bool,
    kind: Any,
    panel: str,
) -> None:
    event(
        f"{kind.__name__}, panel {panel}: "
        + across(tmp_path_factory.mktemp("across"), pair, options, named, kind, panel)
    )


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=500)
@given(worlds(), OPTIONS, st.booleans(), MODELS, PANELS)
def test_the_same_rows_have_the_same_forecasts_in_five_hundred_other_stores_or_they_are_refused(
    tmp_path_factory: pytest.TempPathFactory,
    pair: tuple[World, World],
    options: dict[str, Any],
    named: bool,
    kind: Any,
    panel: str,
) -> None:
    event(
        f"{kind.__name__}, panel {panel}: "
        + across(tmp_path_factory.mktemp("across"), pair, options, named, kind, panel)
    )
