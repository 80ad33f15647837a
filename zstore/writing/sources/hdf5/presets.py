"""Mappings of layouts that are published."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # One file a session; a compound data set with one row per sample. Labels that failed are rows of zeros.
    "emg2pose": {
        "episodes": "emg2pose",
        "id": "file",
        "time": {"data": "timeseries", "member": "time", "rate": 2000},
        "vectors": {
            "emg": {"data": "timeseries", "member": "emg"},
            "joint_angles": {"data": "timeseries", "member": "joint_angles"},
        },
        "missing where": {"joint_angles": "all zero"},
        "statics": "attributes",
    },
    # The same with two bands; keystrokes and prompts are long JSON attributes.
    "emg2qwerty": {
        "episodes": "emg2qwerty",
        "id": "file",
        "time": {"data": "timeseries", "member": "time", "rate": 2000},
        "vectors": {
            "emg_left": {"data": "timeseries", "member": "emg_left"},
            "emg_right": {"data": "timeseries", "member": "emg_right"},
        },
        "statics": "attributes",
    },
    # One file an episode; cameras as arrays, or as JPEG rows with zeros behind them.
    "aloha": {
        "episodes": "/",
        "id": "file",
        "time": "rows",
        "vectors": {
            "action": "action",
            "*": "observations/*",
            "base_action": {"data": "base_action", "optional": True},
        },
        "fields": {
            "*": {
                "data": "observations/images/*",
                "dimensions": ["y", "x", "colour"],
                "lengths": "/compress_len",
                "when": "compress",
            }
        },
        "statics": "attributes",
    },
    # All episodes in one file, as groups; lists of them under mask.
    "robomimic": {
        "episodes": "data/*",
        "id": "group",
        "time": "rows",
        "channels": {"rewards": "rewards", "dones": "dones", "*": "obs/*"},
        "vectors": {"actions": "actions", "states": {"data": "states", "optional": True}, "*": "obs/*"},
        "fields": {"*": {"data": "obs/*", "dimensions": ["y", "x", "colour"]}},
        "statics": "attributes",
        "splits": "mask",
    },
}
