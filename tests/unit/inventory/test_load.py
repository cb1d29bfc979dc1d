"""From a file to a typed inventory, and the faults on the way."""

from __future__ import annotations

import pytest

from sparkops.core.secrets import SecretRef
from sparkops.core.wording import Message
from sparkops.inventory.declarations import BUILT_IN
from sparkops.inventory.show import show, values
from tests.errors import fails
from tests.unit.inventory.project import Project

HEAD = "version: 1\ncluster: attic\n"
DESIGN = """
    version: 1
    cluster: attic
    connection: {user: nvidia, become: true}
    vars: {driver: {accept: ["590.*"]}}
    roles: [motd]
    groups:
      rack: {nodes: [spark-01, spark-02], vars: {fabric: {mtu: 1500}}}
    nodes:
      spark-01: {host: 192.168.1.11, fabric: {address: 192.168.100.1}}
      spark-02: {host: 192.168.1.12, fabric: {address: 192.168.100.2}, connection: {port: 2222}}
    services:
      qwen:
        recipe: hybrid
        nodes: [spark-01]
        port: 8000
        serve: {max-model-len: 131072, max-num-seqs: 4}
    accept:
      - {id: gpu.driver, until: 2026-12-31, reason: it is tested}
"""
RECIPE = """
    summary: a hybrid
    sources: [https://example.org]
    variables:
      image: {reference: "vllm:1"}
      service: {serve: {max-num-seqs: 8, enable-prefix-caching: true}}
"""
MOTD = "summary: s\nscope: node\nvariables: {type: object, properties: {text: {type: string}}}\nresources: []\n"


def of_scope(scope: str) -> tuple[str, ...]:
    return tuple(name for name, of in BUILT_IN.items() if of == scope)


@pytest.fixture
def attic(project: Project) -> Project:
    project.write("recipes/hybrid.yml", RECIPE)
    project.role("motd", MOTD)
    return project


def test_the_example_of_the_design_loads(attic: Project) -> None:
    found = attic.load(DESIGN)
    assert found.cluster == "attic"
    assert list(found.nodes) == ["spark-01", "spark-02"]
    assert found.nodes["spark-01"].roles == (*of_scope("node"), "motd")
    assert found.nodes["spark-02"].groups == ("rack",)
    assert found.services["qwen"].roles == {"spark-01": of_scope("service")}
    assert found.accept[0].until == "2026-12-31"


def test_connections_merge_from_the_top_over_the_node(attic: Project) -> None:
    way = attic.load(DESIGN).nodes["spark-02"].connection
    assert (way.user, way.port, way.become, way.type) == ("nvidia", 2222, True, "ssh")


def test_variables_merge_from_defaults_over_the_recipe_to_the_service(attic: Project) -> None:
    found = attic.load(DESIGN).variables("spark-01", "qwen")
    assert found["service"]["serve"] == {
        "max-model-len": 131072,
        "max-num-seqs": 4,
        "enable-prefix-caching": True,
    }
    assert found["image"]["reference"] == "vllm:1"
    assert found["driver"]["accept"] == ["590.*"]
    assert found["fabric"] == {"mtu": 1500, "address": "192.168.100.1"}


def test_a_declared_variable_that_nothing_sets_is_none_and_not_missing(attic: Project) -> None:
    assert attic.load(DESIGN).variables("spark-01")["motd"] == {"text": None}


def test_every_layer_overrides_the_weaker_ones(project: Project) -> None:
    project.write(
        "recipes/r.yml", "summary: s\nvariables: {service: {serve: {r: 1, v: 1, g: 1, h: 1, n: 1, s: 1, p: 1, e: 1}}}\n"
    )
    text = HEAD + (
        "vars: {service: {serve: {v: 2, g: 2, h: 2, n: 2, s: 2, p: 2, e: 2}}}\n"
        "groups:\n"
        "  one: {nodes: [a], vars: {service: {serve: {g: 3, h: 3, n: 3, s: 3, p: 3, e: 3}}}}\n"
        "  two: {nodes: [a], service: {serve: {h: 4, n: 4, s: 4, p: 4, e: 4}}}\n"
        "nodes: {a: {service: {serve: {n: 5, s: 5, p: 5, e: 5}}}}\n"
        "services: {q: {recipe: r, nodes: [a], serve: {s: 6, p: 6, e: 6}, per_node: {a: {serve: {p: 7, e: 7}}}}}\n"
    )
    found = project.load(text, extra=(("service.serve.e", "8"),))
    assert found.variables("a", "q")["service"]["serve"] == {
        "r": 1, "v": 2, "g": 3, "h": 4, "n": 5, "s": 6, "p": 7, "e": 8,
    }  # fmt: skip


