"""Parameters of :class:`~olivine.passes.convert.model_builder.ModelBuilder`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from olivine.passes.budget import BudgetParams

Precision = Literal["fp32", "fp16", "bf16", "int8", "int4", "auto"]
Algorithm = Literal[
    "search", "search_last", "search_mixed", "hqq", "default", "rtn", "rtn_last", "k_quant", "k_quant_last",
    "k_quant_mixed", "k_quant_linear",
]  # fmt: skip

QUANTISED = frozenset({"int4", "int8", "auto"})
"""Precisions with integer weights."""

STREAMED = frozenset({None, "search", "search_last", "search_mixed", "hqq"})
"""Algorithms of :mod:`olivine.quant`, which round weights as they stream by; the others are the builder's own, and it
loads the whole checkpoint for them."""

MIXED = frozenset({"rtn_last", "k_quant_last", "k_quant_mixed", "k_quant_linear"})
"""Algorithms that keep some layers in 8 bits."""


class ModelBuilderParams(BudgetParams):
    """Parameters of :class:`ModelBuilder`. Those that begin with ``int4_`` apply to ``int8`` too."""

    precision: Precision
    """Format of the weights. ``int4``: smallest and fastest on a CPU. ``int8``: twice that, nearly lossless. ``fp16``,
    ``bf16``: GPUs. ``fp32``: the reference. ``auto``: bits, group size and zero points are chosen for each matrix, so
    that the model is as close to the float one as the budget allows (``max_size``, ``average_bits`` or
    ``max_divergence``)."""
    metadata_only: bool = False
    """Write ``genai_config.json`` and the tokenizer only, for an ONNX model that you have already."""
    search: dict[str, Any] = Field(default_factory=dict)
    """Put into ``search`` of ``genai_config.json``, e.g. ``{max_length: 512, do_sample: false}``."""
    int4_block_size: Literal[16, 32, 64, 128, 256] | None = None
    """Weights that share a scale. Smaller is more accurate and larger on disk. The builder's default is 32."""
    int4_accuracy_level: Literal[1, 2, 3, 4] | None = None
    """Number format of the activations in the product: 1 fp32, 2 fp16, 3 bf16, 4 int8. Default: 4 on the CPU (fastest),
    else what the kernel prefers."""
    int4_is_symmetric: bool | None = None
    """Quantise around zero (the builder's default), or with a zero point per block: a little larger, more accurate."""
    int4_op_types_to_quantize: list[str] | None = None
    """Kinds of nodes: ``MatMul``, ``Gather``. ``Gather`` adds the embedding table, which is much of a small model; with
    precision ``int4`` and ``int4_algo_config: default`` only. Default: ``[MatMul]``, and both if the model ties
    embedding and output layer."""
    int4_nodes_to_exclude: list[str] | None = None
    """Names of nodes to leave as they are, e.g. ``/lm_head/MatMul``. While weights stream, patterns too, and names of
    modules: ``*/o_proj/MatMul``, ``model.layers.0.mlp.*``."""
    int4_algo_config: Algorithm | None = None
    """How weights are rounded. ``search``: scales by least squares over many ranges, while the checkpoint streams by
    and is never in memory as a whole; this is what happens if nothing is given, for a plain decoder. ``hqq``: the same
    way, by half-quadratic quantisation; slow. The others are the builder's own, and load the whole checkpoint.
    ``default``, ``rtn``: to the nearest. ``k_quant``: by least squares, slowly. ``*_last``: the output layer in 8 bits.
    ``k_quant_mixed``: that, and the most sensitive layers in 8 bits. ``k_quant_linear``: the linear-attention layers of
    hybrid models in 8 bits."""
    embedding_bits: Literal[4, 8] | None = None
    """Bits of the embedding table. Default: those of the output layer if the model ties the two; else 8 on a CPU, which
    loses next to nothing and takes up to a third of the size away; else it stays as it is. With ``search`` and ``hqq``
    only."""
    lm_head_bits: Literal[4, 8] | None = None
    """Bits of the output layer. Default: those of ``precision``. With 8 a model in ``int4`` comes much closer to what
    it was, for some percent of its size and speed. With ``search`` and ``hqq`` only."""
    exclude_embeds: bool = False
    """Leave out the embedding; the model takes ``inputs_embeds``."""
    exclude_lm_head: bool = False
    """Leave out the output layer; the model gives ``hidden_states``."""
    include_hidden_states: bool = False
    """Give ``hidden_states`` beside ``logits``."""
    enable_cuda_graph: bool | None = None
    """Capture the decoding step as a CUDA graph: faster for small models if every node runs on the GPU."""
    use_qdq: bool = False
    """Write quantised weights as DequantizeLinear and MatMul, not as MatMulNBits. int4 only."""
    use_8bits_moe: bool = False
    """Quantise a mixture of experts to 8 bits, not 4."""
    use_webgpu_fp32: bool = False
    """On WebGPU, take and give float32: for GPUs without float16."""
    use_cuda_bf16: bool = False
    """With int4 on CUDA, compute in bfloat16, not float16: for models that overflow float16 (Gemma)."""
    extra_options: dict[str, Any] = Field(default_factory=dict)
    """Any other option of the installed builder, by the name its ``--help`` gives."""
