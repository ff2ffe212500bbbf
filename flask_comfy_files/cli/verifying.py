"""Commands that compare the library with its records, and put right what was found."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, TextIO

import click

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.cli.exits import INCOMPLETE, exits_by_error
from flask_comfy_files.cli.printing import (
    as_json_option,
    file_progress,
    shortened,
    show,
    size_text,
)
from flask_comfy_files.core.errors import InvalidInputError
from flask_comfy_files.core.findings import FindingKind


def commands(api: FileManagerAPI) -> list[click.Command]:
    """Return the commands of one app's library."""
    return [make(api) for make in (_verify, _repair)]


def _verify(api: FileManagerAPI) -> click.Command:
    @click.command("verify")
    @click.option("--read-bytes", is_flag=True, help="Read every file, and compare checksums.")
    @click.option("--max-seconds", type=click.FloatRange(min=0, min_open=True), help="Stop then.")
    @click.option("--cursor", help="Go on where an earlier call has stopped.")
    @click.option("--quiet", is_flag=True, help="Show no progress.")
    @as_json_option
    @exits_by_error
    def verify(
        read_bytes: bool,
        max_seconds: float | None,
        cursor: str | None,
        quiet: bool,
        as_json: bool,
    ) -> None:
        """Compare document, index and files, and change nothing."""
        with file_progress("Verifying", is_wanted=not quiet) as progress:
            answer = api.verify_files_api(
                read_bytes=read_bytes, max_seconds=max_seconds, cursor=cursor, on_progress=progress
            )
        show(answer, as_json, _describe_verified)
        if answer["findings"] or answer["failed"]:
            sys.exit(INCOMPLETE)

    return verify


def _repair(api: FileManagerAPI) -> click.Command:
    @click.command("repair")
    @click.option(
        "--kind",
        "kinds",
        multiple=True,
        type=click.Choice([str(kind) for kind in FindingKind]),
        help="Verify, and repair what is found of this kind; may be repeated.",
    )
    @click.option(
        "--findings",
        "source",
        type=click.File("r", encoding="utf-8"),
        help="JSON: what verify has printed.",
    )
    @click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
    @click.option("--quiet", is_flag=True, help="Show no progress.")
    @as_json_option
    @exits_by_error
    def repair(
        kinds: tuple[str, ...], source: TextIO | None, dry_run: bool, quiet: bool, as_json: bool
    ) -> None:
        """Put right what a verification has found: all of some kinds, or what a file lists."""
        if not kinds and source is None:
            raise click.UsageError("Say what to repair: --kind, --findings, or both.")
        findings = _found(api, quiet=quiet) if source is None else _read_findings(source)
        if kinds:
            findings = [found for found in findings if _kind_of(found) in kinds]
        act = api.plan_repair_api if dry_run else api.repair_files_api
        answer = act(findings)
        show(answer, as_json, _describe_repaired)
        if answer["failed"] or answer["skipped"]:
            sys.exit(INCOMPLETE)

    return repair


def _found(api: FileManagerAPI, *, quiet: bool) -> list[Any]:
    findings: list[Any] = []
    cursor = None
    with file_progress("Verifying", is_wanted=not quiet) as progress:
        while True:
            answer = api.verify_files_api(cursor=cursor, on_progress=progress)
            findings += answer["findings"]
            cursor = answer["cursor"]
            if answer["is_complete"]:
                return findings


def _read_findings(source: TextIO) -> list[Any]:
    """Return the findings of a report, or of a list of them."""
    try:
        said = json.load(source)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("--findings", source.name, f"is no JSON: {error}") from None
    findings = said.get("findings") if isinstance(said, dict) else said
    if not isinstance(findings, list):
        raise InvalidInputError("--findings", source.name, "holds no list of findings")
    return findings


def _kind_of(found: Any) -> Any:
    return found.get("kind") if isinstance(found, dict) else None


def _describe_verified(answer: Json) -> list[str]:
    checked, findings = answer["checked"], answer["findings"]
    head = (
        f"Verified {checked['files']} files, {size_text(checked['bytes'])}:"
        f" {len(findings)} findings, {len(answer['failed'])} failed."
    )
    numbers = Counter(found["kind"] for found in findings)
    lines = [head]
    for kind in (str(kind) for kind in FindingKind if numbers[str(kind)]):
        lines.append(f"{kind}: {numbers[kind]}")
        lines += shortened(_paths(findings, kind))
    failed = [f"  failed {left['path']}: {left['reason']}" for left in answer["failed"]]
    lines += shortened(failed)
    if not answer["is_complete"]:
        lines.append(f"Not finished; go on with --cursor {answer['cursor']}")
    return lines


def _paths(findings: Sequence[Json], kind: str) -> list[str]:
    return [f"  {found['path']}: {found['detail']}" for found in findings if found["kind"] == kind]


def _describe_repaired(answer: Json) -> list[str]:
    would = "Would repair" if answer["dry_run"] else "Repaired"
    repaired, skipped, failed = (answer[key] for key in ("repaired", "skipped", "failed"))
    head = (
        f"{would} {len(repaired)} of {answer['found']} findings;"
        f" {len(skipped)} skipped, {len(failed)} failed."
    )
    done = [f"  {entry['kind']} {entry['path']}: {entry['detail']}" for entry in repaired]
    left = [f"  skipped {entry['path']}: {entry['reason']}" for entry in skipped]
    broken = [f"  failed {entry['path']}: {entry['reason']}" for entry in failed]
    return [head, *shortened(done), *shortened(left), *shortened(broken)]
