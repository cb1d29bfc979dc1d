"""Building an image on the node: a context made in memory, labels that tell its inputs, checks before it gets its name.

The name is given last: until every check has passed in the built image, the old image keeps it.
"""

import io
import re
import tarfile

from sparkops.core.kind_messages import ImageAsk, ImageOrder
from sparkops.programs import docker
from sparkops.worker.calls import Refused, Unknown
from sparkops.worker.images import pull
from sparkops.worker.images.pull import engine_error
from sparkops.worker.system.jobs import Job

KEPT = 60
"""Lines of a failing step that are reported."""
CHECK_LIMIT = 900.0
_STEP = re.compile(r"Step (\d+)/(\d+) : (.*)")


def build(job: Job, args: ImageOrder) -> None:
    """The job: get the bases, build, run the checks in what was built, then give it the declared name."""
    for base in args["bases"]:
        if docker.inspect_image(base["name"], at=args.get("at")) is None:
            pull.pull(job, {**base, "platform": args.get("platform"), "at": args.get("at")})
    job.check()
    built = _built(job, args)
    try:
        for argv in args["checks"]:
            job.check()
            job.progress("checking: " + " ".join(argv)[:60])
            check(built, argv, args)
    except Refused:
        discard(built, args.get("at"))
        raise
    pull.tag(built, args)


def context(dockerfile: str, files: dict[str, bytes]) -> bytes:
    """The build context as a tar: the same input gives the same bytes on any day and machine."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in sorted({**files, "Dockerfile": dockerfile.encode()}.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


class BuildLog:
    """The builder's output, step by step. Pure: it is fed lines."""

    def __init__(self) -> None:
        self.step = ""
        self.number: int | None = None
        self.steps: int | None = None
        self.lines: list[str] = []
        self.image = ""

    def take(self, line: docker.Answer) -> None:
        """One line of the engine's answer."""
        if isinstance(line.get("aux"), dict):
            self.image = str(line["aux"].get("ID") or self.image)
        for text in str(line.get("stream") or "").splitlines():
            if found := _STEP.match(text):
                self.number, self.steps, self.step = int(found[1]), int(found[2]), found[3]
                self.lines = []
            elif text.strip():
                self.lines = [*self.lines[1 - KEPT :], text.rstrip()]

    @property
    def text(self) -> str:
        return f"step {self.number} of {self.steps}: {self.step[:60]}" if self.step else "building"

    def failure(self, text: str, name: str) -> Refused:
        """The error of the step at which it ended, with that step's last lines."""
        detail = "\n".join([*self.lines, text])
        if re.search(r"no space left on device", detail, re.IGNORECASE):
            return Refused.of("image-disk-full", name=name, detail=detail)
        if self.step.startswith("FROM ") or not self.step:
            base = self.step.split()[1] if self.step else name
            refused = engine_error(
                text, {"name": base, "repository": base.partition("@")[0], "tag": None, "digest": None}
            )
            refused.detail = detail
            return refused
        return Refused.of(
            "image-build-failed",
            detail=detail,
            name=name,
            step=self.number,
            steps=self.steps,
            instruction=self.step[:120],
            text=text.splitlines()[-1][:200],
        )


def _built(job: Job, args: ImageOrder) -> str:
    log = BuildLog()
    query = {
        "dockerfile": "Dockerfile",
        "buildargs": args["args"],
        "labels": args["labels"],
        "platform": args.get("platform"),
        "rm": "1",
        "forcerm": "1",
        "version": "1",
    }
    headers = {"Content-Type": "application/x-tar", **_logins(args["bases"])}
    try:
        for line in docker.stream(
            "POST",
            "/build",
            context(args["dockerfile"], args["files"]),
            silence=4 * 3600.0,
            query=query,
            headers=headers,
            stopping=job.stopping,
            at=args.get("at"),
        ):
            log.take(line)
            job.progress(log.text, log.number, log.steps, unit="steps")
    except docker.EngineError as error:
        raise log.failure(error.message, args["name"]) from None
    if not log.image:
        raise Refused.of("image-build-unfinished", name=args["name"], detail="\n".join(log.lines))
    return log.image


def _logins(bases: list[ImageAsk]) -> dict[str, str]:
    """The header by which the builder logs in to registries."""
    by_server = {auth["serveraddress"]: auth for base in bases if (auth := base.get("auth"))}
    return {"X-Registry-Config": pull.encoded(by_server)} if by_server else {}


def check(image: str, argv: list[str], args: ImageOrder) -> None:
    """Run `argv` in the built image, without network and without a GPU. Raises Refused where it does not end with 0."""
    at = args.get("at")
    order = {
        "Image": image,
        "Entrypoint": argv[:1],
        "Cmd": argv[1:],
        "Labels": {"sparkops.check": args["name"]},
        "HostConfig": {"NetworkMode": "none"},
    }
    container = docker.act("POST", "/containers/create", order, at=at)["Id"]
    try:
        status, text = _ended(container, at)
        if status != 0:
            raise _failed_check(args["name"], argv, status, text or docker.logs(container, KEPT, at=at) or "")
    finally:
        _remove(container, at)


def _remove(container: str, at: str | None) -> None:
    try:
        docker.act("DELETE", f"/containers/{container}", query={"force": "1", "v": "1"}, at=at)
    except docker.EngineError as error:
        if error.status not in (404, 409):  # somebody who prunes what has ended was faster, or is at it
            raise


def _ended(container: str, at: str | None) -> tuple[int, str]:
    """Start a container: its status at the end, and why it has none of its own; "" where it has. Raises Unknown."""
    try:
        docker.act("POST", f"/containers/{container}/start", at=at)
        return docker.act("POST", f"/containers/{container}/wait", timeout=CHECK_LIMIT, at=at)["StatusCode"], ""
    except docker.EngineError as error:
        return 127, error.message
    except Unknown as error:
        if error.id != "docker-silent":
            raise
        return 124, f"no end within {CHECK_LIMIT:g} s"


def _failed_check(name: str, argv: list[str], status: int, output: str) -> Refused:
    last = output.strip().splitlines()[-1:] or ["no output"]
    return Refused.of(
        "image-check-failed",
        detail=output[-4000:],
        name=name,
        check=" ".join(argv)[:120],
        status=status,
        text=last[0][:300],
    )


def discard(image: str, at: str | None) -> None:
    """Remove what is not to be used; its layers stay, so that a corrected build does not start from its beginning."""
    try:
        docker.act("DELETE", f"/images/{docker.quoted(image)}", query={"noprune": "1"}, at=at)
    except docker.EngineError:
        return
