"""What is taken out of a text before it leaves: known secrets in every form, and whatever looks like one."""

from __future__ import annotations

import base64
import json
import urllib.parse

import pytest
from hypothesis import assume, given
from hypothesis import strategies as some

from sparkops.programs.redaction import MASK, Redaction

SECRET = "pl4nted/väl+ue 'x\" \\y"
secrets = some.text(some.characters(blacklist_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=8, max_size=40)
around = some.text("abc \n:=", max_size=12)


def clean(text: str, *known: str) -> str:
    return Redaction(known).text(text)


@given(secrets, around, around)
def test_a_known_secret_is_found_in_every_form(secret: str, before: str, after: str) -> None:
    assume(secret not in MASK)
    data = secret.encode()
    forms = [
        secret,
        json.dumps(secret),
        json.dumps(json.dumps({"x": secret})),
        data.hex(),
        data.hex().upper(),
        urllib.parse.quote(secret, safe=""),
        urllib.parse.quote_plus(secret),
        base64.b64encode(data).decode(),
        base64.urlsafe_b64encode(data).decode(),
    ]
    for form in forms:
        assert form not in clean(before + form + after, secret)


@given(secrets, some.binary(max_size=9), some.binary(max_size=9))
def test_base64_of_a_text_around_a_secret_shows_nothing_of_it(secret: str, before: bytes, after: bytes) -> None:
    whole = base64.b64encode(before + secret.encode() + after).decode()
    left = clean(whole, secret)
    assert MASK in left
    assert len(left.replace(MASK, "")) <= len(whole) - len(secret.encode()) * 4 // 3 + 6


@pytest.mark.parametrize(
    "text",
    [
        "HF_TOKEN={}",
        'Environment="MY_PASSWORD={}"',
        "Environment=DB_PASSWORD={}",
        '{{"Env": ["VLLM_API_KEY={}", "A=b"]}}',
        '{{"apiKey": "{}"}}',
        '{{"registry": {{"password": "{}"}}}}',
        "password: {}",
        "Authorization: Bearer {}",
        '"authorization": "Basic {}"',
        "> X-Api-Key: {}",
        "vllm serve m --api-key {} --port 1",
        '["serve", "--api-key", "{}"]',
        "--api-key={}",
        "https://user:{}@host/path",
        "got hf_{} from the hub",
        "client_secret={}&x=1",
        "AWS_SECRET_ACCESS_KEY = {}",
        "aws_session_token={}",
        '{{\\"password\\": \\"{}\\"}}',
    ],
)
def test_what_looks_like_a_secret_goes_with_its_value(text: str) -> None:
    assert "s3cretValue99" not in clean(text.format("s3cretValue99"))
    assert MASK in clean(text.format("s3cretValue99"))


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=512",
        '"num_key_value_heads": 8',
        "--max-num-batched-tokens 8192",
        "--tokenizer /models/x",
        "tokens per second: 41.2",
        "NVRM: Xid (PCI:000f:01:00): 79, GPU has fallen off the bus",
        '"eos_token_id": 151645',
        "generation throughput: 12.3 tokens/s",
        "keyboard: us",
    ],
)
def test_what_a_report_needs_stays(text: str) -> None:
    assert clean(text) == text


def test_a_private_key_goes_whole_also_in_a_journal_and_without_one_of_its_ends() -> None:
    body = [f"MIIEv{number}AAAA" for number in range(9)]
    begin, end = "-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"
    whole = [begin, *body, end]
    for lines in (whole, whole[:-2], whole[3:], [f"Nov 29 10:00 n qwen[1]: {each}" for each in whole]):
        found = clean("before\n" * 300 + "\n".join(lines) + "\nafter\n" * 300)
        assert "MIIEv" not in found
        assert "before" in found
        assert "after" in found
    assert "MIIEv" not in clean(json.dumps("\n".join(whole)))
    assert "BEGIN PUBLIC" in clean("-----BEGIN PUBLIC KEY-----\nx")


def test_a_secret_of_several_lines_is_found_line_by_line() -> None:
    assert clean("qwen[1]: first-line-of-it\nqwen[1]: second-line-of-it", "first-line-of-it\nsecond-line-of-it") == (
        f"qwen[1]: {MASK}\nqwen[1]: {MASK}"
    )


def test_values_of_json_go_by_their_keys_and_texts_by_what_they_say() -> None:
    found = Redaction(["planted"]).json(
        {"Env": ["A=planted", "X_TOKEN=q1w2e3"], "token": "zzz", "n": 3, "key": ["abc"]}
    )
    assert found == {"Env": [f"A={MASK}", f"X_TOKEN={MASK}"], "token": MASK, "n": 3, "key": [MASK]}


def test_a_value_too_short_to_be_looked_for_is_left_where_nothing_names_it() -> None:
    assert clean("port 80", "80") == "port 80"
    assert clean("PIN_SECRET=80", "80") == f"PIN_SECRET={MASK}"


def test_an_option_of_an_argument_list_and_an_entry_with_name_and_value_are_seen_as_pairs() -> None:
    found = Redaction(()).json({"Args": ["serve", "--api-key", "q1w2e3r4", "--port", "8000"]})
    assert found == {"Args": ["serve", "--api-key", MASK, "--port", "8000"]}
    assert Redaction(()).json([{"name": "A_TOKEN", "value": "q1w2e3"}]) == [{"name": "A_TOKEN", "value": MASK}]
    assert Redaction(()).json({"name": "x", "value": "q1w2e3"}) == {"name": "x", "value": "q1w2e3"}
