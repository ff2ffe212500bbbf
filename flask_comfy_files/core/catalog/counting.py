"""Numbers and bytes by project and file type, kept so that no question has to count."""

from __future__ import annotations

import sqlite3

from flask_comfy_files.core.layout import comparable


class Counted:
    """Numbers and bytes by project and file type that lines add or take away, written at once."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._jobs: dict[str, int] = {}
        self._types: dict[tuple[str, str], tuple[int, int]] = {}

    def add_jobs(self, project_id: str, number: int) -> None:
        """Count jobs of a project; a negative number takes away."""
        self._jobs[project_id] = self._jobs.get(project_id, 0) + number

    def add_files(self, project_id: str, file_type: str, number: int, size: int) -> None:
        """Count files and bytes of a project; negative numbers take away."""
        key = project_id, file_type
        before = self._types.get(key, (0, 0))
        self._types[key] = before[0] + number, before[1] + size

    def write(self, connection: sqlite3.Connection) -> None:
        """Add everything to the kept totals; a project without jobs is known no more."""
        self._write_jobs(connection)
        connection.executemany(
            "UPDATE projects SET file_count = file_count + ?2, total_size = total_size + ?3"
            " WHERE project_id = ?1",
            [(name, *numbers) for (name, _), numbers in self._types.items()],
        )
        connection.executemany(
            "INSERT INTO types VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " file_count = file_count + excluded.file_count,"
            " total_size = total_size + excluded.total_size",
            [(*key, *numbers) for key, numbers in self._types.items()],
        )
        connection.executemany(
            "DELETE FROM types WHERE project_id = ?1"
            " AND NOT EXISTS (SELECT 1 FROM projects WHERE project_id = ?1)",
            [(name,) for name, number in self._jobs.items() if number <= 0],
        )

    def _write_jobs(self, connection: sqlite3.Connection) -> None:
        """Count the jobs of projects; those that are gone go first, for one in another case may follow."""
        connection.executemany(
            "UPDATE projects SET job_count = job_count + ?2 WHERE project_id = ?1",
            list(self._jobs.items()),
        )
        connection.executemany(
            "DELETE FROM projects WHERE project_id = ? AND job_count <= 0",
            [(name,) for name in self._jobs],
        )
        connection.executemany(
            "INSERT INTO projects (project_id, comparable, job_count) SELECT ?1, ?2, ?3"
            " WHERE NOT EXISTS (SELECT 1 FROM projects WHERE project_id = ?1)",
            [(name, comparable(name), number) for name, number in self._jobs.items() if number > 0],
        )
