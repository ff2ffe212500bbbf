from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_comfy_files.core.layout import DOCUMENT
from tests.conftest import MakeTree
from tests.trees import Entry, Fifo, Link, outputs, read_tree, recording
from tests.web.answers import (
    BATCH,
    BATCH_BYTES,
    PREFIX,
    answer_of,
    assert_problem,
    assert_reconciles,
    assert_record,
    history_files,
    kept,
    organize,
    organized,
    png_size,
    tally,
)
from tests.web.conftest import MakeHost, Register, lock_held_elsewhere

READS = ["/jobs/batch", "/projects/default", "/status", "/0123456789abcdef0123456789abcdef"]


def test_organizing_a_batch_answers_every_key_of_every_file(
    client: FlaskClient, output_root: Path
) -> None:
    answer = organized(client, {"job_id": "batch", "project_id": "tokyo_debt_series"})

    stem = f"projects/tokyo_debt_series/batch/batch_{answer['organized_files'][0]['timestamp']}"
    for number, (record, name) in enumerate(zip(answer["organized_files"], BATCH, strict=True), 1):
        assert_record(
            record,
            output_root,
            name,
            path=f"{stem}_image{'' if number == 1 else f'_{number}'}.png",
            job_id="batch",
            project_id="tokyo_debt_series",
            **png_size(recording(name)),
        )
    operation_id = answer["operation_id"]
    assert len(operation_id) == 32
    assert answer == {
        "job_id": "batch",
        "project_id": "tokyo_debt_series",
        "organized_files": answer["organized_files"],
        "file_count": 4,
        "found": tally(4, BATCH_BYTES),
        "moved": tally(4, BATCH_BYTES),
        "already_there": tally(0, 0),
        "skipped": [],
        "failed": [],
        "operation_id": operation_id,
    }


def test_organizing_moves_the_files_of_the_job_and_nothing_else(
    client: FlaskClient, output_root: Path
) -> None:
    before = outputs(output_root)
    answer = organized(client, {"job_id": "batch"})
    moved = {record["original_path"]: record["path"] for record in answer["organized_files"]}
    assert outputs(output_root) == {
        moved.get(path, path): content for path, content in before.items()
    }


def test_files_are_taken_as_the_history_of_comfyui_lists_them(
    client: FlaskClient, output_root: Path
) -> None:
    said = {
        "job_id": "clip_1",
        "project_id": "anime",
        "prompt_id": "d6cf22c3-3832-4979-b2f9-5c00d35444dc",
        "files": history_files("vhs_mp4"),
    }
    answer = organized(client, said)
    record, preview = answer["organized_files"]
    assert preview["original_path"] == "AnimateDiff_00001.png", (
        "its first frame, which is not named"
    )
    assert_record(
        record,
        output_root,
        "AnimateDiff_00001.mp4",
        path=f"projects/anime/clip_1/clip_1_{record['timestamp']}_video.mp4",
        job_id="clip_1",
        project_id="anime",
        prompt_id="d6cf22c3-3832-4979-b2f9-5c00d35444dc",
        evidence="files",
        file_type="video",
        file_extension=".mp4",
        media_type="video/mp4",
        generation_type="video",
        width=64,
        height=record["height"],
        duration_s=1.0,
    )


def test_every_file_that_was_found_is_accounted_for(client: FlaskClient, output_root: Path) -> None:
    (output_root / "link.png").symlink_to(BATCH[3])
    named = [
        *history_files("save_and_preview"),
        BATCH[0],
        "gone.png",
        "link.png",
        "ep01",
        "inbox/33333333-3333-4333-8333-333333333333/c_00001_.png",
    ]
    answer = organized(client, {"job_id": "mixed", "files": named})
    assert [record["original_path"] for record in answer["organized_files"]] == [
        "mix_00001_.png",
        BATCH[0],
    ]
    assert {entry["path"]: entry["reason"] for entry in answer["skipped"]} == {
        "ComfyUI_temp_ifyey_00001_.png": "not_an_output",
        "gone.png": "not_found",
        "link.png": "link",
        "ep01": "directory",
        "inbox/33333333-3333-4333-8333-333333333333/c_00001_.png": "belongs_to_another_job",
    }
    assert (answer["found"]["files"], answer["moved"]["files"]) == (7, 2)
    assert_reconciles(answer)


def test_organizing_again_answers_the_same_and_moves_nothing(
    client: FlaskClient, output_root: Path
) -> None:
    first = organized(client, {"job_id": "batch"})
    before = kept(output_root)
    second = organized(client, {"job_id": "batch"})
    assert second == {
        **first,
        "moved": tally(0, 0),
        "already_there": tally(4, BATCH_BYTES),
    }
    assert kept(output_root) == before


