"""The recorded runs of a real ComfyUI: what its history said of each, and which files each has made."""

from __future__ import annotations

import copy
import functools
import json
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.trees import RECORDINGS, Clock, copy_recordings, recording

Json = dict[str, Any]

RESPONSES = RECORDINGS.parents[1] / "responses"
INDEX: Json = json.loads((RECORDINGS.parents[1] / "index.json").read_bytes())
SCENARIOS = [name for name, said in INDEX["scenarios"].items() if "prompt_id" in said]
REJECTED = [name for name, said in INDEX["scenarios"].items() if "rejected" in said]
NOT_STORED: list[str] = INDEX["named_in_history_but_not_in_the_stored_tree"]

QUOTED = "my render (final) v2 'q' \"dq\" #1 & 100%_00001_.png"
"""Was written, and is not stored since a quote is no name for every file system; tests put it there."""

AFTERWARDS = datetime(2026, 11, 24, tzinfo=UTC)
"""When the recordings were over."""

UNNAMED = {
    "dataset_unlisted": ["dataset_x/image_00001_00000.png"],
    "preview3d": ["preview3d_0e4610118e4044788099a1823f2eed27.glb"],
    "save3d_advanced": ["3d/Adv_00001.glb"],
    "tagged_job_id_embedded": ["tagged/vhs_00001.png"],
    "vhs_gif": ["vhs/loop_00001.png"],
    "vhs_mp4": ["AnimateDiff_00001.png"],
    "vhs_mp4_audio": ["AnimateDiff_00002.png", "AnimateDiff_00002.mp4"],
    "vhs_png_sequence": ["seq/frames_00001.png"]
    + [f"seq/frames_00001.00{number}.png" for number in range(1, 5)],
}
"""The files in the tree that no object in the history names, by the run that wrote them."""

LEFT_BY_HAND = [
    "hazard/ComfyUI_00007_.keep",
    "projects/p1/j1/within_00001_.png",
    "projects/p9/j9/moved.png",
]
"""Those that the experiments put or moved where they are."""

NOT_THERE_ANY_MORE = {
    "move_within_1": ["within_00001_.png"],
    "overwrite_batch_num_1": ["ow/b_0_00001_.png", "ow/b_1_00002_.png"],
}
"""What a later run has written over, or named anew after a move."""


@functools.cache
def _response(name: str) -> bytes:
    return (RESPONSES / f"{name}.json").read_bytes()


def run(name: str, version: str = "") -> tuple[str, Json]:
    """Return a recorded run's prompt id, and what the history said of it."""
    ((prompt_id, item),) = json.loads(_response(f"{version}history.{name}")).items()
    return prompt_id, item


def history(names: Iterable[str] = SCENARIOS, version: str = "") -> Json:
    """Return the history of runs in the order in which they were made."""
    found = [run(name, version) for name in names]
    return dict(sorted(found, key=lambda entry: window_of(entry[1])[0]))


def messages_of(item: Mapping[str, Any]) -> Json:
    return dict(item["status"]["messages"])


def window_of(item: Mapping[str, Any]) -> tuple[int, int]:
    """Return when a run began and ended, in milliseconds."""
    stamps = [content["timestamp"] for content in messages_of(item).values()]
    return stamps[0], stamps[-1]


def cached_nodes_of(item: Mapping[str, Any]) -> list[str]:
    nodes: list[str] = messages_of(item)["execution_cached"]["nodes"]
    return nodes


def named_by(item: Mapping[str, Any], kind: str = "output") -> dict[str, str]:
    """Return the paths of the objects that a history item lists under a type, with their nodes."""
    return {
        f"{entry['subfolder']}/{entry['filename']}".lstrip("/"): node_id
        for node_id, output in item["outputs"].items()
        for listed in output.values()
        for entry in listed
        if isinstance(entry, dict) and entry.get("type") == kind
    }


def made_by(name: str) -> list[str]:
    """Return the paths that a run wrote, whether or not something else stands there by now."""
    item = run(name)[1]
    cached = cached_nodes_of(item)
    named = [
        path for path, node in named_by(item).items() if node not in cached and "%03d" not in path
    ]
    return [*named, *UNNAMED.get(name, [])]


def cached_by(name: str) -> list[str]:
    """Return the paths that a run names and an earlier one wrote."""
    item = run(name)[1]
    return [path for path, node in named_by(item).items() if node in cached_nodes_of(item)]


def belongs_to(name: str) -> list[str]:
    """Return the paths of a run's files in the recorded tree, those of an earlier one that it names included."""
    gone = {*NOT_THERE_ANY_MORE.get(name, []), *NOT_STORED}
    return [path for path in (*made_by(name), *cached_by(name)) if path not in gone]


def within(item: Mapping[str, Any]) -> int:
    """Return a moment of a run, in nanoseconds; never a whole second, which is what a coarse clock says."""
    begins, ends = window_of(item)
    return (begins + ends) * 500_000 + 300_000


def set_time(path: Path, nanoseconds: int) -> None:
    os.utime(path, ns=(nanoseconds, nanoseconds))


def copy_with_times(root: Path, *, whole_seconds: bool = False) -> Path:
    """Copy the recorded tree, each file as old as the run that made it says."""
    copy_recordings(root)
    (root / QUOTED).write_bytes(recording("ComfyUI_00001_.png"))
    for entry in json.loads((RECORDINGS.parents[1] / "files.json").read_bytes())["output"]:
        set_time(root / entry["path"], entry["mtime"] * 10**9)
    for name in sorted(SCENARIOS, key=lambda name: window_of(run(name)[1])):
        moment = within(run(name)[1])
        for path in made_by(name):
            if (root / path).exists():
                set_time(root / path, moment - moment % 10**9 if whole_seconds else moment)
    return root


def later(
    name: str, prompt_id: str, by_ms: int, *, cached: Iterable[str] = (), **changes: Any
) -> Json:
    """Return what the history would say of a recorded run, had it been made at another time, or cached."""
    item: Json = copy.deepcopy(run(name)[1])
    item["prompt"][1] = prompt_id
    for kind, content in item["status"]["messages"]:
        content["timestamp"] += by_ms
        content["prompt_id"] = prompt_id
        if kind == "execution_cached":
            content["nodes"] = list(cached)
    return {**item, **changes}


def tagged(content: bytes, **tag: Any) -> bytes:
    """Return a PNG with our tag in it, as ComfyUI embeds every key of ``extra_pnginfo``."""
    return with_text(content, "comfy_files", {"project_id": None, "run": None, **tag})


def with_text(content: bytes, key: str, value: object) -> bytes:
    """Return a PNG with one more text chunk behind its header (PNG specification, 11.3.4.3)."""
    text = b"tEXt" + key.encode("latin-1") + b"\0" + json.dumps(value).encode("ascii")
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    header_end = 8 + 25
    return content[:header_end] + chunk + content[header_end:]


def pixels(number: int) -> bytes:
    """Return one of some PNGs that nothing is embedded in and that all differ."""
    width = 2 + number
    header = struct.pack(">IIBBBBB", width, 1, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * (width + 1))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def clock_afterwards() -> Clock:
    return Clock(AFTERWARDS)
