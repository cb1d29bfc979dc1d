"""The step `quantize` without an engine: AutoRound's command line and log, what base and output must be."""

from __future__ import annotations

import contextlib
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sparkops.core.messages import Refused
from sparkops.models import quantize_step
from sparkops.programs import docker
from sparkops.programs.build.base import Base
from sparkops.programs.protocol import Output
from sparkops.programs.quantize import auto_round, auto_round_resume, container, folder, main
from tests.errors import fails
from tests.lab import model as tiny

LOG = (
    "\x1b[38;20m2026-11-28 01:19:05 INFO orchestrator.py L626: caching done\x1b[0m\n"
    "\r  0%|          | 0/4 [00:00<?, ?it/s]\rQuantizing model.layers.0:   0%|          | 0/4 [00:01<?, ?it/s]"
    "\x1b[38;20m2026-11-28 01:13:02 INFO quantizer.py L598: Unquantized layers: ['mlp.shared_expert_gate']\x1b[0m\n"
    "\x1b[38;20mquantized 30/33 layers in the block, loss iter 0: 1.619e-08 -> iter 0: 1.619e-08\x1b[0m\n"
)
RESUMED = (
    "\x1b[38;20m2026-11-28 01:19:30 INFO resume.py L119: ResumeState: resuming after 2/4 already-quantized blocks\n"
    "\r 75%|███████▌  | 3/4 [00:01<00:00,  1.90it/s]"
    "\rQuantizing model.layers.2:  75%|███████▌  | 3/4 [00:01<00:00,  1.90it/s][transformers] falling back\n"
)
SHARDS = "\rProcessing shards:  25%|██▌       | 1/4 [00:10<00:31, 10.38s/shard]\x1b[38;20mINFO Memory usage\x1b[0m\n"


def options(**said: Any) -> dict[str, Any]:
    return quantize_step.complete({"image": "local/auto-round:1", **said})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "base")


def opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


# What is said to AutoRound


def test_the_command_line_says_what_was_declared() -> None:
    argv = auto_round.argv(
        options(scheme="NVFP4", iters=50, keep=["linear_attn", "lm_head"], dataset="/srv/texts.json")
    )
    assert argv[0] == "auto-round"
    pairs = dict(pairwise(argv))
    assert (pairs["--scheme"], pairs["--iters"], pairs["--nsamples"]) == ("NVFP4", "50", "128")
    assert pairs["--dataset"] == "/data/texts.json"
    assert pairs["--ignore_layers"] == "linear_attn,lm_head,mtp"
    assert pairs["--device"] == "0"


def test_code_of_the_base_is_never_run() -> None:
    assert "--disable_trust_remote_code" in auto_round.argv(options())
    assert "--disable_trust_remote_code" in auto_round.argv(options(iters=0, plain_rtn=True))


def test_plain_rounding_takes_no_data() -> None:
    argv = auto_round.argv(options(iters=0, plain_rtn=True, mtp="quantize"))
    assert "--disable_opt_rtn" in argv
    assert not {"--dataset", "--nsamples", "--ignore_layers"} & set(argv)


def test_without_a_network_the_hub_is_not_asked() -> None:
    assert auto_round.environment(options())["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in auto_round.environment(options(network=True))


# What its log means


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", None),
        (LOG, ("tuning layer 1 of 4", 0, 4)),
        (RESUMED, ("tuning layer 3 of 4", 2, 4)),
        (SHARDS, ("rounding, 1 of 4 shards done", 1, 4)),
        (LOG + "INFO shard_writer.py L483: model has been saved to /work/out\n", ("writing what is left", None, None)),
    ],
)
def test_the_log_tells_how_far_it_is(said: str, told: object) -> None:
    assert auto_round.progress(said) == told


