"""Files of pages stay on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("streamlit")

from streamlit.runtime.media_file_storage import MediaFileKind, MediaFileStorageError

from thirtytwo.app.media import DiskMedia


def test_files_are_read_when_asked_for_and_forgotten_when_not_shown(tmp_path: Path) -> None:
    media, path = DiskMedia("/media"), tmp_path / "a.jpg"
    path.write_bytes(b"first")
    identity = media.load_and_get_id(str(path), "image/jpeg", MediaFileKind.MEDIA)
    assert media.load_and_get_id(str(path), "image/jpeg", MediaFileKind.MEDIA) == identity
    url = media.get_url(identity)
    assert (url.startswith("/media/"), url.endswith(".jpg"), str(tmp_path) in url) == (True, True, False)
    path.write_bytes(b"second")
    assert media.get_file(Path(url).name).content == b"second"
    assert media.get_stats() == {}, "nothing is in memory"
    path.unlink()
    with pytest.raises(MediaFileStorageError):
        media.get_file(Path(url).name)
    media.delete_file(identity)
    with pytest.raises(MediaFileStorageError):
        media.get_url(identity)
    assert media.load_and_get_id(str(path), "image/jpeg", MediaFileKind.MEDIA) != identity
    bytes_id = media.load_and_get_id(b"third", "text/csv", MediaFileKind.DOWNLOADABLE, "a.csv")
    assert media.get_file(bytes_id).content == b"third"