def test_new_files_of_a_job_are_added_to_those_it_has(
    client: FlaskClient, make_tree: MakeTree, output_root: Path
) -> None:
    first = organized(client, {"job_id": "batch"})
    make_tree({"batch_00009_.png": recording("pv_00001_.png")})
    second = organized(client, {"job_id": "batch"})
    assert second["organized_files"][:4] == first["organized_files"]
    assert [record["original_path"] for record in second["organized_files"][4:]] == [
        "batch_00009_.png"
    ]
    assert second["moved"] == tally(1, len(recording("pv_00001_.png")))
    assert second["already_there"] == tally(4, BATCH_BYTES)
    assert not (output_root / "batch_00009_.png").exists()


@pytest.mark.parametrize("url", [f"{PREFIX}/jobs/batch", "/api/jobs/batch/files"])
def test_a_job_answers_every_key_under_both_addresses(client: FlaskClient, url: str) -> None:
    answer = organized(client, {"job_id": "batch"})
    assert answer_of(client.get(url)) == {
        "job_id": "batch",
        "project_id": "default",
        "files": answer["organized_files"],
        "file_count": 4,
        "total_size": BATCH_BYTES,
        "created_at": answer["organized_files"][0]["created_at"],
        "pinned": False,
        "tags": [],
        "runs": [],
        "reason": None,
        "next_cursor": None,
    }


def test_a_job_of_which_no_file_is_there_is_known_and_says_why(client: FlaskClient) -> None:
    answer = organized(client, {"job_id": "lost", "files": ["lost_00001_.png"]})
    assert (answer["organized_files"], answer["file_count"]) == ([], 0)
    assert answer["skipped"] == [{"path": "lost_00001_.png", "reason": "not_found", "bytes": 0}]
    assert_reconciles(answer)
    job = answer_of(client.get(f"{PREFIX}/jobs/lost"))
    assert (job["files"], job["file_count"], job["total_size"]) == ([], 0, 0)
    assert "not_found" in job["reason"]


def test_a_project_answers_its_jobs_oldest_first_and_all_their_files(client: FlaskClient) -> None:
    first = organized(client, {"job_id": "mix", "project_id": "anime"})
    second = organized(client, {"job_id": "batch", "project_id": "anime"})
    organized(client, {"job_id": "pv", "project_id": "another"})
    size = len(recording("mix_00001_.png"))
    assert answer_of(client.get(f"{PREFIX}/projects/anime")) == {
        "project_id": "anime",
        "jobs": [
            {
                "job_id": job["job_id"],
                "file_count": job["file_count"],
                "total_size": total_size,
                "created_at": job["organized_files"][0]["created_at"],
            }
            for job, total_size in ((first, size), (second, BATCH_BYTES))
        ],
        "files": [*first["organized_files"], *second["organized_files"]],
        "job_count": 2,
        "file_count": 5,
        "total_size": size + BATCH_BYTES,
        "next_cursor": None,
    }


def test_a_file_answers_its_record_by_its_id(client: FlaskClient) -> None:
    answer = organized(client, {"job_id": "batch"})
    for record in answer["organized_files"]:
        assert answer_of(client.get(f"{PREFIX}/{record['file_id']}")) == record


def test_the_status_of_a_library_is_its_totals(client: FlaskClient, output_root: Path) -> None:
    organized(client, {"job_id": "batch"})
    organized(client, {"job_id": "AnimateDiff", "project_id": "anime"})
    videos = [path for path in outputs(output_root) if path.startswith("projects/anime/Anim")]
    size = BATCH_BYTES + sum((output_root / path).stat().st_size for path in videos)
    volume = os.statvfs(output_root)
    answer = answer_of(client.get(f"{PREFIX}/status"))
    disk = answer["disk"]
    assert answer == {
        "total_files": 9,
        "total_size": size,
        "total_size_mb": pytest.approx(size / 1024**2, abs=0.005),
        "total_size_gb": pytest.approx(size / 1024**3, abs=0.005),
        "projects": 2,
        "jobs": 2,
        "file_types": {"image": 6, "video": 3},
        "legacy": tally(0, 0),
        "trash": tally(0, 0),
        "pending_jobs": 0,
        "disk": disk,
        "health": {"state": "ok", "messages": []},
    }
    assert set(disk) == {"total", "used", "free"}
    assert disk["total"] == volume.f_blocks * volume.f_frsize
    assert 0 < disk["free"] <= disk["total"] - disk["used"]


