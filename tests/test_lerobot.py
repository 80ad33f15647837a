"""LeRobot folders: episodes are series, frames are rows, and nothing of `meta` is believed."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import few, stored
from hypothesis import given, settings
from hypothesis import strategies as st

import zstore
from zstore import SourceError, Store, UsageError, ZstoreError, cli, open_store
from zstore.inspection.lerobot import FolderInspection
from zstore.upkeep.compare import compare_sources
from zstore.writing.sources.lerobot import meta

FPS = 30
LENGTHS = {0: 4, 1: 6, 2: 3}
TASKS = ("pick up the cup", "put it down")
V2 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V3 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


def frames(episodes: Sequence[int], **changed: list[Any]) -> pa.Table:
    """The rows of some episodes."""
    pairs = [(episode, frame) for episode in episodes for frame in range(LENGTHS[episode])]
    columns: dict[str, Any] = {
        "observation.state": pa.array([[e + f / 8, -f / 4] for e, f in pairs], pa.list_(pa.float32(), 2)),
        "action": pa.array([[float(f)] * 3 for _, f in pairs], pa.list_(pa.float32())),
        "next.done": [f == LENGTHS[e] - 1 for e, f in pairs],
        "observation.image": pa.array([{"bytes": b"no", "path": "x.png"}] * len(pairs)),
        "timestamp": pa.array([f / FPS for _, f in pairs], pa.float32()),
        "frame_index": [f for _, f in pairs],
        "episode_index": [e for e, _ in pairs],
        "index": list(range(len(pairs))),
        "task_index": [e % 2 for e, _ in pairs],
    }
    return pa.table({**columns, **changed})


def info_of(version: str, template: str) -> dict[str, Any]:
    kinds = {"observation.state": "float32", "observation.image": "image", "observation.video.top": "video"}
    features = {name: {"dtype": kind, "shape": [2]} for name, kind in kinds.items()}
    return {"codebase_version": version, "fps": FPS, "data_path": template, "features": features, "robot_type": "arm"}


def lines(path: Path, documents: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))


def second(root: Path, episodes: Sequence[int] = (0, 1, 2), **changed: Any) -> Path:
    """A folder of layout 2: a file for each episode."""
    (root / "meta").mkdir(parents=True)
    (root / "data" / "chunk-000").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps({**info_of("v2.1", V2), **changed}))
    lines(root / "meta" / "tasks.jsonl", [{"task_index": n, "task": task} for n, task in enumerate(TASKS)])
    known = [{"episode_index": e, "tasks": [TASKS[e % 2]], "length": n} for e, n in LENGTHS.items()]
    lines(root / "meta" / "episodes.jsonl", known)
    for episode in episodes:
        pq.write_table(frames([episode]), episode_file(root, episode))
    return root


def third(root: Path) -> Path:
    """A folder of layout 3: several episodes in a file, and meta as Parquet."""
    (root / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    (root / "data" / "chunk-000").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info_of("v3.0", V3)))
    tasks = {"task_index": [0, 1], "__index_level_0__": list(TASKS)}
    pq.write_table(pa.table(tasks), root / "meta" / "tasks.parquet")
    episodes = {"episode_index": list(LENGTHS), "tasks": [[TASKS[e % 2]] for e in LENGTHS]}
    table = pa.table({**episodes, "length": list(LENGTHS.values()), "stats/action/min": [[0.0]] * 3})
    pq.write_table(table, root / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    pq.write_table(frames([0, 1]), root / "data" / "chunk-000" / "file-000.parquet")
    pq.write_table(frames([2]), root / "data" / "chunk-000" / "file-001.parquet")
    return root


def episode_file(root: Path, episode: int) -> Path:
    return root / "data" / "chunk-000" / f"episode_{episode:06d}.parquet"


def made(root: Path, path: Path, **options: Any) -> Store:
    zstore.ingest(root, path, **options)
    return open_store(path)


@pytest.mark.parametrize("layout", [second, third])
def test_an_episode_is_a_series_and_a_frame_a_row(layout: Any, tmp_path: Path) -> None:
    store = made(layout(tmp_path / "robot"), tmp_path / "s.zarr")
    assert store.ids.tolist() == ["0", "1", "2"]
    assert store.schema.id_name == "episode_index"
    channels = ["observation.state.0", "observation.state.1", "action.0", "action.1", "action.2", "next.done"]
    assert [channel.name for channel in store.schema.channels] == channels
    rows = store.sel(ids=["1"]).to_arrow().read_all()
    assert rows.column("time").to_pylist() == [0, 1, 2, 3, 4, 5]
    assert rows.column("observation.state.0").to_pylist() == [1 + frame / 8 for frame in range(6)]
    assert rows.column("next.done").to_pylist() == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("layout", [second, third])
def test_the_task_is_a_static_attribute_and_what_is_not_read_is_named(layout: Any, tmp_path: Path) -> None:
    receipt = zstore.ingest(layout(tmp_path / "robot"), tmp_path / "s.zarr")
    (task,) = open_store(tmp_path / "s.zarr").statics
    assert (task.name, [(task.categories or ())[code] for code in task.values]) == ("task", [*TASKS, TASKS[0]])
    assert "times count frames, 30 a second" in receipt.notes
    assert "images and videos are not read: observation.image, observation.video.top" in receipt.notes


def test_both_layouts_make_the_same_rows(tmp_path: Path) -> None:
    made(second(tmp_path / "a"), tmp_path / "a.zarr")
    made(third(tmp_path / "b"), tmp_path / "b.zarr", workers=1)
    of_sources = ("zarr.json", "manifest/")
    first, other = (
        {key: content for key, content in stored(tmp_path / name).items() if not key.startswith(of_sources)}
        for name in ("a.zarr", "b.zarr")
    )
    assert first == other


def test_rows_are_those_of_the_sources(tmp_path: Path) -> None:
    root = second(tmp_path / "robot")
    found = compare_sources(made(root, tmp_path / "s.zarr"), [root])
    assert (found.n_rows, found.n_different, found.n_unseen) == (13, 0, 0)


def test_frames_of_an_episode_with_several_tasks_say_which(tmp_path: Path) -> None:
    root = second(tmp_path / "robot")
    known = [{"episode_index": e, "tasks": list(TASKS), "length": n} for e, n in LENGTHS.items()]
    lines(root / "meta" / "episodes.jsonl", known)
    store = made(root, tmp_path / "s.zarr")
    assert "task_index" in [channel.name for channel in store.schema.channels]
    assert store.statics[0].categories == (" | ".join(TASKS),)


# Rows that are not what the folder says.


def test_a_frame_whose_timestamp_is_that_of_another_is_a_bad_row(tmp_path: Path) -> None:
    root = second(tmp_path / "robot")
    wrong = pa.array([0, 1 / FPS, 9 / FPS, 3 / FPS, 4 / FPS, 5.3 / FPS], pa.float32())
    pq.write_table(frames([1], timestamp=wrong), episode_file(root, 1))
    with pytest.raises(SourceError, match=r"timestamp 0\.3.* of frame 2; expected 0\.0333333 s from frame to frame"):
        zstore.ingest(root, tmp_path / "s.zarr")
    receipt = zstore.ingest(root, tmp_path / "s.zarr", on_bad_row="quarantine")
    assert (receipt.n_stored, receipt.n_quarantined) == (12, 1)


@pytest.mark.parametrize(
    ("column", "cells", "said"),
    [
        ("episode_index", [1, 1, 2, 1, 1, 1], "episode 2 in the file of another"),
        ("frame_index", [-1, 1, 2, 3, 4, 5], "frame_index -1"),
        ("frame_index", [0, 1, 2, 3, None, 5], "time"),
        ("timestamp", [0, None, 2 / FPS, 3 / FPS, 4 / FPS, 5 / FPS], "timestamp nan of frame 1"),
    ],
)
def test_rows_of_another_episode_or_without_a_frame_are_bad(
    column: str, cells: list[Any], said: str, tmp_path: Path
) -> None:
    root = second(tmp_path / "robot")
    pq.write_table(frames([1], **{column: cells}), episode_file(root, 1))
    with pytest.raises(SourceError, match=said):
        zstore.ingest(root, tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("layout", [second, third])
def test_an_episode_that_is_shorter_than_its_folder_says_is_refused(layout: Any, tmp_path: Path) -> None:
    root = layout(tmp_path / "robot")
    file = next(iter(sorted((root / "data").rglob("*.parquet"))))
    whole = pq.read_table(file)
    pq.write_table(whole.slice(1), file)
    with pytest.raises(SourceError, match=r"3 rows of episode 0; expected 4, as meta has it.*fetch the file again"):
        zstore.ingest(root, tmp_path / "s.zarr")


def test_episodes_without_a_file_and_files_without_an_episode_are_told(tmp_path: Path) -> None:
    root = second(tmp_path / "robot", episodes=(1, 2))
    lines(root / "meta" / "episodes.jsonl", [{"episode_index": e, "tasks": [], "length": LENGTHS[e]} for e in (0, 1)])
    notes = zstore.ingest(root, tmp_path / "s.zarr").notes
    assert f"1 of 3 episodes of {root} are in no data file: 0" in notes
    assert f"1 episodes of {root} are not in its meta, such as 2" in notes


@pytest.mark.parametrize("layout", [second, third])
def test_episodes_without_rows_are_told(layout: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a file of their own has none, or one of several episodes."""
    monkeypatch.setitem(LENGTHS, 1, 0)
    root = layout(tmp_path / "robot")
    if layout is second:
        pq.write_table(frames([0]).slice(0, 0), episode_file(root, 1))
    receipt = zstore.ingest(root, tmp_path / "s.zarr")
    assert open_store(tmp_path / "s.zarr").ids.tolist() == ["0", "2"]
    what = "have no rows and make no series" if layout is second else "are in no data file"
    assert f"1 of 3 episodes of {root} {what}: 1" in receipt.notes
    assert not any("no rows for" in note or "static" in note for note in receipt.notes)


