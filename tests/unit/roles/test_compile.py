"""From an inventory and role folders to resources with their order."""

from __future__ import annotations

import time

import pytest

from sparkops.compile.compiler import Compiled, compile_inventory
from sparkops.core.errors import InventoryError
from sparkops.core.secrets import Secret
from sparkops.core.states import FromFact
from sparkops.inventory.secrets import Secrets
from tests.unit.inventory.project import Project

HEAD = "version: 1\ncluster: attic\n"
ONE = HEAD + "roles: [own]\nnodes: {a: }\n"


def role(*resources: str, scope: str = "node", after: str = "[]", variables: str = "") -> str:
    listed = "".join(f"  - {each}\n" for each in resources) or "  []\n"
    return (
        f"summary: s\nscope: {scope}\nafter: {after}\n"
        f"variables: {{type: object, properties: {{{variables}}}}}\nresources:\n{listed}"
    )


def edges(compiled: Compiled) -> dict[str, tuple[str, ...]]:
    return {
        each.id.replace(" @a", ""): tuple(id.replace(" @a", "") for id in each.after) for each in compiled.resources
    }


def fault(project: Project, text: str = ONE) -> str:
    inventory = project.load(text)
    with pytest.raises(InventoryError) as caught:
        compile_inventory(inventory)
    return str(caught.value).replace(f"{project.folder}/", "")


def test_a_users_own_role_with_a_template_becomes_resources(project: Project) -> None:
    project.role("own", role("{file: /etc/motd, template: motd.j2, mode: '0644'}", variables="text: {default: hi}"))
    project.write("roles/own/templates/motd.j2", "{{ node.name }} of {{ cluster }}: {{ own.text }}\n")
    (found,) = compile_inventory(
        project.load(HEAD + "roles: [own]\nnodes: {a: {own: {text: '{{ 7*7 }}'}}}\n")
    ).resources
    assert found.id == "file /etc/motd @a"
    assert found.content.text == "a of attic: {{ 7*7 }}\n"  # type: ignore[attr-defined]
    assert (found.role, found.service) == ("own", None)
    assert found.where.endswith("roles/own/role.yml:6:6")


def test_within_a_role_each_resource_follows_the_one_before(project: Project) -> None:
    project.role("own", role("{file: /a}", "{file: /b}", "{file: /c}"))
    assert edges(compile_inventory(project.load(ONE))) == {
        "file /a": (),
        "file /b": ("file /a",),
        "file /c": ("file /b",),
    }


def test_a_role_follows_the_last_resource_of_the_roles_it_comes_after(project: Project) -> None:
    project.role("host", role("{file: /h1}", "{file: /h2}"))
    project.role("driver", role("{file: /d}", after="[host]"))
    project.role("own", role("{file: /o}", after="[host]"))
    found = edges(compile_inventory(project.load(ONE)))
    assert found["file /d"] == ("file /h2",)
    assert found["file /o"] == ("file /h2",)


def test_order_passes_through_a_role_that_has_nothing_to_do(project: Project) -> None:
    project.role("host", role("{file: /h}"))
    project.role("driver", role("{file: /d, when: 'false'}", after="[host]"))
    project.role("fabric", role("{file: /f}", after="[driver]"))
    assert edges(compile_inventory(project.load(HEAD + "nodes: {a: }\n")))["file /f"] == ("file /h",)


def test_service_roles_run_once_per_service_and_node(project: Project) -> None:
    project.role("driver", role("{file: /d}"))
    project.role("image", role("{file: '/i-{{ service.name }}'}", scope="service", after="[driver]"))
    project.role(
        "service",
        role("{file: '/s-{{ service.name }}-{{ service.rank }}'}", scope="service", after="[image]"),
    )
    compiled = compile_inventory(
        project.load(HEAD + "nodes: {a: , b: }\nservices: {q: {replicas: [[b, a]]}, r: {nodes: [a]}}\n")
    )
    assert edges(compiled)["file /s-q-1"] == ("file /i-q",)
    assert edges(compiled)["file /s-r-0"] == ("file /i-r",)
    assert edges(compiled)["file /i-r"] == ("file /d",)
    last = next(each for each in compiled.resources if each.name == "/s-q-1")
    assert (last.service, last.peer_nodes, last.engine_nodes) == ("q", ("b", "a"), ("b", "a"))


def test_after_names_resources_on_this_node_and_on_others(project: Project) -> None:
    project.role("host", role("{file: /h}"))
    project.role("own", role("{file: /x, after: ['file /h', \"{{ ['file /h @b'] }}\"]}"))
    found = {
        each.id: each.after
        for each in compile_inventory(project.load(HEAD + "roles: [own]\nnodes: {a: , b: }\n")).resources
    }
    assert found["file /x @a"] == ("file /h @a", "file /h @b")


