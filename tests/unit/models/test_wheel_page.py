"""A version's page is read out of its wheel without importing it: a small wheel of an invented version."""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from sparkops.core.data import bundled
from sparkops.models.engine import Engine, _engine
from sparkops.models.engine_pages import composed, engine_content
from sparkops.models.values import faults
from tools.wheel_page import content
from tools.wheel_source import Wheel

FILES = {
    "vllm-99.1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: vllm\nVersion: 99.1.0+cu130\n\nThe engine.\n",
    "vllm/__init__.py": "raise RuntimeError('this is never imported')",
    "vllm/envs.py": 'environment_variables = {"VLLM_ONE": lambda: 1}\n',
    "vllm/plugins/__init__.py": 'GENERAL_GROUP = "vllm.general_plugins"\n',
    "vllm/reader.py": 'import os\nTWO = os.environ.get("VLLM_TWO")\n',
    "vllm/v1/metrics/loggers.py": 'name = "vllm:tokens"\n',
    "vllm/tool_parsers/__init__.py": '_TOOL_PARSERS_TO_REGISTER = {"qwen9": ("file", "Class")}\n',
    "vllm/reasoning/__init__.py": '_REASONING_PARSERS_TO_REGISTER = {"qwen9": ("file", "Class")}\n',
    "vllm/model_executor/models/registry.py": (
        '_TEXT = {"QwenForCausalLM": ("qwen", "QwenForCausalLM")}\n_VLLM_MODELS = {**_TEXT, "Qwen9Model": ("q", "Q")}\n'
    ),
    "vllm/model_executor/model_loader/__init__.py": (
        "from x import Loader\n_LOAD_FORMAT_TO_MODEL_LOADER = {'auto': Loader}\n"
    ),
    "vllm/model_executor/layers/quantization/__init__.py": (
        "from typing import Literal\nQuantizationMethods = Literal['fp8', 'inc']\n"
        "DEPRECATED_QUANTIZATION_METHODS = []\n"
    ),
    "vllm/config/__init__.py": "from vllm.config.all import *\n",
    "vllm/config/all.py": """
import enum
from dataclasses import field
from typing import Any, Literal
from pydantic import Field, field_validator, model_validator

SpeculativeMethod = Literal["mtp", Literal["ngram"]]
CacheDType = Literal["auto", "fp8"]
RejectionSampleMethod = Literal["standard"]
Role = Literal["reader", "writer"]
_SIZES = (16, 32)

class AttentionBackendEnum(enum.Enum):
    FLASH = "a.b.C"
    TREE = "a.b.D"

@config
class Inner:
    depth: int = Field(default=1, ge=1, le=_SIZES[0] if False else 8)

@config
class SpeculativeConfig:
    method: SpeculativeMethod | None = None
    rejection_sample_method: RejectionSampleMethod = "standard"

@config
class ModelConfig:
    model: str = "a/model"
    max_model_len: int | None = Field(default=None, ge=-1)
    cache_dtype: CacheDType = "auto"

@config
class TransferConfig:
    name: str | None = None
    role: Role | None = None
    size: int = Field(default=32)
    must: float = Field(ge=0)
    backend: AttentionBackendEnum | None = None
    inner: Inner = Field(default_factory=Inner)
    coerced: list[int] = field(default_factory=list)
    hidden: int = field(default=0, init=False)

    @field_validator("backend", mode="before")
    @classmethod
    def _backend(cls, value: Any) -> Any:
        return AttentionBackendEnum[value.upper()] if isinstance(value, str) else value

    @field_validator("coerced", mode="before")
    @classmethod
    def _coerce(cls, value: Any) -> Any:
        return [int(each) for each in value.split("-")]

    @model_validator(mode="after")
    def _check(self):
        name = self.name
        if name is not None and self.role is None:
            raise ValueError(f"{name} needs a role, one of {get_args(Role)}")
        if self.size not in _SIZES:
            raise ValueError(f"no such size: {self.size}")
        self.size = 64
        if self.size > 40:
            raise ValueError("never: it was changed before")
        return self

@config
class VllmConfig:
    transfer_config: TransferConfig | None = None
    speculative_config: SpeculativeConfig | None = None
""",
    "vllm/engine/arg_utils.py": """
import argparse, json
from vllm.config import ModelConfig, VllmConfig, SpeculativeConfig

class EngineArgs:
    seed: int = 0

    @staticmethod
    def add_cli_args(parser):
        model_kwargs = get_kwargs(ModelConfig)
        group = parser.add_argument_group(title="x")
        group.add_argument("--model", **model_kwargs["model"])
        group.add_argument("--max-model-len", "-l", **model_kwargs["max_model_len"])
        group.add_argument("--kv-cache-dtype", **model_kwargs["cache_dtype"])
        kwargs = get_kwargs(VllmConfig)
        kwargs["speculative_config"]["type"] = optional_type(json.loads)
        group.add_argument("--speculative-config", "-sc", **kwargs["speculative_config"])
        group.add_argument("--transfer-config", **kwargs["transfer_config"])
        group.add_argument("--fast", action=argparse.BooleanOptionalAction, default=False, help="deprecated: no effect")
        group.add_argument("--ways", type=int, nargs="+")

class AsyncEngineArgs(EngineArgs):
    @staticmethod
    def add_cli_args(parser):
        parser.add_argument("--quiet", action="store_true")
""",
    "vllm/entrypoints/server/cli_args.py": """
class FrontendArgs:
    host: str | None = None
    port: int = 8000

def make_arg_parser(parser):
    parser.add_argument("--headless", action="store_true", default=False)
""",
}


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "vllm-99.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def read(wheel: Path) -> dict[str, Any]:
    return content(Wheel(wheel), engine_content("0.33.0", None))


