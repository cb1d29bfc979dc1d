"""What a tag stands for in a registry, asked from here: the digest of its index, by the registry's HTTP interface.

Source: the OCI distribution specification 1.1; token authentication as Docker's registries do it. Plain HTTP is spoken
only to private addresses, after HTTPS failed, and never with a password.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import ipaddress
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, ClassVar

from sparkops.core.errors import SparkopsError
from sparkops.resources.image import Reference

TIMEOUT = 20.0
LIMIT = 4 << 20
"""Bytes of an answer that are read."""
KINDS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class RegistryError(SparkopsError):
    """The registry has no such image, or does not let us see it."""


class RegistryUnreachable(RegistryError):
    """The registry did not answer, or not now."""

    exit_status: ClassVar[int] = 3


def digest(image: str, username: str | None = None, password: str | None = None) -> str:
    """The digest of the index that `name:tag` stands for. Raises RegistryError, RegistryUnreachable."""
    reference = Reference.parse(image)
    server, path = _place(reference.repository)
    basic = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode() if username else ""
    url = f"{server}/v2/{urllib.parse.quote(path)}/manifests/{urllib.parse.quote(reference.tag)}"
    try:
        try:
            return _asked(f"https://{url}", basic)
        except OSError as error:
            if isinstance(error, urllib.error.HTTPError) or basic or not _private(server):
                raise
            return _asked(f"http://{url}", "")
    except urllib.error.HTTPError as error:
        raise _words(error.code, image) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = getattr(error, "reason", error)
        raise RegistryUnreachable(f"the registry does not answer: {why}", where=image, hint="try again later") from None


def _place(repository: str) -> tuple[str, str]:
    """The server and the name there; Docker Hub's where none is named."""
    first, slash, rest = repository.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return first, rest
    return "registry-1.docker.io", repository if slash else f"library/{repository}"


def _private(server: str) -> bool:
    host = urllib.parse.urlsplit(f"//{server}").hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_private
    except ValueError:
        return False


def _asked(url: str, header: str) -> str:
    """The digest at a manifest's address; with a token where the registry asks for one."""
    try:
        return _head(url, header)
    except urllib.error.HTTPError as refused:
        challenge = refused.headers.get("WWW-Authenticate", "")
        if refused.code != 401 or not challenge.lower().startswith("bearer "):
            raise
        return _head(url, f"Bearer {_token(challenge, header)}")


def _token(challenge: str, header: str) -> str:
    asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = asked.get("realm", "")
    if not realm.startswith("https://"):
        raise ValueError(f"it sends to {realm or 'nowhere'} for a token, which is not HTTPS")
    query = urllib.parse.urlencode({key: asked[key] for key in ("service", "scope") if key in asked})
    told: Any = json.loads(_open(f"{realm}?{query}", header, "GET").read(LIMIT))
    token = (told.get("token") or told.get("access_token")) if isinstance(told, dict) else None
    if not isinstance(token, str):
        raise ValueError("its token service gave no token")  # noqa: TRY004
    return token


def _head(url: str, header: str) -> str:
    with _open(url, header, "HEAD") as answer:
        told = answer.headers.get("Docker-Content-Digest", "")
    if _DIGEST.fullmatch(told):
        return str(told)
    with _open(url, header, "GET") as answer:
        body = answer.read(LIMIT + 1)
    if len(body) > LIMIT:
        raise ValueError("its manifest is too long")
    return "sha256:" + hashlib.sha256(body).hexdigest()


def _open(url: str, header: str, method: str) -> Any:
    request = urllib.request.Request(url, method=method, headers={"Accept": ", ".join(KINDS)})
    if header:
        request.add_unredirected_header("Authorization", header)
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def _words(code: int, image: str) -> RegistryError:
    if code == 404:
        return RegistryError("the registry has no such tag", where=image, hint="check the image's name and tag")
    if code in (401, 403):
        hint = "check the name; a private one needs image: {registry: {username: …, password: !env …}}"
        return RegistryError(f"the registry refuses ({code})", where=image, hint=hint)
    return RegistryUnreachable(f"the registry answered {code}", where=image, hint="try again later")
