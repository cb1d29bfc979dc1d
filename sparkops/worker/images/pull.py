"""Pulling an image through the engine: progress over all layers, the registry's errors in words, proof of the digest.

Credentials come with the order, go into one header and are never written down.
"""

import base64
import difflib
import json
import os
import re
from typing import Any

from sparkops.programs import docker
from sparkops.worker.calls import Refused
from sparkops.worker.images import registry
from sparkops.worker.system.jobs import Job

_WORDS: tuple[tuple[str, str, str], ...] = (
    (
        r"server gave HTTP response to HTTPS client",
        "the registry {server} speaks plain HTTP, which the node's Docker does not accept",
        "serve it with TLS, or list {server} under insecure-registries in the node's /etc/docker/daemon.json",
    ),
    (
        r"x509:|certificate",
        "the certificate of the registry {server} is not trusted by the node ({said})",
        "put the registry's CA certificate into /etc/docker/certs.d/{server}/ca.crt on the node; look at its clock too",
    ),
    (
        r"no matching manifest|no match for platform|does not match the (specified|expected) platform",
        "{name} is not there for {platform}",
        "choose an image that is built for {platform} (a DGX Spark is linux/arm64), or build it on the node",
    ),
    (r"toomanyrequests|429 Too Many|rate limit", "the registry {server} refuses more pulls for now",
     "log in with image.registry (named users have higher limits), or try again later"),
    (
        r"no space left on device",
        "the node's disk is full",
        "free space under Docker's folder (docker system df shows what holds it), then run apply again",
    ),
    (
        r"unauthorized|no basic auth credentials|401 |incorrect username or password|access denied|\bdenied\b|403 ",
        "the registry {server} does not let the node have {name}: {said}",
        "{login}",
    ),
    (
        r"manifest unknown|not found|name unknown|manifest for .* not found|does not exist",
        "{name} is not in the registry",
        "look at the spelling of the name and of the tag or digest",
    ),
    (
        r"no such host|connection re(fused|set)|timeout|unreachable|no route|dial tcp|deadline exceeded|\bEOF\b",
        "the node does not reach the registry {server}: {said}",
        "look at the node's network, DNS and proxy; a proxy for pulls is set on docker.service",
    ),
    (r"invalid reference format|invalid tag", "{name} is no name of an image",
     "write it as registry/name:tag or registry/name@sha256:…"),
)  # fmt: skip


def engine_words(said: str, name: str, *, platform: str = "", login: bool = False) -> Refused:
    """The engine's or registry's error as what happened and the way out."""
    words = {
        "name": name,
        "server": server_of(name)[0] or "docker.io",
        "platform": platform or "this node's platform",
        "said": said[-300:],
        "login": "the declared user name or password is wrong, or may not read this repository"
        if login
        else "declare image.registry with username and password; a private image looks like one that does not exist",
    }
    for pattern, what, hint in _WORDS:
        if re.search(pattern, said, re.IGNORECASE):
            return Refused(what.format(**words), hint=hint.format(**words), detail=said[-4000:])
    return Refused(f"{name}: Docker says: {said[-300:]}", hint="see journalctl -u docker there", detail=said[-4000:])


def server_of(repository: str) -> tuple[str, str]:
    """The registry's host and the name in it, by Docker's rule: a first part with a dot, a colon or `localhost`."""
    head, slash, rest = repository.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        return head, rest
    return "", repository


def auth_header(given: dict[str, Any] | None) -> dict[str, str]:
    """The header by which the engine logs in to a registry, for this one request."""
    if not given:
        return {}
    told = {"username": given["username"], "password": given["password"], "serveraddress": given["server"]}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(told).encode()).decode()}


def fits(platform: str, wanted: str) -> bool:
    """Whether an image of `platform` serves where `wanted` was asked: `linux/arm64/v8` serves `linux/arm64`."""
    return platform == wanted or platform.startswith(wanted + "/") or wanted == platform + "/v8"


class Tally:
    """Progress lines of a pull, summed over the layers. Pure: it is fed lines and tells bytes."""

    def __init__(self) -> None:
        self.size: dict[str, int] = {}
        self.have: dict[str, int] = {}
        self.layers: set[str] = set()
        self.ready: set[str] = set()

    def take(self, line: dict[str, Any]) -> None:
        """One line as the engine says it."""
        layer, status = str(line.get("id") or ""), str(line.get("status") or "")
        if not layer or status.startswith(("Pulling from", "Digest:", "Status:")):
            return
        self.layers.add(layer)
        detail = line.get("progressDetail") or {}
        current, total = detail.get("current"), detail.get("total")
        if status == "Downloading" and isinstance(current, int):
            if isinstance(total, int) and total > 0:
                self.size[layer] = total
            self.have[layer] = max(self.have.get(layer, 0), min(current, self.size.get(layer, current)))
        elif status in ("Verifying Checksum", "Download complete", "Extracting", "Pull complete"):
            self.have[layer] = self.size.get(layer, self.have.get(layer, 0))
        if status in ("Pull complete", "Already exists"):
            self.ready.add(layer)

    @property
    def done(self) -> int:
        """Bytes that have arrived."""
        return sum(self.have.values())

    @property
    def total(self) -> int | None:
        """Bytes of the layers whose size is known so far; None before the first."""
        return sum(self.size.values()) or None

    @property
    def text(self) -> str:
        return f"pulling, {len(self.ready)} of {len(self.layers)} layers ready" if self.layers else "pulling"


