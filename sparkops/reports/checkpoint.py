"""What `sparkops checkpoint inspect`, `verify` and `build` found and made, as JSON and as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sparkops.checkpoints.inspect import Inspection
from sparkops.checkpoints.repositories import Record
from sparkops.core.errors import Interrupted, SparkopsError
from sparkops.core.wording import FrontEnd, duration, encoded, size
from sparkops.operate.checkpoint.build import Built, Checked, Order
from sparkops.operate.checkpoint.verify import Verified
from sparkops.reports import schemas
from sparkops.reports.formatting import count, names
from sparkops.reports.printer import Printer, table

FRONT_END: FrontEnd = "command"


def inspection_as_json(found: Inspection, record: Record | None) -> dict[str, object]:
    """`sparkops.checkpoint/1`."""
    value = dataclasses.asdict(found)
    del value["config"], value["weights"]
    return {
        "schema": schemas.CHECKPOINT,
        **value,
        "from_hub": None if record is None else dataclasses.asdict(record.from_hub),
    }


def build_check_as_json(found: Checked) -> dict[str, object]:
    """`sparkops.build-check/2`."""
    return {"schema": schemas.CHECKPOINT_BUILD_CHECK, **encoded(found, FRONT_END)}


def build_as_json(built: Built) -> dict[str, object]:
    """`sparkops.build/2` of a build that ended well."""
    return {"schema": schemas.CHECKPOINT_BUILD, **encoded(built, FRONT_END), "error": None}


def failed_build_as_json(order: Order, error: SparkopsError) -> dict[str, object]:
    """`sparkops.build/2` of any other."""
    status = "interrupted" if isinstance(error, Interrupted) else "failed"
    about = {**error.message.as_json(), "message": error.what, "fix": error.hint}
    return {"schema": schemas.CHECKPOINT_BUILD, "output": str(order.folder), "status": status, "error": about}


def verified_as_json(found: Sequence[Verified]) -> dict[str, object]:
    """`sparkops.verify/2`."""
    return {"schema": schemas.CHECKPOINT_VERIFY, "checkpoints": encoded(found)}


def render_inspection(found: Inspection, record: Record | None, printer: Printer) -> None:
    """Tensors by part and dtype, and faults."""
    printer.line(
        (found.name, "bold"),
        f": {count(found.files, 'file')}, {size(found.size)}, {count(found.tensors, 'tensor')}, "
        f"{found.quantization or 'not quantised'}",
    )
    if record is not None:
        printer.line((record.from_hub.told(), "dim"))
    rows = [
        (share.part, share.dtype, str(share.tensors), _amount(share.values), size(share.size)) for share in found.shares
    ]
    table(printer, ("PART", "DTYPE", "TENSORS", "VALUES", "BYTES"), rows)
    if found.read_per_token is not None:
        printer.line(f"decoding reads {size(found.read_per_token)} of weights per token, without speculation")
    if found.beside:
        printer.line(f"not counted, the weights once more in another layout: {names(found.beside)}")
    for fault in found.faults:
        where = f"{fault.file}: " if fault.file else ""
        printer.line(("✗ ", "red"), f"{where}{fault.text}", (f"; {fault.hint}" if fault.hint else "", "dim"))
    if not found.faults:
        printer.line(("✓ ", "green"), "every tensor is there once, where the index has it, in complete files")


def _amount(values: int) -> str:
    return f"{values / 1e9:.2f} B" if values >= 1e8 else f"{values / 1e6:.2f} M"


def render_build(built: Built, printer: Printer) -> None:
    """What was built."""
    if built.status == "unchanged":
        printer.line(f"{built.output}: built already, and as declared")
    else:
        printer.line(("✓ ", "green"), f"{built.output}: built, {size(built.size)} in {duration(built.seconds)}")


def render_build_check(found: Checked, printer: Printer) -> None:
    """What each step of a build would do."""
    for step in found.steps:
        if step.refused:
            printer.line(("✗ ", "red"), (step.name, "bold"), f"  refused: {step.refused.text}")
            fix = step.refused.words(FRONT_END)[1]
            printer.line(f"→ {fix}" if fix else "", indent=4)
            continue
        moved = f", {size(step.from_donors)} of donors" if step.from_donors else ""
        printer.line(
            ("✓ ", "green"),
            (step.name, "bold"),
            f"  {count(step.changed, 'tensor')} changed, {step.added} added, {step.removed} removed{moved}",
        )
        for notice in step.notices:
            printer.line((notice.text, "dim"), indent=4)
    if found.files:
        words = f"{found.output}: {size(found.written)} to write of {size(found.size)} in {count(found.files, 'file')}"
        printer.line(words + (", the rest is the base's" if found.written < found.size else ""))
        room = f"{size(found.needed)} needed on its disk, {size(found.free)} free"
        if found.needed > found.free:
            printer.line(("✗ ", "red"), f"not enough space: {room}")
            printer.line("→ free some space, or give an output on a larger disk", indent=4)
        else:
            printer.line(room)
        printer.line(("the numbers are compared with the base when it is built", "dim"))


def render_verified(found: Sequence[Verified], printer: Printer) -> None:
    """Each folder with its missing and wrong files."""
    for each in found:
        printer.line((each.node, "bold"), f"  {each.folder}")
        if each.reason:
            printer.line(("✗ ", "red"), each.reason.full, indent=2)
        elif each.good:
            read = f"{size(each.hashed)} read in {duration(each.seconds)}" if each.hashed else "unchanged"
            read += f", hashed {each.hashed_at}" if each.hashed_at else ""
            what = f"{_origin(each)}: {count(each.files, 'file')}, {size(each.size)}, {read}"
            printer.line(("✓ ", "green"), what, indent=2)
        for word, paths in (("missing", each.missing), ("with other content", each.wrong)):
            if paths:
                printer.line(("✗ ", "red"), f"{count(len(paths), 'file')} {word}: {names(paths)}", indent=2)
        if not each.good and not each.reason:
            printer.line((_mended(each), "dim"), indent=4)


def _origin(each: Verified) -> str:
    """What a folder on a node is, or what it is built from."""
    origin = f"{each.repository}@{each.commit[:12]}"
    if not each.built:
        return origin
    donors = f" with weights of {', '.join(each.donors)}" if each.donors else ""
    return f"built from {origin} by {', '.join(each.steps)}{donors}"


def _mended(each: Verified) -> str:
    """What an apply does about missing and damaged files."""
    if not each.built:
        return "sparkops apply fetches them again, and only them"
    if "quantize" in each.steps:
        return "sparkops apply quantises and builds the whole folder again: two runs need not make the same bytes"
    return f"{_origin(each)}: sparkops apply builds them again, and only them"
