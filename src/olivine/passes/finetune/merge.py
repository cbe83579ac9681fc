"""MergeAdapterWeights: an adapter and its base become one checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from olivine.config.schema import DataConfig
from olivine.errors import ModelError
from olivine.passes.base import Format, Params, Pass, PassResult, PlanContext, Requirement, RunContext
from olivine.passes.effort import Effort
from olivine.passes.estimate import LIBRARIES, MIB, TORCH, TRAINER, Estimate

if TYPE_CHECKING:
    from olivine.models.checkpoint import Checkpoint
    from olivine.passes.finetune.adapter_weights import AdapterWeights

WORKER = 225 * MIB
"""Resident bytes of a worker that merges, which needs torch alone."""
MOVED = 4.0
"""Bytes that go through memory for each weight that is read, and written as it is or in another number format."""
MERGED = 32.0
"""The same on top for each weight that is changed: it becomes float32, its update is computed, scaled, and added."""


class MergeParams(Params):
    """How the merged checkpoint is written."""

    torch_dtype: Literal["keep", "float32", "bfloat16", "float16"] = "keep"
    """Number format of the result. ``keep``: the base's, which is what the base was made for."""


class MergeAdapterWeights(Pass[MergeParams]):
    """Adds a low-rank adapter to the weights of its base, so that inference costs what the base's does.

    LoRA, rsLoRA, DoRA, QLoRA and LoftQ adapters are merged in float32, with one tensor of the base in memory at a
    time; other kinds of adapters that peft knows are merged by peft, with the whole model in memory. After QLoRA the
    base is the 16-bit checkpoint, never its 4-bit copy, so nothing is quantised twice; after LoftQ it is the base that
    LoftQ made.

    Embeddings that are tied to the output head stay tied, unless the adapter changes only one of the two.
    """

    type: ClassVar[str] = "MergeAdapterWeights"
    summary: ClassVar[str] = "Merge an adapter into its base"
    reference_url: ClassVar[str] = "https://arxiv.org/abs/2106.09685"
    accepts: ClassVar[frozenset[Format]] = frozenset({Format.PEFT})
    produces: ClassVar[Format] = Format.HF
    params_type = MergeParams
    requires: ClassVar[tuple[Requirement, ...]] = (
        Requirement("torch", "finetune", ">=2.6,<2.14"),
        Requirement("safetensors", "finetune", ">=0.5"),
        Requirement("peft", "finetune", ">=0.18,<0.22"),
    )
    shaped_by: ClassVar[tuple[str, ...]] = ("torch", "peft")

    @classmethod
    def estimate(cls, params: MergeParams, context: PlanContext, data: Mapping[str, DataConfig]) -> Estimate:
        """See :meth:`Pass.estimate`: one tensor of the base, its update and their sum are in memory at a time.

        What only peft can merge is in memory as a whole.
        """
        model = context.model
        width = {"keep": model.weights / model.parameters, "float32": 4.0}.get(params.torch_dtype, 2.0)
        output = int(model.parameters * width)
        stored = model.weights / model.parameters
        if model.adapted is None:
            held = LIBRARIES + max(model.weights, output) + 2 * model.adapter
            effort = TRAINER + Effort(moved=24.0 * model.parameters, read=model.weights, written=output)
            return Estimate({"merging": held}, output, effort=effort, from_shapes=True)
        # As it is stored, and as it is written if that differs; what is adapted also in float32, its update, their sum.
        converted = 0.0 if width == stored else width
        largest, products, changed = 0.0, 0.0, 0
        for name, shape in model.modules.items():
            size = math.prod(shape)
            rank = model.adapted.get(name, 0)
            largest = max(largest, size * (stored + max(converted, 12.0 if rank else 0.0)))
            products += 2.0 * rank * size
            changed += size if rank else 0
        moved = (MOVED + 2 * MOVED * (stored != width)) * model.parameters + MERGED * changed
        effort = TORCH + Effort(products=products, moved=moved, read=model.weights, written=output)
        memory = WORKER + int(largest) + 2 * model.adapter
        return Estimate({"merging": memory}, output, effort=effort, from_shapes=True)

    def run(self, params: MergeParams, context: RunContext) -> PassResult:
        """Merge; see the base class.

        Raises:
            ModelError: adapter and base do not fit, or the base is quantised.
        """
        import torch
        from safetensors.torch import load_file

        from olivine.models.checkpoint import ADAPTER, read_checkpoint
        from olivine.passes.finetune.adapter_weights import read_weights

        folder = context.inputs["model"]
        adapter = read_checkpoint(folder)
        base = read_checkpoint(context.inputs.get("base", folder / "base"))
        if base.format is not Format.HF:
            raise ModelError(
                f"the base is {base.format.value}, and merging needs 16- or 32-bit weights",
                why="an update added to quantised weights would be rounded away",
                remedy="give the checkpoint that the quantised one was made from",
            )
        dtype = None if params.torch_dtype == "keep" else getattr(torch, params.torch_dtype)
        tensors = load_file(folder / ADAPTER)
        weights = read_weights(adapter.config, tensors)
        if weights is None or not _streams(weights, base):
            context.note("this kind of adapter is merged by peft, with the whole model in memory")
            _merge_in_memory(adapter, base, context, dtype)
        else:
            _merge_streaming(weights, adapter, base, context, dtype)
        changed = len(weights.updates) + len(weights.replaced) if weights is not None else 0
        return PassResult(metrics={"merged_tensors": changed} if changed else {})