@pytest.mark.parametrize(
    ("log", "id"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "quantize-gpu-memory"),
        ("RuntimeError: No CUDA GPUs are available", "quantize-no-gpu"),
        (
            "RuntimeError: Failed to load calibration dataset 'x' because of an HTTP/proxy network issue",
            "quantize-data-unavailable",
        ),
        ("ValueError: Dataset '/data/none.json' is not found. Please choose from", "quantize-data-unavailable"),
        ("ValueError: W5A17 is not supported. only dict_keys(['W4A16'", "quantize-scheme-unknown"),
        ("auto_round: error: unrecognized arguments: --keep", "quantize-options-unknown"),
        ("[FATAL tini (7)] exec auto-round failed: No such file or directory", "quantize-image-without-auto-round"),
        ("OSError: [Errno 28] No space left on device", "quantize-disk-full"),
        ("Traceback\nKeyError: 'something else'", "quantize-failed"),
    ],
)
def test_a_failure_names_its_cause(log: str, id: str) -> None:
    failed = auto_round.failure(1, False, log + "\n", options(dataset="x/y"))
    assert failed.id == id
    assert log.splitlines()[-1] in failed.detail


def test_a_killed_run_says_whether_it_was_for_memory() -> None:
    assert auto_round.failure(137, True, LOG, options()).id == "quantize-out-of-memory"
    assert auto_round.failure(137, False, LOG, options()).id == "quantize-killed"


def test_a_container_that_does_not_start_says_why() -> None:
    text = 'could not select device driver "nvidia" with capabilities: [[gpu]]'
    assert auto_round.not_started(text, options()).id == "quantize-no-gpu-runtime"
    assert auto_round.not_started("invalid mount", options()).id == "quantize-not-started"


@pytest.mark.parametrize(("status", "raised"), [(404, False), (409, True), (500, True)])
def test_a_container_that_can_not_be_removed_is_an_error(
    monkeypatch: pytest.MonkeyPatch, status: int, raised: bool
) -> None:
    def act(*_: object, **__: object) -> None:
        raise docker.EngineError(status, "in use")

    monkeypatch.setattr(docker, "act", act)
    with fails("quantize-container-not-removed", Refused) if raised else contextlib.nullcontext():
        container.remove("sparkops-quantize-1")


# What a run will take

SIZES = {"bytes": 70 * 10**9, "weights": 33 * 10**9}


def test_estimates_come_back_to_what_was_published() -> None:
    at_spark = options(iters=400)
    assert "about 10 h" in auto_round.duration({"bytes": 70 * 10**9, "weights": 35 * 10**9}, at_spark)
    assert auto_round.memory(SIZES, at_spark)[0] == pytest.approx(54e9, rel=0.02)
    assert auto_round.bits(options()) == pytest.approx(4.156, abs=0.001)
    assert auto_round.output_size(SIZES, options()) == pytest.approx(4e9 + 33e9 * 4.156 / 8, rel=0.01)


def test_less_is_needed_by_what_takes_less() -> None:
    plain = options(iters=0, plain_rtn=True)
    assert auto_round.memory(SIZES, plain)[0] == 8 * 10**9
    assert auto_round.disk(SIZES, plain) < auto_round.disk(SIZES, options())
    assert auto_round.memory(SIZES, options(low_gpu_mem_usage=True))[0] < auto_round.memory(SIZES, options())[0]


@pytest.mark.parametrize("said", [{"gpu": False}, {"iters": 0}])
def test_no_figure_is_made_up_where_none_was_published(said: dict[str, Any]) -> None:
    assert "not known" in auto_round.duration(SIZES, options(**said))


# The base


def test_a_base_is_measured_by_its_headers(base: Path) -> None:
    found = folder.survey(opened(base), options(network=True))
    kept = folder.survey(opened(base), options(network=True, keep=["experts"]))
    assert found["bytes"] > 2 * found["weights"] > 2 * kept["weights"] > 0
    assert found["identity"] != kept["identity"]


def test_what_changes_nothing_in_the_output_does_not_change_its_identity(base: Path) -> None:
    one = folder.survey(opened(base), options(iters=0, plain_rtn=True))
    other = folder.survey(opened(base), options(iters=0, plain_rtn=True, memory=9.5, network=True))
    assert one["identity"] == other["identity"]


