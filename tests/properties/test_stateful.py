"""A library against a plain dict: in whatever order things are asked, no byte is lost."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flask_comfy_files import FileManager
from flask_comfy_files.core.catalog.catalog import Catalog
from flask_comfy_files.core.errors import ConflictError
from flask_comfy_files.core.records import OrganizeReport
from tests.invariants import assert_reconciles, assert_sound, changes_of, reasons
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


@dataclass
class Job:
    """What the library should know of a job."""

    project_id: str
    files: list[tuple[str, str | None, bytes]] = field(default_factory=list)
    """Original path, run and content, in their order."""

    def has_settled(self, path: str, run: str | None) -> bool:
        return any(path == original and run in {None, known} for original, known, _ in self.files)


class Library(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.root = self.folder / "output"
        self.root.mkdir()
        self.clock = Clock()
        self.manager = FileManager(self.root, clock=self.clock)
        self.loose: dict[str, bytes] = {}
        self.jobs: dict[str, Job] = {}
        self.written = 0

    def teardown(self) -> None:
        self.manager.close()
        shutil.rmtree(self.folder)

    # --- what happens outside

    @rule(path=st.sampled_from(sorted(OWNERS)))
    def comfyui_writes_a_file(self, path: str) -> None:
        if path not in self.loose:
            self.written += 1
            content = b"the %d. file that was written" % self.written
            self.loose[path] = content
            write_tree(self.root, {path: content})

    @rule(seconds=st.sampled_from([0.5, 1, 60]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def the_process_starts_anew(self) -> None:
        self.manager.close()
        self.manager = FileManager(self.root, clock=self.clock)

    @rule(is_open=st.booleans())
    def the_index_is_deleted(self, *, is_open: bool) -> None:
        if not is_open:
            self.manager.close()
        for path in (self.root / ".comfy_files").glob("index.sqlite3*"):
            path.unlink()

    @precondition(lambda self: self.jobs)
    @rule(torn=st.sampled_from([b"", b"\n", b"\0" * 30, b',\n{"seq"', b",]}\n", b"\n]}"]))
    def the_end_of_the_document_is_torn_and_the_next_change_mends_it(self, torn: bytes) -> None:
        path = self.root / "file_metadata.json"
        path.write_bytes(path.read_bytes().removesuffix(b"\n]}\n") + torn)
        self.organize(f"new_{len(self.jobs)}", None, None, [], {}, [])

    # --- what is asked for

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

    @rule(
        job_id=st.sampled_from(JOBS),
        project_id=st.sampled_from([None, *PROJECTS]),
        run=st.sampled_from([None, "run-1", "run-2"]),
    )
    def organize_found(self, job_id: str, project_id: str | None, run: str | None) -> None:
        found = [path for path in self.loose if self.owner(path, job_id) == job_id]
        self.organize(job_id, project_id, run, found, {}, None)

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
        assert len(set(tree.values())) == len(tree) == self.written

    @invariant()
    def document_index_and_tree_tell_one_story_and_nothing_is_unfinished(self) -> None:
        if not self.jobs:
            assert not (self.root / "file_metadata.json").exists()
            return
        assert_sound(self.root)
        assert {change["job_id"] for change in changes_of(self.root)} == set(self.jobs)
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


TestLibrary = Library.TestCase
TestLibrary.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
