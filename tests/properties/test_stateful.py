"""A library against a plain dict: in whatever order things are asked, no byte is lost."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from flask_comfy_files import FileManager
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.errors import (
    ConflictError,
    JobInOtherProjectError,
    JobNotFoundError,
    JobPinnedError,
    JobTrashedError,
)
from flask_comfy_files.core.records import OrganizeReport, Tally
from tests.invariants import (
    assert_cleanup_reconciles,
    assert_reconciles,
    assert_sound,
    changes_of,
    reasons,
)
from tests.trees import Clock, outputs, write_tree

SHOT, SHOT_7, SHOT_7_UP = JOBS = ("shot", "shot_7", "shot_7_up")
PROJECTS = ("tokyo", "osaka")

OWNERS: dict[str, list[str]] = {
    "shot_00001_.txt": [SHOT],
    "shot_00002_.bin": [SHOT],
    "shot_final.txt": [SHOT],
    "sub/shot_00001_.txt": [SHOT],
    "shot_7_00001_.txt": [SHOT_7],
    "shot_7.txt": [SHOT_7],
    "shot_7/loose.txt": [SHOT_7],
    "shot_7/loose": [SHOT_7],
    "shot_7_up_00001_.txt": [SHOT_7_UP, SHOT_7],
    "shot_7_up_x\udcff.txt": [SHOT_7_UP, SHOT_7],
    "inbox/shot/run/x.txt": [SHOT],
    "inbox/shot_7/run/shot_00001_.txt": [SHOT_7],
    "inbox/shot_7_up/y.png": [SHOT_7_UP],
    "nobody's.txt": [],
    "アニメ 01/nobody.png": [],
}
"""Where files may appear, and whose they are: the first's, and while that is unknown the next one's."""

TRASH_DAYS = 1
LONG_AGO = datetime.fromisoformat("1970-01-01T00:00:00Z")


@dataclass
class Job:
    """What the library should know of a job."""

    project_id: str
    files: list[tuple[str, str | None, bytes]] = field(default_factory=list)
    """Original path, run and content, in their order."""
    newest_at: datetime = LONG_AGO
    restored_at: datetime = LONG_AGO
    is_pinned: bool = False

    @property
    def tally(self) -> Tally:
        contents = [content for _, _, content in self.files]
        return Tally(files=len(contents), bytes=sum(map(len, contents)))

    def has_settled(self, path: str, run: str | None) -> bool:
        return any(path == original and run in {None, known} for original, known, _ in self.files)


@dataclass
class Deleted:
    """A job in the trash."""

    job_id: str
    job: Job
    at: datetime


class Library(RuleBasedStateMachine):
    """What each machine may do, and what holds.

    Hypothesis leaves some rules out of each run and gives all others the same share, so what belongs together is
    one rule: deletions without restorations, or too many torn documents, would show little.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.root = self.folder / "output"
        self.root.mkdir()
        self.clock = Clock()
        self.manager = self.open()
        self.loose: dict[str, bytes] = {}
        self.jobs: dict[str, Job] = {}
        self.trash: list[Deleted] = []
        """Oldest first."""
        self.ever_known: set[str] = set()
        self.written = 0
        self.purged = 0

    def open(self) -> FileManager:
        return FileManager(self.root, clock=self.clock, trash_days=TRASH_DAYS, min_free_bytes=0)

    def teardown(self) -> None:
        self.manager.close()
        shutil.rmtree(self.folder)

    @initialize(job_ids=st.lists(st.sampled_from(JOBS), unique=True))
    def some_jobs_are_there_already(self, job_ids: list[str]) -> None:
        for job_id in job_ids:
            for path in [path for path, owners in OWNERS.items() if owners[:1] == [job_id]][:3]:
                self.write(path)
            self.organize_found(job_id, None, None)

    # --- what happens outside

    @rule(data=st.data())
    def something_happens_outside(self, data: st.DataObject) -> None:
        acts = [self.comfyui_writes_a_file] * 3
        acts += [self.time_passes, self.the_process_starts_anew, self.the_index_is_deleted]
        if self.ever_known:
            acts.append(self.the_end_of_the_document_is_torn_and_the_next_change_mends_it)
        data.draw(st.sampled_from(acts))(data)

    def comfyui_writes_a_file(self, data: st.DataObject) -> None:
        self.write(data.draw(st.sampled_from(sorted(OWNERS))))

    def write(self, path: str) -> None:
        if path not in self.loose:
            self.written += 1
            content = b"the %d. file that was written" % self.written
            self.loose[path] = content
            write_tree(self.root, {path: content})

    def time_passes(self, data: st.DataObject) -> None:
        self.clock.advance(data.draw(st.sampled_from([0.5, 1, 60, 43_200])))

    def the_process_starts_anew(self, data: st.DataObject) -> None:  # noqa: ARG002 - as the others
        self.manager.close()
        self.manager = self.open()

    def the_index_is_deleted(self, data: st.DataObject) -> None:
        if data.draw(st.booleans()):
            self.manager.close()
        for path in (self.root / ".comfy_files").glob("index.sqlite3*"):
            path.unlink()

    def the_end_of_the_document_is_torn_and_the_next_change_mends_it(
        self, data: st.DataObject
    ) -> None:
        torn = data.draw(st.sampled_from([b"", b"\n", b"\0" * 30, b',\n{"seq"', b",]}\n", b"\n]}"]))
        path = self.root / "file_metadata.json"
        path.write_bytes(path.read_bytes().removesuffix(b"\n]}\n") + torn)
        self.organize(f"new_{len(self.ever_known)}", None, None, [], {}, [])

    # --- what is asked for

    @rule(
        job_id=st.sampled_from(JOBS),
        project_id=st.sampled_from([None, *PROJECTS]),
        run=st.sampled_from([None, "run-1", "run-2"]),
    )
    def organize_found(self, job_id: str, project_id: str | None, run: str | None) -> None:
        found = [path for path in self.loose if self.owner(path, job_id) == job_id]
        self.organize(job_id, project_id, run, found, {}, None)

    def owner(self, path: str, asking: str) -> str | None:
        """Return whose a file is when a job asks; a longer id counts only once it is known."""
        for owner in OWNERS[path]:
            if owner == asking or owner in self.jobs:
                return owner
        return None

    def organize(
        self,
        job_id: str,
        project_id: str | None,
        run: str | None,
        found: list[str],
        foreign: dict[str, str],
        named: list[str] | None,
    ) -> None:
        known = self.jobs.get(job_id)
        if known is not None and project_id not in {None, known.project_id}:
            with pytest.raises(ConflictError):
                self.manager.organize_output(job_id, project_id, prompt_id=run, files=named)
            return
        job = known or Job(project_id or "default")
        left = dict(foreign)
        arrived = []
        for path in found:
            if path not in self.loose:
                if not any(path == original for original, _, _ in job.files):
                    left[path] = "not_found"
            elif job.has_settled(path, run):
                left[path] = "name_reused"
            else:
                arrived.append(path)
        report = self.manager.organize_output(job_id, project_id, prompt_id=run, files=named)
        self.jobs[job_id] = job
        self.ever_known.add(job_id)
        self.check(report, job, arrived, left, run, is_ordered=named is not None)

    def check(
        self,
        report: OrganizeReport,
        job: Job,
        arrived: list[str],
        left: dict[str, str],
        run: str | None,
        *,
        is_ordered: bool,
    ) -> None:
        assert_reconciles(report)
        found = reasons(report)
        assert {path: found[path] for path in found if found[path] != "ambiguous_prefix"} == left
        added = [record.original_path for record in report][len(job.files) :]
        assert (added if is_ordered else sorted(added)) == (
            arrived if is_ordered else sorted(arrived)
        )
        job.files += [(path, run, self.loose.pop(path)) for path in added]
        if added:
            job.newest_at = self.clock.now
        assert report.project_id == job.project_id

    # --- what always holds

    @invariant()
    def every_byte_exists_exactly_once_and_where_the_record_says(self) -> None:
        expected = dict(self.loose)
        for job_id, job in self.jobs.items():
            records = self.manager.get_job_files(job_id).files
            assert [
                (record.original_path, record.prompt_id) for record in records
            ] == [(path, run) for path, run, _ in job.files]  # fmt: skip
            expected |= {
                record.path: content
                for record, (_, _, content) in zip(records, job.files, strict=True)
            }
        tree = {path: entry for path, entry in outputs(self.root).items() if entry is not None}
        assert tree == expected
        trash = (self.root / ".comfy_files/trash").rglob("*")
        resting = [path.read_bytes() for path in trash if path.is_file()]
        deleted = [content for gone in self.trash for _, _, content in gone.job.files]
        assert sorted(resting) == sorted(deleted)
        everything = [*tree.values(), *resting]
        assert len(set(everything)) == len(everything) == self.written - self.purged

    @invariant()
    def document_index_and_tree_tell_one_story_and_nothing_is_unfinished(self) -> None:
        if not self.ever_known:
            assert not (self.root / "file_metadata.json").exists()
            return
        assert_sound(self.root)
        assert {change["job_id"] for change in changes_of(self.root)} == self.ever_known
        catalog = Catalog(str(self.root), lock_timeout_s=1)
        assert not catalog.is_behind()
        catalog.close()

    @invariant()
    def the_numbers_add_up(self) -> None:
        stats = self.manager.get_system_stats()
        contents = [content for job in self.jobs.values() for _, _, content in job.files]
        assert stats.total_files == len(contents)
        assert stats.total_size == sum(map(len, contents))
        assert stats.projects == len({job.project_id for job in self.jobs.values()})
        assert (stats.health.state, stats.pending_jobs) == ("ok", 0)
        tallies = [gone.job.tally for gone in self.trash]
        assert stats.trash == Tally(
            files=sum(tally.files for tally in tallies), bytes=sum(tally.bytes for tally in tallies)
        )
        assert [(job.job_id, job.file_count) for job in self.manager.get_trash()] == [
            (gone.job_id, gone.job.tally.files) for gone in self.trash
        ] or len({gone.at for gone in self.trash}) < len(self.trash)


