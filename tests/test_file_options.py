"""What the user says of files that columns name, as fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zstore import UsageError
from zstore.format.payloads.chain import MERLIN, VolumeChain, Window
from zstore.writing.sources.named_files.options import FileOptions
from zstore.writing.sources.named_files.reader import FileReader, GridReader
from zstore.writing.sources.payloads import FieldSpec


def test_each_field_is_read_as_its_options_say(tmp_path: Path) -> None:
    (tmp_path / "chain.yaml").write_text(
        "orientation: LPS\nspacing: [1, 1, 2.5]\n"
        "window: {low: -100, high: 300, to_high: 255}\nshape: [64, 64, 32]\ndtype: uint8\n"
    )
    options = FileOptions(
        file={"image": "path", "frame": "archive", "scan": "nifti", "crop": "nifti"},
        file_root=tmp_path,
        file_limit="2GiB",
        file_position={"frame": "number"},
        file_member={"frame": "train"},
        file_chain={"scan": "merlin", "crop": tmp_path / "chain.yaml"},
        keep_encoded=["image"],
    )
    root, limit = str(tmp_path.resolve()), 2 << 30
    axes = ("grid_row", "grid_column")
    scan = FileReader(root, chain=MERLIN, limit_bytes=limit)
    crop = VolumeChain("LPS", (1.0, 1.0, 2.5), "linear", Window(-100, 300, 0, 255), (64, 64, 32), dtype="uint8")
    assert options.fields({"nifti": "HU"}) == (
        FieldSpec("image", FileReader(root, keep_encoded=True, limit_bytes=limit), "path", encoded=True, named=True),
        FieldSpec("frame", FileReader(root, "train", indexed=True, limit_bytes=limit), "archive", "number", named=True),
        FieldSpec("scan", scan, "nifti", units="HU", named=True),
        FieldSpec("scan_grid", GridReader(scan), "nifti", dimensions=axes, named=True),
        FieldSpec("crop", FileReader(root, chain=crop, limit_bytes=limit), "nifti", units="HU", named=True),
        FieldSpec(
            "crop_grid",
            GridReader(FileReader(root, chain=crop, limit_bytes=limit)),
            "nifti",
            dimensions=axes,
            named=True,
        ),
    )


def test_no_options_are_no_fields() -> None:
    assert FileOptions().fields() == ()


IMAGE: dict[str, Any] = {"file": {"image": "path"}, "file_root": "."}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"file": {"image": "path"}}, "--file image=… without --file-root"),
        ({"file_root": "."}, "--file-root without --file"),
        ({"file_limit": "1GiB"}, "--file-limit without --file"),
        ({**IMAGE, "file_root": "no such folder"}, "--file-root no such folder"),
        ({**IMAGE, "file_root": "file"}, "--file-root file"),
        ({**IMAGE, "file_root": "a\0b"}, "--file-root"),
        ({**IMAGE, "file_root": "s3://bucket/images"}, "--file-root s3://bucket/images"),
        ({**IMAGE, "file_limit": "much"}, "much"),
        ({**IMAGE, "file_limit": 0}, "--file-limit 0"),
        ({**IMAGE, "file": {"image": ""}}, "--file image="),
        ({**IMAGE, "file": {"": "path"}}, "--file =path"),
        ({**IMAGE, "file_position": {"image": ""}}, "--file-position image="),
        ({**IMAGE, "file_position": {"frame": "n"}}, "--file-position of 'frame'"),
        ({**IMAGE, "file_member": {"frame": "n"}}, "--file-member of 'frame'"),
        ({**IMAGE, "file_chain": {"frame": "merlin"}}, "--file-chain of 'frame'"),
        ({**IMAGE, "keep_encoded": ["frame"]}, "--keep-encoded of 'frame'"),
        ({"keep_encoded": ["frame"]}, "--keep-encoded of 'frame'"),
        ({**IMAGE, "file_chain": {"image": "merlin"}, "keep_encoded": ["image"]}, "--file-chain and --keep-encoded"),
        ({**IMAGE, "file_chain": {"image": "merlin"}, "file_position": {"image": "n"}}, "whose files are arrays"),
        ({**IMAGE, "file_chain": {"image": "merlyn"}}, "image=merlyn"),
        ({**IMAGE, "file_chain": {"image": "gone.yaml"}}, "gone.yaml"),
        ({**IMAGE, "file_chain": {"image": "empty.yaml"}}, "empty.yaml"),
        ({**IMAGE, "file_chain": {"image": "odd.yaml"}}, "spacings.*odd.yaml"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], names: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (("file", ""), ("empty.yaml", ""), ("odd.yaml", "spacings: [1, 1, 1]")):
        Path(name).write_text(text)
    with pytest.raises(UsageError, match=names):
        FileOptions(**options).fields()
