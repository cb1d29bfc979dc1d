"""Files and folders of somebody else in a checkpoint's folder: as they were after another folder took its place."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import stat
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkops.core.descriptors import FOLDER, closing
from sparkops.core.messages import Refused, Unknown
from sparkops.programs.checkpoints import loaded_files, whereabouts
from sparkops.programs.checkpoints.foreign_files import carry_over, copy_attributes
from sparkops.resources.checkpoint import Checkpoint
from sparkops.worker.kinds import checkpoint
from tests.errors import fails
from tests.lab.hub import Hub
from tests.worker.nodes import apply, call
from tests.worker.test_checkpoint import Declare, content, own_places
from tests.worker.test_checkpoint import declare as declare
from tests.worker.test_checkpoint import hub as hub
from tests.worker.test_checkpoint import model as model

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
pytestmark = [as_root, pytest.mark.usefixtures(own_places.__name__)]
ALICE, STAFF, SPARK = 4711, 4712, 4713


def attributes(path: Path) -> tuple[Any, ...]:
    """All that a person can notice of a file but the times that reading and linking change."""
    status = path.lstat()
    extended = {name: os.getxattr(path, name, follow_symlinks=False) for name in extended_names(path)}
    regular = stat.S_ISREG(status.st_mode)
    target = os.readlink(path) if path.is_symlink() else path.read_bytes() if regular else b""
    inode = 0 if stat.S_ISDIR(status.st_mode) else status.st_ino
    return (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev, inode, extended, target)


def extended_names(path: Path) -> list[str]:
    return [] if path.is_symlink() else os.listxattr(path)


def tree(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below a folder, without sparkops' own."""
    paths = [path for path in folder.rglob("*") if ".sparkops" not in path.parts]
    return {str(path.relative_to(folder)): attributes(path) for path in paths}


def access_list(uid: int) -> bytes:
    """A POSIX ACL that lets one more user read, as the kernel keeps it (acl(5))."""
    entries = [(0x01, 7, -1), (0x02, 5, uid), (0x04, 5, -1), (0x10, 5, -1), (0x20, 0, -1)]
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, bits, user & 0xFFFFFFFF) for tag, bits, user in entries
    )


def make_foreign(folder: Path) -> None:
    """What people keep in a folder: private folders, set-id and sticky bits, links of both sorts, a FIFO, a socket."""
    private = folder / "alice" / "private"
    private.mkdir(parents=True)
    (private / "diary.txt").write_text("mine")
    os.link(private / "diary.txt", folder / "alice" / "same.txt")
    os.chown(private / "diary.txt", ALICE, STAFF)
    (private / "diary.txt").chmod(0o600)
    (folder / "upload").mkdir()
    (folder / "upload").chmod(0o1777)
    (folder / "team").mkdir()
    os.chown(folder / "team", ALICE, STAFF)
    (folder / "team").chmod(0o2775)
    (folder / "team" / "tool").write_bytes(b"x")
    (folder / "team" / "tool").chmod(0o4755)
    os.symlink("nowhere/at/all", folder / "team" / "dangling")
    os.lchown(folder / "team" / "dangling", ALICE, STAFF)
    os.mkfifo(folder / "team" / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "team" / "s"))
    for each in (folder / "alice", private, folder / "team" / "pipe"):
        os.chown(each, ALICE, STAFF)
    private.chmod(0o700)
    try:
        os.setxattr(folder / "team", "user.note", b"kept")
        os.setxattr(folder / "upload", "system.posix_acl_access", access_list(ALICE))
        os.setxattr(folder / "upload", "system.posix_acl_default", access_list(ALICE))
    except OSError:
        pass  # a file system without them has nothing to lose
    for number, path in enumerate(sorted(folder.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, 1_000_000_000 + number), follow_symlinks=False)


