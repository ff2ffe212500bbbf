from __future__ import annotations

import copy
import json
import posixpath
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_comfy_files.core.errors import InvalidIdentifierError, InvalidInputError
from flask_comfy_files.core.records import StampedPrompt, UnstampedNode
from flask_comfy_files.core.stamping import DEEPEST, stamp_prompt

RESPONSES = Path(__file__).parents[1] / "data/comfyui/responses"
RUN = "5f3a90c1d2e4b678"
FOLDER = f"inbox/job_1/{RUN}"

Graph = dict[str, Any]


def body_of(recorded: Path) -> Graph:
    body: Graph = json.loads(recorded.read_bytes())["request"]["body"]
    return body


RECORDED = {
    path.name.split(".")[1]: body
    for path in sorted(RESPONSES.glob("prompt.*.json"))
    if "prompt" in (body := body_of(path))
}
ESCAPING = ["exec_error_absolute", "exec_error_path_traversal"]

UNTOUCHED = {
    *("audio_preview", "preview_any_text", "preview_only", "temp_samples", "vhs_webm_temp"),
    *("websocket_image_only", "preview3d", "error_missing_input", "error_no_outputs"),
}
"""The recordings in which no node writes an output that could be pointed anywhere."""

UNSTAMPED = {
    "preview3d": ("4", "Preview3D", "no input of it says where"),
    "error_missing_input": ("2", "SaveImage", "has no filename_prefix"),
}


def stamp(
    graph: Graph, *, run: str = RUN, extra_data: dict[str, Any] | None = None
) -> StampedPrompt:
    return stamp_prompt(graph, job_id="job_1", project_id="tokyo", run=run, extra_data=extra_data)