def test_show_tells_the_layer_and_the_place_of_every_value(attic: Project) -> None:
    shown = {each.path: each for each in show(attic.load(DESIGN), "spark-01", "qwen")}
    port, prefix, mtu = (shown[path] for path in ("service.port", "service.serve.enable-prefix-caching", "fabric.mtu"))
    assert (port.value, port.layer) == (8000, "service qwen")
    assert port.where.endswith("inventory.yml:15:11")
    assert (prefix.layer, prefix.where.rsplit("/", 1)[1]) == ("recipe hybrid", "hybrid.yml:5:61")
    assert mtu.layer == "group rack"
    assert shown["driver.accept"].layer == "vars"


def test_show_tells_a_default_by_the_line_of_its_role(project: Project) -> None:
    shown = {each.path: each for each in show(project.load(HEAD + "nodes: {a: }\n"), "a")}
    assert shown["fabric.mtu"].layer == "role fabric"
    assert "roles/fabric/role.yml:3:" in shown["fabric.mtu"].where


def test_show_prints_the_reference_of_a_secret(project: Project) -> None:
    found = project.load(HEAD + "nodes: {a: {driver: {pin: !env PIN}}}\n")
    assert values(found, "a")["driver"]["pin"] == "!env PIN"


def test_an_extra_value_is_read_as_yaml_and_shown_as_such(project: Project) -> None:
    found = project.load(HEAD + "nodes: {a: }\n", extra=(("fabric.mtu", "1500"),))
    assert found.variables("a")["fabric"]["mtu"] == 1500
    assert next(each for each in show(found, "a") if each.path == "fabric.mtu").layer == "-e fabric.mtu"


def test_groups_may_stand_for_their_nodes_in_a_service(project: Project) -> None:
    text = HEAD + "groups: {pair: {nodes: [b, a]}}\nnodes: {a: , b: , c: }\nservices: {q: {nodes: [pair, c, a]}}\n"
    assert project.load(text).services["q"].nodes == ("b", "a", "c")


def test_a_secret_passes_where_text_is_expected_and_nowhere_else(project: Project) -> None:
    found = project.load(HEAD + "nodes: {a: {connection: {become_password: !env PW}}}\n")
    assert isinstance(found.nodes["a"].connection.become_password, SecretRef)
    assert "fabric.mtu is !env X, expected a whole number" in project.faults(
        HEAD + "nodes: {a: {fabric: {mtu: !env X}}}\n"
    )


