"""Opening the folder that a path stands in, and changing what stands in it, without being led astray.

The worker is often root and the folders are not always root's. So a path is walked from `/` by descriptors; a symbolic
link on the way is followed only where nobody but root (or we ourselves) could have put it there. It must not know what
is kept in the files.
"""

import contextlib
import errno
import grp
import hashlib
import json
import os
import pwd
import stat
from collections.abc import Callable, Iterator

from sparkops.core.descriptors import closing
from sparkops.core.messages import Fields, os_error
from sparkops.programs import users
from sparkops.programs.file_flags import attribute
from sparkops.worker.calls import Refused

MOST_LINKS = 40
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Place:
    """A name in an opened folder. `path` is for messages and for programs, `folder` the descriptor that counts."""

    def __init__(self, folder: int, path: str) -> None:
        self.folder = folder
        self.path = path
        self.name = os.path.basename(path)

    def stat(self) -> os.stat_result | None:
        """What stands there, a link not followed; None for nothing."""
        try:
            return os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def require(self, sort: str) -> os.stat_result | None:
        """What stands there, which is nothing or of this sort (as `sort_of` names it). Raises Refused."""
        present = self.stat()
        if present is not None and (found := sort_of(present.st_mode)) != sort:
            raise Refused.of("path-occupied", path=self.path, found=found, declared=sort)
        return present

    def open(self, flags: int = os.O_RDONLY) -> int:
        """A descriptor of what stands there; a link is an error, a FIFO does not block."""
        return os.open(self.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.folder)

    def remove(self) -> None:
        """Take away the file or link that stands there, so that it survives a power cut."""
        os.unlink(self.name, dir_fd=self.folder)
        os.fsync(self.folder)

    def link(self, target: str) -> None:
        """A symbolic link in the place of what stands there, in one step."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.beside, dir_fd=self.folder)
        os.symlink(target, self.beside, dir_fd=self.folder)
        self.publish()

    def publish(self) -> None:
        """Give what was prepared beside its name, in one step that survives a power cut."""
        try:
            os.rename(self.beside, self.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        except FileNotFoundError:
            raise Refused.of("file-written-by-others", path=self.path) from None
        os.fsync(self.folder)

    @property
    def beside(self) -> str:
        """The name under which the next content is prepared: always the same, so that a crash leaves at most one."""
        return ".sparkops-" + hashlib.sha256(self.name.encode()).hexdigest()[:12]


@contextlib.contextmanager
def place(path: str) -> Iterator[Place]:
    """The place of an absolute `path`. Raises FileNotFoundError or NotADirectoryError where its folder is missing."""
    with closing(open_folder(os.path.dirname(path))) as folder:
        yield Place(folder, path)


def look(path: str, describe: Callable[[Place, os.stat_result], dict[str, object]]) -> dict[str, object] | None:
    """What `describe` says of what stands at `path`; None for nothing."""
    try:
        with place(path) as found:
            present = found.stat()
            return None if present is None else describe(found, present)
    except (FileNotFoundError, NotADirectoryError):
        return None


def metadata(present: os.stat_result, ask: Fields) -> dict[str, object]:
    """Type, owner, group and mode; owner and group in the form in which `ask` has them declared."""
    return {
        "type": sort_of(present.st_mode),
        "owner": owner_name(present.st_uid, ask.get("owner")),
        "group": group_name(present.st_gid, ask.get("group")),
        "mode": permissions(present.st_mode),
    }


def open_folder(path: str) -> int:
    """A descriptor of a folder; no part of the way is a link that others may have put there."""
    todo = [part for part in reversed(path.split("/")) if part]
    here = os.open("/", os.O_PATH | _FOLDER)
    links = 0
    try:
        while todo:
            part = todo.pop()
            try:
                following = os.open(part, os.O_PATH | _FOLDER, dir_fd=here)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise OSError(error.errno, os.strerror(error.errno or 0), path) from None
                links += 1
                target = _trusted_link(here, part, path, links)
                todo += [each for each in reversed(target.split("/")) if each]
                following = os.open("/", os.O_PATH | _FOLDER) if target.startswith("/") else os.dup(here)
            os.close(here)
            here = following
        return os.open(".", os.O_RDONLY | _FOLDER, dir_fd=here)
    finally:
        os.close(here)


def _trusted_link(folder: int, name: str, path: str, links: int) -> str:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, f"{name!r} on the way is no directory", path)
    ours = (0, os.geteuid())
    around = os.fstat(folder)
    open_to_all = around.st_mode & 0o022 and not around.st_mode & stat.S_ISVTX
    if found.st_uid not in ours or around.st_uid not in ours or open_to_all:
        raise OSError(errno.ELOOP, f"{name!r} on the way is a symbolic link that others can change", path)
    if links > MOST_LINKS:
        raise OSError(errno.ELOOP, "too many symbolic links", path)
    return os.readlink(name, dir_fd=folder)


def others_write(folder: int) -> bool:
    """Whether someone else than root or we ourselves can put things into the folder."""
    found = os.fstat(folder)
    return found.st_uid not in (0, os.geteuid()) or bool(found.st_mode & 0o022)


def write(
    place: Place,
    data: bytes,
    *,
    mode: int,
    owner: tuple[int, int] = (-1, -1),
    check: Callable[[str], None] | None = None,
) -> None:
    """Write beside, fsync, rename: the old content or the new one, never a part.

    `owner` is (uid, gid), -1 for our own. `check` is given the path of the new file before it takes its place and
    raises to keep the old one.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place.beside, dir_fd=place.folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(place.beside, flags, 0o600, dir_fd=place.folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        if check is not None:
            check(os.path.join(os.path.dirname(place.path), place.beside))
        place.publish()
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(place.beside, dir_fd=place.folder)
        raise


def put(path: str, data: bytes, mode: int) -> None:
    """`write` a file of our own at an absolute path. Raises Refused."""
    with explained(path), place(path) as found:
        write(found, data, mode=mode)


def note(folder: str, name: str, value: object) -> None:
    """Keep a JSON value in a file of sparkops' own folder, which is made where it is missing. Raises Refused."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    put(os.path.join(folder, name), json.dumps(value).encode(), 0o600)


def clear(path: str) -> None:
    """Take away what an act that was cut off had prepared beside `path`."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError), place(path) as found:
        os.unlink(found.beside, dir_fd=found.folder)


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn what the operating system says about `path` into a reason with a way out."""
    try:
        yield
    except OSError as error:
        raise _reason(path, error) from None


def _reason(path: str, error: OSError) -> Refused:
    folder = os.path.dirname(path) or "/"
    if error.errno in (errno.EPERM, errno.EACCES):
        return _denied(path, folder)
    ids = {
        errno.ENOENT: "folder-missing",
        errno.ENOTDIR: "folder-not-a-directory",
        errno.ELOOP: "path-through-link",
        errno.EBUSY: "path-is-mount-point",
        errno.ENOTEMPTY: "directory-not-empty",
    }
    text = error.strerror or str(error)
    if error.errno not in ids:
        return os_error(OSError(error.errno, text, path))
    return Refused.of(ids[error.errno], path=path, folder=folder, text=text)


def _denied(path: str, folder: str) -> Refused:
    for each in (path, folder):
        if word := attribute(each):
            return Refused.of("path-attribute", path=each, attribute=word, letter=word[0])
    if os.geteuid() != 0:
        return Refused.of("permission-denied", path=path)
    return Refused.of("permission-denied-to-root", path=path)


def owner_name(uid: int, declared: str | None) -> str:
    """A user id in the form in which it was declared: a number for a number, else the name where it has one."""
    return str(uid) if declared is not None and declared.isdecimal() else users.name_of(uid)


def group_name(gid: int, declared: str | None) -> str:
    """A group id in the form in which it was declared."""
    if declared is not None and declared.isdecimal():
        return str(gid)
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def owner_ids(owner: str | None, group: str | None) -> tuple[int, int]:
    """The (uid, gid) of names or numbers, -1 where undeclared. Raises Refused for a name that the node lacks."""
    uid = gid = -1
    try:
        if owner is not None:
            uid = int(owner) if owner.isdecimal() else pwd.getpwnam(owner).pw_uid
        if group is not None:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        if uid == -1 and owner is not None:
            raise Refused.of("user-missing", user=owner) from None
        raise Refused.of("group-missing", group=group) from None
    return uid, gid


def sort_of(mode: int) -> str:
    """The word for what a mode's type bits mean: file, directory, link or other."""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "other"


def permissions(mode: int) -> str:
    """`0644` out of a mode."""
    return f"{stat.S_IMODE(mode):04o}"