def test_columns_that_say_which_frame_a_row_is_must_be_there(tmp_path: Path) -> None:
    root = second(tmp_path / "robot")
    pq.write_table(frames([0]).drop_columns(["frame_index"]), episode_file(root, 0))
    with pytest.raises(SourceError, match="no column 'frame_index'"):
        zstore.ingest(root, tmp_path / "s.zarr")


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("timestamp", ["0", "1", "2", "3", "4", "5"]),
        ("timestamp", pa.array(range(6), pa.timestamp("s"))),
        ("frame_index", [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        ("episode_index", ["1"] * 6),
    ],
)
def test_columns_of_another_type_than_they_should_have_are_refused(column: str, cells: Any, tmp_path: Path) -> None:
    root = second(tmp_path / "robot")
    pq.write_table(frames([1], **{column: cells}), episode_file(root, 1))
    with pytest.raises(SourceError, match=f"column '{column}' of type"):
        zstore.ingest(root, tmp_path / "s.zarr")


def test_numbers_of_episodes_are_exact(tmp_path: Path) -> None:
    root, number = third(tmp_path / "robot"), 2**53 + 1
    last = root / "data" / "chunk-000" / "file-001.parquet"
    pq.write_table(frames([2], episode_index=[number] * 3), last)
    episodes = {"episode_index": [0, 1, number], "tasks": [["a"], ["b"], ["c"]], "length": [4, 6, 3]}
    pq.write_table(pa.table(episodes), root / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    store = made(root, tmp_path / "s.zarr")
    assert store.ids.tolist() == ["0", "1", str(number)]
    assert [(store.statics[0].categories or ())[code] for code in store.statics[0].values] == ["a", "b", "c"]


def test_a_folder_of_links_is_read_as_one_of_files(tmp_path: Path) -> None:
    root = second(tmp_path / "robot {0}")
    for file in [*(root / "data").rglob("*.parquet"), root / "meta" / "info.json"]:
        kept = tmp_path / "blobs" / file.name
        kept.parent.mkdir(exist_ok=True)
        file.rename(kept)
        file.symlink_to(kept)
    (tmp_path / "link").symlink_to(root)
    assert made(tmp_path / "link", tmp_path / "s.zarr").schema.n_rows == sum(LENGTHS.values())


def test_a_folder_that_cannot_be_listed_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = second(tmp_path / "robot")

    def refused(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("zstore.writing.sources.lerobot.template.os.scandir", refused)
    with pytest.raises(SourceError, match=r"Permission denied.*robot"):
        zstore.ingest(root, tmp_path / "s.zarr")


def test_a_folder_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    root = second(tmp_path / "robot")
    zstore.ingest([root, f"{root}/."], tmp_path / "s.zarr")
    assert open_store(tmp_path / "s.zarr").schema.n_rows == sum(LENGTHS.values())


# What meta says.


@pytest.mark.parametrize(
    "template",
    [
        *("../other/episode_{episode_index:06d}.parquet", "/etc/{episode_index}.parquet", "data/../../x.parquet"),
        *(
            "data/{episode_index.__class__}.parquet",
            "data/{0.__class__}.parquet",
            "data/{}.parquet",
            "data/{video}.parquet",
        ),
        *(
            "data/{episode_index!r}.parquet",
            "data/{episode_index:{episode_index}}.parquet",
            "data//{file_index}.parquet",
        ),
        *(
            "data/{episode_index:999999999d}.parquet",
            "data/{episode_index",
            "data\\..\\x.parquet",
            "x.csv",
            "",
            "a\0.parquet",
        ),
        *(None, 5, ["data/x.parquet"], "data/" + "x" * 2000 + ".parquet"),
    ],
)
def test_a_template_that_is_no_path_below_the_folder_is_refused(template: Any, tmp_path: Path) -> None:
    root = second(tmp_path / "robot", data_path=template)
    (tmp_path / "other").mkdir()
    shutil.copy(episode_file(root, 0), tmp_path / "other")
    with pytest.raises(SourceError, match="data_path"):
        zstore.ingest(root, tmp_path / "s.zarr")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        *(({"fps": fps}, "fps") for fps in (0, -30, True, "30", None, 1e9, float("nan"), float("inf"))),
        *(({"codebase_version": version}, "codebase_version") for version in ("v1.6", None, 2.1, "v4.0")),
        *(({"features": features}, "features") for features in (None, 7, {"a": 1})),
        ({"data_path": "data/chunk-{episode_chunk:03d}/none_{episode_index:06d}.parquet"}, "no file as data_path"),
    ],
)
def test_an_info_that_makes_no_sense_is_refused_by_name(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=said):
        zstore.ingest(second(tmp_path / "robot", **changed), tmp_path / "s.zarr")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": ' * 50_000])