@pytest.mark.parametrize("owner", [0, SPARK])
def test_what_is_somebody_elses_keeps_every_attribute(declare: Declare, model: Path, owner: int) -> None:
    one = declare()
    folder = Path(one.name)
    folder.mkdir(parents=True)
    make_foreign(folder)
    os.chown(folder, owner, STAFF)
    folder.chmod(0o2750)
    before = tree(folder)
    apply(one)
    after = tree(folder)
    assert {path: after[path] for path in before} == before
    assert {path: data for path, data in content(folder).items() if path not in before} == content(model)
    status = folder.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (owner, STAFF, 0o2750)
    assert os.listdir(folder.parent) == [folder.name]
    assert apply(one) == []


def test_a_folder_that_the_repository_has_too_keeps_its_attributes(declare: Declare) -> None:
    one = declare()
    shared = Path(one.name) / "extra"
    shared.mkdir(parents=True)
    (shared / "notes.txt").write_text("mine")
    os.chown(shared, ALICE, STAFF)
    shared.chmod(0o2770)
    before = attributes(shared)
    apply(one)
    assert attributes(shared) == before
    assert sorted(os.listdir(shared)) == ["empty.txt", "notes.txt"]


def test_another_owner_of_the_checkpoint_gets_what_is_the_checkpoints_only(declare: Declare) -> None:
    one = declare()
    apply(one)
    folder = Path(one.name)
    make_foreign(folder)
    before = {
        path: each for path, each in tree(folder).items() if path.partition("/")[0] in ("alice", "upload", "team")
    }
    other = declare(owner="nobody")
    apply(other)
    after = tree(folder)
    assert {path: after[path] for path in before} == before
    assert folder.owner() == (folder / "config.json").owner() == (folder / "extra" / "empty.txt").owner() == "nobody"


def test_what_is_not_the_checkpoints_is_not_given_away_where_all_files_are_right(declare: Declare, model: Path) -> None:
    one = declare(owner="nobody")
    folder = Path(shutil.copytree(model, one.name))
    make_foreign(folder)
    before = {
        path: each for path, each in tree(folder).items() if path.partition("/")[0] in ("alice", "upload", "team")
    }
    apply(one)
    after = tree(folder)
    assert {path: after[path] for path in before} == before
    assert folder.owner() == (folder / "config.json").owner() == "nobody"


@pytest.mark.parametrize("mode", [0o000, 0o600])
def test_a_file_that_its_owner_may_not_read_is_fetched_again_and_named(
    declare: Declare, model: Path, hub: Hub, mode: int
) -> None:
    one = declare()
    folder = Path(shutil.copytree(model, one.name))
    os.chown(folder, 65534, 65534)
    (folder / "config.json").chmod(mode)
    (folder / "extra").chmod(0o700)
    assert apply(one)
    assert content(folder) == content(model)
    assert apply(one) == []


@pytest.mark.parametrize("deny", ["chmod", "chown"])
def test_a_published_file_that_became_unreadable_converges(declare: Declare, model: Path, deny: str) -> None:
    one = declare(owner="nobody")
    apply(one)
    file = Path(one.name) / "config.json"
    if deny == "chown":
        os.chown(file, 0, 0)
    file.chmod(0o000)
    assert apply(one) == ["unverified"]
    assert content(Path(one.name)) == content(model)
    assert apply(one) == [] and os.listdir(Path(one.name).parent) == [Path(one.name).name]


def test_a_verification_names_the_command_for_what_it_may_not_read(declare: Declare) -> None:
    one = declare(owner="nobody")
    apply(one)
    os.chown(Path(one.name) / "config.json", 0, 0)
    (Path(one.name) / "config.json").chmod(0o600)
    args = {**one.ask(), "again": True}
    with fails("files-unreadable", Refused) as caught:
        checkpoint.verify(call(), args)
    assert caught.value.values["quoted"] == f"{one.name}/config.json"