def test_reading_and_rehearsing_nothing_leaves_the_tree_alone(
    client: FlaskClient, output_root: Path
) -> None:
    before = read_tree(output_root)
    for url in READS:
        assert client.get(f"{PREFIX}{url}").status_code in {200, 404}
    assert client.get("/api/jobs/batch/files").status_code == 404
    assert read_tree(output_root) == before


def test_paths_of_the_server_are_left_out_everywhere_where_they_are_not_to_be_shown(
    make_host: MakeHost, output_root: Path
) -> None:
    client = make_host(show_paths=False).test_client()
    answer = organized(client, {"job_id": "batch"})
    file_id = answer["organized_files"][0]["file_id"]
    completed = client.post("/api/jobs/mix/complete")
    answers = [completed, *(client.get(f"{PREFIX}{url}") for url in [*READS[:3], f"/{file_id}"])]
    assert '"path": "projects/default/mix/' in completed.text
    for response in answers:
        answer_of(response)
        assert "file_path" not in response.text
        assert str(output_root) not in response.text
    assert "file_path" not in answer["organized_files"][0]


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (("/library",), {}),
        ((), {"url_prefix": "/library"}),
        (("/library/",), {"url_prefix": "/other"}),
    ],
    ids=["argument", "setting", "argument-wins"],
)
def test_the_prefix_of_the_routes_can_be_chosen(
    register: Register, output_root: Path, arguments: tuple[str, ...], settings: dict[str, str]
) -> None:
    host = Flask("host")
    register(host, *arguments, output_dir=output_root, **settings)
    client = host.test_client()
    answer_of(client.post("/library/organize", json={"job_id": "batch"}))
    assert answer_of(client.get("/library/jobs/batch"))["file_count"] == 4
    assert_problem(client.get("/library/no/such/page"), 404, "not_found")
    for elsewhere in (f"{PREFIX}/status", "/other/status"):
        assert client.get(elsewhere).mimetype == "text/html"


def test_the_settings_of_the_host_config_are_used_and_the_keywords_win(
    register: Register, output_root: Path
) -> None:
    host = Flask("host")
    host.config |= {
        "COMFY_FILES_OUTPUT_DIR": str(output_root),
        "COMFY_FILES_DEFAULT_PROJECT": "from_config",
        "COMFY_FILES_SHOW_PATHS": False,
    }
    register(host, show_paths=True)
    answer = organized(host.test_client(), {"job_id": "batch"})
    assert answer["project_id"] == "from_config"
    assert answer["organized_files"][0]["file_path"].startswith(f"{output_root}/projects/")


def test_a_name_that_is_not_utf_8_is_organized_and_answered_as_json(
    client: FlaskClient, output_root: Path
) -> None:
    source = output_root / os.fsdecode(b"job_9_x\xff\xfe_00001_.png")
    shutil.copyfile(output_root / BATCH[0], source)
    answer = organized(client, {"job_id": "job_9"})
    (record,) = answer["organized_files"]
    assert record["original_path"] == "job_9_x\udcff\udcfe_00001_.png"
    assert record["path"] == f"projects/default/job_9/job_9_{record['timestamp']}_image.png"
    assert not source.exists()
    assert answer_of(client.get(f"{PREFIX}/jobs/job_9"))["files"] == [record]


def test_names_in_other_scripts_are_answered_as_they_are(client: FlaskClient) -> None:
    name = "アニメ/キャラ 01 – été_00001_.png"
    response = organize(client, {"job_id": "chara", "files": [name]})
    assert answer_of(response)["organized_files"][0]["original_path"] == name
    assert name in response.text


@pytest.mark.parametrize(
    ("url", "code"),
    [
        (f"{PREFIX}/jobs/nobody", "job_not_found"),
        ("/api/jobs/nobody/files", "job_not_found"),
        (f"{PREFIX}/projects/nothing", "project_not_found"),
        (f"{PREFIX}/0123456789abcdef0123456789abcdef", "record_not_found"),
        (f"{PREFIX}/no/such/page", "not_found"),
        (f"{PREFIX}/", "not_found"),
        (f"{PREFIX}/jobs/batch/", "not_found"),
        (f"{PREFIX}/jobs/", "not_found"),
    ],
)
def test_what_is_unknown_is_a_404(client: FlaskClient, url: str, code: str) -> None:
    assert_problem(client.get(url), 404, code)


