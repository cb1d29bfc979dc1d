"""The state folder where something is in its way: refused with the path and the command, before anything is done."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from sparkops.core.messages import Refused
from sparkops.core.wording import words
from sparkops.worker.record import own_folder
from sparkops.worker.requests import lock
from tests.errors import fails
from tests.worker.nodes import call

HOLDER = {"who": "a", "from": "b", "command": "apply"}


def acquire(folder: Path) -> None:
    lock.acquire(call(), {"state_dir": str(folder), "holder": HOLDER})
    lock.release(call(), {"state_dir": str(folder)})


@pytest.mark.parametrize("name", own_folder.NAMES)
def test_each_of_its_names_may_be_missing_or_as_it_is_and_nothing_else(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "state"
    acquire(folder)
    (folder / "lock").unlink()
    path = folder / name
    path.write_text("") if name in own_folder.FOLDERS else path.mkdir()
    with pytest.raises(Refused) as caught:
        acquire(folder)
    assert (caught.value.id, caught.value.values["path"]) == ("own-path-occupied", str(path))
    assert f"mv {path}" in words(caught.value.id, caught.value.values)[1]
    if name == "lock":  # also where nobody takes it: by a plan
        with fails("own-path-occupied", Refused):
            lock.locked(str(folder))
    path.unlink() if name in own_folder.FOLDERS else path.rmdir()
    path.symlink_to("nowhere")
    with fails("own-path-occupied", Refused):
        acquire(folder)
    path.unlink()
    acquire(folder)


def test_a_file_in_the_place_of_the_folder_or_of_one_above_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "state"):
        with pytest.raises(Refused) as caught:
            acquire(folder)
        assert (caught.value.id, caught.value.values["path"]) == ("own-path-occupied", str(tmp_path / "file"))
        with fails("own-path-occupied", Refused):
            lock.locked(str(folder))


def test_folders_that_are_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real" / "claims").mkdir(parents=True)
    (tmp_path / "state").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "verified").symlink_to(tmp_path / "real" / "claims")
    acquire(tmp_path / "state")


def test_a_file_system_that_is_read_only_is_named_with_its_mount_point(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught, own_folder.explained(str(tmp_path)):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "lock"))
    assert caught.value.id == "own-folder-read-only"
    assert tmp_path.is_relative_to(caught.value.values["mount"])
