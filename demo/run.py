"""Run the main job for a person to see: an app completes jobs, and their files find their places.

A copy of real ComfyUI output is put below ``build/demo``, ``example_app.py`` is started on it as a server of
its own, and jobs are completed over HTTP. Exit code 0 says that everything went as it should.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "tests/data/comfyui/outputs/output"
OUTPUT = ROOT / "build/demo/output"
SHOWN_FILES = ("batch_*.png", "AnimateDiff_*", "ComfyUI_*.png")
START_TIMEOUT_S = 20


def main() -> int:
    """Prepare the folder, run the jobs or serve, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", action="store_true", help="keep the app running instead")
    parser.add_argument("--port", type=int, default=5000, help="where --serve listens")
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.port)
    prepare()
    before = checksums()
    with running_app() as base:
        problems = run_jobs(base)
    say("What `flask files status` says")
    print(flask("files", "status"))
    if checksums() != before:
        problems.append("the bytes below the folder are not those from before")
    return conclude(problems)


def prepare() -> None:
    """Lay a fresh copy of the recorded output."""
    shutil.rmtree(OUTPUT.parent, ignore_errors=True)
    shutil.copytree(RECORDED, OUTPUT)


def checksums() -> list[str]:
    """Return the SHA-256 of every output file, wherever it lies: moves must not change this list."""
    ours = {OUTPUT / "file_metadata.json", *(OUTPUT / ".comfy_files").rglob("*")}
    files = [path for path in OUTPUT.rglob("*") if path.is_file() and path not in ours]
    return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in files)


def run_jobs(base: str) -> list[str]:
    """Complete the jobs over HTTP, show what happens, and return what went wrong."""
    problems: list[str] = []
    say("ComfyUI's folder before (some of it)")
    show_flat()
    named = {
        "portraits_7": [
            {"filename": f"batch_{n:05}_.png", "subfolder": "", "type": "output"}
            for n in range(1, 5)
        ],
        "clip_8": ["AnimateDiff_00001.mp4", "AnimateDiff_00001.png"],
        "lost_9": ["never_written_00001_.png"],
    }
    expected = {"portraits_7": 4, "clip_8": 2, "lost_9": 0}
    for job_id, files in named.items():
        post(f"{base}/api/jobs", {"job_id": job_id, "project_id": "tokyo_debt_series"})
        say(f"POST /api/jobs/{job_id}/complete answers")
        completed = {"project_id": "tokyo_debt_series", "files": files}
        answer = post(f"{base}/api/jobs/{job_id}/complete", completed)
        show_answer(answer)
        if answer.get("file_count") != expected[job_id] or answer.get("status") != "completed":
            problems.append(f"{job_id} should have {expected[job_id]} files and be completed")
    say("GET /api/files/jobs/lost_9 says why it has none")
    lost = get(f"{base}/api/files/jobs/lost_9")
    print(json.dumps(lost, indent=2))
    if not lost.get("reason"):
        problems.append("the job without files does not say why")
    say("Completing a job again changes nothing")
    again = post(f"{base}/api/jobs/clip_8/complete", {"files": named["clip_8"]})
    kept = [record["path"] for record in again["organized_files"]]
    print("\n".join(kept))
    if kept != [record["path"] for record in get(f"{base}/api/files/jobs/clip_8")["files"]]:
        problems.append("a second completion answered other files")
    say("The folder after (the same part, and projects/tokyo_debt_series/)")
    show_flat()
    show_tree(OUTPUT / "projects/tokyo_debt_series")
    return problems


def conclude(problems: list[str]) -> int:
    """Say the result, and what to do next."""
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    if problems:
        return 1
    say("All as it should be")
    print(
        f"Look at {OUTPUT.relative_to(ROOT)}/ and its file_metadata.json, or keep the app running: make serve"
    )
    return 0


def serve(port: int) -> int:
    """Keep the app running in the foreground over the demo's folder."""
    if not OUTPUT.is_dir():
        prepare()
    print(
        f"Serving {OUTPUT.relative_to(ROOT)}/ on http://127.0.0.1:{port}; try /api/files/status. Ctrl-C ends it."
    )
    command = [sys.executable, "-m", "flask", "--app", "example_app", "run", "--port", str(port)]
    with contextlib.suppress(KeyboardInterrupt):
        return subprocess.run(command, cwd=ROOT, env=environment(), check=False).returncode
    return 0


@contextlib.contextmanager
def running_app() -> Iterator[str]:
    """Run the example app as a server of its own and give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "flask", "--app", "example_app", "run", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL
    ) as server:
        try:
            base = f"http://127.0.0.1:{port}"
            wait_for(f"{base}/api/jobs", server)
            yield base
        finally:
            server.terminate()


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers.

    Raises:
        SystemExit: It ended, or did not answer in time.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            get(address)
            return
        time.sleep(0.1)
    sys.exit("The example app did not start; try: flask --app example_app run")


def environment() -> dict[str, str]:
    """Return the environment in which the app finds its folder."""
    return {**os.environ, "COMFY_FILES_OUTPUT_DIR": str(OUTPUT), "PYTHONPATH": str(ROOT)}


def flask(*words: str) -> str:
    """Run a flask command on the example app and return what it prints."""
    command = [sys.executable, "-m", "flask", "--app", "example_app", *words]
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(),
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return ran.stdout.rstrip()


def post(address: str, body: dict[str, Any]) -> dict[str, Any]:
    """POST a JSON body and return the JSON answer."""
    return _answer(
        urllib.request.Request(  # noqa: S310 - our own server
            address, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
    )


def get(address: str) -> dict[str, Any]:
    """GET a JSON answer."""
    return _answer(urllib.request.Request(address))  # noqa: S310 - our own server


def _answer(request: urllib.request.Request) -> dict[str, Any]:
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - our own server
        answer: dict[str, Any] = json.load(response)
        return answer


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n── {text} ".ljust(100, "─"))


def show_flat() -> None:
    """Print the files of the flat folder that the demo is about."""
    names = sorted(path.name for pattern in SHOWN_FILES for path in OUTPUT.glob(pattern))
    print("output/")
    for name in names:
        print(f"├── {name}")
    print("└── …")


def show_tree(folder: Path, indent: str = "") -> None:
    """Print a folder as a tree."""
    if not indent:
        print(f"{folder.relative_to(OUTPUT)}/")
    entries = sorted(folder.iterdir())
    for entry in entries:
        is_last = entry == entries[-1]
        print(f"{indent}{'└── ' if is_last else '├── '}{entry.name}{'/' if entry.is_dir() else ''}")
        if entry.is_dir():
            show_tree(entry, indent + ("    " if is_last else "│   "))


def show_answer(answer: dict[str, Any]) -> None:
    """Print a completion's answer: the first record whole, of the others what tells them apart."""
    first, *others = answer["organized_files"] or [None]
    short = [
        {key: record[key] for key in ("path", "generation_type", "original_path")}
        for record in others
    ]
    shown = {**answer, "organized_files": [*([first] if first else []), *short]}
    print(json.dumps(shown, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
