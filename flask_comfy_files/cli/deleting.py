"""Commands that delete, and bring back. What deletes asks first, or wants --yes where nobody can be asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from flask_comfy_files.api import FileManagerAPI, Json
from flask_comfy_files.cli.asking import confirm, require_terminal, yes_option
from flask_comfy_files.cli.exits import INCOMPLETE, exits_by_error
from flask_comfy_files.cli.printing import as_json_option, printable, shortened, show, size_text
from flask_comfy_files.core.cleanup import Progress


def commands(api: FileManagerAPI) -> list[click.Command]:
    """Return the commands of one app's library."""
    return [make(api) for make in (_cleanup, _delete, _restore, _trash)]


def _cleanup(api: FileManagerAPI) -> click.Command:
    @click.command("cleanup")
    @click.option("--days", type=int, help="How old a job may get; by default RETENTION_DAYS.")
    @click.option("--dry-run", is_flag=True, help="Say what would be deleted, and change nothing.")
    @click.option(
        "--make-plan", is_flag=True, help="The same, and keep it for --plan for 24 hours."
    )
    @click.option("--plan", "plan_id", help="Delete exactly what this plan says.")
    @click.option(
        "--allow",
        multiple=True,
        help="What is otherwise refused: empty_project, large_share or clock_jump; may be repeated.",
    )
    @yes_option
    @as_json_option
    @exits_by_error
    def cleanup(
        days: int | None,
        dry_run: bool,
        make_plan: bool,
        plan_id: str | None,
        allow: tuple[str, ...],
        yes: bool,
        as_json: bool,
    ) -> None:
        """Delete the jobs that are older than the retention days, as far as the policy does not keep them.

        They go to the trash. What lay there for TRASH_DAYS is deleted for good.
        """
        if dry_run + make_plan + (plan_id is not None) > 1:
            raise click.UsageError("Give one of --dry-run, --make-plan and --plan.")
        if plan_id is not None and (days is not None or allow):
            raise click.UsageError(
                "A plan says itself what it deletes; leave --days and --allow out."
            )
        if make_plan:
            answer = api.save_cleanup_plan_api(days, allow=allow)
            show(answer, as_json, _describe_plan)
            return
        if dry_run:
            show(api.plan_cleanup_api(days, allow=allow), as_json, _describe_cleanup)
            return
        if not yes:
            require_terminal()
            rehearsal = None if plan_id else api.plan_cleanup_api(days, allow=allow)
            confirm(_question(rehearsal, plan_id))
        with _progress() as progress:
            if plan_id is None:
                answer = api.cleanup_old_files_api(days, allow=allow, on_progress=progress)
            else:
                answer = api.apply_cleanup_plan_api(plan_id, on_progress=progress)
        api.manager.compact_if_worthwhile()
        _finish(answer, as_json, _describe_cleanup)

    return cleanup


def _delete(api: FileManagerAPI) -> click.Command:
    @click.command("delete")
    @click.argument("job_id")
    @click.option("--permanent", is_flag=True, help="For good; nothing brings it back.")
    @yes_option
    @as_json_option
    @exits_by_error
    def delete(job_id: str, permanent: bool, yes: bool, as_json: bool) -> None:
        """Move all files of a job to the trash."""
        is_for_good = permanent or not api.manager.settings.trash_days
        if not yes:
            where = "for good; nothing brings it back" if is_for_good else "into the trash"
            confirm(f"Delete job {job_id} {where}?")
        act = api.destroy_job_files_api if permanent else api.delete_job_files_api
        _finish(act(job_id), as_json, _describe_deleted)

    return delete


def _restore(api: FileManagerAPI) -> click.Command:
    @click.command("restore")
    @click.argument("job_id")
    @as_json_option
    @exits_by_error
    def restore(job_id: str, as_json: bool) -> None:
        """Bring a deleted job back from the trash."""
        _finish(api.restore_job_files_api(job_id), as_json, _describe_restored)

    return restore


def _trash(api: FileManagerAPI) -> click.Command:
    @click.command("trash")
    @click.option("--empty", is_flag=True, help="Delete everything in it for good.")
    @yes_option
    @as_json_option
    @exits_by_error
    def trash(empty: bool, yes: bool, as_json: bool) -> None:
        """List the deleted jobs that can be restored."""
        if not empty:
            show(api.get_trash_api(), as_json, _describe_trash)
            return
        if not yes:
            confirm("Delete everything in the trash for good? Nothing brings it back.")
        _finish(api.empty_trash_api(), as_json, _describe_purged)

    return trash