@pytest.mark.parametrize("nested", [False, True])
def test_a_quantised_base_is_refused(base: Path, nested: bool) -> None:
    config = json.loads((base / "config.json").read_text())
    (config["text_config"] if nested else config)["quantization_config"] = {"quant_method": "gptq"}
    (base / "config.json").write_text(json.dumps(config))
    with fails("quantize-base-quantized", Refused):
        folder.survey(opened(base), options(network=True))


@pytest.mark.parametrize(
    ("dataset", "id"),
    [
        ("NeelNanda/pile-10k", "quantize-data-without-network"),
        ("/nowhere/texts.json", "quantize-data-unreadable"),
        ("/etc/hostname", "quantize-data-not-json"),
    ],
)
def test_calibration_data_that_can_not_be_had_is_refused_at_once(base: Path, dataset: str, id: str) -> None:
    with fails(id, Refused):
        folder.survey(opened(base), options(dataset=dataset))


# The output


def written(output: Path, base: Path, **config: Any) -> Path:
    """What a container left: the base's files with another config.json, in a folder that AutoRound named."""
    if not (output / "out").exists():
        folder.prepare(opened(output), "quantize:1")
    made = output / "out" / "base-w4g128"
    made.mkdir()
    for path in base.iterdir():
        (made / path.name).write_bytes(path.read_bytes())
    told = {**json.loads((base / "config.json").read_text()), "quantization_config": {"bits": 4}, **config}
    (made / "config.json").write_text(json.dumps(told))
    (made / "model-00001-of-00004.safetensors").chmod(0o600)
    return made


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "output").mkdir()
    return tmp_path / "output"


