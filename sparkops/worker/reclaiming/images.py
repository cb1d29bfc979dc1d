"""Images that can be given back: those that this cluster claims, and builds of ours that lost their name."""

from sparkops.core.messages import reason
from sparkops.core.request_messages import ItemTold
from sparkops.programs import docker
from sparkops.programs.docker import BUILD_LABEL
from sparkops.worker.reclaiming.items import DECLARED, GONE, Look, item

KIND = "image"


def reclaimable(look: Look) -> list[ItemTold]:
    """The images that this cluster claims, builds of ours that lost their name, and with `foreign` all others.

    Raises Unknown where Docker does not answer.
    """
    there = {str(each["Id"]): each for each in _listed()}
    items, known = [], set()
    for key in sorted(key for key in look.mine if key.startswith("image ")):
        name = key.partition(" ")[2]
        held = (DECLARED if name in look.needs("images") else None) or look.found.job(key) or look.found.cluster(key)
        seen = docker.inspect_image(name)
        if seen is None:
            if not held:
                items.append(item("image", name, 0, None, by=KIND, note=GONE, claims=[KIND]))
            continue
        identity = str(seen["Id"])
        known.add(identity)
        held = held or look.found.image([name, *_names(there.get(identity, {}))], identity)
        if not held and look.mine[key].get("action") == "found":
            held = reason("gc-there-before")
        items.append(item("image", name, _image_size(there.get(identity, seen), name), held, by=KIND, claims=[KIND]))
    for identity, each in there.items():
        label = (each.get("Labels") or {}).get(BUILD_LABEL)
        if identity in known:
            continue
        if label and not _names(each):
            held = (DECLARED if label in look.needs("builds") else None) or look.found.image([], identity)
            held = held or (
                reason("gc-job-builds") if any(w.startswith("image ") for w in look.found.working) else None
            )
            items.append(
                item("image", identity, _image_size(each, ""), held, by=KIND, note=reason("gc-build-without-name"))
            )
        elif look.foreign:
            name = (_names(each) or [identity])[0]
            items.append(item("foreign", name, _image_size(each, name), reason("gc-foreign"), by=KIND))
    return items


def _listed() -> list[docker.Answer]:
    """The engine's images; where it can tell, with the bytes that they share with others."""
    query = {"shared-size": "1"} if docker.speaks((1, 42)) else None
    return [each for each in docker.ask("/images/json", timeout=120.0, query=query) or [] if isinstance(each, dict)]


def _names(image: docker.Answer) -> list[str]:
    told = [*(image.get("RepoTags") or []), *(image.get("RepoDigests") or [])]
    return [str(name) for name in told if "<none>" not in str(name)]


def _image_size(image: docker.Answer, name: str) -> int:
    """Bytes of its own, where the engine tells what is shared; none while it keeps another tag."""
    if any(not name.endswith(each) for each in _tags(image)):
        return 0
    shared = int(image.get("SharedSize") or 0)
    return max(0, int(image.get("Size") or 0) - max(0, shared))


def _tags(image: docker.Answer) -> list[str]:
    return [str(each) for each in image.get("RepoTags") or [] if "<none>" not in str(each)]
