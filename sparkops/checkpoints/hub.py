"""The hub as the controller asks it, by the hub's own client: a revision's commit, a commit's manifest, files to push.

What a commit holds never changes, so its manifest is kept in the user's cache: a pinned commit needs no network the
second time. The client is slow to import and is imported when it is used. It must not know nodes. No message holds the
token.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from sparkops.checkpoints.indexed import ALONE, index_of, named, only
from sparkops.checkpoints.manifest import Manifest, ManifestError, ManifestFile, is_commit, parse
from sparkops.core import atomic, data
from sparkops.core.deadline import DeadlineExceeded, within
from sparkops.core.errors import SparkopsError
from sparkops.core.secrets import Secret

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_Answer = TypeVar("_Answer")
PUBLIC = "https://huggingface.co"
TIMEOUT = 20.0
"""Seconds of silence."""
WHOLE = 60.0
"""Seconds for all of one question: a hub that trickles is never silent."""
PARTIAL = 206
_NETWORK = ("httpx", "httpcore", "requests", "urllib3")
"""The modules whose exceptions mean that the hub was not reached."""


class HubError(SparkopsError):
    """The hub refused: no such repository or revision, no access."""


class NoRepository(HubError):
    """The hub has no repository of this name, or doesn't show it."""


class HubUnreachable(HubError):
    """The hub did not answer, or not now; the same question may be answered later."""

    exit_status: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a revision stands for. `moved_to` is the repository's new name where the declared one is an old one."""

    commit: str
    moved_to: str = ""


