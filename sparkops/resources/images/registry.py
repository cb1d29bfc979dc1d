"""A registry, asked from the controller: the digest of a tag, the tags of a repository, and the credentials for both.

Names and credentials are read by Docker's own SDK, so that `docker login` works here as it does for `docker pull`:
config.json (or `DOCKER_CONFIG`), credential helpers and stores. Source of the interface: OCI distribution specification
1.1; token authentication as Docker's registries do it. Plain HTTP is spoken only to private addresses, after HTTPS
failed, and never with a password.
"""

from __future__ import annotations

import base64
import difflib
import http.client
import ipaddress
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from sparkops.core.deadline import within
from sparkops.core.digests import sha256
from sparkops.core.errors import SparkopsError
from sparkops.resources.images.reference import Reference

TIMEOUT = 20.0
"""Seconds of silence."""
WHOLE = 45.0
"""Seconds for a whole question, its redirects and tokens included: a registry that trickles is never silent."""
SUGGESTION_TIMEOUT = 6.0
"""Seconds for the tags that an error message suggests."""
LIMIT = 4 << 20
"""Bytes of an answer that are read."""
MEDIA_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
Answer = TypeVar("Answer")
Read = Callable[[str, str], Answer]
"""Reads an answer: its arguments are the URL and the header `Authorization`."""


class RegistryError(SparkopsError):
    """The registry has no such image, or refuses access; or the credentials for it can't be read."""


class RegistryUnreachable(RegistryError):
    """The registry did not answer, or not now."""

    exit_status: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials for the registry `server`: a name and a password, or the token that a login service issued."""

    server: str
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def as_json(self) -> dict[str, str]:
        """The form that Docker's engine takes (API: `X-Registry-Auth`)."""
        if self.identity_token:
            return {"serveraddress": self.server, "identitytoken": self.identity_token}
        return {"serveraddress": self.server, "username": self.username, "password": self.password}

    @property
    def basic(self) -> str:
        """The header `Authorization` of a name and a password; "" for a token."""
        if self.identity_token:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def server_of(repository: str) -> str:
    """The registry of a repository as Docker calls it in a login: its host, or Docker Hub's address."""
    from docker import auth  # takes longer to load than a whole plan that pulls nothing

    index, _ = auth.resolve_repository_name(repository)
    return auth.INDEX_URL if index == auth.INDEX_NAME else str(index)


def same_server(one: str, other: str) -> bool:
    """Whether two spellings name one registry."""
    from docker import auth

    return bool(auth.resolve_index_name(one) == auth.resolve_index_name(other))


def docker_login(repository: str) -> Login | None:
    """What `docker login` stored for the registry of a repository. Raises RegistryError where it can't be read."""
    from docker import auth, errors

    index, _ = auth.resolve_repository_name(repository)
    try:
        stored = within(WHOLE, lambda: auth.load_config().resolve_authconfig(index)) or {}
    except (errors.DockerException, OSError, ValueError) as error:
        raise RegistryError.of("docker-credentials-unreadable", server=index, text=str(error)) from None
    fields = {key.lower(): str(value) for key, value in stored.items() if value}
    token, username = fields.get("identitytoken", ""), fields.get("username", "")
    if not token and not username:
        return None
    return Login(server_of(repository), username, fields.get("password", ""), token)


def digest(image: str, login: Login | None = None) -> str:
    """The digest of the index that `name:tag` stands for. Raises RegistryError, RegistryUnreachable."""
    reference = Reference.parse(image)
    server, path = _address(reference.repository)
    try:
        tag = urllib.parse.quote(reference.tag)
        return within(WHOLE, lambda: _with_scheme(server, f"/v2/{path}/manifests/{tag}", login, _manifest_digest))
    except urllib.error.HTTPError as error:
        raise _refused(error.code, image) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        text = str(getattr(error, "reason", error))
        raise RegistryUnreachable.of("registry-unreachable", where=image, server=server, text=text) from None


def tags(repository: str, login: Login | None = None) -> list[str] | None:
    """The tags of a repository, [] where it does not exist; None where the registry does not answer that."""
    server, path = _address(repository)
    try:
        found = within(SUGGESTION_TIMEOUT, lambda: _with_scheme(server, f"/v2/{path}/tags/list", login, _json))
    except urllib.error.HTTPError as error:
        return [] if error.code == 404 else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    names = found.get("tags") if isinstance(found, dict) else None
    return [str(each) for each in names or []]