class Asking(Library):
    """It is asked in all the ways in which a host may ask."""

    @rule(
        job_id=st.sampled_from(JOBS),
        project_id=st.sampled_from([None, *PROJECTS]),
        run=st.sampled_from([None, "run-1", "run-2"]),
        paths=st.lists(st.sampled_from(sorted(OWNERS)), max_size=5),
    )
    def organize_named(
        self, job_id: str, project_id: str | None, run: str | None, paths: list[str]
    ) -> None:
        expected = dict.fromkeys(paths)
        foreign = {
            path: "belongs_to_another_job"
            for path in expected
            if path.startswith("inbox/") and path.split("/")[1] != job_id
        }
        found = [path for path in expected if path not in foreign]
        self.organize(job_id, project_id, run, found, foreign, paths)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def organize_the_same_again(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.jobs)))
        before = self.manager.get_job_files(job_id)
        document = (self.root / "file_metadata.json").read_bytes()
        named = [record.path for record in before]
        report = self.manager.organize_output(job_id, self.jobs[job_id].project_id, files=named)
        assert report.organized_files == before.files
        assert (report.moved.files, reasons(report)) == (0, {})
        if before.files:
            assert (self.root / "file_metadata.json").read_bytes() == document

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def contradict(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.jobs)))
        other = "tokyo" if self.jobs[job_id].project_id != "tokyo" else "osaka"
        for contradiction in ((job_id, other), (job_id.title(), None)):
            with pytest.raises(ConflictError):
                self.manager.organize_output(*contradiction)


