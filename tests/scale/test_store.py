"""Files in folders and object stores: names without passwords, and errors that a library or a full disk raises."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thirtytwo.errors import InputError, OutputError

pytest.importorskip("pyarrow")
pytest.importorskip("fsspec", reason="needs the extra scale")

from thirtytwo.scale.store import LEFT_SECONDS, Store, open_store, without_credentials


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://bucket/images", "s3://bucket/images"),
        ("s3://key:secret@bucket/images?region=eu", "s3://bucket/images?region=eu"),
        ("s3://key:se/cr@et@bucket/images", "s3://bucket/images"),
        ("S3://key:secret@bucket?scheme=http&endpoint_override=127.0.0.1:9", "S3://bucket?scheme=http&endpoint_override=127.0.0.1:9"),
        ("sftp://anna:secret@host:22/images/a@b", "sftp://host:22/images/a@b"),
        ("hdfs://name-node:8020/images/a@b", "hdfs://name-node:8020/images/a@b"),
        ("hdfs://anna@name-node:8020/images", "hdfs://anna@name-node:8020/images"),
        ("abfs://container:secret@account.dfs.core.windows.net/images", "abfs://container@account.dfs.core.windows.net/images"),
        ("abfs://:secret@account.blob.core.windows.net/images", "abfs://account.blob.core.windows.net/images"),
        ("abfs://container@account.dfs.core.windows.net/a?sv=1&sig=secret", "abfs://container@account.dfs.core.windows.net/a?sv=1"),
        ("https://host/images?X-Amz-Credential=secret&X-Amz-Signature=secret", "https://host/images"),
    ],
)  # fmt: skip
def test_addresses_are_shown_without_passwords(address: str, shown: str) -> None:
    assert without_credentials(address) == shown


def test_a_password_is_not_shown_where_the_library_repeats_the_address(remote: Any, tmp_path: Path) -> None:
    address = f"remote://user:secret@host{tmp_path}"

    def refuse(access: str, path: str) -> None:
        raise RuntimeError(f"Cannot open {address}: no access.")

    remote.check = staticmethod(refuse)
    with pytest.raises(InputError) as caught:
        open_store(address).names()
    assert f"Cannot open remote://host{tmp_path}: no access" in str(caught.value)


@pytest.mark.parametrize(
    ("access", "use", "error"),
    [
        ("list", lambda store: store.kind("job.json"), InputError),
        ("list", lambda store: store.names(), InputError),
        ("list", lambda store: store.visible_names(), InputError),
        ("write", lambda store: store.write("parts/a", lambda stream: stream.write(b"rows")), OutputError),
        ("remove", lambda store: store.remove("old"), OutputError),
    ],
)
def test_errors_of_a_store_s_own_library_are_one_sentence(
    access: str, use: Callable[[Store], object], error: type[Exception], remote: Any, tmp_path: Path
) -> None:
    (tmp_path / "old").touch()

    def refuse(tried: str, path: str) -> None:
        if tried == access:
            raise RuntimeError("An error occurred (SlowDown).\nRequest: 12")

    remote.check = staticmethod(refuse)
    with pytest.raises(error, match=r"remote://host.*SlowDown\)\.") as caught:
        use(open_store(f"remote://user:secret@host{tmp_path}"))
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_no_temporary_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    store = open_store(str(tmp_path))
    store.write("part", lambda stream: stream.write(b"old"))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(OutputError, match=r"part could not be written: .*File too large\."):
            store.write("part", lambda stream: stream.write(bytes(1_000_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert os.listdir(tmp_path) == ["part"]  # noqa: PTH208, names
    assert store.read("part") == b"old"


@pytest.mark.parametrize(
    ("form", "left"), [("{}", set()), ("remote://user:secret@host{}", {".part-00000.parquet.0a1b2c3d"})]
)
def test_temporary_files_that_another_command_may_be_writing_are_kept(
    form: str, left: set[str], remote: Any, tmp_path: Path
) -> None:
    """A local folder is locked, so that they are those of a killed command; an object store is not."""
    old = time.time() - LEFT_SECONDS - 60
    for name in (".part-00000.parquet.0a1b2c3d", ".part-00001.parquet.0a1b2c3d", ".job.json.0a1b2c3d"):
        (tmp_path / name).touch()
    for name in (".part-00001.parquet.0a1b2c3d", ".job.json.0a1b2c3d"):
        os.utime(tmp_path / name, (old, old))
    open_store(form.format(tmp_path)).remove_unfinished()
    assert set(os.listdir(tmp_path)) == left  # noqa: PTH208, names