class Hub:
    """One hub. `endpoint` "" means HF_ENDPOINT of the environment, else the public one; `cache` keeps manifests.

    Raises HubError for an endpoint that is no address.
    """

    def __init__(
        self, endpoint: str = "", token: Secret | None = None, cache: Path | None = None, *, whole: float = WHOLE
    ) -> None:
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or PUBLIC).rstrip("/")
        if not is_address(self.endpoint):
            where = "" if endpoint else "HF_ENDPOINT of the environment"
            raise HubError.of("hub-endpoint-invalid", where=where, endpoint=self.endpoint)
        self.token = token
        self._whole = whole
        self._cache = cache if cache is not None else data.cache_folder()

    def _ask(
        self, repository: str, revision: str, question: Callable[[HfApi], _Answer], *, whole: float | None
    ) -> _Answer:
        """What the client answers, within `whole` seconds where that is given; its exceptions become HubError."""
        import logging

        from huggingface_hub import HfApi

        logging.getLogger("huggingface_hub").setLevel(
            logging.CRITICAL
        )  # what it logs of its tries, the error says once
        token = self.token.reveal() if self.token is not None else False
        api = HfApi(endpoint=self.endpoint, token=token, library_name="sparkops")
        try:
            return question(api) if whole is None else within(whole, lambda: question(api))
        except SparkopsError:
            raise
        except DeadlineExceeded as error:
            where = self._where(repository, revision)
            raise HubUnreachable.of("hub-too-slow", where=where, seconds=error.seconds) from None
        except Exception as error:  # noqa: BLE001 - the client raises what its HTTP library raises, too
            raise self._error(error, api, repository, revision) from None

    def resolve(self, repository: str, revision: str) -> Resolved:
        """The commit of a branch, tag or commit. Raises HubError, HubUnreachable."""

        def question(api: HfApi) -> Resolved:
            info = api.repo_info(repository, revision=revision, repo_type="model", timeout=TIMEOUT)
            commit, name = str(info.sha or ""), str(info.id)
            if not is_commit(commit):
                raise HubError.of("hub-commit-invalid", where=self._where(repository, revision), commit=commit)
            if getattr(info, "gated", False):
                self._check_access(api, name, commit, repository)
            return Resolved(commit, name if name != repository else "")

        return self._ask(repository, revision, question, whole=self._whole)

    def _check_access(self, api: HfApi, name: str, commit: str, repository: str) -> None:
        """A gated repository lists its files to everyone; whether we may read one is asked now, not in an hour."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        manifest = self.manifest(repository, commit)
        smallest = min(manifest.files, key=lambda file: file.size)
        url = hf_hub_url(name, smallest.path, revision=commit, endpoint=self.endpoint)
        get_hf_file_metadata(url, token=api.token, timeout=TIMEOUT)

    def manifest(self, repository: str, commit: str) -> Manifest:
        """All files of a commit; out of the cache where it is there. Raises HubError, ManifestError.

        The record in a built folder that was pushed as it lay is left out: it tells of that folder.
        """
        cached = self._cached(repository, commit)
        with contextlib.suppress(OSError, ManifestError, UnicodeDecodeError):
            found = parse(cached.read_text(encoding="utf-8"))
            if (found.repository, found.commit) == (repository, commit):
                return found
        entries = self._ask(
            repository,
            commit,
            lambda api: list(api.list_repo_tree(repository, recursive=True, revision=commit, repo_type="model")),
            whole=self._whole,
        )
        manifest = Manifest(repository, commit, tuple(file for each in entries if (file := _file(each)) is not None))
        keep(cached, manifest.canonical)
        return manifest

    def indexed(self, manifest: Manifest) -> Manifest:
        """Of a commit's files those that its index names, and what is no weights; the index is asked for once.

        Raises HubError, ManifestError.
        """
        file = index_of(manifest)
        if file is None:
            return only(manifest, (ALONE,))
        cached = self._cached(manifest.repository, manifest.commit).with_suffix(".index.json")
        paths = {each.path for each in manifest.files}
        with contextlib.suppress(OSError, ValueError):
            weights = json.loads(cached.read_text(encoding="utf-8"))
            if isinstance(weights, list) and weights and paths.issuperset(map(str, weights)):
                return only(manifest, weights)
        text = self.read(manifest.repository, manifest.commit, file.path, 0, file.size)
        if not file.holds(text):
            where = self._where(manifest.repository, manifest.commit)
            raise HubError.of("hub-index-wrong", where=where, file=file.path)
        weights = list(named(text, manifest))
        keep(cached, json.dumps(weights))
        return only(manifest, weights)

    def download(self, repository: str, commit: str, path: str) -> Path:
        """A file of a commit on this machine: out of the user's Hugging Face cache, into it where it is lacking.

        It may have gigabytes, so only silence is limited, by the client itself.
        """
        from huggingface_hub import hf_hub_download

        def question(api: HfApi) -> Path:
            return Path(hf_hub_download(repository, path, revision=commit, endpoint=self.endpoint, token=api.token))

        return self._ask(repository, commit, question, whole=None)

    def read(self, repository: str, commit: str, path: str, start: int, count: int) -> bytes:
        """At most `count` bytes of a file from `start`, by a range request; an answer without range is cut short."""
        from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status

        def question(api: HfApi) -> bytes:
            url = hf_hub_url(repository, path, revision=commit, endpoint=self.endpoint)
            headers = {"Range": f"bytes={start}-{start + count - 1}"}
            if api.token:
                headers["Authorization"] = f"Bearer {api.token}"
            with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as answer:
                hf_raise_for_status(answer)
                skip = 0 if answer.status_code == PARTIAL else start
                found = b""
                for chunk in answer.iter_bytes():
                    found += chunk[skip:]
                    skip = max(0, skip - len(chunk))
                    if len(found) >= count:
                        break
            return found[:count]

        return self._ask(repository, commit, question, whole=self._whole)

    @property
    def key(self) -> str:
        """A name for this hub's folder in a cache."""
        return hashlib.sha256(self.endpoint.encode()).hexdigest()[:12]

    def _cached(self, repository: str, commit: str) -> Path:
        return self._cache / "manifests" / self.key / repository.replace("/", "--") / f"{commit}.json"

    def _where(self, repository: str, revision: str) -> str:
        return f"{repository}@{revision} at {self.endpoint}"

    def _error(self, error: Exception, api: HfApi, repository: str, revision: str) -> HubError:
        """An exception of the client as ours. The order matters: some are subclasses of others."""
        from huggingface_hub import errors

        where, page = self._where(repository, revision), f"{self.endpoint}/{repository}"
        status = getattr(getattr(error, "response", None), "status_code", None)
        with_token = self.token is not None
        lost = isinstance(error, OSError) or type(error).__module__.startswith(_NETWORK)
        pinned = is_commit(revision)
        if isinstance(error, errors.OfflineModeIsEnabled):
            return HubUnreachable.of("hub-offline-pinned" if pinned else "hub-offline", where=where)
        if isinstance(error, errors.GatedRepoError):
            id = "hub-repository-gated" if with_token else "hub-repository-gated-without-token"
            return HubError.of(id, where=where, page=page)
        if isinstance(error, errors.DisabledRepoError):
            return HubError.of("hub-repository-disabled", where=where)
        if isinstance(error, errors.RevisionNotFoundError):
            return HubError.of("hub-revision-missing", where=where, nearest=self._nearest(api, repository, revision))
        if status == 401 and with_token and "Invalid" in str(error):
            return HubError.of("hub-token-refused", where=where)
        unnamed = status == 401 and not with_token  # how a hub hides what is private from what is missing
        if isinstance(error, errors.RepositoryNotFoundError) or unnamed:
            id = "hub-repository-missing" if with_token else "hub-repository-missing-without-token"
            return NoRepository.of(id, where=where, repository=repository, hub=self.endpoint)
        if isinstance(error, errors.HFValidationError):
            return HubError.of("hub-repository-name-invalid", where=where, repository=repository)
        if status in (401, 403):
            return HubError.of("hub-access-refused", where=where, status=status)
        if status == 429:
            return HubUnreachable.of("hub-rate-limited-pinned" if pinned else "hub-rate-limited", where=where)
        if status is not None:
            id = "hub-failing-pinned" if pinned else "hub-failing"
            return HubUnreachable.of(id, where=where, status=status, hub=self.endpoint)
        if lost:
            id = "hub-unreachable-pinned" if pinned else "hub-unreachable"
            return HubUnreachable.of(id, where=where, error=str(error) or type(error).__name__, hub=self.endpoint)
        return HubError.of("hub-client-failed", where=where, error=type(error).__name__)

    def _nearest(self, api: HfApi, repository: str, revision: str) -> str:
        """The branches and tags that look like the revision, in words; the first ones where none does."""
        import difflib

        try:
            refs = api.list_repo_refs(repository, repo_type="model")
            names = [ref.name for ref in (*refs.branches, *refs.tags)]
        except Exception:  # noqa: BLE001 - only a hint is at stake
            return "another one"
        close = difflib.get_close_matches(revision, names, 3, 0.5) or names[:5]
        return " or ".join(close) or "another one"


def is_address(endpoint: str) -> bool:
    """Whether a hub can be asked there: https:// or http://, and a host."""
    try:
        parts = urlsplit(endpoint)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def _file(entry: Any) -> ManifestFile | None:
    """A file of the hub's tree; None for a folder, and for what is sparkops' own."""
    if not hasattr(entry, "blob_id") or entry.path.startswith(".sparkops/"):
        return None
    if entry.lfs is not None:
        return ManifestFile(entry.path, entry.lfs.size, f"sha256:{entry.lfs.sha256}")
    return ManifestFile(entry.path, entry.size, f"git-sha1:{entry.blob_id}")


def keep(path: Path, text: str) -> None:
    """Keep it; a cache that can't be written is no reason to fail."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, text.encode(), 0o600)