def pull(job: Job, args: dict[str, Any]) -> None:
    """The job: pull by the pinned digest, else by the tag; prove the digest and the platform; give it its name."""
    fetch(job, args)
    name = f"{args['repository']}@{args['digest']}" if args.get("digest") else args["name"]
    found = docker.inspect_image(name, at=args.get("at"))
    if found is None:
        raise Refused(f"Docker says that it has pulled {name}, and does not have it", hint="run apply again")
    platform, wanted = f"{found.get('Os')}/{found.get('Architecture')}", args.get("platform") or native_platform(args)
    if not fits(platform, wanted):
        raise Refused(
            f"{name} is for {platform}, and {wanted} is needed",
            hint=f"choose an image that is built for {wanted} (a DGX Spark is linux/arm64), or build it on the node",
        )
    if args.get("digest"):
        tag(name, args)


def fetch(job: Job, args: dict[str, Any]) -> None:
    """Have the engine pull; raises Refused with the reason in words and, for a wrong tag, the nearest ones."""
    at = args.get("at")
    query = {
        "fromImage": args["repository"],
        "tag": args.get("digest") or args["tag"],
        "platform": args.get("platform"),
    }
    tally = Tally()
    free = _free(at)
    try:
        for line in docker.stream(
            "POST", "/images/create", query=query, headers=auth_header(args.get("auth")), stopping=job.stopping, at=at
        ):
            tally.take(line)
            if free is not None and tally.total is not None and tally.total > free[1]:
                raise _too_small(tally.total, free)
            job.progress(tally.text, tally.done or None, tally.total)
    except docker.EngineError as error:
        platform = args.get("platform") or native_platform(args)
        refused = engine_words(error.message, _shown(args), platform=platform, login=bool(args.get("auth")))
        if refused.args[0].endswith("is not in the registry"):
            refused.hint = nearest(args) or refused.hint
        raise refused from None
    job.progress(tally.text, tally.total, tally.total)


def _shown(args: dict[str, Any]) -> str:
    return f"{args['repository']}@{args['digest']}" if args.get("digest") else str(args["name"])


def nearest(args: dict[str, Any]) -> str:
    """A hint out of the tags that the registry has for this repository; empty where it does not tell."""
    server, path = server_of(args["repository"])
    info = docker.ask("/info", at=args.get("at")) or {}
    known = ((info.get("RegistryConfig") or {}).get("IndexConfigs") or {}).get(server) or {}
    tags = registry.tags(server, path, args.get("auth"), plain=known.get("Secure") is False)
    if tags is None:
        return ""
    if not tags:
        return f"the registry has no image {path} at all; look at the spelling of its name"
    close = difflib.get_close_matches(str(args.get("tag") or ""), tags, 5, 0.4) or sorted(tags)[-5:]
    return f"the registry has {path} with the tags {', '.join(close)}" + (
        " and others" if len(tags) > len(close) else ""
    )


def tag(source: str, args: dict[str, Any]) -> None:
    """Give the image `source` the declared name, where that has a tag."""
    if args.get("tag"):
        query = {"repo": args["repository"], "tag": args["tag"]}
        docker.act("POST", f"/images/{docker.quoted(source)}/tag", query=query, at=args.get("at"))


def native_platform(args: dict[str, Any]) -> str:
    """The platform of the node's engine, as `linux/arm64`."""
    told = docker.versions(args.get("at") or docker.SOCKET)
    return f"{told.get('Os')}/{told.get('Arch')}"


def room(needed: int, at: str | None = None) -> None:
    """Raises Refused where Docker's folder has less than `needed` bytes free."""
    free = _free(at)
    if free is not None and needed > free[1]:
        raise _too_small(needed, free)


def _free(at: str | None) -> tuple[str, int] | None:
    info = docker.ask("/info", at=at) or {}
    root = str(info.get("DockerRootDir") or "")
    try:
        disk = os.statvfs(root)
    except OSError:
        return None
    return root, disk.f_bavail * disk.f_frsize


def _too_small(needed: int, free: tuple[str, int]) -> Refused:
    return Refused(
        f"the image needs more than {needed / 1e9:.1f} GB, and {free[0]} has {free[1] / 1e9:.1f} GB free",
        hint="free space there (docker system df shows what holds it), then run apply again",
    )


JOBS = {"pull": pull}