def test_local_is_short_for_the_type_and_keeps_the_rest(project: Project) -> None:
    found = project.load(HEAD + "connection: {become: true}\nnodes: {a: {connection: local}, b: }\n")
    assert (found.nodes["a"].connection.type, found.nodes["a"].connection.become) == ("local", True)
    assert found.nodes["b"].connection.type == "ssh"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nodes: {a: }\nnods: {}", "unknown key 'nods' in the inventory|did you mean nodes?"),
        ("nodes: {a: {hosst: x}}", "unknown key 'hosst' in nodes.a|did you mean host?"),
        ("nodes: {a: {fabrik: {}}}", "unknown key 'fabrik' in nodes.a|did you mean fabric?"),
        ("nodes: {a: {fabric: {adress: x}}}", "unknown key 'adress' in nodes.a.fabric|did you mean address?"),
        ("nodes: {a: {driver: {pin: 580.10}}}", 'pin is 580.10, expected text|580.1; write it in quotes: "580.10"'),
        ("nodes: {a: {driver: {pin: no}}}", 'pin is no, expected text|YAML reads no as false; write it in quotes'),
        ("nodes: {a: {driver: {pin: 0123}}}", 'pin is 0123, expected text|reads 0123 as 83; write it in quotes'),
        ("nodes: {a: {connection: {port: '22'}}}", "port is '22', expected a whole number|write 22 without quotes"),
        ("nodes: {a: {connection: {port: 70000}}}", "port is 70000, expected at most 65535"),
        ("nodes: {a: {connection: {become: 'yes'}}}", "become is 'yes', expected true or false|without quotes"),
        ("nodes: {a: {connection: locl}}", "nodes.a.connection is 'locl', expected text that matches ^local$"),
        ("nodes: {a: {connection: 3}}", "nodes.a.connection is 3, expected a mapping or text"),
        ("nodes: {a: {connection: !env X}}", "a connection is no secret"),
        ("nodes: {a: {connection: {type: sssh}}}", "type is 'sssh', expected ssh, local|did you mean ssh?"),
        ("nodes: {a: {connection: {host_key: 3}}}", "host_key is 3, expected text or a list"),
        ("nodes: {a: {connection: {ssh_password: x}}}", "ssh_password is in the file as plain text|!env NAME"),
        ("nodes: {a: {host: {x: 1}}}", "nodes.a.host is a mapping (x), expected text"),
        ("nodes: {'a b': }", "'a b' is no name"),
        ("nodes: {a: {state: gone}}", "state is 'gone', expected present, retired"),
        ("nodes: {}", "nodes is an empty mapping, expected at least one entry"),
        ("nodes: [a]", "nodes is a list of 1, expected a mapping"),
        ("nodes: {a: }\ngroups: {g: {nodes: [b]}}", "there is no node 'b'"),
        ("nodes: {a: }\ngroups: {a: {nodes: [a]}}", "a is the name of a node and of a group"),
        ("nodes: {a: }\nvars: {drivr: {}}", "there is no role 'drivr'|did you mean driver?"),
        ("nodes: {a: }\nroles: [halth]", "there is no role 'halth'|did you mean health?"),
        ("nodes: {a01: }\nservices: {q: {nodes: [a02]}}", "there is no node or group 'a02'|did you mean a01?"),
        ("nodes: {a: }\nservices: {q: {nodes: []}}", "q.nodes is an empty list, expected at least one item"),
        ("nodes: {a: }\nservices: {q: {port: 1}}", "the service q declares none of nodes and replicas"),
        ("nodes: {a: }\nservices: {q: {nodes: [a], prt: 1}}", "unknown key 'prt' in services.q|did you mean port?"),
        ("nodes: {a: }\nservices: {q: {nodes: [a], recip: x}}", "unknown key 'recip'|did you mean recipe?"),
        ("nodes: {a: }\nservices: {q: {nodes: [a], port: 0}}", "services.q.port is 0, expected at least 1|port of the"),
        ("nodes: {a: }\nservices: {q: {nodes: [a], recipe: hybrit}}", "no recipe 'hybrit'|did you mean hybrid?"),
        ("nodes: {a: }\nservices: {q: {nodes: [a], driver: {}}}", "the role driver belongs to nodes"),
        ("nodes: {a: }\nservices: {q: {nodes: [a], per_node: {b: {}}}}", "services.q is not on a node 'b'"),
        ("nodes: {a: }\nservices: {q: {nodes: [a], per_node: {a: {prt: 1}}}}", "unknown key 'prt'|did you mean port?"),
        ("nodes: {a: }\naccept: [{id: x}]", "accept[0] lacks reason"),
        ("nodes: {a: {state: retired}}\nservices: {q: {nodes: [a]}}", "services.q is on a, which is retired"),
    ],
)  # fmt: skip
def test_a_fault_tells_the_value_the_expectation_and_the_way_out(attic: Project, text: str, told: str) -> None:
    message = attic.faults(HEAD + text + "\n")
    assert message.startswith("inventory.yml:")
    for part in told.split("|"):
        assert part in message


def test_the_place_of_an_unknown_key_is_the_key_itself(project: Project) -> None:
    assert project.faults(HEAD + "nodes:\n  a: {fabric: {address: x, adres: y}}\n").startswith("inventory.yml:4:28:")


def test_faults_of_syntax_schema_and_names_are_told_together(project: Project) -> None:
    message = project.faults(HEAD + "nodes: {a: {hots: x}, a: }\ngroups: {g: {nodes: [b]}}\nvesion: 1\n")
    assert message.count("inventory.yml:") == 4