def test_a_folder_that_its_owner_may_not_list_is_refused_with_the_command(declare: Declare) -> None:
    one = declare()
    folder = Path(one.name)
    folder.mkdir(parents=True)
    os.chown(folder, 65534, 65534)
    folder.chmod(0o000)
    with fails("checkpoint-folder-unreadable", Refused):
        apply(one)
    folder.chmod(0o755)
    assert apply(one)


def test_a_folder_of_code_that_may_not_be_listed_is_not_taken_for_empty(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "custom_generate").mkdir(mode=0o700)
    (tmp_path / "custom_generate" / "generate.py").touch()
    with closing(os.open(tmp_path, FOLDER)) as folder:
        assert loaded_files.foreign(folder, "/m", []) == ["custom_generate/generate.py"]
        os.seteuid(65534)
        try:
            with fails("checkpoint-folder-unreadable", Unknown) as caught:
                loaded_files.foreign(folder, "/m", [])
        finally:
            os.seteuid(0)
    assert caught.value.values["folder"] == "/m/custom_generate"


def test_a_crash_after_foreign_folders_were_carried_over_is_resumed(declare: Declare, model: Path) -> None:
    one: Checkpoint = declare(owner="nobody")
    folder = Path(one.name)
    folder.mkdir(parents=True)
    make_foreign(folder)
    before = tree(folder)
    staging = folder.parent / f".{folder.name}.sparkops-partial"
    shutil.copytree(model, staging)
    handles = [os.open(each, os.O_RDONLY) for each in (folder, staging)]
    assert carry_over(*handles, set(), {}, lambda _: "") == []
    assert copy_attributes(*handles)
    for handle in handles:
        os.close(handle)
    apply(one)
    after = tree(folder)
    assert {path: after[path] for path in before} == before
    assert os.listdir(folder.parent) == [folder.name]


NAMES = st.sampled_from(["a", "b", "c"])
MODES = st.integers(0, 0o7777)
USERS = st.sampled_from([0, ALICE, SPARK])
FOLDERS: st.SearchStrategy[Any] = st.recursive(
    st.tuples(st.sampled_from(["file", "link", "fifo"]), MODES, USERS, USERS),
    lambda inner: st.tuples(st.just("folder"), MODES, USERS, USERS, st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAMES, FOLDERS, min_size=1, max_size=3))
def test_any_tree_is_carried_over_as_it_is(tmp_path: Path, what: dict[str, Any]) -> None:
    with two_folders(tmp_path, what) as (old, new, handles):
        assert carry_over(*handles, set(), {}, lambda _: "") == []
        assert tree(new) == tree(old)


class two_folders:
    """A folder with a tree in it and an empty one, both opened."""

    def __init__(self, where: Path, what: dict[str, Any]) -> None:
        self.old, self.new = where / "old", where / "new"
        for each in (self.old, self.new):
            shutil.rmtree(each, ignore_errors=True)
            each.mkdir()
        build(self.old, what)
        self.handles = [os.open(each, os.O_RDONLY) for each in (self.old, self.new)]

    def __enter__(self) -> tuple[Path, Path, list[int]]:
        return self.old, self.new, self.handles

    def __exit__(self, *_: object) -> None:
        for each in self.handles:
            os.close(each)


def build(folder: Path, what: dict[str, Any]) -> None:
    for name, (sort, mode, uid, gid, *inner) in what.items():
        path = folder / name
        if sort == "folder":
            path.mkdir()
            build(path, inner[0])
        elif sort == "file":
            path.write_text(name)
        elif sort == "fifo":
            os.mkfifo(path)
        else:
            os.symlink("elsewhere", path)
        os.lchown(path, uid, gid)
        if sort != "link":
            path.chmod(mode)
        os.utime(path, ns=(0, mode * 1_000_000_000), follow_symlinks=False)


def refused(one: Checkpoint) -> str:
    """The id by which a plan refuses the folder, and the job of an apply too."""
    (violation,) = one.violations(checkpoint.observe(one.ask()), lambda _: None)
    with fails(violation.id, Refused):
        whereabouts.require(one.name, one.state_dir)
    return violation.id