def _streams(weights: AdapterWeights, base: Checkpoint) -> bool:
    """Return whether every tensor that the adapter changes is in the base's files, or is its tied output head."""
    known = set(base.tensors) | ({HEAD} if _tied_head(base) else set())
    return set(weights.updates) <= known and set(weights.replaced) <= known


HEAD = "lm_head.weight"


def _tied_head(base: Checkpoint) -> str | None:
    """Return the name of the embedding that is the output head too, if the head has no tensor of its own."""
    if HEAD in base.tensors or not base.config.get("tie_word_embeddings"):
        return None
    names = [name for name in base.tensors if name.endswith(("embed_tokens.weight", "wte.weight", "embed_in.weight"))]
    return names[0] if len(names) == 1 else None


def _merge_streaming(
    weights: AdapterWeights, adapter: Checkpoint, base: Checkpoint, context: RunContext, dtype: Any
) -> None:
    from olivine.passes.finetune.adapter_weights import merged
    from olivine.passes.finetune.checkpoint_rewriting import Added, read_tensor, rewrite

    transposed = bool(adapter.config.get("fan_in_fan_out"))

    def change(name: str, tensor: Any) -> Any:
        if name in weights.replaced:
            _check_shape(name, weights.replaced[name].shape, tensor.shape)
            return weights.replaced[name].to(tensor.dtype)
        if name in weights.updates:
            return merged(name, tensor, weights.updates[name], fan_in_fan_out=transposed)
        return tensor

    added, config = {}, None
    embedding = _tied_head(base)
    touched = {*weights.updates, *weights.replaced}
    if embedding is not None and (HEAD in touched or embedding in touched):
        # Trained apart, they are two weights now: the head starts from what the embedding was.
        tied: str = embedding

        added[HEAD] = Added(tied, lambda: change(HEAD, read_tensor(base, tied)))
        config = dict(base.config) | {"tie_word_embeddings": False}
        context.note("the adapter changes the embeddings or the output head alone: in the result they are not tied")
    rewrite(base, context.output, change, context.progress, message="merging", dtype=dtype, added=added, config=config)


def _check_shape(name: str, given: Any, wanted: Any) -> None:
    if tuple(given) != tuple(wanted):
        raise ModelError(
            f"the adapter replaces {name} by shape {tuple(given)}, and the base's is {tuple(wanted)}",
            why="the adapter was trained on another base, or on one with tokens added",
            remedy="give the base that the adapter was trained on",
        )


def _merge_in_memory(adapter: Checkpoint, base: Checkpoint, context: RunContext, dtype: Any) -> None:
    """Let peft merge, then write its weights."""
    import shutil

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    context.progress(0, None, message="loading the model")
    model = AutoModelForCausalLM.from_pretrained(
        base.path,
        dtype="auto",
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=context.trust_remote_code,
    )
    try:
        model = PeftModel.from_pretrained(model, adapter.path)
        _check_complete(model, adapter)
        model = model.merge_and_unload()
    except (ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"the adapter does not fit the base: {str(error).splitlines()[0]}",
            remedy="give the base that the adapter was trained on",
        ) from error
    if dtype is not None:
        model = model.to(dtype)
    context.progress(0, None, message="writing the model")
    model.save_pretrained(context.output)
    for file in base.files:
        if not (context.output / file.name).exists() and not file.name.endswith((".safetensors", ".index.json")):
            shutil.copyfile(file, context.output / file.name)


def _check_complete(model: Any, adapter: Checkpoint) -> None:
    """Refuse an adapter some of whose tensors have no place in the model; peft would leave them out in silence."""
    from peft import get_peft_model_state_dict

    placed: Mapping[str, Any] = get_peft_model_state_dict(model, save_embedding_layers=False)
    astray = sorted(set(adapter.tensors) - set(placed))
    if astray:
        raise ModelError(
            f"{len(astray)} tensors of the adapter have no place in the base: {astray[0]} ...",
            why="the adapter was trained on another base",
            remedy="give the base that the adapter was trained on",
        )