def test_faults_in_a_recipe_are_told_at_the_recipe(project: Project) -> None:
    project.write("recipes/r.yml", "summary: s\nvariables: {service: {port: x}, fabric: {}}\n")
    message = project.faults(HEAD + "nodes: {a: }\nservices: {q: {recipe: r, nodes: [a]}}\n")
    assert "recipes/r.yml:2:29: variables.service.port is 'x'" in message
    assert "recipes/r.yml:2:33: the role fabric belongs to nodes" in message


@pytest.mark.parametrize("text", ["", "just text", "[1]", "42"])
def test_what_is_no_inventory_is_a_fault(project: Project, text: str) -> None:
    assert "begin with version: 1" in project.faults(text)


@pytest.mark.parametrize("key", ["service", "servce.port", "service..port", "service.prt", ""])
def test_a_wrong_extra_value_is_a_fault(project: Project, key: str) -> None:
    assert "-e " in project.faults(HEAD + "nodes: {a: }\n", extra=((key, "1"),))


def test_a_role_that_shadows_a_built_in_one_is_said(project: Project) -> None:
    project.role("driver", (project.folder / "roles/driver/role.yml").read_text())
    notices = project.load(HEAD + "nodes: {a: }\n").notices
    assert Message.of("role-shadows-built-in", role="driver") in notices


def test_a_role_of_a_users_own_may_not_take_a_word_of_the_inventory(project: Project) -> None:
    project.role("cluster", MOTD)
    assert "cluster is a word of the inventory" in project.faults(HEAD + "nodes: {a: }\n")


def test_a_role_file_with_a_fault_is_told_by_line(project: Project) -> None:
    project.role("motd", "summary: s\nscope: nod\nresorces: []\nvariables: {properties: {a: {type: strin}}}\n")
    message = project.faults(HEAD + "nodes: {a: }\n")
    assert "roles/motd/role.yml:2:8: scope is 'nod', expected node, service" in message
    assert "roles/motd/role.yml:3:1: unknown key 'resorces'" in message
    assert "roles/motd/role.yml:4:36: variables.properties.a.type is not a JSON Schema" in message


def test_an_unknown_node_to_show_is_told_with_the_nearest(project: Project) -> None:
    with fails("node-not-found"):
        show(project.load(HEAD + "nodes: {spark: }\n"), "spork")


# What is the user's own, and what is written at the wrong place


def test_keys_that_begin_with_x_are_the_users_own(project: Project) -> None:
    found = project.load(
        """
        version: 1
        cluster: x
        x-limits: &limits {max-model-len: 4096}
        x-anything: [1, {nodes: !env NOWHERE}]
        nodes: {a: {}}
        services: {q: {nodes: [a], port: 1, serve: {<<: *limits, max-num-seqs: 4}}}
        """
    )
    assert found.variables("a", "q")["service"]["serve"] == {"max-model-len": 4096, "max-num-seqs": 4}
    assert "x-limits" in project.faults("version: 1\ncluster: x\nnodes: {a: {x-limits: 1}}\n"), "at the top only"


@pytest.mark.parametrize(
    ("host", "lines"),
    [
        ("nvidia@192.168.1.11:2222", ("`host: 192.168.1.11`", "`connection: {user: nvidia, port: 2222}`")),
        ("nvidia@spark", ("`host: spark`", "`connection: {user: nvidia}`")),
        ("192.168.1.11:22", ("`host: 192.168.1.11`", "`connection: {port: 22}`")),
        ("ssh://nvidia@spark:2222/", ("`host: spark`", "`connection: {user: nvidia, port: 2222}`")),
        ("'[fe80::1%eth0]'", ("`host: fe80::1%eth0`", "write")),
        ("'[fe80::1%eth0]:22'", ("`host: fe80::1%eth0`", "`connection: {port: 22}`")),
    ],
)
def test_a_host_with_a_user_or_a_port_is_told_with_the_lines_to_write(
    project: Project, host: str, lines: tuple[str, str]
) -> None:
    told = project.faults(f"version: 1\ncluster: x\nnodes: {{a: {{host: {host}}}}}\n")
    assert all(line in told for line in lines), told


@pytest.mark.parametrize("host", ["'::1'", "'fe80::1%eth0'", "spark-01.local", "192.168.1.11"])
def test_other_hosts_are_as_they_are(project: Project, host: str) -> None:
    project.load(f"version: 1\ncluster: x\nnodes: {{a: {{host: {host}}}}}\n")