def saver(class_type: str = "SaveImage", **inputs: Any) -> Graph:
    """Return a graph with one saver, node 9, behind a node that makes an image."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48}},
        "9": {"class_type": class_type, "inputs": {"images": ["1", 0], **inputs}},
    }


def changed(class_type: str, inputs: Graph) -> Graph:
    """Return the inputs of a saver that stamping has changed, with their new values."""
    stamped = stamp(saver(class_type, **inputs))
    assert stamped.unstamped == ()
    after = stamped.prompt["9"]["inputs"]
    return {name: value for name, value in after.items() if value != inputs.get(name, ["1", 0])}


def outputs_of(name: str) -> set[str]:
    """Return the nodes of a recorded run whose files history names under `output/`."""
    (item,) = json.loads((RESPONSES / f"history.{name}.json").read_bytes()).values()
    return {
        node_id
        for node_id, output in item["outputs"].items()
        for files in output.values()
        for file in files
        if isinstance(file, dict) and file.get("type") == "output"
    }


@pytest.mark.parametrize("name", sorted(RECORDED.keys() - set(ESCAPING)))
def test_every_recorded_graph_is_stamped_and_otherwise_unchanged(name: str) -> None:
    graph = RECORDED[name]["prompt"]
    expected = copy.deepcopy(graph)
    for node in expected.values():
        inputs = node["inputs"]
        if node["class_type"] == "SaveImageDataSetToFolder":
            inputs["folder_name"] = f"{FOLDER}/{inputs['folder_name']}"
        elif "filename_prefix" in inputs and inputs.get("save_output", True):
            old = inputs["filename_prefix"].removeprefix(
                "inbox/33333333-3333-4333-8333-333333333333/"
            )
            inputs["filename_prefix"] = f"{FOLDER}/{old}"
    stamped = stamp(graph)
    assert stamped.prompt == expected
    assert (stamped.prompt == graph) == (name in UNTOUCHED)


@pytest.mark.parametrize("name", sorted(RECORDED.keys() - set(ESCAPING)))
def test_the_recorded_nodes_that_cannot_be_stamped_are_listed(name: str) -> None:
    unstamped = stamp(RECORDED[name]["prompt"]).unstamped
    if name not in UNSTAMPED:
        assert unstamped == ()
        return
    node_id, class_type, reason = UNSTAMPED[name]
    (node,) = unstamped
    assert (node.node_id, node.class_type) == (node_id, class_type)
    assert reason in node.reason


@pytest.mark.parametrize(
    "name",
    [name for name in RECORDED if (RESPONSES / f"history.{name}.json").exists()],
)
def test_whatever_wrote_an_output_in_a_recorded_run_is_stamped(name: str) -> None:
    if name in ESCAPING:
        assert outputs_of(name) == set()
        return
    stamped = stamp(RECORDED[name]["prompt"])
    for node_id in outputs_of(name):
        assert stamped.prompt[node_id]["inputs"]["filename_prefix"].startswith(f"{FOLDER}/")


@pytest.mark.parametrize("name", ESCAPING)
def test_a_graph_on_which_comfyui_failed_for_its_prefix_is_refused(name: str) -> None:
    graph = RECORDED[name]["prompt"]
    with pytest.raises(InvalidInputError, match=r"\(filename_prefix of node '2'\) leads out") as it:
        stamp(graph)
    assert it.value.field == "prompt"
    assert graph["2"]["inputs"]["filename_prefix"] in str(it.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ComfyUI", "ComfyUI"),
        ("a/b/c", "a/b/c"),
        ("", "ComfyUI"),
        ("video/", "video/ComfyUI"),
        ("video/.", "video/ComfyUI"),
        (".", "ComfyUI"),
        ("./a//b", "a/b"),
        ("a/../b", "b"),
        ("a/b/..", "a/ComfyUI"),
        ("..a/b..", "..a/b.."),
        (".hidden", ".hidden"),
        ("a\\..\\b", "a\\..\\b"),
        ("%year%/shot_%width%", "%year%/shot_%width%"),
        ("キャラ 01\n'q'", "キャラ 01\n'q'"),
        ("L" * 255, "L" * 255),
        ("inbox/job_0/0123456789abcdef/a/b", "a/b"),
        ("inbox/job_0/0123456789abcdef/", "ComfyUI"),
        ("inbox/job_0/beef", "beef"),
        ("inbox/job_0/c", "c"),
        ("inbox/job_0/shots/c", "shots/c"),
        ("inbox/c", "inbox/c"),
        ("my/inbox/job_0/c", "my/inbox/job_0/c"),
        ("projects/anime/s01/frame", "projects/anime/s01/frame"),
    ],
)
def test_a_prefix_is_put_behind_the_folder_of_the_run(old: str, new: str) -> None:
    assert changed("SaveImage", {"filename_prefix": old}) == {"filename_prefix": f"{FOLDER}/{new}"}


@pytest.mark.parametrize(
    ("class_type", "inputs", "expected"),
    [
        ("SomebodysSaver", {"filename_prefix": "a", "fps": 8}, {"filename_prefix": f"{FOLDER}/a"}),
        ("SaveLoRA", {"prefix": "loras/x"}, {"prefix": f"{FOLDER}/loras/x"}),
        ("SomebodysSwitch", {"prefix": "loras/x"}, {}),
        ("SaveImageDataSetToFolder", {"folder_name": "set", "filename_prefix": "image"},
         {"folder_name": f"{FOLDER}/set"}),
        ("SaveImageTextDataSetToFolder", {"folder_name": "", "filename_prefix": "image"},
         {"folder_name": FOLDER}),
        ("SaveImageDataSetToFolder", {"folder_name": "inbox/job_0/0123456789abcdef"},
         {"folder_name": FOLDER}),
        ("Image Saver", {"path": "%date", "filename": "%time_%seed"}, {"path": f"{FOLDER}/%date"}),
        ("Image Saver Simple", {"path": "", "filename": "sub/x"}, {"path": FOLDER}),
        ("Image Saver", {"path": "", "filename": ["1", 0]}, {"path": FOLDER}),
        ("Image Save", {"output_path": "[time(%Y-%m-%d)]", "filename_prefix": "ComfyUI"},
         {"output_path": f"{FOLDER}/[time(%Y-%m-%d)]"}),
        ("SaveImageExtended",
         {"foldername_prefix": "day/", "foldername_keys": "ckpt_name, ./sub",
          "filename_prefix": "x", "filename_keys": "cfg"},
         {"foldername_prefix": f"{FOLDER}/day/ComfyUI"}),
        ("SaveImageExtended", {"foldername_prefix": "", "filename_prefix": "x"},
         {"foldername_prefix": f"{FOLDER}/ComfyUI"}),
        ("SaveImageKJ", {"filename_prefix": "x", "output_folder": "output"},
         {"filename_prefix": f"{FOLDER}/x"}),
        ("SaveImageKJ", {"filename_prefix": "x", "output_folder": "renders"},
         {"filename_prefix": f"{FOLDER}/x", "output_folder": "output"}),
        ("SaveStringKJ", {"filename_prefix": "x", "output_folder": ["1", 0]},
         {"filename_prefix": f"{FOLDER}/x", "output_folder": "output"}),
        ("SaveStringKJ", {"filename_prefix": "x"}, {"filename_prefix": f"{FOLDER}/x"}),
        ("VHS_VideoCombine", {"filename_prefix": "x", "save_output": True},
         {"filename_prefix": f"{FOLDER}/x"}),
        ("VHS_VideoCombine", {"filename_prefix": "x"}, {"filename_prefix": f"{FOLDER}/x"}),
        ("VHS_VideoCombine", {"filename_prefix": "x", "save_output": ["1", 0]},
         {"filename_prefix": f"{FOLDER}/x"}),
        ("VHS_VideoCombine", {"filename_prefix": "/x", "save_output": False}, {}),
        ("PreviewImage", {}, {}),
        ("PreviewAudio", {}, {}),
        ("Preview3D", {"model_file": "3d/there.glb"}, {}),
        ("NoSuchNode", {"": "x"}, {}),
    ],
)  # fmt: skip
def test_each_saver_is_rewritten_where_it_chooses_its_folder(
    class_type: str, inputs: Graph, expected: Graph
) -> None:
    assert changed(class_type, inputs) == expected


@pytest.mark.parametrize(
    ("class_type", "inputs", "reason"),
    [
        ("SaveImage", {"filename_prefix": ["5", 0]}, "filename_prefix comes from another node"),
        ("SomebodysSaver", {"filename_prefix": ["5", 0]}, "comes from another node"),
        ("SaveImage", {"filename_prefix": 42}, "filename_prefix is no text but 42"),
        ("SaveImage", {"filename_prefix": {"a": "L" * 500}}, "filename_prefix is no text but {'a'"),
        ("SaveVideo", {}, "has no filename_prefix"),
        ("VHS_VideoCombine", {"save_output": True}, "has no filename_prefix"),
        ("Image Saver", {"filename": "x"}, "has no path"),
        ("Image Save", {"output_path": ["5", 0]}, "output_path comes from another node"),
        ("Image Save", {"output_path": "/data/x"}, "output_path '/data/x' leads out"),
        ("Image Save", {"output_path": "a/../../x"}, "output_path 'a/../../x' leads out"),
        ("Image Save", {"output_path": "x", "filename_prefix": "/y"}, "filename_prefix '/y'"),
        ("Image Saver", {"path": "x", "filename": "a/../y"}, "filename 'a/../y' leads out"),
        ("Image Saver", {"path": "L" * 256}, "longer than a path may be"),
        ("SaveImageDataSetToFolder", {"folder_name": "../x"}, "folder_name '../x' leads out"),
        ("SaveImageDataSetToFolder", {"folder_name": "x", "filename_prefix": "../y"}, "'../y'"),
        ("Image Saver", {"path": "x", "filename": "a\n/../y"}, "leads out"),
        ("SaveImageExtended", {"foldername_prefix": "x", "filename_prefix": "y/z"}, "'y/z'"),
        ("SaveImageExtended", {"foldername_prefix": "x", "foldername_keys": "cfg, ../y"}, "../y"),
        ("SaveImageExtended", {"foldername_prefix": "x", "filename_keys": "a,\n.."}, "leads out"),
        ("SaveImageKJ", {"filename_prefix": "x", "output_folder": "/data"}, "output_folder"),
        ("Preview3D", {"model_file": ["1", 0]}, "no input of it says where"),
    ],
)
def test_a_saver_that_cannot_be_pointed_anywhere_is_listed_and_left(
    class_type: str, inputs: Graph, reason: str
) -> None:
    graph = saver(class_type, **inputs)
    stamped = stamp(graph)
    assert stamped.prompt == graph
    (node,) = stamped.unstamped
    assert node == UnstampedNode(node_id="9", class_type=class_type, reason=node.reason)
    assert reason in node.reason
    assert len(node.reason) < 250


@pytest.mark.parametrize("job_id", ["job_", "a_.b"])
def test_a_job_whose_folder_a_saver_would_misspell_is_not_stamped_for_it(job_id: str) -> None:
    graph = saver("SaveImageExtended", foldername_prefix="x") | {
        "10": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}
    }
    stamped = stamp_prompt(graph, job_id=job_id, project_id=None, run=RUN)
    assert [node.node_id for node in stamped.unstamped] == ["9"]
    assert stamped.prompt["10"]["inputs"]["filename_prefix"] == f"inbox/{job_id}/{RUN}/x"


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("graph", "problem"),
    [
        ([1, 2], r"'\[1, 2\]' is no graph in ComfyUI's API format"),
        (None, "'None' is no graph"),
        ({"last_node_id": 2, "nodes": [], "links": []}, r'nodes, links.*"Export \(API\)"'),
        ({"prompt": saver(filename_prefix="x")}, "'prompt' is no node"),
        ({"3": "text"}, "'3' is no node"),
        ({"3": {"inputs": {}}}, "'3' is no node"),
        ({"3": {"class_type": "SaveImage"}}, "'3' is no node"),
        ({"3": {"class_type": None, "inputs": {}}}, "'3' is no node"),
        ({"3": {"class_type": "SaveImage", "inputs": []}}, "'3' is no node"),
        ({3: {"class_type": "SaveImage", "inputs": {}}}, "is not JSON, whose keys are text"),
        (saver(cfg=float("nan")), r"'nan' \(in '9'\) is not JSON"),
        (saver(cfg=float("-inf")), r"'-inf' \(in '9'\) is not JSON"),
        (saver(mask=b"x"), r"\(in '9'\) is not JSON"),
        (saver(mask={1: 2}), r"'\{1: 2\}' \(in '9'\) is not JSON"),
        (saver(mask=nested(DEEPEST - 1)), r"\(in '9'\) is nested more than 100 levels deep"),
        (saver(filename_prefix="a\0b"), r"\(filename_prefix of node '9'\) contains a NUL"),
        (saver(filename_prefix="a/" + "L" * 256), r"of node '9'\) is longer than a path may be"),
        (saver(filename_prefix="\u30a2" * 86), "is longer than a path may be"),
        (saver(filename_prefix="\ud800"), "half a surrogate pair"),
        (saver(filename_prefix="/"), "'/' .* leads out"),
        (saver(filename_prefix=".."), "'..' .* leads out"),
        (saver(filename_prefix="./../x"), "'./../x' .* leads out"),
        (saver(filename_prefix="inbox/job_1/../../../x"), "leads out"),
        (saver("SaveLoRA", prefix="../x"), r"'../x' \(prefix of node '9'\) leads out"),
    ],
)
def test_a_graph_that_is_not_understood_is_refused_with_the_reason(
    graph: Any, problem: str
) -> None:
    with pytest.raises(InvalidInputError, match=problem) as it:
        stamp(graph)
    assert it.value.field == "prompt"


def test_a_deep_graph_is_no_reason_for_a_refusal_by_itself() -> None:
    graph = saver(filename_prefix="x", mask=nested(DEEPEST - 2))
    assert stamp(graph).prompt["9"]["inputs"]["mask"] == nested(DEEPEST - 2)


def test_links_that_python_holds_as_tuples_go_out_as_json_has_them() -> None:
    graph = {"9": {"class_type": "SaveImage", "inputs": {"images": ("1", 0)}}}
    assert stamp(graph).prompt["9"]["inputs"]["images"] == ["1", 0]


def test_the_tag_joins_what_the_host_embeds() -> None:
    host = {
        "client_id": "anime_api",
        "extra_pnginfo": {"workflow": {"nodes": [1]}, "comfy_files": {"job_id": "older"}},
    }
    before = copy.deepcopy(host)
    stamped = stamp(saver(filename_prefix="x"), extra_data=host)
    assert stamped.extra_data == {
        "client_id": "anime_api",
        "extra_pnginfo": {
            "workflow": {"nodes": [1]},
            "comfy_files": {"job_id": "job_1", "project_id": "tokyo", "run": RUN},
        },
    }
    stamped.extra_data["extra_pnginfo"]["workflow"]["nodes"].append(2)
    assert host == before


@pytest.mark.parametrize("extra_data", [None, {}, {"extra_pnginfo": None}])
def test_the_tag_stands_alone_where_the_host_embeds_nothing(extra_data: Any) -> None:
    stamped = stamp_prompt({}, job_id="job_1", project_id=None, run=RUN, extra_data=extra_data)
    tag = {"job_id": "job_1", "project_id": None, "run": RUN}
    assert stamped.extra_data == {"extra_pnginfo": {"comfy_files": tag}}
    assert stamped.run == RUN


@pytest.mark.parametrize(
    "extra_data",
    [[], "text", {"extra_pnginfo": "text"}, {"extra_pnginfo": []}, {"a": float("nan")}, {1: 2}],
)
def test_extra_data_that_cannot_be_sent_is_refused(extra_data: Any) -> None:
    with pytest.raises(InvalidInputError) as it:
        stamp({}, extra_data=extra_data)
    assert it.value.field == "extra_data"


@pytest.mark.parametrize(
    ("job_id", "project_id", "field"),
    [("../x", None, "job_id"), ("", None, "job_id"), ("job_1", "a/b", "project_id")],
)
def test_ids_that_cannot_name_a_folder_are_refused(
    job_id: str, project_id: str | None, field: str
) -> None:
    with pytest.raises(InvalidIdentifierError) as it:
        stamp_prompt({}, job_id=job_id, project_id=project_id, run=RUN)
    assert it.value.field == field


@pytest.mark.parametrize("run", ["", "abc", "ABCD", "abcd/", "../../abcd", "abcd\n", "a" * 65])
def test_a_run_that_is_not_hexadecimal_is_refused(run: str) -> None:
    with pytest.raises(InvalidInputError, match="hexadecimal") as it:
        stamp({}, run=run)
    assert it.value.field == "run"


FIELDS = [
    "filename_prefix",
    "folder_name",
    "foldername_prefix",
    "output_folder",
    "output_path",
    "path",
    "prefix",
    "save_output",
]
CLASSES = [
    "SaveImage",
    "VHS_VideoCombine",
    "SaveLoRA",
    "SaveImageDataSetToFolder",
    "Image Saver",
    "Image Save",
    "SaveImageExtended",
    "SaveImageKJ",
    "Preview3D",
    "PreviewImage",
    "KSampler",
]
names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=8
).filter(lambda name: name != "..")
paths = st.lists(
    names | st.sampled_from(["inbox", "job_0", "beef", "projects"]), min_size=1, max_size=5
).map(lambda parts: "/".join(parts).lstrip("/"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
other_fields = st.text().filter(lambda field: field not in FIELDS)
inputs = st.builds(
    lambda others, own: {**others, **own},
    st.dictionaries(other_fields, json_values, max_size=3),
    st.dictionaries(st.sampled_from(FIELDS), paths | st.just(["1", 0]) | st.booleans(), max_size=4),
)
graphs = st.dictionaries(
    st.text(),
    st.fixed_dictionaries(
        {"class_type": st.sampled_from(CLASSES), "inputs": inputs},
        optional={"_meta": json_values, "is_changed": json_values},
    ),
    max_size=4,
)


@given(graph=graphs)
def test_nothing_but_the_folders_of_savers_changes(graph: Graph) -> None:
    before = copy.deepcopy(graph)
    stamped = stamp(graph)
    assert graph == before
    assert list(stamped.prompt) == list(graph)
    listed = {node.node_id for node in stamped.unstamped}
    for node_id, node in graph.items():
        after = stamped.prompt[node_id]
        assert {**after, "inputs": None} == {**node, "inputs": None}
        assert list(after["inputs"]) == list(node["inputs"])
        for field, old in node["inputs"].items():
            new = after["inputs"][field]
            if new != old:
                assert field in FIELDS
                assert node_id not in listed
                assert f"{new}/".startswith(f"{FOLDER}/") or (field, new) == (
                    "output_folder",
                    "output",
                )


@given(graph=graphs, extra_data=st.dictionaries(st.text(), json_values))
def test_stamping_again_replaces_the_stamp(graph: Graph, extra_data: Graph) -> None:
    extra_data.pop("extra_pnginfo", None)
    first = stamp_prompt(
        graph, job_id="job_0", project_id=None, run="0123abcd", extra_data=extra_data
    )
    again = stamp(first.prompt, extra_data=first.extra_data)
    assert again == stamp(graph, extra_data=extra_data)


@given(prefix=st.text(max_size=60) | st.lists(names | st.just(".."), max_size=6).map("/".join))
def test_no_prefix_leads_comfyui_out_of_the_folder_of_the_run(prefix: str) -> None:
    graph = saver(filename_prefix=prefix)
    leads_out = prefix.startswith("/") or posixpath.normpath(prefix).split("/")[0] == ".."
    if leads_out or "\0" in prefix:
        with pytest.raises(InvalidInputError, match=r"leads out|NUL"):
            stamp(graph)
        return
    seen_by_comfyui = posixpath.normpath(stamp(graph).prompt["9"]["inputs"]["filename_prefix"])
    assert seen_by_comfyui.startswith(f"{FOLDER}/")
