"""The parameters of ModelBuilder in the words of ONNX Runtime GenAI's model builder."""

from __future__ import annotations

import json
from typing import Any

from olivine.passes.convert.builder_params import ModelBuilderParams

OPTION_OF_PARAMETER: dict[str, str] = {
    "int4_block_size": "block_size",
    "int4_accuracy_level": "accuracy_level",
    "int4_is_symmetric": "is_symmetric",
    "int4_op_types_to_quantize": "op_types_to_quantize",
    "int4_nodes_to_exclude": "nodes_to_exclude",
    "int4_algo_config": "algo_config",
    "metadata_only": "config_only",
    "exclude_embeds": "exclude_embeds",
    "exclude_lm_head": "exclude_lm_head",
    "include_hidden_states": "include_hidden_states",
    "enable_cuda_graph": "enable_cuda_graph",
    "use_qdq": "use_qdq",
    "use_8bits_moe": "moe_quant_type",
    "use_webgpu_fp32": "use_webgpu_fp32",
    "use_cuda_bf16": "use_cuda_bf16",
}
"""What the builder calls each parameter. Since 0.16 it reads no option that begins with ``int4_``, and says nothing."""

RESERVED = {
    "hf_remote": "allow the model's own code with --trust-remote-code",
    "hf_token": "the model is on this machine when it is built: no token is needed",
    "adapter_path": "put MergeAdapterWeights before this pass",
    "config_only": "use metadata_only",
}
"""Extra options that would undercut a decision made elsewhere."""

_SEPARATOR = {"op_types_to_quantize": "/", "nodes_to_exclude": ","}


def given_options(params: ModelBuilderParams) -> dict[str, Any]:
    """Return the parameters that say something to the builder, by their own names."""
    return {name: value for name in OPTION_OF_PARAMETER if (value := getattr(params, name)) not in (None, False)} | (
        {"int4_is_symmetric": False} if params.int4_is_symmetric is False else {}
    )


def builder_arguments(params: ModelBuilderParams, *, trust_remote_code: bool = False) -> list[str]:
    """Return the builder's ``KEY=VALUE`` extra options for ``params``."""
    options: dict[str, Any] = {"hf_token": False, "hf_remote": trust_remote_code}
    for name, value in given_options(params).items():
        options[OPTION_OF_PARAMETER[name]] = "int8" if name == "use_8bits_moe" else value
    options |= params.extra_options
    return [f"{key}={_as_text(key, value)}" for key, value in options.items()]


def _as_text(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return _SEPARATOR.get(key, ",").join(str(each) for each in value)
    return json.dumps(value) if isinstance(value, dict) else str(value)
