"""Recipes of other projects become ones of ours, and nothing gets lost in silence.

The files under foreign/ are written in those projects' shapes; their models and images do not exist.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkops.core.errors import InventoryError
from sparkops.core.secrets import SecretRef
from sparkops.importing import Choice, Imported, convert
from sparkops.inventory.load import load
from sparkops.inventory.recipes import Recipe, read_recipe_file
from sparkops.operate.render import render
from tests.errors import fails

FOREIGN = Path(__file__).parent / "foreign"


class Made:
    """A recipe that was imported: its text, what was said, and what it makes of nodes."""

    def __init__(self, folder: Path, content: str, name: str, **choice: str) -> None:
        self.imported: Imported = convert(content, name, Choice(**choice))
        (folder / "recipes").mkdir(exist_ok=True)
        (folder / "recipes" / "made.yml").write_text(self.imported.text)
        self.folder = folder
        self.recipe: Recipe = read_recipe_file(folder / "recipes" / "made.yml")
        self.service: dict[str, Any] = dict(self.recipe.variables["service"])
        self.serve: dict[str, Any] = self.service["serve"]
        self.environment: dict[str, Any] = self.service.get("environment", {})

    @property
    def left(self) -> str:
        return "\n".join(self.imported.left)

    @property
    def notes(self) -> str:
        return "\n".join(self.imported.notes)

    def spec(self) -> dict[str, Any]:
        """What the first node's launcher would start from."""
        nodes = [f"n{index}" for index in range(self.recipe.nodes)]
        listed = "".join(f"  {each}: {{host: 192.0.2.1, fabric: {{address: 198.51.100.1}}}}\n" for each in nodes)
        (self.folder / "inventory.yml").write_text(
            f"version: 1\ncluster: x\nnodes:\n{listed}services: {{s: {{recipe: made, nodes: [{', '.join(nodes)}]}}}}\n"
        )
        texts = render(load(self.folder / "inventory.yml"), "n0", "s")
        found: dict[str, Any] = json.loads(next(each.text for each in texts if each.title.endswith("services/s.json")))
        return found


def imported(folder: Path, name: str, **choice: str) -> Made:
    return Made(folder, (FOREIGN / name).read_text(), name, **choice)


@pytest.mark.parametrize("name", sorted(each.name for each in FOREIGN.iterdir()))
def test_what_is_imported_compiles_and_holds_no_secret(name: str, tmp_path: Path) -> None:
    made = imported(tmp_path, name)
    assert "--max-model-len" in made.spec()["argv"] or made.spec()["argv"]
    for secret in ("hf_should_never_be_written", "in-plain-text", "sk-secret"):
        assert secret not in made.imported.text + made.left + made.notes
    assert made.recipe.document.data["sources"][0].endswith(name)


def test_a_recipe_of_sparkrun(tmp_path: Path) -> None:
    made = imported(tmp_path, "sparkrun.yaml")
    assert (made.recipe.nodes, made.recipe.engine) == (2, "0.26.0")
    assert made.recipe.summary == "Tanager 90B, 4 bits, on two boxes"
    assert made.recipe.variables["checkpoint"]["revision"] == "0123456789abcdef0123456789abcdef01234567"
    assert made.serve["speculative-config"] == {"method": "mtp", "num_speculative_tokens": 3}
    assert (made.service["port"], made.serve["tensor-parallel-size"]) == (8010, 2)
    assert made.serve["served-model-name"] == "acme/Tanager-90B-A9B-W4"
    assert made.environment == {"VLLM_MARLIN_USE_ATOMIC_ADD": "1"}
    argv = made.spec()["argv"]
    assert argv[:3] == ["vllm", "serve", "/model"] and "--nnodes" in argv
    for told in (
        "mods/fix-tanager-template",
        "--chat-template tanager.jinja",
        "defaults.unused_knob",
        "--distributed-executor-backend ray",
        "RAY_memory_monitor_refresh_ms",
        "runtime_cache",
        "metadata (maintainer, model_dtype)",
    ):
        assert told in made.left
    assert any("fix-tanager-template" in need for need in made.recipe.document.data["needs"])


