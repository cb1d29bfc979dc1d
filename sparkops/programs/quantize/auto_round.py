"""AutoRound: its command line, the meaning of its log, and what a run needs.

Pure; compared with auto-round 0.16.1, whose command line, log and environment were read and run (docs/quantize.md).
Every figure of cost names where it was published; none was measured on a Spark by us.
"""

import json
import re
from typing import Any

from sparkops.core.messages import Refused

BASE, WORK, DATA = "/base", "/work", "/data"
"""Where the container sees the base, its own folder and the calibration data."""
OUT, HOME, SPACE, RESUME = "out", "home", "space", "resume"
"""Below WORK: AutoRound's checkpoint, its caches, what it sets aside while it works, the layers that are finished."""

WITHOUT_EFFECT = ("memory", "network")
"""Options that change nothing in what comes out."""

Options = dict[str, Any]

_LINE = re.compile(r"[\r\n]+")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\x1b\[A")
_BLOCK = re.compile(r"Quantizing (\S*?(\d+)\S*?):\s+\d+%\|[^|]*\| *\d+/(\d+)")
_SHARD = re.compile(r"Processing shards:\s+\d+%\|[^|]*\| *(\d+)/(\d+)")
_PHASES = (
    ("Loading weights:", "loading the weights"),
    ("Preprocessing calibration dataset", "preparing the calibration data"),
    ("start to cache block inputs", "preparing the calibration data"),
    ("caching done", "calibrated, tuning the first layer"),
    ("model has been saved to", "writing what is left"),
)
_WIDTHS = (
    *(("NVFP4", 4.5), ("MXFP4", 4.25), ("MXINT4", 4.25), ("MXFP6", 6.25), ("MXFP8", 8.25), ("INT4", 4.5)),
    *(("FP8", 8.125), ("FPW8", 8.125), ("INT8", 8.125)),
)
_BITS = re.compile(r"W(\d)A16(?:G(\d+))?")


def plain(options: Options) -> bool:
    """Whether weights are only rounded, shard by shard, without loading the model and without data."""
    return bool(options["iters"] == 0 and options["plain_rtn"])


def argv(options: Options) -> list[str]:
    """AutoRound's command line, program first. Code that comes with the base is never run."""
    words = ["auto-round", "--model", BASE, "--scheme", options["scheme"], "--format", options["format"]]
    words += ["--iters", str(options["iters"]), "--output_dir", f"{WORK}/{OUT}"]
    words += ["--device", "0" if options["gpu"] else "cpu", "--disable_trust_remote_code"]
    if options["group_size"] is not None:
        words += ["--group_size", str(options["group_size"])]
    if plain(options):
        words += ["--disable_opt_rtn"]
    else:
        words += ["--nsamples", str(options["nsamples"]), "--seqlen", str(options["seqlen"])]
        words += ["--batch_size", str(options["batch_size"]), "--dataset", dataset(options)]
    ignored = [*options["keep"], *(["mtp"] if options["mtp"] == "keep" else [])]
    words += ["--ignore_layers", ",".join(ignored)] if ignored else []
    if options["layer_config"]:
        words += ["--layer_config", json.dumps(options["layer_config"], sort_keys=True)]
    words += ["--low_gpu_mem_usage"] if options["low_gpu_mem_usage"] else []
    return words + ([] if options["torch_compile"] else ["--disable_torch_compile"])


def dataset(options: Options) -> str:
    """The calibration data as the container finds it: a mounted file, or a name on the hub."""
    name = str(options["dataset"])
    return f"{DATA}/{name.rsplit('/', 1)[-1]}" if name.startswith("/") else name


def environment(options: Options) -> dict[str, str]:
    """Everything that is written goes below WORK; finished layers are noted there, so that a new run goes on."""
    found = {
        "HOME": f"{WORK}/{HOME}",
        "HF_HOME": f"{WORK}/{HOME}/huggingface",
        "AR_WORK_SPACE": f"{WORK}/{SPACE}",
        "AR_RESUME_DIR": f"{WORK}/{RESUME}",
        "USER": "sparkops",
        "LOGNAME": "sparkops",
        "PYTHONUNBUFFERED": "1",
    }
    return found if options["network"] else {**found, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def progress(log: str) -> tuple[str, int | None, int | None] | None:
    """From the end of AutoRound's log: the phase, and which layer or shard of how many; None before the first.

    The layer is taken from its name: the bar's own count is wrong after a resume.
    """
    for line in reversed(lines(log)):
        if found := _last(_BLOCK, line):
            at, total = int(found[2]), int(found[3])
            return f"tuning layer {at + 1} of {max(total, at + 1)}", at, max(total, at + 1)
        if found := _last(_SHARD, line):
            return f"rounding, {found[1]} of {found[2]} shards done", int(found[1]), int(found[2])
        for start, text in _PHASES:
            if start in line:
                return text, None, None
    return None


def _last(pattern: re.Pattern[str], line: str) -> re.Match[str] | None:
    return [None, *pattern.finditer(line)][-1]


def lines(log: str) -> list[str]:
    """The lines of a log, those of progress bars too, without colours."""
    return [line.rstrip() for line in _LINE.split(_COLOUR.sub("", log)) if line.strip()]


def bits(options: Options) -> float:
    """Bits of one weight in the output, scales and zero points included; 16 for a scheme that is not known."""
    scheme = str(options["scheme"]).upper()
    if found := _BITS.match(scheme):
        width, group = int(found[1]), options["group_size"] or int(found[2] or 128)
        return width + (16 + width) / group if group > 0 else width
    return next((width for start, width in _WIDTHS if scheme.startswith(start)), 16)


def is_kept(name: str, options: Options) -> bool:
    """Whether a tensor stays at 16 bit, as far as its name tells: AutoRound takes `keep` as parts of names."""
    if any(part in name for part in options["keep"]) or (options["mtp"] == "keep" and name.startswith("mtp.")):
        return True
    for pattern, config in options["layer_config"].items():
        if config.get("bits") == 16 and re.search(pattern, name):
            return True
    return False


def output_size(sizes: dict[str, int], options: Options) -> int:
    """Bytes of the output by estimate; `sizes` has `bytes` of the base and `weights`, how many are rounded."""
    return sizes["bytes"] - 2 * sizes["weights"] + int(sizes["weights"] * bits(options) / 8)


def disk(sizes: dict[str, int], options: Options) -> int:
    """Free bytes that have to be there: the output, and for tuning what AutoRound sets aside while it works.

    What it sets aside is at most the base once more (`utils/offload.py`, AR_WORK_SPACE); how much it is in truth is
    unverified.
    """
    return output_size(sizes, options) + (0 if plain(options) else sizes["bytes"])


def memory(sizes: dict[str, int], options: Options) -> tuple[int, str]:
    """Bytes of memory by rule, and the rule. Unverified on a Spark, where the GPU has no memory of its own.

    Plain rounding: 2 to 8 GB at its peak (AutoRound's step_by_step.md). Tuning: Qwen3.6-35B, 70 GB at 16 bit, took
    28 GB of RAM and 25 GB on the GPU (nchapman's model card); low_gpu_mem_usage took 25 GB instead of 42 of a 70B
    model's (step_by_step.md).
    """
    if plain(options):
        return min(8 * 10**9, 10**9 + 2 * sizes["bytes"]), "plain rounding peaked at 8 GB"
    share = (28 + 25 * (25 / 42 if options["low_gpu_mem_usage"] else 1)) / 70
    return 10**9 + int(share * sizes["bytes"]), f"{share:.2f} of the base's size, as Qwen3.6-35B took"


def duration(sizes: dict[str, int], options: Options) -> str:
    """How long it will take, as a text that says on what that rests; no figure where none was published.

    Tuning goes with weights, iterations and tokens of a batch: Qwen3.6-35B on a Spark took 10.5 h for 400 iterations
    with sequences of 2048 (nchapman's model card; its batch is taken as 8). Plain rounding: Qwen3-235B in 5 to 17
    minutes (step_by_step.md).
    """
    billions = sizes["weights"] / 1e9
    if plain(options):
        return f"{about(17 * 60 * billions / 235)} in all by estimate (Qwen3-235B took up to 17 min)"
    if not options["gpu"] or options["iters"] == 0:
        return "how long in all is not known (no figure was published)"
    tokens = options["batch_size"] * options["seqlen"] / (8 * 2048)
    seconds = 10.5 * 3600 * billions / 35 * options["iters"] / 400 * tokens
    return f"{about(seconds)} in all by estimate (Qwen3.6-35B took 10.5 h for 400 iterations)"


def about(seconds: float) -> str:
    """`about 3 min`, `about 18 h`."""
    if seconds < 90:
        return "about a minute"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.0f} h"


_ERRORS: tuple[tuple[str, str], ...] = (
    (r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED", "quantize-gpu-memory"),
    (
        r"No CUDA GPUs are available|not compiled with CUDA|Found no NVIDIA driver|Torch not compiled|CUDA driver ver",
        "quantize-no-gpu",
    ),
    (
        r"Failed to load calibration dataset|Couldn't reach .* on the Hub|DatasetNotFound|Dataset '.*' is not found"
        r"|Couldn't find a dataset",
        "quantize-data-unavailable",
    ),
    (r"ValueError: \S+ is not supported\. only dict_keys|Unknown preset scheme", "quantize-scheme-unknown"),
    (r"unrecognized arguments", "quantize-options-unknown"),
    (r"does not recognize this architecture|is not a supported model|Unrecognized model", "quantize-model-unknown"),
    (r"exec auto-round failed|auto-round.*executable file not found", "quantize-image-without-auto-round"),
    (r"could not select device driver|nvidia-container|libnvidia", "quantize-no-gpu-runtime"),
    (r"No space left on device", "quantize-disk-full"),
    (r"C\+\+ compiler|InvalidCxxCompiler|Failed to find C compiler", "quantize-no-compiler"),
)
"""What AutoRound, torch and Docker write, and the error's id."""


def failure(status: int, out_of_memory: bool, log: str, options: Options) -> Refused:
    """Why a run ended with `status`, with its last lines; `out_of_memory` is what the engine says of it."""
    last = lines(log)[-40:]
    detail = "\n".join(last)
    if error := _known_error(detail, options):
        return error
    if out_of_memory:
        return Refused.of("quantize-out-of-memory", detail=detail)
    if status == 137:
        return Refused.of("quantize-killed", detail=detail)
    text = last[-1][:300] if last else "no output"
    return Refused.of("quantize-failed", detail=detail, status=status, text=text)


def not_started(text: str, options: Options) -> Refused:
    """Why the engine did not start the container."""
    return _known_error(text, options) or Refused.of("quantize-not-started", detail=text, text=text[:300])


def _known_error(text: str, options: Options) -> Refused | None:
    args = {key: options[key] for key in ("dataset", "scheme", "image")}
    id = next((id for pattern, id in _ERRORS if re.search(pattern, text)), "")
    return Refused.of(id, detail=text, **args) if id else None