def test_when_and_for_each_see_the_item(project: Project) -> None:
    project.role(
        "own",
        role("{file: '/{{ item.key }}', for_each: own.x, when: item.value}", variables="x: {default: {a: 1, b: 0}}"),
    )
    assert list(edges(compile_inventory(project.load(ONE)))) == ["file /a"]


def test_values_keep_their_types_and_facts_wait(project: Project) -> None:
    project.role("own", role('{file: /x, owner: "{{ fact(\'user.name\') }}", mode: "{{ own.m }}"}', variables="m: {}"))
    (found,) = compile_inventory(project.load(ONE)).resources
    assert found.owner == FromFact("user.name")  # type: ignore[attr-defined]
    assert found.mode is None  # type: ignore[attr-defined]


def test_secrets_are_masked_offline_and_read_when_asked(project: Project) -> None:
    project.role(
        "own",
        role(
            "{file: /x, content: 'T={{ own.t }}'}",
            variables="t: {type: string, secret: true}, u: {type: string, secret: true}",
        ),
    )
    inventory = project.load(HEAD + "roles: [own]\nnodes: {a: {own: {t: !env T, u: !env MISSING}}}\n")
    offline, online = compile_inventory(inventory), compile_inventory(inventory, secrets=Secrets({"T": "s"}))
    assert offline.resources[0].content.encode() == b"T=***"  # type: ignore[attr-defined]
    assert online.resources[0].content.encode() == b"T=s"  # type: ignore[attr-defined]
    assert isinstance(online.resources[0].content.text, Secret)  # type: ignore[attr-defined]
    assert "T=s" not in repr(online)


def test_a_secret_where_none_can_be_kept_is_refused(project: Project) -> None:
    project.role("own", role("{file: /x, mode: '{{ own.t }}'}", variables="t: {type: string, secret: true}"))
    assert "mode of a file takes no secret, and this one holds !env T" in fault(
        project, HEAD + "roles: [own]\nnodes: {a: {own: {t: !env T}}}\n"
    )


def test_the_same_thing_declared_alike_by_two_services_is_kept_once(project: Project) -> None:
    project.role("image", role("{file: '/{{ service.name }}'}", scope="service"))
    project.role("service", role("{file: /shared, mode: '0644'}", scope="service", after="[image]"))
    compiled = compile_inventory(project.load(HEAD + "nodes: {a: }\nservices: {q: {nodes: [a]}, r: {nodes: [a]}}\n"))
    shared = next(each for each in compiled.resources if each.name == "/shared")
    assert shared.after == ("file /q @a", "file /r @a")
    assert shared.service is None


def test_shared_things_in_opposite_order_make_no_cycle(project: Project) -> None:
    project.role(
        "service", role("{file: '/{{ item }}', for_each: service.serve.files}", scope="service", variables="serve: {}")
    )
    text = (
        HEAD
        + "nodes: {a: }\nservices: {q: {nodes: [a], serve: {files: [x, y]}}, r: {nodes: [a], serve: {files: [y, x]}}}\n"
    )
    assert edges(compile_inventory(project.load(text))) == {"file /x": (), "file /y": ("file /x",)}


def test_the_same_thing_declared_differently_is_a_fault_that_names_both_places(project: Project) -> None:
    project.role("host", role("{file: /x, mode: '0600'}"))
    project.role("own", role("{file: /x, mode: '0644'}"))
    message = fault(project)
    assert "roles/own/role.yml:6:6: file /x @a is declared twice, with different mode" in message
    assert "the first is at" in message
    assert "roles/host/role.yml:6:6" in message


def test_what_is_retired_goes_in_the_opposite_order_and_what_is_shared_stays(project: Project) -> None:
    project.role(
        "image", role("{file: /shared}", "{directory: /data}", "{file: '/i-{{ service.name }}'}", scope="service")
    )
    project.role("service", role("{file: '/s-{{ service.name }}'}", scope="service", after="[image]"))
    text = HEAD + "nodes: {a: }\nservices: {q: {nodes: [a], state: retired}, r: {nodes: [a]}}\n"
    compiled = compile_inventory(project.load(text))
    states = {each.name: getattr(each, "state", None) for each in compiled.resources}
    assert states["/i-q"] == states["/s-q"] == "absent"
    assert states["/shared"] == states["/data"] == "present"
    assert edges(compiled)["file /i-q"] == ("file /s-q",)
    assert edges(compiled)["file /s-r"] == ("file /i-r",)