def test_a_recipe_without_a_command_is_made_of_its_defaults(tmp_path: Path) -> None:
    made = imported(tmp_path, "sparkrun-without-command.yaml")
    assert made.serve["enable-prefix-caching"] is True and made.serve["kv-cache-dtype"] == "fp8"
    assert made.service["command"] == [] and made.service["port"] == 9000
    assert "trust-remote-code" not in made.serve and "trust-remote-code: false" in made.left


def test_a_recipe_of_eugr_with_doubled_braces_and_a_local_image(tmp_path: Path) -> None:
    made = imported(tmp_path, "eugr.yaml")
    assert made.serve["speculative-config"] == {"method": "mtp", "num_speculative_tokens": 1}
    assert made.recipe.engine is None and "does not tell its vLLM" in made.notes
    assert "image vllm-node-tf5" in made.left and "build_args --tf5" in made.left
    assert imported(tmp_path, "eugr.yaml", engine="0.23.0").recipe.engine == "0.23.0"


def test_a_recipe_of_vllm_takes_the_variant_made_for_a_spark(tmp_path: Path) -> None:
    made = imported(tmp_path, "vllm-recipes.yaml")
    assert made.recipe.variables["image"]["pull"] == "vllm/vllm-openai:v0.28.0"
    assert made.recipe.variables["checkpoint"]["repository"] == "acme/Tanager-90B-A9B-NVFP4"
    assert (made.serve["moe-backend"], made.serve["max-num-seqs"]) == ("marlin", 8)
    assert made.serve["async-scheduling"] is True and "max-model-len" not in made.serve
    assert made.environment == {"VLLM_USE_DEEP_GEMM": "0", "VLLM_HAS_FLASHINFER_CUBIN": "1"}
    for told in ("variants default", "feature spec_decoding", "feature text_only", "hardware_overrides amd", "guide"):
        assert told in made.left


def test_another_variant_can_be_asked_for(tmp_path: Path) -> None:
    made = imported(tmp_path, "vllm-recipes.yaml", variant="default")
    assert made.recipe.variables["image"]["pull"] == "vllm/vllm-openai:v0.27.1"
    assert "moe-backend" not in made.serve
    with fails("import-variant-not-found"):
        imported(tmp_path, "vllm-recipes.yaml", variant="w5")


def test_a_compose_file(tmp_path: Path) -> None:
    made = imported(tmp_path, "docker-compose.yml")
    assert made.recipe.variables["image"]["pull"] == "vllm/vllm-openai:v0.29.0"
    checkpoint = made.recipe.variables["checkpoint"]
    assert checkpoint["adopt"] == ["/data/hub"] and str(checkpoint["token"]) == "!env HF_TOKEN"
    assert (made.service["host"], made.service["port"], made.service["command"]) == ("127.0.0.1", 9000, [])
    assert made.service["limits"] == {"shm_size_gib": 16, "ulimits": {"memlock": -1, "nofile": 1048576}}
    mount = {"source": "/srv/templates", "target": "/templates", "read_only": True}
    assert made.service["container"] == {"ipc": "host", "mounts": [mount]}
    assert made.serve["chat-template"] == "/templates/tanager.jinja"
    assert made.environment["MODE"] == "fast"
    assert {key for key, value in made.environment.items() if isinstance(value, SecretRef)} == {
        "ROUTER_SECRET",
        "VLLM_API_KEY",
    }
    for told in ("service proxy", "privileged", "volume ./local", "kernels:", "JOINED", "healthcheck", "depends_on"):
        assert told in made.left


def test_a_script_with_docker_run(tmp_path: Path) -> None:
    made = imported(tmp_path, "run.sh")
    assert made.recipe.variables["checkpoint"]["repository"] == "acme/Tanager-27B"
    assert made.serve["compilation-config"] == {"cudagraph_mode": "PIECEWISE"}
    container = made.service["container"]
    assert (container["devices"], container["cap_add"], container["ipc"]) == (["/dev/infiniband"], ["IPC_LOCK"], "host")
    assert made.spec()["entrypoint"] == [] and made.spec()["argv"][:2] == ["vllm", "serve"]
    for told in ("docker rm -f tanager", "> log.txt", "name tanager", "restart unless-stopped", "-d"):
        assert told in made.left
    assert "set -euo" not in made.left


LINE = "vllm serve acme/Wren-8B "