class Deleting(Library):
    """Its jobs come and go."""

    @precondition(lambda self: self.ever_known)
    @rule(data=st.data())
    def something_happens_to_a_job(self, data: st.DataObject) -> None:
        acts = [self.clean_up, self.ask_for_what_is_not_there]
        acts += [self.pin, self.delete, self.delete] if self.jobs else []
        acts += [self.restore, self.restore] if self.trash else []
        data.draw(st.sampled_from(acts))(data)

    def pin(self, data: st.DataObject) -> None:
        is_pinned = data.draw(st.booleans())
        job_id = data.draw(st.sampled_from(sorted(self.jobs)))
        assert self.manager.update_job(job_id, pinned=is_pinned).pinned == is_pinned
        self.jobs[job_id].is_pinned = is_pinned

    def delete(self, data: st.DataObject) -> None:
        self.clock.advance(0.000_001)  # no two deletions of one job happen at once
        job_id = data.draw(st.sampled_from(sorted(self.jobs)))
        if self.jobs[job_id].is_pinned:
            with pytest.raises(JobPinnedError):
                self.manager.delete_job_files(job_id)
            return
        report = self.manager.delete_job_files(job_id)
        tally = self.jobs[job_id].tally
        assert (report.deleted_files, report.bytes_trashed) == (tally.files, tally.bytes)
        assert (report.skipped, report.failed) == ((), ())
        self.trash.append(Deleted(job_id, self.jobs.pop(job_id), self.clock.now))

    def restore(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted({gone.job_id for gone in self.trash})))
        gone = self.deletions_of(job_id)[-1]
        job = self.jobs.get(job_id)
        if job is not None and gone.job.project_id != job.project_id:
            with pytest.raises(JobInOtherProjectError):
                self.manager.restore_job_files(job_id)
            return
        report = self.manager.restore_job_files(job_id)
        assert report.already_there == (Tally() if job is None else job.tally)
        assert report.restored == gone.job.tally
        assert (report.skipped, report.failed) == ((), ())
        self.trash.remove(gone)
        if job is None:
            self.jobs[job_id] = job = gone.job
        else:
            job.files += gone.job.files
            job.newest_at = max(job.newest_at, gone.job.newest_at)
        job.restored_at = self.clock.now

    def ask_for_what_is_not_there(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(JOBS))
        document = (self.root / "file_metadata.json").read_bytes()
        deletions = self.deletions_of(job_id)
        if job_id not in self.jobs:
            with pytest.raises(JobTrashedError if deletions else JobNotFoundError):
                self.manager.update_job(job_id, pinned=True)
            if deletions:
                report = self.manager.delete_job_files(job_id)
                assert report.deleted_files == deletions[-1].job.tally.files
            else:
                for act in (self.manager.delete_job_files, self.manager.restore_job_files):
                    with pytest.raises(JobNotFoundError):
                        act(job_id)
        elif not deletions:
            assert self.manager.restore_job_files(job_id).restored == Tally()
        assert (self.root / "file_metadata.json").read_bytes() == document

    def clean_up(self, data: st.DataObject) -> None:
        days = data.draw(st.sampled_from([0, 1, 2]))
        self.clock.advance(data.draw(st.sampled_from([0, 1, 43_200, 86_400])))
        now, age = self.clock.now, timedelta(days=days)
        going = {
            job_id: job
            for job_id, job in self.jobs.items()
            if job.files
            and not job.is_pinned
            and now - job.newest_at > age
            and now - job.restored_at > age
        }
        due = [gone for gone in self.trash if now - gone.at >= timedelta(days=TRASH_DAYS)]
        rehearsal = self.manager.plan_cleanup(days, allow=["clock_jump"])
        report = self.manager.cleanup_old_files(days, allow=["clock_jump"])
        assert replace(rehearsal, dry_run=False, operation_id=report.operation_id) == report
        assert_cleanup_reconciles(report)
        assert {job.job_id for job in report.jobs} == going.keys()
        assert report.purged_files == sum(gone.job.tally.files for gone in due)
        assert report.bytes_freed == sum(gone.job.tally.bytes for gone in due)
        self.purged += report.purged_files
        self.trash = [gone for gone in self.trash if gone not in due]
        for job_id, job in going.items():
            self.trash.append(Deleted(job_id, job, now))
            del self.jobs[job_id]
        self.clock.advance(0.000_001)

    def deletions_of(self, job_id: str) -> list[Deleted]:
        return [gone for gone in self.trash if gone.job_id == job_id]


TestAsking = Asking.TestCase
TestAsking.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)

TestDeleting = Deleting.TestCase
TestDeleting.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
