"""Files that browsers upload: kept on disk instead of in memory until a page takes them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Protocol
from weakref import finalize

from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFileRec
from streamlit.web.server import server


class Uploaded(Protocol):
    """The part of Streamlit's uploaded file that is used."""

    name: str

    def getvalue(self) -> bytes: ...


class DiskUploads(MemoryUploadedFileManager):
    """Streamlit's store of uploaded files, with their content in temporary files.

    Streamlit's own store keeps every file in memory until the session ends: 2 GB for 500 photographs of a phone.
    """

    def __init__(self, upload_endpoint: str) -> None:
        super().__init__(upload_endpoint)
        self.folder = Path(tempfile.mkdtemp(prefix="thirtytwo-uploads-"))
        finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def add_file(self, session_id: str, file: UploadedFileRec) -> None:
        """Write a file to disk; called by the server."""
        self.path(session_id, file.file_id).write_bytes(file.data)
        super().add_file(session_id, file._replace(data=b""))

    def remove_file(self, session_id: str, file_id: str) -> None:
        """Delete a file."""
        super().remove_file(session_id, file_id)
        self.path(session_id, file_id).unlink(missing_ok=True)

    def remove_session_files(self, session_id: str) -> None:
        """Delete the files of a session that ended."""
        super().remove_session_files(session_id)
        for path in self.folder.glob(f"{_as_name(session_id)}.*"):
            path.unlink(missing_ok=True)

    def read(self, session_id: str, file_id: str) -> bytes:
        """Content of a file; a FileNotFoundError if it was deleted."""
        return self.path(session_id, file_id).read_bytes()

    def path(self, session_id: str, file_id: str) -> Path:
        """The file that holds an upload."""
        return self.folder / f"{_as_name(session_id)}.{_as_name(file_id)}"


def install() -> None:
    """Make the servers that Streamlit creates from now on keep uploads on disk."""
    vars(server)["MemoryUploadedFileManager"] = DiskUploads


def content(file: Uploaded) -> bytes:
    """Content of an uploaded file."""
    context, identity = get_script_run_ctx(), getattr(file, "file_id", None)
    if context is None or identity is None or not isinstance(context.uploaded_file_mgr, DiskUploads):
        return file.getvalue()
    return context.uploaded_file_mgr.read(context.session_id, identity)


def path_of(file: Uploaded) -> Path | None:
    """The file on disk of an uploaded file; None where Streamlit keeps it in memory."""
    context, identity = get_script_run_ctx(), getattr(file, "file_id", None)
    if context is None or identity is None or not isinstance(context.uploaded_file_mgr, DiskUploads):
        return None
    return context.uploaded_file_mgr.path(context.session_id, identity)


def discard(file: Uploaded) -> None:
    """Delete an uploaded file whose content was taken."""
    context, identity = get_script_run_ctx(), getattr(file, "file_id", None)
    if context is not None and identity is not None:
        manager = context.uploaded_file_mgr
        if isinstance(manager, MemoryUploadedFileManager):
            manager.remove_file(context.session_id, identity)


def _as_name(identity: str) -> str:
    """An identifier as part of a file name: these come from the address of a request."""
    return "".join(char if char.isalnum() or char == "-" else "_" for char in identity)
