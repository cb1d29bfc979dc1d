"""Pulling an image through the engine: progress over all layers, the registry's errors by id, proof of the digest.

Credentials come with the order, go into one header and are never written down.
"""

import base64
import json
import os
import re
from collections.abc import Mapping

from sparkops.core.kind_messages import ImageAsk
from sparkops.programs import docker
from sparkops.programs.progress import Rate
from sparkops.worker.calls import Refused
from sparkops.worker.system.jobs import Job

_ERRORS: tuple[tuple[str, str], ...] = (
    (r"server gave HTTP response to HTTPS client", "image-registry-plain-http"),
    (r"x509:|certificate", "image-registry-certificate"),
    (
        r"no matching manifest|no match for platform|does not match the (specified|expected) platform",
        "image-platform-missing",
    ),
    (r"toomanyrequests|429 Too Many|rate limit", "image-registry-rate-limit"),
    (r"no space left on device", "image-disk-full"),
    (
        r"unauthorized|no basic auth credentials|401 |incorrect username or password|access denied|\bdenied\b|403 ",
        "image-access-denied",
    ),
    (r"manifest unknown|not found|name unknown|manifest for .* not found|does not exist", "image-not-in-registry"),
    (
        r"no such host|connection re(fused|set)|timeout|unreachable|no route|dial tcp|deadline exceeded|\bEOF\b",
        "image-registry-unreachable",
    ),
    (r"invalid reference format|invalid tag", "image-name-invalid"),
)
"""What engines of all versions write, in the order in which it is looked for, and the error's id."""


def engine_error(text: str, image: ImageAsk, platform: str = "") -> Refused:
    """The engine's or registry's error. `image` is what was asked for."""
    name = f"{image['repository']}@{image['digest']}" if image.get("digest") else str(image["name"])
    id = next((id for pattern, id in _ERRORS if re.search(pattern, text, re.IGNORECASE)), "image-engine-error")
    if id == "image-access-denied" and image.get("auth"):
        id = "image-login-refused"
    return Refused.of(
        id,
        detail=text[-4000:],
        name=name,
        repository=image["repository"],
        tag=image.get("tag") or "",
        server=_server(image["repository"]),
        platform=platform or "this node's platform",
        text=text[-300:],
    )


def _server(repository: str) -> str:
    """The registry in an error: Docker takes a first part with a dot, a colon or `localhost` for a host."""
    head, slash, _ = repository.partition("/")
    return head if slash and ("." in head or ":" in head or head == "localhost") else "docker.io"


def encoded(value: Mapping[str, object]) -> str:
    """A value as the engine takes it in a header."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def fits(platform: str, wanted: str) -> bool:
    """Whether an image of `platform` serves where `wanted` was asked: `linux/arm64/v8` serves `linux/arm64`."""
    return platform == wanted or platform.startswith(wanted + "/") or wanted == platform + "/v8"


class PullProgress:
    """The progress lines of a pull, summed over the layers in bytes. Pure: it is fed lines."""

    def __init__(self) -> None:
        self.size: dict[str, int] = {}
        self.have: dict[str, int] = {}
        self.layers: set[str] = set()
        self.ready: set[str] = set()

    def take(self, line: docker.Answer) -> None:
        """One line of the engine's answer."""
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


def pull(job: Job, args: ImageAsk) -> None:
    """The job: pull by the pinned digest, else by the tag; prove the digest and the platform; give it its name."""
    fetch(job, args)
    name = f"{args['repository']}@{args['digest']}" if args.get("digest") else args["name"]
    found = docker.inspect_image(name, at=args.get("at"))
    if found is None:
        raise Refused.of("image-engine-forgot", name=name)
    platform, wanted = f"{found.get('Os')}/{found.get('Architecture')}", args.get("platform") or native_platform(args)
    if not fits(platform, wanted):
        raise Refused.of("image-platform-wrong", name=name, found=platform, platform=wanted)
    if args.get("digest"):
        tag(name, args)


def fetch(job: Job, args: ImageAsk) -> None:
    """Have the engine pull. Raises Refused with the reason."""
    at = args.get("at")
    query = {
        "fromImage": args["repository"],
        "tag": args.get("digest") or args["tag"],
        "platform": args.get("platform"),
    }
    login = {"X-Registry-Auth": encoded(auth)} if (auth := args.get("auth")) else {}
    progress = PullProgress()
    free = _free(at)
    rate = Rate()
    try:
        for line in docker.stream("POST", "/images/create", query=query, headers=login, stopping=job.stopping, at=at):
            progress.take(line)
            if free is not None and progress.total is not None and progress.total > free[1]:
                raise _too_small(progress.total, free)
            job.progress(progress.text, progress.done or None, progress.total, rate=rate.at(progress.done))
    except docker.EngineError as error:
        raise engine_error(error.message, args, args.get("platform") or native_platform(args)) from None
    job.progress(progress.text, progress.total, progress.total)


def tag(source: str, args: ImageAsk) -> None:
    """Give the image `source` the declared name, where that has a tag."""
    if args["tag"]:
        docker.tag_image(source, args["repository"], args["tag"], at=args.get("at"))


def native_platform(args: ImageAsk) -> str:
    """The platform of the node's engine, as `linux/arm64`."""
    engine = docker.versions(args.get("at") or docker.SOCKET)
    return f"{engine.get('Os')}/{engine.get('Arch')}"


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
    return Refused.of("image-space-missing", needed=needed, folder=free[0], free=free[1])
