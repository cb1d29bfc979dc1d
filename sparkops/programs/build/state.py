"""What a built folder is verified to hold, and what it was built from, by file statuses alone."""

from sparkops.programs.checkpoints import verify
from sparkops.programs.checkpoints.index import Index
from sparkops.programs.checkpoints.verify import State


def observe(query: State) -> State | None:
    """The state of the folder of `query` (`{folder, state_dir, deep}`); None where there is none. Raises Unknown."""
    return verify.observe(query, _describe)


def _describe(digest: str, record: State, index: Index) -> State:
    """The record counts only while it is the very text that was published: its owner could write another one."""
    built = record.get("built", {}) if digest and digest == index.record else {}
    return {
        "identity": str(built.get("identity", "")),
        "repository": record.get("repository", "") if built else "",
        "commit": record.get("commit", "") if built else "",
        **verify.sources_of(record if built else {}),
        "size": sum(size for _, size, _ in record.get("files", [])),
    }