def nearest(wanted: str, found: list[str]) -> list[str]:
    """At most five of the tags, those whose spelling is nearest first."""
    return difflib.get_close_matches(wanted, found, 5, 0.4) or sorted(found)[-5:]


def _address(repository: str) -> tuple[str, str]:
    """The host to ask and the quoted name there."""
    from docker import auth

    index, name = auth.resolve_repository_name(repository)
    if index == auth.INDEX_NAME:
        index, name = "registry-1.docker.io", name if "/" in name else f"library/{name}"
    return str(index), urllib.parse.quote(name)


def _with_scheme(server: str, path: str, login: Login | None, read: Read[Answer]) -> Answer:
    """`read(url, authorization)` over HTTPS; over HTTP where that fails at a private address and nothing is secret."""
    try:
        return _authorized(f"https://{server}{path}", login, read)
    except OSError as error:
        if isinstance(error, urllib.error.HTTPError) or login or not _private(server):
            raise
        return _authorized(f"http://{server}{path}", None, read)


def _private(server: str) -> bool:
    host = urllib.parse.urlsplit(f"//{server}").hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_private
    except ValueError:
        return False


def _authorized(url: str, login: Login | None, read: Read[Answer]) -> Answer:
    """`read(url, authorization)`; with a token where the registry asks for one."""
    try:
        return read(url, login.basic if login else "")
    except urllib.error.HTTPError as refused:
        challenge = refused.headers.get("WWW-Authenticate", "")
        if refused.code != 401 or not challenge.lower().startswith("bearer "):
            raise
        return read(url, f"Bearer {_token(challenge, login)}")


def _token(challenge: str, login: Login | None) -> str:
    """Source: distribution's documents "Token Authentication Specification" and "OAuth2 Token Authentication"."""
    asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = asked.get("realm", "")
    if not realm.startswith("https://"):
        raise ValueError(f"its token service {realm!r} does not use HTTPS")
    query = {key: asked[key] for key in ("service", "scope") if key in asked}
    if login and login.identity_token:
        form = {"grant_type": "refresh_token", "client_id": "sparkops", "refresh_token": login.identity_token}
        answer = _open(realm, "", "POST", urllib.parse.urlencode({**query, **form}).encode())
    else:
        answer = _open(f"{realm}?{urllib.parse.urlencode(query)}", login.basic if login else "", "GET")
    with answer:
        found: object = json.loads(answer.read(LIMIT))
    token = (found.get("token") or found.get("access_token")) if isinstance(found, dict) else None
    if not isinstance(token, str):
        raise ValueError("its token service gave no token")  # noqa: TRY004
    return token


def _manifest_digest(url: str, authorization: str) -> str:
    with _open(url, authorization, "HEAD") as answer:
        named = answer.headers.get("Docker-Content-Digest", "")
    if _DIGEST.fullmatch(named):
        return str(named)
    with _open(url, authorization, "GET") as answer:
        body = answer.read(LIMIT + 1)
    if len(body) > LIMIT:
        raise ValueError("its manifest is too long")
    return sha256(body)


def _json(url: str, authorization: str) -> object:
    with _open(url, authorization, "GET", timeout=SUGGESTION_TIMEOUT) as answer:
        return json.loads(answer.read(LIMIT))


def _open(url: str, authorization: str, method: str, body: bytes | None = None, timeout: float = TIMEOUT) -> Any:
    request = urllib.request.Request(url, data=body, method=method, headers={"Accept": ", ".join(MEDIA_TYPES)})
    if authorization:
        request.add_unredirected_header("Authorization", authorization)
    return urllib.request.urlopen(request, timeout=timeout)


def _refused(code: int, image: str) -> RegistryError:
    if code == 404:
        return RegistryError.of("registry-tag-missing", where=image, image=image)
    if code in (401, 403):
        return RegistryError.of("registry-access-denied", where=image, image=image, status=code)
    return RegistryUnreachable.of("registry-error-status", where=image, image=image, status=code)