@pytest.mark.parametrize(
    ("line", "flag", "value"),
    [
        (LINE + "--max-model 32k", "max-model-len", 32000),
        (LINE + "--max_num_seqs=4", "max-num-seqs", 4),
        (LINE + "--no-enable-prefix-caching", "enable-prefix-caching", False),
        (LINE + "--speculative-config.method mtp", "speculative-config", {"method": "mtp"}),
        (LINE + "--max-model-len auto", "max-model-len", "auto"),
        ("vllm serve --model acme/Wren-8B --seed 1", "seed", 1),
        ("python3 -m vllm.entrypoints.openai.api_server --model acme/Wren-8B --seed 1", "seed", 1),
        ("CUDA_X=1 exec vllm serve acme/Wren-8B \\\n  --seed 1  # a comment", "seed", 1),
        ("$ vllm serve acme/Wren-8B --seed ${SEED:-1}", "seed", 1),
        ("S=1\nvllm serve acme/Wren-8B --seed $S", "seed", 1),
        ("docker run vllm/vllm-openai:v0.28.0 acme/Wren-8B --seed 1", "seed", 1),
        ("docker run vllm/vllm-openai:v0.28.0 --model acme/Wren-8B --seed=1", "seed", 1),
        ("sudo docker run -it --rm repo/vllm:1 bash -c 'pip install x\nvllm serve acme/Wren-8B --seed 1'", "seed", 1),
        ("docker run repo/vllm:1 bash -lc 'pip install x && exec vllm serve acme/Wren-8B --seed 1'", "seed", 1),
        ("cd /srv; source v/bin/activate && vllm serve acme/Wren-8B --seed 1 | tee log", "seed", 1),
        ("docker stop wren; docker run vllm/vllm-openai:v0.28.0 acme/Wren-8B --seed 1", "seed", 1),
        ("docker exec -it wren bash -lc 'vllm serve acme/Wren-8B --seed 1'", "seed", 1),
        ("docker run --entrypoint vllm vllm/vllm-openai:v0.28.0 serve acme/Wren-8B --seed 1", "seed", 1),
        (
            "docker run --entrypoint python3 r/vllm:1 -m vllm.entrypoints.cli.main serve acme/Wren-8B --seed 1",
            "seed",
            1,
        ),
        ("vllm serve --served-model-name wren --seed 1 acme/Wren-8B", "served-model-name", "wren"),
    ],
)
def test_lines_as_people_paste_them(line: str, flag: str, value: Any, tmp_path: Path) -> None:
    made = Made(tmp_path, line, "-")
    assert made.serve[flag] == value
    assert made.recipe.variables["checkpoint"]["repository"] == "acme/Wren-8B"
    assert made.spec()["argv"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (LINE + "--frobnicate 3", "--frobnicate: vLLM 0.33.0 would refuse it"),
        (LINE + "--kv-cache-dtype int8 --kv-cach", "--kv-cach"),
        (LINE + "--speculative-config '{method: mtp}'", "{method: mtp}"),
        (LINE + "--seed 1 --nnodes 2 --node-rank 1", "--node-rank: it follows from the service's nodes"),
        (LINE + "--max-model-len $LEN", "$LEN"),
        (LINE + "| tee log", "| tee log"),
        ("docker run --memory lots " + "x/vllm:1 " + LINE, "memory lots: it is not a size"),
        ("docker run -p 9000:9000 x/vllm:1 " + LINE, "port 9000:9000"),
        ("docker run --user 1000 x/vllm:1 " + LINE, "user 1000"),
        ("apt install x\n" + LINE, "apt install x"),
    ],
)
def test_what_is_left_is_said(line: str, told: str, tmp_path: Path) -> None:
    assert told in Made(tmp_path, line, "-").left


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no known format fits"),
        ("just words", "no known format fits"),
        ("a: 1\nb: 2\n", "its keys are a, b"),
        ("summary: x\nvariables: {}\n", "a recipe of sparkops already"),
        ("model: a/b\nruntime: sglang\ncommand: sglang serve a/b\n", "serves with sglang"),
        ("model: a/b\ncontainer: x\ncommand: llama-server -m a\n", "another engine"),
        ("model: a/b\ncontainer: [x]\nruntime: vllm\n", "container is a list of 1, expected text"),
        ("meta: {}\nmodel: {model_id: 3}\n", "model.model_id is 3, expected text"),
        ("meta: {}\nmodel: {}\n", "no model_id"),
        ("services: {a: {image: nginx}}\n", "none of its services"),
        ("services: {a: {image: x/vllm}, b: {image: y/vllm}}\n", "--service takes one of a, b"),
        ("services: {a: {image: x/vllm, command: 3}}\n", "command is 3"),
        ("services: {a: {image: x/vllm, entrypoint: [python, app.py]}}\n", "does not start vLLM"),
        ("vllm serve a/b\nvllm serve c/d\n", "2 lines in it start vLLM"),
        ("vllm serve --seed 1\n", "no model is named"),
        ("vllm serve 'a/b\n", "a quote in it is open"),
        ("vllm serve a/b \\ ", "a quote in it is open"),
        ('A="it\'s"\nvllm serve $A\n', "close its quotes"),
        ("docker run --gpus all\n", "names no image"),
        ("model: [a\n", "cannot be read"),
        ('services: {a: {image: x/vllm, command: "it\'s"}}\n', "close its quotes"),
    ],
)
def test_what_fits_no_format_is_told_with_the_way_out(content: str, words: str) -> None:
    with pytest.raises(InventoryError) as caught:
        convert(content, "x.yaml", Choice())
    assert words in str(caught.value) and ("→" in str(caught.value) or "expected" in words)


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["model", "container", "command", "runtime", "defaults", "env", "mods", "services", "meta", "variants", "features"]
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, JSONISH, max_size=5), st.booleans())
def test_a_file_of_any_shape_ends_in_a_recipe_or_in_words(told: dict[str, Any], serves: bool) -> None:
    if serves:
        told |= {"model": "a/b", "container": "x/vllm:v0.28.0", "command": "vllm serve {model} --seed {seed}"}
    try:
        assert convert(json.dumps(told), "x.yaml", Choice()).text
    except InventoryError as error:
        assert error.what


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["vllm serve a/b ", "docker run ", "docker run x/vllm:1 a/b "]),
    st.text("-ab= '\"\\\n{}$:/1", max_size=40),
)
def test_a_line_of_any_words_ends_in_a_recipe_or_in_words(start: str, rest: str) -> None:
    try:
        assert convert(start + rest, "-", Choice()).text
    except InventoryError as error:
        assert error.what