@pytest.mark.parametrize(
    ("url", "field"),
    [
        (f"{PREFIX}/jobs/.hidden", "job_id"),
        ("/api/jobs/CON/files", "job_id"),
        (f"{PREFIX}/projects/a..b", "project_id"),
    ],
)
def test_what_cannot_be_an_id_is_a_422_that_quotes_it(
    client: FlaskClient, url: str, field: str
) -> None:
    body = assert_problem(client.get(url), 422, "invalid_identifier", field)
    given = url.removesuffix("/files").rpartition("/")[2]
    assert f"'{given}'" in body["detail"]
    assert f"'{given}'" in body["errors"][field][0]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/jobs/batch", {"POST", "PUT"}),
        ("GET", "/projects/default", {"POST", "DELETE"}),
        ("GET", "/status", {"POST", "DELETE"}),
        ("GET", "/0123456789abcdef0123456789abcdef", {"POST", "DELETE"}),
        ("POST", "/organize", {"PUT", "DELETE", "PATCH"}),
    ],
)
def test_another_method_is_a_405_that_names_those_that_are_allowed(
    client: FlaskClient, output_root: Path, method: str, path: str, allowed: set[str]
) -> None:
    before = read_tree(output_root)
    for refused in allowed:
        response = client.open(f"{PREFIX}{path}", method=refused)
        assert_problem(response, 405, "method_not_allowed")
        assert method in response.allow
        assert refused not in response.allow
    assert read_tree(output_root) == before


def test_head_and_options_work_as_in_any_flask_app(client: FlaskClient) -> None:
    organized(client, {"job_id": "batch"})
    url = f"{PREFIX}/jobs/batch"
    head, whole = client.head(url), client.get(url)
    assert (head.status_code, head.data) == (200, b"")
    assert head.content_length == len(whole.data)
    options = client.options(url)
    assert (options.status_code, set(options.allow)) == (
        200,
        {"GET", "HEAD", "OPTIONS", "PATCH", "DELETE"},
    )


def test_a_job_stays_in_its_project(client: FlaskClient, output_root: Path) -> None:
    organized(client, {"job_id": "batch", "project_id": "first"})
    before = kept(output_root)
    response = organize(client, {"job_id": "batch", "project_id": "second"})
    body = assert_problem(response, 409, "job_in_other_project")
    assert "first" in body["detail"]
    assert organized(client, {"job_id": "batch"})["project_id"] == "first"
    assert kept(output_root) == before


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ({"job_id": "BATCH"}, "batch"),
        ({"job_id": "mix", "project_id": "anime"}, "Anime"),
    ],
    ids=["job", "project"],
)
def test_an_id_that_differs_only_in_case_from_a_known_one_is_a_conflict(
    client: FlaskClient, output_root: Path, said: dict[str, str], known: str
) -> None:
    organized(client, {"job_id": "batch", "project_id": "Anime"})
    before = kept(output_root)
    body = assert_problem(organize(client, said), 409, "identifier_case")
    assert known in body["detail"]
    assert kept(output_root) == before


@pytest.mark.parametrize(
    "url", [f"{PREFIX}/jobs/batch", f"{PREFIX}/projects/default", "/api/jobs/batch/files"]
)
def test_reading_a_library_whose_root_is_missing_is_a_503_with_advice(
    make_host: MakeHost, tmp_path: Path, url: str
) -> None:
    client = make_host(output_dir=tmp_path / "not" / "mounted").test_client()
    response = client.get(url)
    body = assert_problem(response, 503, "library_unavailable")
    assert "does not exist" in body["detail"]
    assert "COMFY_FILES_OUTPUT_DIR" in body["detail"]
    assert int(response.headers["Retry-After"]) > 0


def test_changing_a_library_whose_root_is_missing_is_a_503_and_makes_nothing(
    make_host: MakeHost, tmp_path: Path
) -> None:
    root = tmp_path / "not" / "mounted"
    client = make_host(output_dir=root).test_client()
    body = assert_problem(organize(client, {"job_id": "batch"}), 503, "library_unavailable")
    assert str(tmp_path) not in json.dumps(body)
    assert not root.parent.exists()


def test_the_status_of_a_library_whose_root_is_missing_says_so(
    make_host: MakeHost, tmp_path: Path
) -> None:
    client = make_host(output_dir=tmp_path / "not" / "mounted").test_client()
    answer = answer_of(client.get(f"{PREFIX}/status"))
    assert answer["health"]["state"] == "unavailable"
    assert "does not exist" in answer["health"]["messages"][0]
    assert (answer["disk"], answer["total_files"]) == (None, 0)