@pytest.mark.parametrize("name", ["info.json", "episodes.jsonl", "tasks.jsonl"])
def test_what_is_no_json_is_refused_by_name(name: str, content: bytes, tmp_path: Path) -> None:
    root = second(tmp_path / "robot")
    (root / "meta" / name).write_bytes(content)
    if not content and name != "info.json":  # no line is no episode
        assert len(made(root, tmp_path / "s.zarr")) == 3
        return
    with pytest.raises(SourceError, match=name):
        zstore.ingest(root, tmp_path / "s.zarr")


def test_documents_that_are_too_large_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = second(tmp_path / "robot")
    monkeypatch.setattr(meta, "_MOST_LINES", 100)
    with pytest.raises(SourceError, match=r"bytes; expected at most 100\. .*episodes\.jsonl"):
        zstore.ingest(root, tmp_path / "s.zarr")


@settings(max_examples=few(60))
@given(name=st.sampled_from(["info.json", "episodes.jsonl", "tasks.jsonl"]), data=st.data())
def test_whatever_meta_says_is_read_or_refused(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("robot")
    root = second(folder / "robot")
    content = bytearray((root / "meta" / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (root / "meta" / name).write_bytes(bytes(content))
    try:
        look = zstore.inspect(root)
        zstore.ingest(root, folder / "s.zarr", workers=1)
    except ZstoreError:
        assert not (folder / "s.zarr").exists()
        return
    assert look.questions == ()
    assert open_store(folder / "s.zarr").schema.n_rows == sum(LENGTHS.values())


# Options and verbs.


@pytest.mark.parametrize(("option", "value"), [("id", "x"), ("time", "timestamp"), ("layout", "wide")])
def test_what_the_folder_says_cannot_be_said_otherwise(option: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} {value} of LeRobot folders"):
        zstore.ingest(second(tmp_path / "robot"), tmp_path / "s.zarr", **{option: value})  # type: ignore[arg-type]


def test_channels_can_be_chosen_and_renamed(tmp_path: Path) -> None:
    store = made(second(tmp_path / "robot"), tmp_path / "s.zarr", channels=["action"], rename={"action": "a"})
    assert [channel.name for channel in store.schema.channels] == ["a.0", "a.1", "a.2"]


def test_folders_and_files_are_not_read_together(tmp_path: Path) -> None:
    root = second(tmp_path / "robot")
    with pytest.raises(UsageError, match="LeRobot folders and files"):
        zstore.ingest([root, episode_file(root, 0)], tmp_path / "s.zarr")


def test_new_episodes_are_appended_if_time_counts_the_same_frames(tmp_path: Path) -> None:
    root = second(tmp_path / "robot", episodes=(0, 1))
    made(root, tmp_path / "s.zarr")
    pq.write_table(frames([2]), episode_file(root, 2))
    receipt = zstore.append(root, tmp_path / "s.zarr")
    assert receipt is not None
    assert receipt.n_stored == LENGTHS[2]
    store = open_store(tmp_path / "s.zarr")
    assert store.ids.tolist() == ["0", "1", "2"]
    assert (store.statics[0].categories or ())[store.statics[0].values[2]] == TASKS[0]
    (root / "meta" / "info.json").write_text(json.dumps({**info_of("v2.1", V2), "fps": 15}))
    with pytest.raises(UsageError, match=r"15 frames a second; expected 30\.0 frames a second"):
        zstore.append(root, tmp_path / "s.zarr")


def test_inspect_says_what_a_folder_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = third(tmp_path / "robot")
    look = zstore.inspect(root)
    assert isinstance(look, FolderInspection)
    assert (look.encoding, look.fps, look.n_files, look.n_episodes) == ("LeRobot v3.0", 30.0, 2, 3)
    assert look.tasks == TASKS
    assert cli.main(["inspect", str(root)]) == 0
    printed = capsys.readouterr().out
    for said in ("2 data files, 3 episodes", "task: put it down", "not read: observation.video.top"):
        assert said in printed
    assert printed.splitlines()[-1] == look.command
    assert cli.main([*look.command.split()[1:-1], str(tmp_path / "s.zarr")]) == 0


@pytest.mark.parametrize("layout", [second, third])
def test_a_dry_run_looks_at_the_first_file(layout: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ingest", str(layout(tmp_path / "robot")), str(tmp_path / "s.zarr"), "--dry-run"]) == 0
    assert "rows" in capsys.readouterr().out