@pytest.mark.parametrize(
    ("line", "id"),
    [
        ("docker run vllm/vllm-openai:v0.28.0 ./start.py --model a/b", "import-command-other"),
        ("docker run x/sglang:1 python3 -m sglang.launch_server --model-path a/b", "import-command-other"),
        ("docker run ghcr.io/ggml/llama.cpp:server llama-server -m /models/a.gguf", "import-command-other"),
        ('#!/bin/sh\nRUN="vllm serve a/b --port 8001"\n$RUN\n', "import-evaluated"),
        ('#!/bin/sh\neval "vllm serve a/b"\n', "import-evaluated"),
        ("#!/bin/bash\nollama serve\n", "import-script-without-vllm"),
        ("docker run ghcr.io/ggml-org/llama.cpp:server-cuda -m /models/a.gguf", "import-other-engine"),
        ("docker run ghcr.io/huggingface/text-generation-inference:3 --model-id a/b", "import-other-engine"),
        ("docker run lmsysorg/sglang:spark --model a/b", "import-other-engine"),
        ("vllm serve a/b --omni", "import-other-engine"),
        ("vllm serve a/b && vllm serve c/d", "import-line-count"),
    ],
)
def test_what_is_no_vllm_command_is_refused_with_the_reason(line: str, id: str) -> None:
    with pytest.raises(InventoryError) as caught:
        convert(line, "it", Choice())
    assert caught.value.id == id


def test_the_variables_in_front_of_a_line_go_with_it(tmp_path: Path) -> None:
    for text in ("export VLLM_A=1 VLLM_B=2\nvllm serve a/b", "export VLLM_A=1 VLLM_B=2 && vllm serve a/b"):
        assert Made(tmp_path, text, "-").environment == {"VLLM_A": "1", "VLLM_B": "2"}


