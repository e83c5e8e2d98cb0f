"""Files that pages show: those given by their path stay on disk and are read when a browser asks for them."""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex

from streamlit import runtime
from streamlit.runtime.media_file_storage import MediaFileKind, MediaFileStorageError
from streamlit.runtime.memory_media_file_storage import (
    MemoryFile,
    MemoryMediaFileStorage,
    get_extension_for_mimetype,
)
from streamlit.web.server import server

from thirtytwo.app import library


class DiskMedia(MemoryMediaFileStorage):
    """Streamlit's store of the files of pages, with those that are given by their path left on disk.

    Streamlit's own store keeps the content of every file in memory. Files have identities that cannot be guessed, for
    as long as a page shows them.
    """

    def __init__(self, media_endpoint: str) -> None:
        super().__init__(media_endpoint)
        self._endpoint = media_endpoint
        self._on_disk: dict[str, tuple[str, str]] = {}
        self._identities: dict[tuple[str, str], str] = {}

    def load_and_get_id(
        self, path_or_data: str | bytes, mimetype: str, kind: MediaFileKind, filename: str | None = None
    ) -> str:
        """Add a file and return its identity; called by Streamlit."""
        if isinstance(path_or_data, bytes):
            return super().load_and_get_id(path_or_data, mimetype, kind, filename)
        known = (path_or_data, mimetype)
        identity = self._identities.setdefault(known, token_hex(16))
        self._on_disk[identity] = known
        return identity

    def get_file(self, filename: str) -> MemoryFile:
        """The file of a request, read now; called by Streamlit.

        Raises:
            MediaFileStorageError: there is no such file, or it is gone.
        """
        found = self._on_disk.get(Path(filename).stem)
        if found is None:
            return super().get_file(filename)
        path, mimetype = found
        try:
            return MemoryFile(Path(path).read_bytes(), mimetype, MediaFileKind.MEDIA, None)
        except OSError as error:
            raise MediaFileStorageError(f"The file {filename!r} cannot be read.") from error

    def get_url(self, file_id: str) -> str:
        """Address of a file; called by Streamlit."""
        found = self._on_disk.get(file_id)
        if found is None:
            return super().get_url(file_id)
        return f"{self._endpoint}/{file_id}{get_extension_for_mimetype(found[1])}"

    def delete_file(self, file_id: str) -> None:
        """Forget a file, which stays on disk; called by Streamlit."""
        found = self._on_disk.pop(file_id, None)
        if found is None:
            super().delete_file(file_id)
        else:
            self._identities.pop(found, None)


def install() -> None:
    """Make the servers that Streamlit creates from now on leave files on disk."""
    vars(server)["MemoryMediaFileStorage"] = DiskMedia


def serve(path: Path, mimetype: str, place: str) -> str:
    """Serve a file to this session's browser while the page shows it; returns its address.

    Args:
        path: the file.
        mimetype: its type.
        place: what shows it; another file in the same place replaces it.
    """
    return library.settings.base_path + runtime.get_instance().media_file_mgr.add(str(path), mimetype, place)