def _finish(answer: Json, as_json: bool, describe: Callable[[Json], list[str]]) -> None:
    show(answer, as_json, describe)
    if answer["failed"]:
        sys.exit(INCOMPLETE)


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """Show a bar on a terminal while the work goes on, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    with ExitStack() as stack:
        bar: Any = None

        def advance(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:  # not before it is known that there is something to do
                bar = stack.enter_context(
                    click.progressbar(
                        length=total, label="Deleting", file=sys.stderr, show_pos=True
                    )
                )
            bar.update(done - bar.pos)

        yield advance


def _question(rehearsal: Json | None, plan_id: str | None) -> str:
    if rehearsal is None:
        return f"Delete what plan {plan_id} says?"
    lines = _describe_cleanup(rehearsal)
    for line in lines:
        click.echo(printable(line), err=True)
    return "Do that?"


def _describe_plan(answer: Json) -> list[str]:
    return [
        f"Plan {answer['plan_id']}, good until {answer['expires_at']}:",
        *_describe_cleanup(answer["report"]),
    ]


def _describe_cleanup(answer: Json) -> list[str]:
    would = "Would delete" if answer["dry_run"] else "Deleted"
    freed = size_text(answer["bytes_freed"])
    head = (
        f"{would} {answer['deleted_files']} files of {len(answer['jobs'])} jobs,"
        f" {size_text(answer['bytes_trashed'])} into the trash, with {answer['removed_directories']} folders;"
        f" {answer['purged_files']} files leave the trash for good, {freed} freed."
    )
    jobs = [
        f"  delete {job['project_id']}/{job['job_id']}  {job['files']} files, {size_text(job['bytes'])},"
        f" {job['created_at']}: {job['reason']}"
        for job in answer["jobs"]
    ]
    kept = [
        f"  keep   {entry['project_id']}/{entry['job_id'] or '*'}  {entry['jobs']} jobs,"
        f" {entry['files']} files, {size_text(entry['bytes'])}: {entry['reason']}"
        for entry in answer["kept"]
    ]
    return [head, *shortened(jobs), *shortened(kept), *_describe_left(answer)]


def _describe_deleted(answer: Json) -> list[str]:
    head = f"Job {answer['job_id']}: deleted {answer['deleted_files']} files"
    if answer["restorable_until"]:
        size = size_text(answer["bytes_trashed"])
        head += f", {size} into the trash; they can be restored until {answer['restorable_until']}."
    elif not answer["deleted_files"]:
        head = f"Job {answer['job_id']}: nothing was deleted."
    else:
        head += f" for good, {size_text(answer['bytes_freed'])} freed."
    return [head, *_describe_left(answer)]


def _describe_restored(answer: Json) -> list[str]:
    restored, there = answer["restored"], answer["already_there"]
    head = (
        f"Job {answer['job_id']} in project {answer['project_id']}: {restored['files']} files restored,"
        f" {size_text(restored['bytes'])}, {there['files']} already there."
    )
    return [head, *_describe_left(answer)]


def _describe_trash(answer: Json) -> list[str]:
    head = f"{len(answer['jobs'])} jobs in the trash, {answer['files']} files, {size_text(answer['bytes'])}."
    jobs = [
        f"  {job['job_id']}  {job['file_count']} files, {size_text(job['total_size'])},"
        f" deleted {job['trashed_at']}, until {job['restorable_until']}"
        for job in answer["jobs"]
    ]
    return [head, *jobs]


def _describe_purged(answer: Json) -> list[str]:
    head = (
        f"Deleted {answer['purged_files']} files of {answer['purged_jobs']} jobs for good,"
        f" {size_text(answer['bytes_freed'])} freed."
    )
    return [head, *_describe_left({"skipped": [], **answer})]


def _describe_left(answer: Json) -> list[str]:
    skipped = [f"  left   {left['path']}: {left['reason']}" for left in answer["skipped"]]
    failed = [f"  failed {left['path']}: {left['reason']}" for left in answer["failed"]]
    return [*shortened(skipped), *shortened(failed)]
