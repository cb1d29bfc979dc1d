"""The way to a folder: which links are followed, which are not, and what is said of an error."""

import errno
import os
from pathlib import Path

import pytest

from sparkops.worker import parents
from sparkops.worker.calls import Refused

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def same(path: Path, folder: Path) -> bool:
    handle = parents.open_folder(str(path))
    try:
        found = os.fstat(handle)
        return (found.st_dev, found.st_ino) == (folder.stat().st_dev, folder.stat().st_ino)
    finally:
        os.close(handle)


@pytest.mark.parametrize("target", ["real", "../x/real", "./real/../real", "{here}/real", "again"])
def test_our_own_links_are_followed_wherever_they_lead(tmp_path: Path, target: str) -> None:
    here = tmp_path / "x"
    (here / "real" / "deep").mkdir(parents=True)
    (here / "again").symlink_to("real")
    (here / "link").symlink_to(target.format(here=here))
    assert same(here / "link" / "deep", here / "real" / "deep")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="too many"):
        parents.open_folder(str(tmp_path / "a"))


def test_a_file_on_the_way_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(NotADirectoryError):
        parents.open_folder(str(tmp_path / "f" / "deep"))


@as_root
def test_a_link_of_someone_else_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    os.lchown(tmp_path / "link", 65534, 65534)
    with pytest.raises(OSError, match="others can change"):
        parents.open_folder(str(tmp_path / "link"))


@as_root
@pytest.mark.parametrize(("mode", "followed"), [(0o777, False), (0o775, False), (0o1777, True), (0o755, True)])
def test_our_link_in_a_folder_of_all_is_followed_only_where_it_cannot_be_swapped(
    tmp_path: Path, mode: int, followed: bool
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / "open" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "open").chmod(mode)
    if followed:
        assert same(tmp_path / "open" / "link", tmp_path / "real")
    else:
        with pytest.raises(OSError, match="others can change"):
            parents.open_folder(str(tmp_path / "open" / "link"))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path, tmp_path / "none" / "x", tmp_path / "a" / "b"):
        try:
            os.close(parents.open_folder(str(path)))
        except OSError:
            continue
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "no space is left"), (errno.EROFS, "read-only"), (errno.EBUSY, "mount point"),
     (errno.ENOENT, "/etc/lab does not exist"), (errno.EIO, "Input/output error")],
)  # fmt: skip
def test_an_error_is_told_with_its_place(number: int, words: str) -> None:
    with pytest.raises(Refused, match=words), parents.explained("/etc/lab/f"):
        raise OSError(number, os.strerror(number))
