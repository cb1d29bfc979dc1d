"""~/.ssh/config and the inventory, joined into a route: plain files, no network."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkops.core.errors import InventoryError
from sparkops.nodes.ssh.config import Route, SSHConfigs
from sparkops.nodes.target import Target
from tests.errors import fails


def route(folder: Path, text: str, **declared: object) -> Route:
    """The way to the node `spark` under a configuration."""
    config = folder / "config"
    config.write_text(text)
    return SSHConfigs().route(Target(name="spark", ssh_config=config, **declared))  # type: ignore[arg-type]


def places(found: Route) -> list[str]:
    """`user@host:port` of each hop."""
    return [f"{hop.user}@{hop.host}:{hop.port}" for hop in found.hops]


def test_host_name_user_and_port_are_taken_from_the_configuration(tmp_path: Path) -> None:
    found = route(tmp_path, "Host spark\n HostName 192.0.2.7\n User nvidia\n Port 2200\n")
    assert places(found) == ["nvidia@192.0.2.7:2200"]


def test_what_the_inventory_declares_wins(tmp_path: Path) -> None:
    text = "Host *\n User nvidia\n Port 2200\n IdentityFile /k/one\n ConnectTimeout 3\n ProxyJump bastion\n"
    found = route(tmp_path, text, user="me", port=22, identity_file="/k/two", connect_timeout=7.5, proxy_jump="none")
    assert places(found) == ["me@spark:22"]
    assert found.end.identities == (Path("/k/two"),)
    assert found.end.timeout == 7.5


def test_connect_timeout_and_several_identities_are_taken(tmp_path: Path) -> None:
    text = "Host spark\n ConnectTimeout 3\n IdentityFile /k/one\nHost *\n IdentityFile /k/two\n IdentitiesOnly yes\n"
    end = route(tmp_path, text).end
    assert (end.timeout, end.identities, end.only_those) == (3.0, (Path("/k/one"), Path("/k/two")), True)


def test_known_hosts_of_the_project_come_first(tmp_path: Path) -> None:
    end = route(tmp_path, "UserKnownHostsFile /a /b\nGlobalKnownHostsFile none\n", known_hosts=Path("/p")).end
    assert end.known_hosts == (Path("/p"), Path("/a"), Path("/b"))


def test_host_key_alias_names_the_host_in_known_hosts(tmp_path: Path) -> None:
    assert route(tmp_path, "Host spark\n HostKeyAlias rack-1\n").end.key_name == "rack-1"


def test_a_list_of_jumps_is_gone_in_order_each_with_its_own_configuration(tmp_path: Path) -> None:
    text = "Host b\n HostName 192.0.2.2\n User two\nHost *\n User all\n"
    found = route(tmp_path, text, proxy_jump="one@a:2201,b,ssh://three@[2001:db8::3]:2203")
    assert places(found) == ["one@a:2201", "two@192.0.2.2:22", "three@2001:db8::3:2203", "all@spark:22"]


def test_the_first_jump_hosts_own_jump_is_followed(tmp_path: Path) -> None:
    text = "Host spark\n ProxyJump b\nHost b\n ProxyJump a\nHost *\n User me\n"
    assert places(route(tmp_path, text)) == ["me@a:22", "me@b:22", "me@spark:22"]


def test_jumping_in_a_circle_is_an_error(tmp_path: Path) -> None:
    with fails("proxy-jump-loop", InventoryError):
        route(tmp_path, "Host spark\n ProxyJump b\nHost b\n ProxyJump spark\n")


def test_a_jump_that_is_none_is_an_error_with_the_right_form(tmp_path: Path) -> None:
    with fails("jump-host-invalid", InventoryError):
        route(tmp_path, "", proxy_jump="a:ssh")


def test_the_first_of_proxy_jump_and_proxy_command_decides(tmp_path: Path) -> None:
    jump = route(tmp_path, "Host spark\n ProxyJump b\nHost *\n ProxyCommand nc %h %p\n")
    assert [hop.host for hop in jump.hops] == ["b", "spark"]
    assert jump.end.proxy == ""
    command = route(tmp_path, "Host spark\n ProxyCommand nc %h %p\nHost spark\n ProxyJump b\n")
    assert [hop.host for hop in command.hops] == ["spark"]
    direct = route(tmp_path, "Host spark\n ProxyCommand none\nHost spark\n ProxyJump b\n")
    assert (len(direct.hops), direct.end.proxy) == (1, "")


def test_a_proxy_command_gets_the_values_that_the_inventory_declares(tmp_path: Path) -> None:
    text = "Host spark\n HostName 192.0.2.7\n User nvidia\n ProxyCommand nc -X 100%% %n %h %p %r\n"
    end = route(tmp_path, text, user="me", port=2222).end
    assert end.proxy_command == "nc -X 100% spark 192.0.2.7 2222 me"


def test_included_files_are_read_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a").write_text("Host spark\n Port 2201\n")
    (tmp_path / "conf.d" / "b").write_text("Host other\n Port 2202\n")
    found = route(tmp_path, "Include conf.d/*\nUser everywhere\nHost spark\n HostName 192.0.2.7\n")
    assert places(found) == ["everywhere@192.0.2.7:2201"]


def test_a_file_that_includes_itself_is_an_error(tmp_path: Path) -> None:
    with fails("ssh-config-includes-itself", InventoryError):
        route(tmp_path, f"Include {tmp_path / 'config'}\n")


def test_a_line_that_can_not_be_read_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(InventoryError) as caught:
        route(tmp_path, "Host spark\n Port\n")
    assert str(tmp_path / "config") in str(caught.value)


def test_the_environment_can_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("User someone\n")
    monkeypatch.setenv("SPARKOPS_SSH_CONFIG", str(tmp_path / "config"))
    assert SSHConfigs().route(Target(name="spark")).end.user == "someone"


def test_match_exec_works_though_its_library_is_loaded_only_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", (tmp_path / "empty").open("w+"))
    config = tmp_path / "config"
    config.write_text('Match exec "true"\n  User yes\nMatch exec "false"\n  Port 99\n')
    end = SSHConfigs().route(Target(name="n", ssh_config=config)).end
    assert (end.user, end.port) == ("yes", 22)