@pytest.fixture
def engine(read: dict[str, Any]) -> Engine:
    return _engine(read, "99.1.0")


def told(engine: Engine, **value: Any) -> set[str]:
    return {f"{each.where} {each.kind}" for each in faults("TransferConfig | None", {"must": 1, **value}, engine)}


def test_flags_are_read_as_the_parser_reads_them(read: dict[str, Any]) -> None:
    assert read["flags"] == {
        "pair": "fast", "switch": "headless help quiet", "integer": "port", "length": "max-model-len",
        "integers": "ways", "json": "speculative-config transfer-config", "text": "host kv-cache-dtype model",
    }  # fmt: skip
    assert read["choices"] == {"kv-cache-dtype": "auto fp8"}
    assert read["short"] == {"h": "help", "l": "max-model-len", "sc": "speculative-config"}
    assert read["defaults"]["model"] == "a/model"
    assert read["deprecated"] == "fast"
    assert read["values"]["max-model-len"] == "int(ge=-1) | None"


def test_names_are_those_that_the_wheel_registers(read: dict[str, Any]) -> None:
    assert (read["version"], read["tool_parsers"], read["load_formats"]) == ("99.1.0", "qwen9", "auto")
    assert (read["environment"], read["metrics"]) == ("VLLM_ONE VLLM_TWO", "vllm:tokens")
    assert (read["speculative_methods"], read["attention_backends"]) == ("mtp ngram", "FLASH TREE")


def test_what_only_running_shows_is_the_base_s(read: dict[str, Any]) -> None:
    base = engine_content("0.33.0", None)
    assert read["behaviour"] == {**base["behaviour"], "json_sizes": False}
    assert read["attention"] == base["attention"]


def test_a_configuration_is_judged_by_its_own_fields(engine: Engine) -> None:
    assert told(engine) == set()
    assert told(engine, name="x", role="reader", size="32", backend="tree", inner={"depth": 8}) == set()
    assert told(engine, other=1) == {"other key"}
    assert told(engine, hidden=1) == {"hidden key"}
    assert told(engine, role="owner") == {"role value"}
    assert told(engine, must=-1) == {"must value"}
    assert told(engine, inner={"depth": 0}) == {"inner.depth value"}
    assert told(engine, backend="wood") == {"backend value"}
    assert [each.where for each in faults("TransferConfig", {}, engine)] == ["must"]


def test_combinations_are_read_out_of_the_validators(engine: Engine) -> None:
    assert told(engine, name="x") == {" combination"}
    found = faults("TransferConfig", {"must": 1, "size": 8}, engine)
    assert [each.message for each in found] == ["no such size: 8"]


def test_what_a_validator_changes_first_is_not_judged(engine: Engine) -> None:
    assert told(engine, coerced="1-2") == set()
    assert "64" not in str(engine.refusals) and "never" not in str(engine.refusals)


def test_the_command_prints_a_page_that_composes(wheel: Path, read: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "tools.wheel_page", str(wheel), "0.33.0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    assert "to be proven" in done.stderr
    page = yaml.safe_load(done.stdout)
    jsonschema.validate(page, yaml.safe_load((bundled("knowledge") / "engine.schema.json").read_text()))
    page.pop("based_on")
    assert composed(engine_content("0.33.0", None), page) == read


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other-1.0.dist-info/METADATA", "Name: other\nVersion: 1.0\n\n")
    with pytest.raises(ValueError, match="is it a wheel of vLLM"):
        content(Wheel(path), engine_content("0.33.0", None))
