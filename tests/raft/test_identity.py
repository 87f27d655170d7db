"""Whose data directory it is: a file that rots is never taken for another one."""

from __future__ import annotations

import json

import pytest

from hasched.model.errors import StorageFailed
from hasched.raft.identity import DataDirectory


def open_directory(path) -> DataDirectory:
    return DataDirectory(path, "c1", "m1", alone=False)


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(tmp_path):
    directory = open_directory(tmp_path)
    directory.become_voter()
    directory.release()
    file = tmp_path / "identity.json"
    data = file.read_bytes()
    for offset in range(len(data)):
        for bit in range(8):
            file.write_bytes(data[:offset] + bytes([data[offset] ^ 1 << bit]) + data[offset + 1 :])
            try:
                again = open_directory(tmp_path)
            except StorageFailed as refused:
                assert str(file) in refused.cause
                assert refused.hint
            else:
                assert again.identity == directory.identity
                again.release()


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"format": 1, "cluster_id": "c1", "manager_id": "m1", "voter": True}, id="of 0.1.0"),
        pytest.param({"voter": True, "manager_id": "m1", "cluster_id": "c1", "format": 1, "new": 7}, id="by hand"),
    ],
)
def test_a_file_without_a_checksum_is_taken_as_it_is(tmp_path, fields):
    (tmp_path / "identity.json").write_text(json.dumps(fields, indent=2))
    assert open_directory(tmp_path).identity.voter


def test_a_file_of_another_format_is_refused(tmp_path):
    (tmp_path / "identity.json").write_text('{"format": 2, "cluster_id": "c1", "manager_id": "m1", "voter": true}')
    with pytest.raises(StorageFailed, match="format 2"):
        open_directory(tmp_path)
