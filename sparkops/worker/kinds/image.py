"""Images on the node: identity by digests, build label and content, never by name or image id; pulled, built, loaded.

The id of an image is the storage driver's business: two engines give one image two ids. What is equal everywhere are
the registry's digests and, for an image that came by file, the ordered layers and the configuration.
"""

from typing import TYPE_CHECKING

from sparkops.core.kind_messages import ImageAct, ImageAsk, ImageOrder, RunningRequest
from sparkops.core.messages import State
from sparkops.programs import docker
from sparkops.programs.launch.container_body import image_content
from sparkops.worker.calls import Call, Refused
from sparkops.worker.images import build, load, pull
from sparkops.worker.images.pull import fits
from sparkops.worker.requests import transfer
from sparkops.worker.system import jobs

if TYPE_CHECKING:
    from sparkops.core.request_messages import ItemTold
    from sparkops.worker.reclaiming.items import Look

WORKS = {"pull": pull.__name__, "build": build.__name__, "receive": __name__}
"""The module that has the job of each way to get an image."""


def observe(ask: ImageAsk) -> dict[str, object] | None:
    """The image under `ask["name"]`, or None.

    Keys: `reference`; `digest` (of the registry's index: the pinned one where the image has it, else any, else "");
    `manifest` (of this platform's manifest; None where the engine does not tell it); `platform`; `fits` (it is for the
    declared platform, else for the node's own); `content`; `build` (the label of a build of ours or ""); `archive`
    (`declared` or `other`, where `like` was asked); `size` in bytes.
    """
    at = ask.get("at") or docker.SOCKET
    query = {"manifests": "1"} if docker.speaks((1, 48), at) else None
    found = docker.inspect_image(ask["name"], at=at, query=query)
    return None if found is None else state(found, ask, docker.versions(at))


def state(found: docker.Answer, ask: ImageAsk, engine: dict[str, object]) -> dict[str, object]:
    """The state out of `GET /images/NAME/json` and, for the node's own platform, `GET /version`."""
    digests = index_digests(found, ask["repository"])
    layers = list((found.get("RootFS") or {}).get("Layers") or [])
    config = found.get("Config") or {}
    platform = "/".join(part for part in (found.get("Os"), found.get("Architecture"), found.get("Variant")) if part)
    wanted = ask.get("platform") or f"{engine.get('Os')}/{engine.get('Arch')}"
    seen = {
        "reference": ask["name"],
        "digest": ask["digest"] if ask.get("digest") in digests else (digests[0] if digests else ""),
        "manifest": manifest(found, wanted, digests, ask.get("manifest")),
        "platform": platform,
        "fits": fits(platform, wanted),
        "content": image_content(layers, config),
        "build": str((config.get("Labels") or {}).get(docker.BUILD_LABEL, "")),
        "size": found.get("Size"),
    }
    if (like := ask.get("like")) is not None:
        equal = image_content(*like) == seen["content"]
        seen["archive"] = "declared" if equal else "other"
    return seen


def index_digests(found: docker.Answer, repository: str) -> list[str]:
    """The digests under which this repository's image is known; the last word of a containerd store comes first."""
    own = [str(each).rpartition("@") for each in found.get("RepoDigests") or []]
    target = (found.get("Descriptor") or {}).get("digest")
    digests = [digest for name, _, digest in own if name == repository]
    return sorted(digests, key=lambda digest: digest != target)


def manifest(found: docker.Answer, platform: str, digests: list[str], pinned: str | None) -> str | None:
    """The digest of the platform's manifest; None for an engine that keeps only what it pulled by."""
    for each in found.get("Manifests") or []:
        parts = (each.get("ImageData") or {}).get("Platform") or {}
        name = "/".join(str(parts[key]) for key in ("os", "architecture", "variant") if parts.get(key))
        if each.get("Kind") == "image" and each.get("Available") and fits(name, platform):
            return str(each.get("ID"))
    return pinned if pinned in digests else None


def converge(call: Call, ask: ImageAsk, found: State, want: State, act: ImageAct) -> None:
    """Bring the image here as `act["how"]` says; load: out of what the controller sends, the others as jobs."""
    if want is None:
        remove(ask["name"], ask.get("at"))
    elif act["how"] == "load":
        pull.tag(load.load_sent(call, ask, act), ask)
    else:
        key = f"image {ask['name']}"
        jobs.run(call, key, WORKS[act["how"]], act["how"], {"args": {**ask, **act}}, attach=act["attach"])


def reclaimable(look: "Look") -> list["ItemTold"]:
    """Images that can be given back. Raises Unknown."""
    from sparkops.worker.reclaiming import images  # gc only: an observation does not load it

    return images.reclaimable(look)


def reclaim(state_dir: str, given: "ItemTold") -> None:
    """Remove an image that nothing needs. Raises Refused."""
    remove(given["name"])


def remove(name: str, at: str | None = None) -> None:
    """Take the name away, and the image with its last name. Raises Refused while a container uses it."""
    try:
        docker.act("DELETE", f"/images/{docker.quoted(name)}", at=at)
    except docker.EngineError as error:
        if error.status == 409:
            raise Refused.of("image-in-use", name=name, text=error.message) from None
        if error.status != 404:  # a prune was faster
            raise


def receive(job: jobs.Job, args: ImageOrder) -> None:
    """The job: load what another node serves, prove that it is what was asked for, then give it the name."""
    if args.get("attached"):
        raise Refused.of("transfer-job-ended", type="stale", name=args["name"])
    peer = args["peer"]
    try:
        loaded = load.load_served(job, args)
    finally:
        load.notify_done(args)
    found = docker.inspect_image(loaded, at=args.get("at"))
    if found is None:
        raise Refused.of("image-engine-forgot", name=loaded)
    seen = state(found, args, docker.versions(args.get("at") or docker.SOCKET))
    if seen["content"] == peer["content"] and seen["build"] == (args["build"] or seen["build"]) and seen["fits"]:
        return pull.tag(loaded, args)
    if not found.get("RepoTags"):
        build.discard(loaded, args.get("at"))
    id = "transfer-image-wrong" if seen["fits"] else "transfer-image-platform"
    raise Refused.of(id, name=args["name"], source=peer["node"], platform=seen["platform"])


def relay(call: Call, args: ImageOrder) -> dict[str, object]:
    """Start the server of an image. Raises Refused where the image is not the one."""
    at = args.get("at") or docker.SOCKET
    found = docker.inspect_image(args["name"], at=at)
    seen = state(found, args, docker.versions(at)) if found is not None else None
    if found is None or seen is None or args["build"] not in ("", seen["build"]):
        raise Refused.of("transfer-content-missing", name=args["name"])
    size = int(found.get("Size") or 0)
    pull.room(size, at=at)
    served = transfer.serve(f"image {args['name']}", "image", {**args, "image": str(found["Id"]), "size": size})
    return {**served, "content": seen["content"], "size": size}


def running(call: Call, args: RunningRequest) -> bool:
    """Whether a job that gets this image runs already."""
    return jobs.attachable(f"image {args['ask']['name']}", str(args["act"]["attach"]))


CALLS = {"relay": relay, "running": running}
