"""Expressions keep types, refuse what is undefined, and carry secrets unseen."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.compile.expressions import Expressions, quote_systemd
from sparkops.compile.secret_placeholders import SecretPlaceholders
from sparkops.core.errors import InventoryError
from sparkops.core.secrets import Secret, SecretRef
from sparkops.core.states import FromFact
from tests.errors import fails

TOKEN = SecretRef("env", "TOKEN")
PASSWORD = 'pa"ss %1\\'


def engine(*folders: Path) -> Expressions:
    return Expressions(SecretPlaceholders(lambda ref: Secret(PASSWORD, str(ref))), folders)


def evaluate(source: Any, **context: Any) -> Any:
    """A value as it reaches a resource."""
    expressions = engine()
    sealed = expressions.placeholders.seal(context)
    return expressions.placeholders.open(expressions.value(source, "r.yml:1:1")(sealed))


def fault(source: Any, **context: Any) -> str:
    with pytest.raises(InventoryError) as caught:
        evaluate(source, **context)
    return str(caught.value)


@pytest.mark.parametrize(
    "value", ["580.10", 580.1, 12, True, None, [1, "a"], {"a": [None]}, "0123e4567", "[1]", "None"]
)
def test_a_single_expression_yields_the_object_itself(value: Any) -> None:
    found = evaluate("{{ x.y }}", x={"y": value})
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("v{{ a }}", "v580.10"),
        ("{{ a }} ", "580.10 "),
        ("{{ a }}{{ n }}", "580.103"),
        ("{% if n %}yes{% endif %}", "yes"),
        ("{{ n }}{# c #}", "3"),
        ("{{ '{{ a }}' }}", "{{ a }}"),
        ("{{ [n, '}}'] }}", [3, "}}"]),
        ("plain", "plain"),
        ("{ {a} }", "{ {a} }"),
        (["{{ n }}", "x{{ n }}"], [3, "x3"]),
        ({"k": {"d": "{{ n }}"}}, {"k": {"d": 3}}),
        ("{{ names | map('upper') }}", ["A", "B"]),
        ("{{ names | map('upper') | join(',') }}", "A,B"),
        ("{{ n + 1 }}", 4),
        (7, 7),
    ],
)
def test_all_other_text_with_braces_renders_to_text(source: Any, value: Any) -> None:
    assert evaluate(source, a="580.10", n=3, names=["a", "b"]) == value


@given(st.text(max_size=20) | st.sampled_from(["{{ 7*7 }}", "{% for x in y %}", "{{ fact('a') }}", "{#"]))
def test_a_value_of_the_inventory_is_never_a_template(text: str) -> None:
    if any("\U0010f000" <= char <= "\U0010f0ff" for char in text):
        return
    assert evaluate("{{ x }}", x=text) == text
    assert evaluate("<{{ x }}>", x=text) == f"<{text}>"


def test_keys_of_a_mapping_come_before_the_methods_of_python() -> None:
    assert evaluate("{{ serve.copy }}-{{ serve.items }}", serve={"copy": 1, "items": 2}) == "1-2"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{{ drivr.accept }}", "drivr is not defined"),
        ("{{ driver.acept }}", "there is no acept in it; did you mean accept?"),
        ("x {{ driver.acept }}", "there is no acept in it"),
        ("{{ driver.a.b }}", "there is no a in it"),
        ("{{ [driver.a] }}", "there is no a in it"),
        ("{{ driver.nothing.x }}", "nothing has no x"),
        ("{{ driver.keys }}", "which is no value"),
        ("{{ ''.__class__ }}", "unsafe"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 1 + }}", "the expression cannot be read"),
        ("{{ 'a' | nofilter }}", "nofilter"),
        ("{{ driver.accept.append(1) }}", "is unsafe"),
    ],
)
def test_a_fault_tells_its_place_and_its_cause(source: str, told: str) -> None:
    message = fault(source, driver={"accept": [1], "nothing": None})
    assert message.startswith("r.yml:1:1: ")
    assert told in message


def test_a_default_may_stand_in_for_what_is_undefined() -> None:
    assert evaluate("{{ driver.a | default('d') }}", driver={}) == "d"


def test_a_fact_is_a_whole_value() -> None:
    assert evaluate("{{ fact('gpu.driver') }}") == FromFact("gpu.driver")
    assert evaluate("{{ {'a': fact('b')} }}") == {"a": FromFact("b")}
    assert type(evaluate("{{ fact('b') }}")) is FromFact


@pytest.mark.parametrize("source", ["x{{ fact('a') }}", "{{ 'x' ~ fact('a') }}", "{{ 1 if fact('a') else 2 }}"])
def test_a_fact_inside_a_text_or_a_choice_is_refused(source: str) -> None:
    assert "the fact a" in fault(source)


@pytest.mark.parametrize("source", ["fact('a') == 1", "{{ fact('a') }}"])
def test_conditions_see_no_facts(source: str) -> None:
    with fails("fact-in-condition-known-early"):
        engine().condition(source, "r.yml:1:1")({})


def test_a_condition_needs_no_braces() -> None:
    assert engine().condition("a.b and not c", "")({"a": {"b": 1}, "c": 0}) is True


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ t }}", PASSWORD),
        ("a={{ t }};", f"a={PASSWORD};"),
        ("{{ 'a' ~ t }}", f"a{PASSWORD}"),
        ("{{ [t, 'x'] | join('-') }}", f"{PASSWORD}-x"),
        ("{{ t | sh }}", shlex.quote(PASSWORD)),
        ("{{ ['echo', t] | sh }}", f"echo {shlex.quote(PASSWORD)}"),
        ("{{ t | systemd }}", '"pa\\"ss %%1\\\\"'),
        ("{{ {'k': t} | json }}", '{"k":"pa\\"ss %1\\\\"}'),
        ("X={{ ('p:' ~ t) | systemd }}", 'X="p:pa\\"ss %%1\\\\"'),
    ],
)
def test_text_that_a_secret_enters_is_secret_and_quoted_by_its_true_value(source: str, text: str) -> None:
    found = evaluate(source, t=TOKEN)
    assert isinstance(found, Secret)
    assert found.reveal() == text
    assert str(found) == "***"


def test_only_the_part_that_holds_the_secret_is_secret() -> None:
    found = evaluate("{{ {'a': t, 'b': 1} }}", t=TOKEN)
    assert found["b"] == 1
    assert isinstance(found["a"], Secret)


@pytest.mark.parametrize(
    ("source", "id"),
    [
        ("{{ t[1:] }}", "secret-altered"),
        ("{{ t | replace('\U0010f000', '') }}", "secret-altered"),
        ("{{ t[:2] }}", "secret-altered"),
        ("{{ {t: 1} }}", "secret-as-key"),
    ],
)
def test_a_secret_that_is_cut_or_used_as_a_key_is_an_error(source: str, id: str) -> None:
    with fails(id):
        evaluate(source, t=TOKEN)


def test_no_digest_is_made_of_a_secret() -> None:
    assert "a digest is made of a secret" in fault("{{ {'a': t} | digest }}", t=TOKEN)


def test_an_unused_secret_is_not_read() -> None:
    expressions = Expressions(SecretPlaceholders(lambda ref: pytest.fail("it was read")))
    context = expressions.placeholders.seal({"t": TOKEN, "u": 1})
    assert expressions.placeholders.open(expressions.value("{{ u if t else 2 }}", "")(context)) == 1


def test_a_secret_in_serve_arguments_is_encoded_by_its_true_value() -> None:
    found = evaluate("{{ argv(['vllm'], 'm', serve) }}", serve={"api-key": TOKEN, "cfg": {"k": TOKEN}, "n": 1})
    assert [each.reveal() if isinstance(each, Secret) else each for each in found] == [
        "vllm", "m", "--api-key", PASSWORD, "--cfg", '{"k":"pa\\"ss %1\\\\"}', "--n", "1",
    ]  # fmt: skip


def test_a_digest_depends_on_content_and_not_on_order() -> None:
    assert evaluate("{{ x | digest }}", x={"a": 1, "b": 2}) == evaluate("{{ x | digest }}", x={"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("100%", "100%%"),
        ("two words", '"two words"'),
        ("", '""'),
        ("a'b", '"a\'b"'),
        ("$HOME", "$HOME"),
        (True, "true"),
        (8000, "8000"),
        (["/bin/x", "a b", "$V", "%h"], '/bin/x "a b" $$V %%h'),
    ],
)
def test_the_systemd_filter_quotes_as_unit_files_want_it(value: Any, text: str) -> None:
    assert evaluate("{{ x | systemd }}", x=value) == text


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "\x00", "\x1b", "\x7f"])
def test_a_line_break_or_control_character_is_refused_in_a_unit_file(text: str) -> None:
    with pytest.raises(ValueError, match="can't carry"):
        quote_systemd(text)


def test_templates_are_searched_in_order_and_tell_their_own_line(tmp_path: Path) -> None:
    (tmp_path / "role").mkdir()
    (tmp_path / "own").mkdir()
    (tmp_path / "role/a.j2").write_text("role {{ x }}\n")
    (tmp_path / "own/a.j2").write_text("own\n")
    (tmp_path / "own/b.j2").write_text("{% include 'a.j2' %}\n\n{{ y.z }}\n")
    (tmp_path / "own/c.j2").write_text("ok\n{% if %}\n")
    expressions = engine(tmp_path / "role", tmp_path / "own")
    assert expressions.template("a.j2", {"x": 1}, "").text == "role 1\n"
    with fails("expression-name-undefined"):
        expressions.template("b.j2", {"x": 1, "y": {}}, "r.yml:1:1")
    with fails("expression-syntax-invalid"):
        expressions.template("c.j2", {}, "r.yml:1:1")
    with fails("template-not-found"):
        expressions.template("../x", {}, "r.yml:1:1")


def test_a_template_with_a_secret_is_secret_content(tmp_path: Path) -> None:
    (tmp_path / "env.j2").write_text("TOKEN={{ t }}\n")
    expressions = engine(tmp_path)
    content = expressions.template("env.j2", expressions.placeholders.seal({"t": TOKEN}), "")
    assert content.secret
    assert content.encode() == f"TOKEN={PASSWORD}\n".encode()