def test_roles_limits_what_is_compiled_and_keeps_the_order_across(project: Project) -> None:
    project.role("host", role("{file: /h}"))
    project.role("driver", role("{file: /d}", after="[host]"))
    project.role("fabric", role("{file: /f}", after="[driver]"))
    found = edges(compile_inventory(project.load(HEAD + "nodes: {a: }\n"), roles=["host", "fabric"]))
    assert found == {"file /h": (), "file /f": ("file /h",)}


def test_limit_compiles_the_selected_nodes_alone_and_forgives_edges_to_others(project: Project) -> None:
    project.role("own", role("{file: /x, after: ['file /x @b'], when: node.name == 'a'}", "{file: /y}"))
    compiled = compile_inventory(project.load(HEAD + "roles: [own]\nnodes: {a: , b: }\n"), limit="a")
    assert {each.node for each in compiled.resources} == {"a"}


@pytest.mark.parametrize(
    ("resource", "told"),
    [
        ("{fil: /x}", "role.yml:6:6: there is no kind of resource 'fil'|did you mean file?"),
        ("{mode: '0644', file: /x}", "there is no kind of resource 'mode'|write the kind first: file: NAME"),
        ("{file: /x, mod: '0644'}", "role.yml:6:16: file has no parameter 'mod'|did you mean mode?"),
        ("{file: /x, node: b}", "file has no parameter 'node'"),
        ("{file: /x, content: '{{ own.nope }}'}", "role.yml:6:25: there is no nope in it"),
        ("{file: /x, content: '{{ 1 + }}'}", "role.yml:6:25: the expression cannot be read"),
        ("{file: /x, when: nope}", "role.yml:6:22: nope is not defined"),
        ("{file: /x, for_each: 3}", "for_each is a int, expected a list or a mapping"),
        ("{file: /x, template: none.j2}", "there is no template none.j2"),
        ("{file: /x, template: a.j2, content: b}", "content and template both say"),
        ("{file: /x, after: ['file /nope']}", "after names 'file /nope @a', which is not declared"),
        ("{file: /x, after: nope}", "after names 'nope'|write \"KIND NAME\""),
        ("{file: x}", "role.yml:6:6|not an absolute path"),
        ("{file: /x, content: '{{ own.s[1:] }}'}", "role.yml:6:6: an expression cuts or alters a secret"),
        ("{file: '/{{ own.s }}'}", "the name of this file is secret"),
        ("{file: '{{ none }}'}", "the name of this file is None"),
    ],
)
def test_a_fault_in_a_role_tells_its_place_and_the_way_out(project: Project, resource: str, told: str) -> None:
    project.role("own", role(resource, variables="s: {type: string, secret: true}"))
    message = fault(project, HEAD + "roles: [own]\nnodes: {a: {own: {s: !env S}}}\n")
    for part in told.split("|"):
        assert part in message


def test_all_faults_of_all_entries_are_told_together(project: Project) -> None:
    project.role("own", role("{fil: /x}", "{file: /x, mod: 1}", "{file: /y, content: '{{ 1 + }}'}"))
    assert fault(project).count("role.yml:") == 3


def test_a_cycle_between_resources_is_told(project: Project) -> None:
    project.role("own", role("{file: /x, after: ['file /y']}", "{file: /y}"))
    assert "dependency cycle: file /" in fault(project)


def test_a_cycle_between_roles_is_told(project: Project) -> None:
    project.role("own", role(after="[two]"))
    project.role("two", role(after="[own]"))
    assert "dependency cycle: " in fault(project)


def test_an_unknown_role_under_after_tells_the_nearest(project: Project) -> None:
    project.role("own", role(after="[drivr]"))
    assert "which is no role\n  → did you mean driver?" in fault(project)


def test_a_required_variable_that_nothing_sets_is_told_at_the_node(project: Project) -> None:
    project.role(
        "own",
        "summary: s\nscope: node\nvariables: {required: [key], properties: {key: {description: the key to use}}}\n"
        "resources: []\n",
    )
    assert (
        "inventory.yml:4:9: a lacks the variable own.key\n  → set own.key in the inventory (the key to use)"
        in fault(project)
    )


def test_a_hundred_nodes_compile_in_about_a_second(project: Project) -> None:
    lines = [f"{{file: '/{i}-{{{{ node.name }}}}', content: '{{{{ own.x }}}}', mode: '0644'}}" for i in range(20)]
    project.role("own", role(*lines, variables="x: {default: y}"))
    inventory = project.load(HEAD + "roles: [own]\nnodes:\n" + "".join(f"  n{i}: \n" for i in range(100)))
    started = time.process_time()
    assert len(compile_inventory(inventory).resources) == 2000
    assert time.process_time() - started < 3
