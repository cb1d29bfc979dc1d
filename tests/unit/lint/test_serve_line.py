"""A serve line is read as the engine's own parser reads it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.models.argv import serve_argv
from sparkops.models.engine import PAIR, engine
from sparkops.models.serve_line import AUTO, parse, parse_text, size

NEWEST = engine("0.33.0")


def arguments(text: str, version: str = "0.33.0") -> dict[str, object]:
    line = parse_text(f"vllm serve M {text}", engine(version))
    assert line.problems == ()
    return dict(line.arguments)


@pytest.mark.parametrize(
    ("text", "flag", "value"),
    [
        ("--tensor-parallel-size 2", "tensor-parallel-size", 2),
        ("--tensor_parallel_size=2", "tensor-parallel-size", 2),
        ("-tp 2", "tensor-parallel-size", 2),
        ("-n2", "nnodes", 2),
        ("--tensor-par 2", "tensor-parallel-size", 2),
        ("--max-model-len auto", "max-model-len", AUTO),
        ("--max-model-len 128k", "max-model-len", 128_000),
        ("--max-model-len 128K", "max-model-len", 131_072),
        ("--kv-cache-memory-bytes -1", "kv-cache-memory-bytes", -1),
        ("--kv-cache-memory 20G", "kv-cache-memory-bytes", 20 * 2**30),
        ("--no-enable-prefix-caching", "enable-prefix-caching", False),
        ("--disable-prefix-caching", "enable-prefix-caching", False),
        ("--no-disable-prefix-caching", "enable-prefix-caching", True),
        ("-O3", "optimization-level", 3),
        ("-O 1", "optimization-level", 1),
        ("--cudagraph-capture-sizes 1 2 4", "cudagraph-capture-sizes", (1, 2, 4)),
        ("-cc.cudagraph_mode=PIECEWISE", "compilation-config", {"cudagraph_mode": "PIECEWISE"}),
        ("--hf-overrides.a.b 80g --hf-overrides.a.c x", "hf-overrides", {"a": {"b": 80 * 10**9, "c": "x"}}),
        ("--hf-overrides.a.c x --hf-overrides.a '{\"b\": 1}'", "hf-overrides", {"a": {"b": 1, "c": "x"}}),
        ("--hf-overrides.a+ 1,2 --hf-overrides.a '[3]'", "hf-overrides", {"a": ["1", "2", 3]}),
        ("--structured-outputs-config '{\"a\": 1}'", "structured-outputs-config", {"a": 1}),
        ("--seed 1 --seed 2", "seed", 2),
        ("--kv-cache-dtype fp8 # as in the recipe", "kv-cache-dtype", "fp8"),
    ],
)
def test_a_flag_is_read_in_each_of_its_spellings(text: str, flag: str, value: object) -> None:
    assert arguments(text)[flag] == value


def test_dotted_json_replaces_json_in_one_word_as_in_the_engine() -> None:
    given_twice = '--speculative-config.method mtp --speculative-config \'{"method":"ngram"}\''
    assert arguments(given_twice)["speculative-config"] == {"method": "mtp"}


def test_disable_and_enable_are_two_flags_before_the_engine_pairs_them() -> None:
    problems = parse_text("vllm serve M --disable-prefix-caching", engine("0.32.0")).problems
    assert [each.kind for each in problems] == ["unknown"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("--swap-space 4", "unknown"),
        ("--max-num 4", "ambiguous"),
        ("--max-num-seqs", "value"),
        ("--max-num-seqs --enforce-eager", "value"),
        ("--max-num-seqs 1.5", "value"),
        ("--speculative-config {method:mtp}", "value"),
        ("--enforce-eager=1", "value"),
        ("--hf-overrides.a", "unknown"),
        ("--dtype fp8", "choice"),
        ("--enforce-eager true", "words"),
        ("another-model", "words"),
    ],
)
def test_what_the_parser_refuses_is_a_problem_of_its_kind(text: str, kind: str) -> None:
    assert [each.kind for each in parse_text(f"vllm serve M {text}", NEWEST).problems] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "vllm serve M --seed 1",
        "VLLM_USE_DEEP_GEMM=0 vllm serve M --seed 1",
        "docker run -e VLLM_USE_DEEP_GEMM=0 image vllm serve M --seed 1",
        "vllm serve --seed 1 M",
        "vllm serve --model M --seed 1",
        "vllm serve M \\\n  --seed 1",
        "python -m vllm.entrypoints.openai.api_server --model M --seed 1",
        "M --seed 1",
    ],
)
def test_the_line_is_found_in_what_people_paste(text: str) -> None:
    line = parse_text(text, NEWEST)
    assert (line.model, line.get("seed"), line.problems) == ("M", 1, ())
    assert dict(line.environment) == ({"VLLM_USE_DEEP_GEMM": "0"} if "VLLM_USE_DEEP_GEMM=0" in text else {})


@given(
    st.dictionaries(
        st.sampled_from(sorted(flag for flag, kind in NEWEST.flags.items() if kind == PAIR)), st.booleans(), max_size=6
    ),
    st.dictionaries(st.sampled_from(["max-num-seqs", "block-size", "seed"]), st.integers(-(10**6), 10**6)),
    st.dictionaries(st.text("abc_", min_size=1), st.integers() | st.text() | st.booleans()),
)
def test_what_an_inventory_declares_comes_back_from_its_words(
    pairs: dict[str, bool], numbers: dict[str, int], overrides: dict[str, object]
) -> None:
    serve = {**pairs, **numbers, "hf-overrides": overrides}
    line = parse(serve_argv(["vllm", "serve"], "M", serve), NEWEST)
    assert line.problems == ()
    assert json.loads(json.dumps(dict(line.arguments))) == json.loads(json.dumps(serve))


@pytest.mark.parametrize(("text", "number"), [("8192", 8192), ("8k", 8000), ("8K", 8192), ("25.6k", 25600)])
def test_a_size_has_decimal_and_binary_letters(text: str, number: int) -> None:
    assert size(text) == number


@pytest.mark.parametrize("text", ["", "k", "1.5K", "8kb", "eight"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        size(text)


def test_an_unlisted_version_is_the_one_of_its_own_minor_or_the_nearest_earlier_one() -> None:
    assert [engine(each).version for each in ("0.25.0", "0.27.0", "0.20.0")] == ["0.25.1", "0.27.1", "0.20.2"]
    assert (engine("0.26.4").version, engine("0.26.4").exact, engine("0.26.4").asked) == ("0.26.0", False, "0.26.4")
    assert engine("0.11.0").version == "0.19.1"
    assert engine("v0.33.0+cu130").exact


def test_model_as_a_flag_takes_the_place_of_the_word() -> None:
    line = parse_text("vllm serve --max-num-seqs 4 --model M", engine("0.28.0"))
    assert (line.model, line.problems) == ("M", ())
    line = parse_text("vllm serve A --model B", engine("0.28.0"))
    assert line.model == "B"
    assert [(each.kind, each.word) for each in line.problems] == [("words", "A")]


def test_the_word_of_the_api_server_s_module_is_not_its_model() -> None:
    line = parse_text("python3 -m vllm.entrypoints.openai.api_server A --max-num-seqs 4", NEWEST)
    assert (line.model, line.problems) == ("", ())
    line = parse_text("python3 -m vllm.entrypoints.openai.api_server --model A --served-model-name x", NEWEST)
    assert (line.model, line.problems) == ("A", ())


def test_two_dashes_end_the_flags() -> None:
    line = parse_text("vllm serve --max-num-seqs 4 -- M", engine("0.28.0"))
    assert (line.model, line.problems) == ("M", ())


@pytest.mark.parametrize(
    ("flag", "version", "taken"),
    [
        ("--kv-transfer-config", "0.20.2", True),
        ("--kv-transfer-config", "0.19.1", False),
        ("--speculative-config", "0.33.0", False),
    ],
)
def test_sizes_stand_in_json_where_the_version_takes_them(flag: str, version: str, taken: bool) -> None:
    line = parse(["vllm", "serve", "m", flag, '{"a": 80m, "b": "80m"}'], engine(version))
    assert (line.get(flag[2:]) == {"a": 80_000_000, "b": "80m"}) is taken
    assert bool(line.problems) is not taken
