"""The way to a folder: which links are followed, which are not, and what is said of an error."""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sparkops.resources.directory import Directory
from sparkops.resources.file import File
from sparkops.resources.link import Link
from sparkops.resources.resource import Resource
from sparkops.worker import dispatch
from sparkops.worker.calls import Refused
from sparkops.worker.system import safe_path
from tests.errors import fails
from tests.worker.nodes import apply

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def same(path: Path, folder: Path) -> bool:
    handle = safe_path.open_folder(str(path))
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
        safe_path.open_folder(str(tmp_path / "a"))


def test_a_file_on_the_way_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(NotADirectoryError):
        safe_path.open_folder(str(tmp_path / "f" / "deep"))


@as_root
def test_a_link_of_someone_else_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    os.lchown(tmp_path / "link", 65534, 65534)
    with pytest.raises(OSError, match="others can change"):
        safe_path.open_folder(str(tmp_path / "link"))


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
            safe_path.open_folder(str(tmp_path / "open" / "link"))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path, tmp_path / "none" / "x", tmp_path / "a" / "b"):
        try:
            os.close(safe_path.open_folder(str(path)))
        except OSError:
            continue
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("number", "id"),
    [(errno.ENOSPC, "disk-full"), (errno.EROFS, "read-only-file-system"), (errno.EBUSY, "path-is-mount-point"),
     (errno.ENOENT, "folder-missing"), (errno.EIO, "disk-input-output-error")],
)  # fmt: skip
def test_an_error_is_told_with_its_place(number: int, id: str) -> None:
    with fails(id, Refused), safe_path.explained("/etc/lab/f"):
        raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def swapping(thing: Path, target: Path) -> Iterator[None]:
    """Somebody else (65534) puts a link to `target` in the place of `thing` and takes it back, as fast as they can."""
    over = threading.Event()
    away = thing.with_name("away")

    def swap() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                thing.rename(away)
                thing.symlink_to(target)
                os.lchown(thing, 65534, 65534)
                time.sleep(0.0002)
                thing.unlink()
            with contextlib.suppress(OSError):
                away.rename(thing)
                time.sleep(0.0002)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def tried(make: Callable[[int], Resource], seconds: float = 1.5) -> set[str]:
    """What comes of trying again and again: "done" and the words of refusals."""
    deadline, found, number = time.monotonic() + seconds, set(), 0
    while time.monotonic() < deadline:
        number += 1
        one = make(number)
        if "$unknown" in dispatch.look(one.kind, one.id, one.ask()):
            found.add("unknown")
            continue
        try:
            apply(one)
            found.add("done")
        except (Refused, AssertionError, KeyError, OSError) as refused:
            found.add(str(refused))
    return found


def precious(tmp_path: Path) -> tuple[Path, Path]:
    """A folder that is someone else's, and one of root's with a file in it that nobody may touch."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for folder in (theirs, ours, theirs / "sub"):
        folder.mkdir()
    (ours / "f").write_text("precious")
    (ours / "f").chmod(0o400)
    for folder in (theirs, theirs / "sub"):
        os.chown(folder, 65534, 65534)
    return theirs, ours


def untouched(ours: Path) -> bool:
    found, folder = (ours / "f").stat(), ours.stat()
    alone = os.listdir(ours) == ["f"] and (ours / "f").read_text() == "precious"
    return alone and (found.st_uid, found.st_mode & 0o777, folder.st_uid, folder.st_mode & 0o777) == (
        0,
        0o400,
        0,
        0o755,
    )


@as_root
@pytest.mark.parametrize(
    "make",
    [
        lambda path, n: File(node="n", name=path + "/f", content=f"{n}", owner="nobody", mode=f"06{n % 8}0"),
        lambda path, n: File(node="n", name=path + "/f", state="absent" if n % 2 else "present"),
        lambda path, n: Directory(node="n", name=path + "/d", owner="nobody", mode=f"07{n % 8}0"),
        lambda path, n: Link(node="n", name=path + "/l", target=f"{n}"),
    ],
    ids=["file", "file and none", "directory", "link"],
)
def test_a_folder_on_the_way_that_turns_into_a_link_leads_nowhere(
    tmp_path: Path, make: Callable[[str, int], Resource]
) -> None:
    theirs, ours = precious(tmp_path)
    with swapping(theirs / "sub", ours):
        found = tried(lambda number: make(str(theirs / "sub"), number))
    assert untouched(ours)
    assert "done" in found, "it was there between the swaps"
    assert any(each == "unknown" or "others can change" in each for each in found), "and was a link at times"


@as_root
def test_a_file_that_turns_into_a_link_is_replaced_or_refused_and_never_written_through(tmp_path: Path) -> None:
    theirs, ours = precious(tmp_path)
    (theirs / "f").write_text("theirs")
    os.chown(theirs / "f", 65534, 65534)
    with swapping(theirs / "f", ours / "f"):
        found = tried(lambda n: File(node="n", name=str(theirs / "f"), owner="nobody", mode=f"06{n % 8}0"))
        found |= tried(lambda n: File(node="n", name=str(theirs / "f"), content=f"{n}"))
    assert untouched(ours)
    assert "done" in found


@as_root
def test_whoever_writes_at_the_same_time_is_told(tmp_path: Path) -> None:
    with safe_path.place(str(tmp_path / "f")) as place, fails("file-written-by-others", Refused):
        safe_path.write(place, b"x", mode=0o600, owner=(-1, -1), check=os.unlink)
