"""`[USER@]HOST[:PORT]`, read back as it was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.host_address import HostAddress, parse

HOSTS = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True) | st.sampled_from(["::1", "fe80::1%eth0"])


@given(HOSTS, st.none() | st.from_regex(r"[a-z][a-z0-9._-]{0,10}", fullmatch=True), st.none() | st.integers(1, 65535))
def test_what_is_written_is_read(host: str, user: str | None, port: int | None) -> None:
    shown = f"[{host}]" if ":" in host and port is not None else host
    text = (f"{user}@" if user else "") + shown + (f":{port}" if port is not None else "")
    assert parse(text) == parse(f"ssh://{text}/") == HostAddress(host, user, port)


@pytest.mark.parametrize(
    "text", ["", "@host", "user@", "host:", "host:ssh", "host:0", "host:65536", "[::1", "a b", "-oX"]
)
def test_what_is_no_address_is_none(text: str) -> None:
    assert parse(text) is None
