"""The shape of a model, as its `config.json` gives it: layers, heads, experts, state; and the parameters of each part.

What a configuration means is described by architecture in `knowledge/architectures/`. It must not know an engine, a
quantisation or a memory: `hybrid_cache`, `quantisation` and `sparkops.fit` build on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sparkops.core.errors import InventoryError
from sparkops.models.architecture import architectures
from sparkops.models.architecture.architectures import LARGEST, MOST_LAYERS, Cached, Shape, Tensor
from sparkops.models.architecture.descriptions import described, unwrapped

STATE = "state"
KEYS_AND_VALUES = ("full", "sliding", "chunked", STATE)
"""What layers with keys and values keep, and the states of recurrent layers beside them."""
NUMBERS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "intermediate_size",
    "moe_intermediate_size",
    "num_experts",
    "n_routed_experts",
    "num_local_experts",
    "num_experts_per_tok",
    "max_position_embeddings",
    "sliding_window",
    "mtp_num_hidden_layers",
    "num_nextn_predict_layers",
)
"""Keys that hold a whole number wherever they stand."""
LISTS = ("architectures", "layer_types")
SOUND = ("audio_config", "sound_config")
FLOAT32 = ("float32", "float")
NOTHING = Shape(False, (), (), None, {}, {}, (), {})


@dataclass(frozen=True)
class Geometry:
    """The sizes of one model; 0 where it has no such part. Counts are numbers of elements, not bytes.

    `encoder` has the largest input of the encoder of images: `patches`, `patch_bytes`, `tokens`.
    `gaps` lists what the configuration has that no description reads: no figure is known then. `part_gaps` are those of
    one part, whose parameters alone are not known. `nested`: the text part stands under `text_config`. `dtype` is the
    type that the engine takes without `--dtype`, `stored` that of the files.
    """

    architectures: tuple[str, ...]
    model_type: str
    shape: Shape
    dtype: str
    vision: tuple[Tensor, ...]
    encoder: Mapping[str, int]
    multimodal: bool
    gaps: tuple[str, ...]
    part_gaps: Mapping[str, str]
    nested: bool = False
    stored: str = "bfloat16"

    @property
    def described(self) -> bool:
        """Whether the architecture is described at all."""
        return self.shape.described

    @property
    def layers(self) -> tuple[tuple[Cached, ...], ...]:
        """What each layer keeps of a request, in order."""
        return self.shape.layers

    @property
    def refuses(self) -> tuple[Mapping[str, str], ...]:
        """Lines that the engine's class refuses for this model: each an expression `line`, a sentence and a flag."""
        return self.shape.refuses

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self._value("heads")

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self._value("kv_heads")

    @property
    def head_dim(self) -> int:
        """Elements of one head."""
        return self._value("head_dim")

    @property
    def hidden(self) -> int:
        """Width of the model."""
        return self._value("hidden")

    @property
    def vocabulary(self) -> int:
        """Tokens that it knows."""
        return self._value("vocabulary")

    @property
    def max_positions(self) -> int:
        """The longest context that it was made for, in tokens."""
        return self._value("max_positions")

    def longest(self, yarn: bool) -> int:
        """The longest context that an engine derives from its positions and how they are stretched; `yarn`: also by
        YaRN, whose files mostly count it already."""
        return (self._value("yarn_positions") if yarn else 0) or self._value("stretched") or self.max_positions

    def usual(self, yarn: bool) -> int:
        """The context that an engine takes where none is given."""
        return self._value("usual_positions") or self.longest(yarn)

    @property
    def experts(self) -> int:
        """Routed experts of a layer."""
        return self._value("experts")

    @property
    def experts_per_token(self) -> int:
        """How many of them a token takes."""
        return self._value("experts_per_token")

    @property
    def linear_value_heads(self) -> int:
        """Heads of a recurrent layer's state."""
        return self._value("linear_value_heads")

    @property
    def linear_key_dim(self) -> int:
        """Elements of a delta net's key head; 0 of other recurrent layers."""
        return self._value("linear_key_dim")

    @property
    def target_layers(self) -> int:
        """How many layers the model has that this one drafts for."""
        return self._value("target_layers")

    @property
    def latent_width(self) -> int:
        """Elements that the heads make of one latent."""
        return self._value("latent_width")

    @property
    def item_tokens(self) -> int:
        """Tokens of the largest image or video where all of one has to come in one batch; 0 where parts may."""
        return self._value("item_tokens")

    @property
    def largest_capture(self) -> int:
        """Tokens of the largest CUDA graph that the engine captures where nothing is given; 0 for its usual rule."""
        return self._value("largest_capture")

    @property
    def pipelined_head(self) -> bool:
        """Whether the engine's class of the prediction head runs over a pipeline in every version."""
        return bool(self._value("pipelined_head"))

    @property
    def state_chunk(self) -> int:
        """Tokens of a chunk of recurrent layers whose states an engine can keep for each block; 0 of others."""
        return 0 if self.multimodal else self._value("state_chunk")

    def table_bytes(self, mrope_tables: int) -> int:
        """Bytes of the rotary tables, those of positions in sections `mrope_tables` times as long."""
        return self._value("tables") + mrope_tables * self._value("mrope_tables")

    @property
    def ssm_dtype(self) -> str:
        """The type of the recurrent state, where the configuration says it; else the model's own."""
        word = self.shape.words.get("ssm_dtype", "auto")
        return self.dtype if word == "auto" else word

    @property
    def mtp_layers(self) -> int:
        """Layers of the prediction head."""
        return len(self.shape.drafting or ())

    @property
    def drafts(self) -> bool:
        """Whether the engine has a prediction head for this architecture."""
        return self.shape.drafting is not None

    @cached_property
    def cached(self) -> tuple[Cached, ...]:
        """What all layers keep, one after the other."""
        return tuple(each for layer in self.layers for each in layer)

    @cached_property
    def drafting_cached(self) -> tuple[Cached, ...]:
        """What the layers of the prediction head keep."""
        return tuple(each for layer in self.shape.drafting or () for each in layer)

    @property
    def linear_layers(self) -> int:
        """How many layers keep a recurrent state instead."""
        return sum(each.kind == STATE for each in self.cached)

    @property
    def hybrid(self) -> bool:
        """Whether it has both, so that the engine makes their pages equal."""
        return self.linear_layers > 0

    @property
    def latent(self) -> bool:
        """Whether its attention keeps a latent."""
        return any(each.kind in ("latent", "sparse") for each in self.cached)

    @property
    def plain(self) -> bool:
        """Whether all that it keeps are keys and values by head, and recurrent states."""
        return all(each.kind in KEYS_AND_VALUES for each in self.cached)

    @property
    def tensors(self) -> Iterator[Tensor]:
        """All of its tensors."""
        yield from self.shape.tensors
        yield from self.vision

    @cached_property
    def parameters(self) -> Mapping[str, int]:
        """Parameters of each part. `experts` are the routed ones, all of them; `mtp_…` is the prediction head, which
        shares embedding and head."""
        parts: dict[str, int] = {}
        for each in self.tensors:
            parts[each.part] = parts.get(each.part, 0) + each.parameters
        return parts

    @cached_property
    def whole(self) -> Mapping[str, float]:
        """The share of each part that every tensor-parallel rank keeps."""
        kept: dict[str, int] = {}
        for each in self.tensors:
            kept[each.part] = kept.get(each.part, 0) + (0 if each.split else each.parameters)
        return {part: count / self.parameters[part] for part, count in kept.items()}

    def uneven(self, ranks: int) -> Mapping[str, int]:
        """The heads that cannot be split evenly over so many ranks: which ones, and how many there are. Ranks beyond
        the KV heads share them."""
        counts = {"attention heads": self.heads, "linear value heads": self.linear_value_heads}
        uneven = {what: count for what, count in counts.items() if count % ranks}
        kept = {each.heads for each in self.cached if each.kind in KEYS_AND_VALUES and each.kind != STATE}
        shared = next((count for count in sorted(kept) if count and count % ranks and ranks % count), 0)
        return {**uneven, "KV heads": shared} if shared and not self.gaps else uneven

    @property
    def text_parameters(self) -> int | None:
        """Parameters without encoders and the prediction head: the total that model cards give."""
        if self.unsized("vision", "audio", "rotary", "mtp"):
            return None
        return sum(count for part, count in self.parameters.items() if part != "vision" and not part.startswith("mtp"))

    def unsized(self, *without: str) -> str:
        """Why the parameters are not all known, some parts left out; "" where they are."""
        return next(iter((*self.gaps, *(why for part, why in self.part_gaps.items() if part not in without))), "")

    def _value(self, name: str) -> int:
        return self.shape.values.get(name, 0)


