"""The reference names everything that there is, nothing that there is not, and says of it what the code does."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule

from flask_comfy_files import FileManager, FileManagerAPI, config
from flask_comfy_files.cli import files_group
from flask_comfy_files.cli.exits import EXIT_CODES, INCOMPLETE, exit_code_of
from flask_comfy_files.config import KEY_PREFIX, Settings
from flask_comfy_files.core import layout, records
from flask_comfy_files.core.catalog import document
from flask_comfy_files.core.errors import AccessError, ComfyFilesError, ConfigurationError
from flask_comfy_files.core.records import Evidence, FileType, SkipReason
from flask_comfy_files.web.parsing import LARGEST_BODY_BYTES
from flask_comfy_files.web.problems import STATUS
from flask_comfy_files.web.routes.jobs import JOB_FILES
from flask_comfy_files.web.schemas.base import MOST_ENTRIES
from flask_comfy_files.web.schemas.jobs import OrganizeBody
from flask_comfy_files.web.table import ROUTES
from tests.docs.pages import ROOT, Page, codes, first_codes, pages, rows

PAGES = list(pages())
HTTP = Page("docs/reference/http.md")
CLI = Page("docs/reference/cli.md")
CONFIG = Page("docs/reference/config.md")
ERRORS = Page("docs/reference/errors.md")
ON_DISK = Page("docs/reference/on-disk-format.md")
PYTHON = Page("docs/how-to/python-api.md")
ATTRIBUTION = Page("docs/concepts/attribution.md")
DEFAULTS = Settings(output_dir=config.DEFAULT_OUTPUT_DIR)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


# Settings


def key_of(name: str) -> str:
    return f"{KEY_PREFIX}{name.upper()}"


def documented_settings() -> dict[str, list[str]]:
    return {
        codes(row[0])[0]: row for row in rows(CONFIG.prose) if row[0].startswith(f"`{KEY_PREFIX}")
    }


def test_every_setting_is_documented_and_no_other() -> None:
    assert sorted(documented_settings()) == sorted(key_of(entry.name) for entry in fields(Settings))


@pytest.mark.parametrize("name", [entry.name for entry in fields(Settings)])
def test_the_documented_default_of_a_setting_is_the_default(name: str) -> None:
    _, default, *texts = documented_settings()[key_of(name)]
    documented = ast.literal_eval(codes(default)[0])
    actual = getattr(DEFAULTS, name)
    assert documented == (None if actual == () else actual)
    assert type(documented) is type(None if actual == () else actual)
    assert [len(text) > 5 for text in texts] == [True, True]


@each_page
def test_a_page_names_no_setting_that_does_not_exist(page: Page) -> None:
    named = set(re.findall(rf"{KEY_PREFIX}[A-Z_]+", page.text))
    assert named <= {key_of(entry.name) for entry in fields(Settings)}


# Routes


def in_braces(rule: str) -> str:
    return re.sub(r"<(?:[^<>]+:)?([^<>:]+)>", r"{\1}", rule)


def documented_routes() -> dict[str, str]:
    return {
        codes(title)[0]: section
        for title, section in HTTP.sections(3).items()
        if re.match(r"`[A-Z]+ /", title)
    }


def actual_routes() -> dict[str, str]:
    """Return the action of each route by its method and address."""
    prefix = DEFAULTS.url_prefix
    actions = {
        f"{route.method} {prefix}{in_braces(route.rule)}": str(route.action or "open")
        for route in ROUTES
    }
    actions[f"POST {in_braces(DEFAULTS.complete_route)}"] = "write"
    actions[f"GET {in_braces(JOB_FILES.rule)}"] = "read"
    return actions


def test_every_route_is_documented_with_its_access_and_no_other() -> None:
    documented = {
        route: re.findall(r"^Access: `(\w+)`$", section, re.MULTILINE)
        for route, section in documented_routes().items()
    }
    assert documented == {route: [action] for route, action in actual_routes().items()}


def test_the_readme_lists_every_route() -> None:
    section = Page("README.md").sections(3)["Endpoints"]
    assert set(first_codes(section)) == set(actual_routes())


@each_page
def test_a_page_names_no_route_that_does_not_exist(page: Page) -> None:
    methods_and_rules = [route.split() for route in actual_routes()]
    url_map = Map(
        [
            Rule(re.sub(r"\{(\w+)\}", r"<\1>", rule), endpoint="x", methods=[method])
            for method, rule in methods_and_rules
        ]
    ).bind("")
    unknown = []
    for method, address in re.findall(
        r"\b(GET|POST|PUT|PATCH|DELETE) (/api/(?:files|jobs/)[^\s`\"']*)", page.text
    ):
        try:
            url_map.match(address.rstrip("."), method)
        except HTTPException:
            unknown.append(f"{method} {address}")
    assert unknown == []


def keys_in(section: str) -> set[str]:
    return set(codes(section))


def test_a_file_record_is_documented_key_by_key_in_the_order_of_answers() -> None:
    section = HTTP.sections(2)["A file record"]
    keys = [codes(row[0])[0] for row in rows(section)]
    assert keys == [entry.name for entry in fields(records.FileRecord)]


def test_the_body_of_organize_is_documented_key_by_key() -> None:
    section = documented_routes()["POST /api/files/organize"].partition("key of the answer")[0]
    assert set(first_codes(section)) == set(OrganizeBody().fields)


@pytest.mark.parametrize(
    ("route", "record", "below_a_record"),
    [
        ("POST /api/files/organize", records.OrganizeReport, {"files", "bytes", "path", "reason"}),
        ("POST /api/jobs/{job_id}/complete", records.CompletionReport, set[str]()),
        ("GET /api/files/jobs/{job_id}", records.JobRecord, set[str]()),
        ("GET /api/files/projects/{project_id}", records.ProjectRecord, {"created_at"}),
        ("GET /api/files/status", records.SystemStats, {"total", "used", "free", "messages"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_answer_is_documented_key_by_key(
    route: str, record: type[Any], below_a_record: set[str]
) -> None:
    section = documented_routes()[route]
    answer = section[section.index("| key of the answer") :]
    own = {entry.name for entry in fields(record)}
    if record is records.CompletionReport:
        own = own - {"project_id"} | {"status"}
    documented = {code for row in rows(answer) for code in codes(row[0])}
    assert documented >= own
    assert {code for code in documented if "_" in code} <= own | {"invalid_json"} | STATUS_CODES
    assert all(f'"{key}"' in answer for key in below_a_record)


STATUS_CODES = {
    kind.code for kind in STATUS
}  # in the tables of errors, whose first cells are numbers


def test_the_limits_of_a_body_are_those_of_the_code() -> None:
    assert f"{LARGEST_BODY_BYTES // 1024**2} MiB" in HTTP.prose
    assert f"{MOST_ENTRIES:,} paths" in HTTP.prose
    assert f"1 to {layout.LONGEST_ID} letters" in HTTP.prose


# Commands


def actual_commands() -> Mapping[str, click.Command]:
    return files_group(FileManagerAPI(FileManager(config.DEFAULT_OUTPUT_DIR))).commands


def documented_commands() -> dict[str, str]:
    return {
        codes(title)[0].removeprefix("flask files "): section
        for title, section in CLI.sections(2).items()
        if title.startswith("`flask files ")
    }


def test_every_command_is_documented_and_no_other() -> None:
    assert set(documented_commands()) == set(actual_commands())
    section = Page("README.md").sections(3)["Commands"]
    assert first_codes(section) == [f"flask files {name}" for name in documented_commands()]


@pytest.mark.parametrize("name", list(actual_commands()))
def test_every_argument_and_option_of_a_command_is_documented_and_no_other(name: str) -> None:
    actual = {
        parameter.human_readable_name
        if isinstance(parameter, click.Argument)
        else parameter.opts[-1]
        for parameter in actual_commands()[name].params
    }
    assert set(first_codes(documented_commands()[name])) == actual


def test_the_documented_exit_codes_are_those_that_there_are() -> None:
    documented = [int(row[0]) for row in rows(CLI.sections(2)["Exit codes"])]
    assert documented == sorted({0, INCOMPLETE, click.UsageError.exit_code, *EXIT_CODES.values()})


@each_page
def test_a_page_names_no_command_that_does_not_exist(page: Page) -> None:
    named = set(re.findall(r"flask files ([a-z]+)\b", page.text))
    assert named <= set(actual_commands())


# Errors


def kinds(kind: type[ComfyFilesError] = ComfyFilesError) -> Iterator[type[ComfyFilesError]]:
    if kind.__module__.startswith("flask_comfy_files."):
        yield kind
        for below in kind.__subclasses__():
            yield from kinds(below)


def documented_errors() -> dict[str, str]:
    return {codes(title)[0]: section for title, section in ERRORS.sections(3).items()}


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.code)
def test_every_error_is_documented_with_its_class_status_and_exit_code(
    kind: type[ComfyFilesError],
) -> None:
    facts, *explanation = documented_errors()[kind.code].strip().split("\n\n")
    expected = [kind.__name__]
    if kind is not ConfigurationError:
        status = next(STATUS[base] for base in kind.__mro__ if base in STATUS)
        expected.append(f"HTTP status {int(status)}")
    if not issubclass(kind, ConfigurationError | AccessError):
        expected.append(f"Exit code {exit_code_of(kind.__new__(kind))}")
    found = re.findall(r"`(\w+Error)`(?!\))|(HTTP status \d+)|(Exit code \d+)", facts)
    named = ["".join(parts) for parts in found]
    assert [
        name for name in named if name not in {"ValueError", "LookupError", "TimeoutError"}
    ] == (expected)
    assert explanation


def test_no_error_is_documented_that_does_not_exist() -> None:
    assert set(documented_errors()) <= {kind.code for kind in kinds()}


def test_a_built_in_that_is_documented_as_a_base_is_one() -> None:
    for kind in kinds():
        section = documented_errors().get(kind.code, "")
        for name in re.findall(r"\(an? `(\w+)`\)", section):
            assert name in {base.__name__ for base in kind.__mro__}


@each_page
def test_a_page_names_no_error_code_that_does_not_exist(page: Page) -> None:
    linked = {link.partition("errors.md#")[2] for link in page.links if "errors.md#" in link}
    named = set(re.findall(r'\.code == "(\w+)"', page.text)) | linked
    assert named <= {kind.code for kind in kinds()}


# What the answers and the document hold


def documented_reasons() -> list[str]:
    section = ATTRIBUTION.sections(2)["Why a file is skipped"]
    return [codes(row[0])[0] for row in rows(section)]


@pytest.mark.parametrize("reason", SkipReason)
def test_every_reason_to_skip_a_file_is_documented(reason: SkipReason) -> None:
    assert reason in documented_reasons()


def test_no_reason_is_documented_that_does_not_exist() -> None:
    assert set(documented_reasons()) <= set(SkipReason)


def documented_evidence() -> list[str]:
    return first_codes(ATTRIBUTION.sections(2)["The rules"].partition("###")[0])


@pytest.mark.parametrize("evidence", Evidence)
def test_every_evidence_is_documented(evidence: Evidence) -> None:
    assert evidence in documented_evidence()


def test_evidence_is_documented_strongest_first_and_the_same_on_both_pages() -> None:
    documented = documented_evidence()
    assert documented == [evidence for evidence in Evidence if evidence in documented]
    (meaning,) = (row[1] for row in rows(HTTP.prose) if row[0] == "`evidence`")
    assert codes(meaning) == documented


def test_every_file_type_is_documented_and_no_other() -> None:
    (meaning,) = (row[1] for row in rows(HTTP.prose) if row[0] == "`file_type`")
    assert codes(meaning) == list(FileType)


@pytest.mark.parametrize(
    "path",
    [
        layout.DOCUMENT,
        layout.NEW_DOCUMENT,
        layout.SENTINEL,
        layout.LOCK,
        layout.INDEX,
        layout.METRICS,
        layout.COPIES,
        layout.copy_name("", "{file_id}").strip("/"),
        layout.target_name("{job_id}", "{timestamp}", "{type}", 2, ".png"),
        layout.inbox_folder("{job_id}"),
        layout.job_folder("{project_id}", "{job_id}"),
    ],
)
def test_every_place_on_the_disk_is_documented(path: str) -> None:
    tree = next(block.text for block in ON_DISK.blocks if block.language == "text")
    assert path in ON_DISK.prose or path in tree
    assert path.rpartition("/")[2] in tree


def test_the_document_in_the_reference_is_one_that_this_version_reads(tmp_path: Path) -> None:
    example = next(block.text for block in ON_DISK.blocks if block.language == "json")
    (tmp_path / layout.DOCUMENT).write_text(example, encoding="utf-8")
    with document.open_document(str(tmp_path)) as descriptor:
        assert descriptor is not None
        header = document.read_header(descriptor)
        scan = document.Scan(descriptor, header, header.end)
        lines = list(scan)
    assert scan.is_closed
    assert f"`{document.FORMAT}`" in ON_DISK.prose
    documented = set(first_codes(ON_DISK.sections(2)["The document"]))
    assert documented >= {key for line in lines for key in line.change}
    assert documented >= {str(line.change["kind"]) for line in lines}
    assert {*lines[0].change["files"][0], "file_path", "missing"} == {
        entry.name for entry in fields(records.FileRecord)
    }


# Python


def without_types(method: Any) -> str:
    signature = inspect.signature(method)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name not in {"self", "clock"}
    ]
    return str(inspect.Signature(parameters)).replace("(*)", "()").replace(", *)", ")")


@pytest.mark.parametrize(
    ("kind", "heading"),
    [(FileManager, "Methods"), (FileManagerAPI, "As dicts, for another web framework")],
    ids=["FileManager", "FileManagerAPI"],
)
def test_every_method_is_documented_with_its_arguments_and_no_other(
    kind: type[Any], heading: str
) -> None:
    actual = {
        f"{name}{without_types(getattr(kind, name))}"
        for name in dir(kind)
        if not name.startswith("_")
    }
    assert {codes(row[0])[0] for row in rows(PYTHON.sections(2)[heading])} == actual


# Pages


@each_page
def test_every_link_leads_somewhere(page: Page) -> None:
    dead = []
    for link in page.links:
        if link.startswith(("https://", "http://")):
            continue
        target, _, anchor = link.partition("#")
        path = (page.path.parent / target).resolve() if target else page.path
        if not path.is_file() or (
            anchor and anchor not in Page(str(path.relative_to(ROOT))).anchors
        ):
            dead.append(link)
    assert dead == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), ["README.md"]
    while waiting:
        page = Page(waiting.pop())
        if page.name in reached:
            continue
        reached.add(page.name)
        for link in page.links:
            path = (page.path.parent / link.partition("#")[0]).resolve()
            if path.suffix == ".md" and path.is_file():
                waiting.append(str(path.relative_to(ROOT)))
    assert [page.name for page in PAGES if page.name not in reached] == []


def test_pages_that_the_code_refers_to_exist() -> None:
    sources = [path.read_text(encoding="utf-8") for path in ROOT.glob("flask_comfy_files/**/*.py")]
    named = {name for source in sources for name in re.findall(r"docs/[\w./-]+\.md", source)}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_decisions_are_numbered_in_sequence_and_have_their_four_parts() -> None:
    decisions = sorted((ROOT / "docs/decisions").glob("*.md"))
    parts = ["Context", "Decision", "Alternatives", "Consequences"]
    for number, path in enumerate(decisions, 1):
        title, *headings = Page(str(path.relative_to(ROOT))).headings
        assert path.name.startswith(f"{number:04}-")
        assert title.startswith(f"{number}. ")
        assert headings == parts


def test_the_first_paragraph_about_proxies_is_the_warning() -> None:
    first = Page("docs/how-to/reverse-proxy.md").text.split("\n\n")[1]
    assert first.startswith("**Warning: a plain reverse proxy on the same machine can make")