def test_a_root_that_comes_back_is_used_without_a_restart(
    make_host: MakeHost, output_root: Path
) -> None:
    away = output_root.rename(output_root.with_name("away"))
    client = make_host().test_client()
    assert organize(client, {"job_id": "batch"}).status_code == 503
    away.rename(output_root)
    assert organized(client, {"job_id": "batch"})["file_count"] == 4


def test_a_full_volume_is_a_507_and_nothing_moves(make_host: MakeHost, output_root: Path) -> None:
    client = make_host(min_free_bytes=1024**6).test_client()
    before = read_tree(output_root)
    assert_problem(organize(client, {"job_id": "batch"}), 507, "out_of_space")
    assert outputs(output_root) == before


def test_a_library_that_somebody_else_is_changing_is_a_503_to_try_again(
    make_host: MakeHost, output_root: Path
) -> None:
    client = make_host(lock_timeout=0.05).test_client()
    organized(client, {"job_id": "mix"})
    before = kept(output_root)
    with lock_held_elsewhere(output_root):
        response = organize(client, {"job_id": "batch"})
        assert_problem(response, 503, "lock_timeout")
        assert int(response.headers["Retry-After"]) > 0
        assert answer_of(client.get(f"{PREFIX}/jobs/mix"))["file_count"] == 1
    assert kept(output_root) == before
    assert organized(client, {"job_id": "batch"})["file_count"] == 4


@pytest.mark.parametrize("content", [b"[1, 2, 3]\n", b"no JSON at all"], ids=["json", "text"])
def test_a_document_that_is_none_of_ours_is_kept_aside_and_status_says_so(
    client: FlaskClient, output_root: Path, content: bytes
) -> None:
    (output_root / DOCUMENT).write_bytes(content)
    assert organized(client, {"job_id": "batch"})["file_count"] == 4
    (aside,) = output_root.glob(f"{DOCUMENT}.damaged-*")
    assert aside.read_bytes() == content
    (message,) = answer_of(client.get(f"{PREFIX}/status"))["health"]["messages"]
    assert aside.name in message
    assert str(output_root) not in message
    host = client.post(f"{PREFIX}/adopt", headers={"X-Forwarded-For": "1.2.3.4"})
    assert_problem(host, 403, "access_denied")
    assert answer_of(client.get(f"{PREFIX}/status"))["health"]["state"] == "degraded"


def test_somebody_who_is_trusted_says_that_all_is_right(
    make_host: MakeHost, output_root: Path
) -> None:
    client = make_host(trust_loopback=True).test_client()
    (output_root / DOCUMENT).write_bytes(b"no JSON at all")
    organized(client, {"job_id": "batch"})
    for _ in range(2):
        adopted = answer_of(client.post(f"{PREFIX}/adopt"))
        assert (adopted["checked_files"], adopted["missing_files"]) == (4, 0)
    assert answer_of(client.get(f"{PREFIX}/status"))["health"]["state"] == "ok"
    assert_problem(
        client.post(f"{PREFIX}/adopt", json={"really": True}), 422, "invalid_body", "really"
    )


def test_what_happened_to_a_file_is_told(client: FlaskClient) -> None:
    (first, *_) = organized(client, {"job_id": "batch"})["organized_files"]
    client.delete(f"{PREFIX}/jobs/batch")
    told = answer_of(client.get(f"{PREFIX}/{first['file_id']}/history"))
    assert told["file_id"] == first["file_id"]
    assert [event["what"] for event in told["events"]] == ["recorded", "deleted"]
    assert list(told["events"][0]) == [
        *("what", "at", "operation_id", "operation_kind", "job_id", "facts")
    ]
    assert_problem(client.get(f"{PREFIX}/{'f' * 32}/history"), 404, "record_not_found")


@pytest.mark.parametrize("entry", [Link("nowhere/at/all"), Fifo()], ids=repr)
def test_a_document_that_is_no_file_is_a_fault_in_the_one_body(
    client: FlaskClient, make_tree: MakeTree, output_root: Path, entry: Entry
) -> None:
    make_tree({DOCUMENT: entry})
    before = kept(output_root)
    for response in (client.get(f"{PREFIX}/jobs/batch"), organize(client, {"job_id": "batch"})):
        assert response.status_code in {500, 503}
        body = assert_problem(response, response.status_code, json.loads(response.data)["code"])
        assert str(output_root) not in json.dumps(body)
        assert "Traceback" not in response.text
    assert kept(output_root) == before