def test_a_flag_and_its_value_in_one_entry_are_two_words(tmp_path: Path) -> None:
    given = """['--max-model-len auto', '--hf-overrides', '{"a": 1}']"""
    text = f"meta: {{title: x}}\nmodel: {{model_id: a/b, base_args: {given}}}\n"
    assert Made(tmp_path, text, "x.yaml").serve["max-model-len"] == "auto"


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("PGPASSWORD", "hunter22", True),
        ("DB_PASS", "hunter22", True),
        ("MYSQL_PWD", "hunter22", True),
        ("OPENAI_APIKEY", "hunter22", True),
        ("API_KEY_2", "hunter22", True),
        ("NEO4J_AUTH", "neo4j/hunter22", True),
        ("ANY", "AKIAABCDEFGHIJKLMNOP", True),
        ("ANY", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", True),
        ("VLLM_MAX_BAD_WORDS_TOTAL_TOKENS", "1000", False),
        ("TOKENIZERS_PARALLELISM", "false", False),
        ("NCCL_IB_PKEY", "0", False),
        ("PWD", "/srv", False),
        ("EOS_TOKEN_ID", "2", False),
        ("AWS_ACCESS_KEY_ID", "hunter22", True),
    ],
)
def test_a_secret_is_known_by_its_name_or_its_form(tmp_path: Path, name: str, value: str, secret: bool) -> None:
    made = Made(tmp_path, f"docker run -e {name}={value} vllm/vllm-openai:v0.28.0 a/b", "-")
    assert str(made.environment[name]) == (f"!env {name}" if secret else value)


def test_a_secret_in_a_configuration_is_left_out_and_said(tmp_path: Path) -> None:
    config = '{"kv_connector":"X","kv_connector_extra_config":{"redis":{"password":"hunter22"}}}'
    made = Made(
        tmp_path, f"vllm serve a/b --kv-transfer-config '{config}' --hf-overrides '{{\"pad_token\": \"x\"}}'", "-"
    )
    assert "kv-transfer-config" not in made.serve and made.serve["hf-overrides"] == {"pad_token": "x"}
    assert "--kv-transfer-config: its value holds what looks like a secret" in made.left
    assert "hunter22" not in made.imported.text + made.left + made.notes


def test_a_shell_that_is_given_the_line_is_read(tmp_path: Path) -> None:
    made = Made(tmp_path, '#!/bin/sh\nbash -c "vllm serve a/b --max-num-seqs 4"\n', "run.sh")
    assert made.serve["max-num-seqs"] == 4


HIDING = st.sampled_from(
    [
        "docker run -e API_KEY={} vllm/vllm-openai:v0.28.0 a/b",
        "docker run -e OTHER=${{MY_TOKEN:-{}}} vllm/vllm-openai:v0.28.0 a/b",
        "export OPENAI_API_KEY={}\nvllm serve a/b\n",
        "#!/bin/sh\ncurl -H 'Authorization: Bearer {}' http://x\nvllm serve a/b\n",
        "#!/bin/sh\ndocker login -u me https://me:{}@registry.example\nvllm serve a/b\n",
        "vllm serve a/b --api-key {}",
        "services:\n  a:\n    image: vllm/vllm-openai:v0.28.0\n    command: a/b\n"
        "    environment: ['X_SECRET={}', 'Y=${{X_PASSWORD:-{}}}']\n",
        "services:\n  a:\n    image: vllm/vllm-openai:v0.28.0\n    command: a/b --api-key ${{LLM_KEY:-{}}}\n",
    ]
)


@settings(max_examples=60, deadline=None)
@given(form=HIDING, secret=st.from_regex(r"sk-[a-z0-9]{8,20}", fullmatch=True))
def test_no_secret_gets_into_a_recipe_or_a_message(form: str, secret: str) -> None:
    made = convert(form.replace("{{", "{").replace("}}", "}").replace("{}", secret), "it", Choice())
    assert secret not in made.text + "".join(made.left) + "".join(made.notes)


@pytest.mark.parametrize(
    ("text", "name", "amount"),
    [("--shm-size 16g", "shm_size_gib", 16), ("--memory 100g", "memory_gib", 100), ("-m 512m", "memory_gib", 0.5)],
)
def test_limits_are_carried_over_and_said(tmp_path: Path, text: str, name: str, amount: float) -> None:
    made = Made(tmp_path, f"docker run {text} vllm/vllm-openai:v0.28.0 a/b", "line")
    assert made.service["limits"][name] == amount
    assert f"limits.{name} {amount}" in made.notes
