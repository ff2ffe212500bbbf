"""The bytes of files in other forms: a thumbnail of one, or all of a job in an archive."""

from __future__ import annotations

from flask_comfy_files.core import thumbnails
from flask_comfy_files.core.archiving import Archive, archive_of
from flask_comfy_files.core.errors import RecordNotFoundError
from flask_comfy_files.core.manager.jobs import Jobs
from flask_comfy_files.core.thumbnails import Thumbnail


class Delivering(Jobs):
    """What a manager hands out of a library."""

    def get_thumbnail(self, file_id: str, size: int = 256) -> Thumbnail:
        """Return the thumbnail of a file by its id or its path: of an image, or of a frame of a video.

        ``size`` is its longer side in pixels: 64, 128, 256, 512 or 1024; a smaller image keeps its size. It is
        drawn once and kept below ``.comfy_files/``, up to the setting ``THUMBNAIL_CACHE_BYTES``; where it cannot
        be kept it is drawn again. A file without a picture, a damaged one, and one that is too large to be
        decoded, get a placeholder that says so.

        Raises:
            InvalidInputError: There is no such size.
            RecordNotFoundError: There is no such file, or it rests in the trash, or its bytes are missing.
            NameNotFoundError: It has vanished just now.
            MissingExtraError: Drawing it needs Pillow, or PyAV for a video.
        """
        side = thumbnails.require_size(size)
        record = self.get_file_metadata(file_id)
        if record.missing:
            raise RecordNotFoundError(file_id)
        return self._thumbnails.get(record, side)

    def stream_archive(self, job_id: str) -> Archive:
        """Return all files of a job as one ZIP archive with a manifest, made piece by piece as it is read.

        The memory it takes does not depend on the size of the files. Read it to its end, or close its
        ``content``.

        Raises:
            InvalidIdentifierError: No job can have such an id.
            JobNotFoundError: It is not known; ``JobTrashedError`` where it rests in the trash.
            MissingExtraError: zipstream-ng is not installed.
        """
        return archive_of(self._root, self.get_job_files(job_id))