def of_config(config: Mapping[str, Any], where: str = "config.json") -> Geometry:
    """The geometry in a config.json, its text part nested under `text_config` or flat.

    Raises InventoryError, naming the key, where a size is no whole number, or where there are more than 10,000 layers.
    """
    name, text = unwrapped(config)
    _check(text, where)
    names = tuple(str(each) for each in config.get("architectures") or ())
    description = described(name) if name else None
    shape = NOTHING if description is None else architectures.shape(description, text)
    gaps = list(shape.gaps)
    if description is None:
        gaps.append(f"the architecture {name} is not described" if name else "architectures is not in the file")
    reads_text = description is not None and description.reads_text(names[0] if names else "")
    vision, part_gaps = None if reads_text else text.get("vision_config"), dict(shape.part_gaps)
    if sound := next((key for key in SOUND if text.get(key)), ""):
        part_gaps["audio"] = f"an encoder of sound ({sound}) is not described"
    typed = (each.get(key) for each in (config, text) for key in ("dtype", "torch_dtype"))
    stored = next((str(each) for each in typed if each), "bfloat16")
    seen: Shape | None = None
    if isinstance(vision, Mapping):
        seen, reason = architectures.tower(vision, {**text, "architectures": names}, description)
        part_gaps |= {"vision": reason} if reason else {}
    return Geometry(
        architectures=names,
        model_type=str(config.get("model_type", "")),
        shape=shape,
        dtype="bfloat16" if stored in FLOAT32 else stored,  # vLLM config/model.py: _resolve_auto_dtype
        vision=seen.tensors if seen else (),
        encoder=seen.values if seen else {},
        multimodal=isinstance(vision, Mapping) or bool(sound),
        gaps=tuple(gaps),
        part_gaps=part_gaps,
        nested=isinstance(config.get("text_config"), Mapping),
        stored=stored,
    )


def _check(config: Mapping[str, object], where: str) -> None:
    for key in LISTS:
        if config.get(key) is not None and not isinstance(config[key], list):
            raise InventoryError.of("model-list-invalid", where=where, key=key, value=config[key])
    for key in NUMBERS:
        value = config.get(key)
        if value is None or isinstance(value, list):  # a list is one for each layer, which a description reads or lacks
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
            raise InventoryError.of("model-size-invalid", where=where, key=key, value=value)
    count, hidden, heads = (
        value if isinstance(value := config.get(key), int) else 0
        for key in ("num_hidden_layers", "hidden_size", "num_attention_heads")
    )
    if count > MOST_LAYERS:
        raise InventoryError.of("model-layers-too-many", where=where, count=count, most=MOST_LAYERS)
    if not config.get("head_dim") and 0 < hidden < heads:
        raise InventoryError.of("model-heads-wider-than-hidden", where=where, hidden=hidden, heads=heads)