def test_a_whole_output_is_moved_up_and_marked(base: Path, output: Path) -> None:
    written(output, base)
    assert not folder.is_complete(opened(output), "quantize:1")
    folder.take(opened(output), opened(base), "quantize:1")
    assert folder.is_complete(opened(output), "quantize:1")
    assert {path.name for path in output.iterdir()} == {path.name for path in base.iterdir()} | {".sparkops"}
    assert (output / "model-00001-of-00004.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_move_that_was_cut_short_is_finished(base: Path, output: Path) -> None:
    made = written(output, base)
    (output / ".sparkops/checked.json").write_text(json.dumps({"folder": "out/base-w4g128"}))
    (made / "config.json").rename(output / "config.json")
    folder.take(opened(output), opened(base), "quantize:1")
    assert {path.name for path in output.iterdir()} == {path.name for path in base.iterdir()} | {".sparkops"}


def test_an_output_that_lost_layers_is_refused_and_kept(base: Path, output: Path) -> None:
    made = written(output, base)
    (made / "model-00004-of-00004.safetensors").unlink()
    index = json.loads((made / "model.safetensors.index.json").read_text())
    kept = {name: file for name, file in index["weight_map"].items() if not file.startswith("model-00004")}
    (made / "model.safetensors.index.json").write_text(json.dumps({**index, "weight_map": kept}))
    with fails("quantize-output-lacks-tensors", Refused):
        folder.take(opened(output), opened(base), "quantize:1")
    assert made.exists()


def test_an_output_that_is_cut_short_is_refused(base: Path, output: Path) -> None:
    made = written(output, base)
    os.truncate(made / "model-00002-of-00004.safetensors", 1000)
    with fails("safetensors-invalid", Refused):
        folder.take(opened(output), opened(base), "quantize:1")


def shard(path: Path, tensors: dict[str, tuple[str, bytes]]) -> None:
    header, body = {}, b""
    for name, (dtype, data) in tensors.items():
        size = 4 if dtype == "I32" else 2
        header[name] = {
            "dtype": dtype,
            "shape": [len(data) // size],
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def test_what_a_resumed_run_leaves_twice_is_taken_out(tmp_path: Path) -> None:
    one, two = tmp_path / "model-00001-of-00002.safetensors", tmp_path / "model-00002-of-00002.safetensors"
    shard(one, {"a.qweight": ("I32", b"1234"), "a.norm.weight": ("BF16", b"nn")})
    shard(two, {"a.norm.weight": ("BF16", b"nn"), "a.weight": ("BF16", b"wwww"), "head.weight": ("BF16", b"hh")})
    assert auto_round_resume.remove_duplicate_tensors(str(tmp_path)) == 2
    found = Base(opened(tmp_path), []).tensors()[0]
    assert {path: [entry.name for entry in entries] for path, entries in found.items()} == {
        one.name: ["a.qweight", "a.norm.weight"],
        two.name: ["head.weight"],
    }
    assert two.read_bytes().endswith(b"hh")
    assert auto_round_resume.remove_duplicate_tensors(str(tmp_path)) == 0


def test_a_tensor_that_stands_twice_with_other_content_is_refused(tmp_path: Path) -> None:
    shard(tmp_path / "model-00001-of-00002.safetensors", {"norm.weight": ("BF16", b"nn")})
    shard(tmp_path / "model-00002-of-00002.safetensors", {"norm.weight": ("BF16", b"mm")})
    with fails("quantize-output-contradicts", Refused):
        auto_round_resume.remove_duplicate_tensors(str(tmp_path))


def test_an_output_that_is_not_quantised_is_refused(base: Path, output: Path) -> None:
    written(output, base, quantization_config=None)
    with fails("quantize-output-not-quantized", Refused):
        folder.take(opened(output), opened(base), "quantize:1")


def test_the_text_models_config_becomes_that_of_the_base(base: Path, output: Path) -> None:
    scheme = {
        "block_name_to_quantize": ["model.language_model.layers"],
        "extra_config": {"model.layers.0.mlp.gate": {"bits": 16}, r".*model\.layers\.1\.mlp.*": {"bits": 16}},
    }
    written(output, base, architectures=None, model_type="qwen3_5_moe_text", quantization_config=scheme)
    folder.take(opened(output), opened(base), "quantize:1")
    config = json.loads((output / "config.json").read_text())
    assert (config["architectures"], config["model_type"]) == (["Qwen3_5MoeForCausalLM"], "qwen3_5_moe")
    assert set(config["quantization_config"]["extra_config"]) == {
        "model.language_model.layers.0.mlp.gate",
        r".*model\.language_model\.layers\.1\.mlp.*",
    }


def test_another_order_begins_with_an_empty_folder(base: Path, output: Path) -> None:
    made = written(output, base)
    assert folder.prepare(opened(output), "quantize:1") > 0
    assert made.exists()
    folder.prepare(opened(output), "quantize:2")
    assert list((output / "out").iterdir()) == []


# The program, with an engine whose container ends at once


def test_the_program_asks_for_its_image_then_runs_takes_and_removes_the_container(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, engine, calls = tmp_path / "built-quantized", dict[str, Any](), list[str]()

    def act(method: str, path: str, body: Any = None, **_: Any) -> None:
        calls.append(f"{method} {path.rpartition('/')[2] if method == 'POST' else 'remove'}")
        if path.endswith("/create"):
            engine["container"] = {
                "Config": body,
                "State": {"Running": False, "Status": "exited", "ExitCode": 0},
            }
        if path.endswith("/start"):
            written(output, base)
        if method == "DELETE":
            engine.pop("container", None)

    monkeypatch.setattr(docker, "act", act)
    monkeypatch.setattr(docker, "request", lambda *_, **__: (200, b""))
    monkeypatch.setattr(docker, "inspect_container", lambda name, **_: engine.get("container"))
    monkeypatch.setattr(docker, "inspect_image", lambda name, **_: engine.get("image"))
    monkeypatch.setattr(container, "POLL", 0.01)
    chosen = options(iters=0, plain_rtn=True, memory=0.001)
    spec: main.Spec = {"options": chosen, "base": str(base), "output": str(output), "user": os.getuid()}
    said = Output(os.open(os.devnull, os.O_WRONLY))
    assert main.work(spec, said) == chosen["image"]
    engine["image"] = {"Id": "sha256:1"}
    assert main.work(spec, said) == ""
    assert calls == ["POST create", "POST start", "POST stop", "DELETE remove"]
    assert json.loads((output / "config.json").read_text())["quantization_config"] == {"bits": 4}
    calls.clear()
    assert main.work(spec, said) == ""
    assert calls == ["POST stop", "DELETE remove"]
