"""Categories that change over time become a column for each word, in inputs and in what is known in advance."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_table

from lightning_app.data.columns.meaning import Meaning
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.views import Panel
from lightning_app.data.windows.splits import Split
from zstore import UsageError, append, ingest, open_store

HEADER = ["id", "t", "v", "sky", "shift"]
SKY = ["sun", "rain", "", "fog"]


def made(path: Path, ids: str = "ab", sky: list[str] = SKY) -> Path:
    """A store whose sky is missing at every third time; its shift never is."""
    rows = [[id_, t, t / 10, sky[(t + n) % len(sky)], "ND"[t % 2]] for n, id_ in enumerate(ids) for t in range(40)]
    ingest(write_table(path.with_suffix(".csv"), HEADER, rows), path, id="id", time="t")
    return path


def module(path: Path, **options: Any) -> WindowDataModule:
    usual: dict[str, Any] = {"channels": ["v", "sky"], "targets": ["v"], "future": ["shift"], "batch_size": 1000}
    cache = str(path.parent / "cache")
    return WindowDataModule(str(path), 4, 2, split=Split(sizes=(24, 8, 8)), cache=cache, **{**usual, **options})


def batch_of(data: WindowDataModule) -> dict[str, torch.Tensor]:
    batch: Any = next(iter(data.predict_dataloader()))
    return batch  # type: ignore[no-any-return]


def one_hot(words: list[str], known: list[str]) -> torch.Tensor:
    return torch.tensor([[float(word == each) for each in known] for word in words])


@pytest.mark.parametrize("residency", ["host", "stream", "device"])
def test_each_word_is_a_column_behind_the_others_and_a_missing_one_is_in_none(tmp_path: Path, residency: str) -> None:
    data = module(made(tmp_path / "s.zarr"), residency=residency, observed_inputs=True)
    batch, known = batch_of(data), list(data.store.channel("sky").categories or ())
    assert sorted(known) == ["fog", "rain", "sun"]
    first = int(batch["time"][0]) - 4
    texts = [SKY[(first + k) % 4] for k in range(4)]
    assert batch["x"][0, :, 2:].tolist() == one_hot(texts, known).tolist()
    assert batch["x"][0, :, 1].tolist() == [float(bool(text)) for text in texts]  # where the sky was observed
    shifts = ["ND"[(first + 4 + k) % 2] for k in range(2)]
    assert batch["x_future"][0].tolist() == one_hot(shifts, list(data.store.channel("shift").categories or ())).tolist()
    assert (data.shape.n_inputs, data.shape.n_future, data.shape.target_inputs) == (5, 2, [0])
    assert (batch["x"].shape[-1], batch["x_future"].shape[-1]) == (5, 2)


def test_series_of_a_panel_have_them_too(tmp_path: Path) -> None:
    alone, panel = module(made(tmp_path / "s.zarr")), module(tmp_path / "s.zarr", panel=Panel())
    apart, beside = batch_of(alone), batch_of(panel)
    for position in range(2):
        mine = apart["series"] == position
        assert torch.equal(beside["x"][:, :, position], apart["x"][mine])
        assert torch.equal(beside["x_future"][:, :, position], apart["x_future"][mine])


def test_codes_are_scaled_numbers_where_that_is_asked_for(tmp_path: Path) -> None:
    data = module(made(tmp_path / "s.zarr"), category_encoding="code", scaler={"sky": "minmax", "shift": "none"})
    batch = batch_of(data)
    assert (data.shape.n_inputs, data.shape.n_future) == (2, 1)
    assert set(batch["x"][..., 1].flatten().tolist()) <= {0.0, 0.5, 1.0}
    assert set(batch["x_future"].flatten().tolist()) == {0.0, 1.0}


def test_a_target_stays_one_channel_of_codes(tmp_path: Path) -> None:
    data = module(made(tmp_path / "s.zarr"), channels=["shift", "v"], targets=["shift"], future=["sky"])
    assert (data.shape.n_inputs, data.shape.n_targets, data.shape.n_future) == (2, 1, 3)
    assert data.shape.target_inputs == [0]


def test_another_store_is_read_by_the_words_of_the_checkpoint(tmp_path: Path) -> None:
    trained = module(made(tmp_path / "one.zarr", sky=["rain", "fog", "sun"]))
    state, expected = trained.state_dict(), batch_of(trained)
    other = made(tmp_path / "two.zarr", "b", sky=["sun"])
    frame = trained.store.series("a").to_pandas()
    rows = [["a", t, v, str(sky), "ND"[t % 2]] for t, (v, sky) in enumerate(zip(frame["v"], frame["sky"], strict=True))]
    append(write_table(tmp_path / "a.csv", HEADER, rows), other)
    assert list(open_store(other).channel("sky").categories or ()) != list(
        trained.store.channel("sky").categories or ()
    )
    used = module(other)
    used.load_state_dict(state)
    found = batch_of(used)
    for name in ("x", "x_future"):
        assert torch.equal(found[name][found["series"] == 0], expected[name][expected["series"] == 0])


@pytest.mark.parametrize("unknown", ["refuse", "own_column"])
def test_a_word_never_seen_is_refused_or_has_a_column_of_its_own(tmp_path: Path, unknown: str) -> None:
    trained = module(made(tmp_path / "one.zarr"), unknown=unknown)
    state = trained.state_dict()
    used = module(made(tmp_path / "two.zarr", sky=["sun", "hail"]), unknown=unknown)
    used.load_state_dict(state)
    if unknown == "refuse":
        with pytest.raises(UsageError, match=r"never seen .*hail"):
            batch_of(used)
        return
    batch, known = batch_of(used), list(trained.store.channel("sky").categories or ())
    assert used.shape.n_inputs == 1 + len(known) + 1
    first = int(batch["time"][0]) - 4
    texts = [["sun", "hail"][(first + k) % 2] for k in range(4)]
    assert batch["x"][0, :, 1:].tolist() == one_hot(texts, [*known, "hail"]).tolist()


def test_a_checkpoint_of_codes_keeps_them(tmp_path: Path) -> None:
    path = made(tmp_path / "s.zarr")
    coded = module(path, category_encoding="code")
    state, expected = coded.state_dict(), batch_of(coded)
    recorded = state["meaning"]
    del recorded["category_encoding"]  # as before there was a choice
    assert Meaning.from_json(recorded).category_encoding == "code"
    used = module(path)
    used.load_state_dict(state)
    assert torch.equal(batch_of(used)["x"], expected["x"])
    assert used.shape.n_inputs == 2


def test_a_checkpoint_of_columns_does_not_take_codes(tmp_path: Path) -> None:
    path = made(tmp_path / "s.zarr")
    state = module(path).state_dict()
    with pytest.raises(UsageError, match="category_encoding"):
        module(path, category_encoding="code").load_state_dict(state)


@pytest.mark.parametrize("scaler", [{"sky": "standard"}, {"shift": "minmax"}])
def test_a_scaler_of_such_columns_is_refused(tmp_path: Path, scaler: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="whose words become columns of 0 and 1; expected none"):
        batch_of(module(made(tmp_path / "s.zarr"), scaler=scaler))


def test_too_many_words_are_refused(tmp_path: Path) -> None:
    rows = [["a", t, t / 10, f"w{t}", "ND"[t % 2]] for t in range(1100)]
    ingest(write_table(tmp_path / "s.csv", HEADER, rows), tmp_path / "s.zarr", id="id", time="t")
    with pytest.raises(UsageError, match=r"'sky' with 1,100 words, a column for each; expected at most 1024"):
        module(tmp_path / "s.zarr").shape  # noqa: B018
    assert module(tmp_path / "s.zarr", category_encoding="code").shape.n_inputs == 2


def test_a_model_learns_from_words_what_it_cannot_from_their_codes(tmp_path: Path) -> None:
    effect = {"sun": 1.0, "rain": -2.0, "fog": 3.0}  # in no order that a code has
    random = np.random.default_rng(3)
    words = random.choice(list(effect), 400).tolist()
    rows = [["a", t, effect[word], word, "N"] for t, word in enumerate(words)]
    ingest(write_table(tmp_path / "s.csv", HEADER, rows), tmp_path / "s.zarr", id="id", time="t")
    errors = {}
    for encoding in ("one_hot", "code"):
        data = WindowDataModule(
            str(tmp_path / "s.zarr"), 1, 1, channels=["v"], targets=["v"], future=["sky"], batch_size=1000,
            split=Split(sizes=(0.8, 0.1, 0.1)), category_encoding=encoding, cache=str(tmp_path / "cache"),
        )  # fmt: skip
        batch: Any = next(iter(data.train_dataloader()))
        known = torch.cat([batch["x_future"][:, 0], torch.ones(len(batch["y"]), 1)], dim=1).double()
        truth = batch["y"][:, 0].double()
        errors[encoding] = float((known @ torch.linalg.lstsq(known, truth).solution - truth).abs().mean())
    assert errors["one_hot"] < 1e-6 < 0.1 < errors["code"]