def test_a_folder_that_leads_to_one_of_the_system_is_refused_though_nothing_is_there(declare: Declare) -> None:
    one = declare()
    parent = Path(one.name).parent
    parent.parent.mkdir(exist_ok=True)
    parent.symlink_to("/etc")
    assert refused(one) == "folder-is-system"
    with fails("folder-is-system", Refused):
        apply(one)
    assert not os.path.lexists(f"/etc/{Path(one.name).name}")


@pytest.mark.parametrize("inside", ["", "inner"])
def test_a_mount_point_is_refused(
    declare: Declare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    one = declare()
    point = Path(one.name) / inside
    point.mkdir(parents=True)
    table = tmp_path / "mountinfo"
    table.write_text(f"36 35 98:0 / {point} rw,noatime - ext4 /dev/x rw\n")
    monkeypatch.setattr(whereabouts, "MOUNTS", str(table))
    assert refused(one) == ("folder-has-mount-point" if inside else "folder-is-mount-point")


def test_a_home_and_dockers_folder_are_refused(
    declare: Declare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = declare()
    config = tmp_path / "daemon.json"
    config.write_text(json.dumps({"data-root": f"{one.name}/docker"}))
    monkeypatch.setattr(whereabouts, "DOCKER", str(config))
    assert refused(one) == "folder-is-docker"
    config.write_text("{")
    user = pwd.struct_passwd(("kim", "", 4714, 4714, "", f"{one.name}/kim", ""))
    monkeypatch.setattr(whereabouts.pwd, "getpwall", lambda: [user])
    assert refused(one) == "folder-is-home-of"


LOADED = ["evil.py", "extra.safetensors", "model.safetensors.index.json", "adapter_config.json", "chat_template.jinja"]


@pytest.mark.parametrize("name", [*LOADED, "custom_generate/generate.py", "additional_chat_templates/tool.jinja"])
def test_a_file_that_an_engine_would_load_is_named_and_kept(declare: Declare, name: str) -> None:
    one = declare()
    apply(one)
    added = Path(one.name) / name
    added.parent.mkdir(exist_ok=True)
    if name in own_manifest(one):
        pytest.skip("the repository has it")
    added.write_bytes(b"{}")
    found = checkpoint.observe(one.ask())
    assert found is not None and found["extra"] == [name]
    (notice,) = one.notices(found)
    assert (notice.id, notice.args["files"]) == ("checkpoint-foreign-files", [name])
    assert apply(one) == []
    done = checkpoint.verify(call(), {"folder": one.name, "state_dir": one.state_dir, "again": False})
    assert [id for id, _ in done["notices"]] == ["checkpoint-foreign-files"]
    assert added.read_bytes() == b"{}"


def own_manifest(one: Checkpoint) -> set[str]:
    assert one.manifest is not None
    return {file.path for file in one.manifest.files}


def test_what_engines_do_not_load_is_no_notice(declare: Declare) -> None:
    one = declare()
    apply(one)
    folder = Path(one.name)
    make_foreign(folder)
    (folder / "notes.md").write_text("mine")
    (folder / "alice" / "tool.py").write_text("mine")
    (folder / "folder.py").mkdir()
    found = checkpoint.observe(one.ask())
    assert found is not None and found["extra"] == [] and one.notices(found) == ()


def test_a_link_to_nowhere_counts_and_a_folder_that_is_taken_over_names_only_what_stays(
    declare: Declare, model: Path
) -> None:
    one = declare()
    folder = Path(shutil.copytree(model, one.name))
    os.symlink("nowhere", folder / "modeling_x.py")
    found = checkpoint.observe(one.ask())
    assert found is not None
    assert [(each.id, each.args.get("files")) for each in one.notices(found)] == [
        ("checkpoint-folder-foreign", None),
        ("checkpoint-foreign-files", ["modeling_x.py"]),
    ]
