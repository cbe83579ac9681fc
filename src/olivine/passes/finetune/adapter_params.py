"""Parameters that all fine-tuning passes share."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from olivine.passes.base import Params

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class AdapterParams(Params):
    """Rank, targets, data and training of a low-rank adapter."""

    r: int = Field(default=64, ge=1)
    """Rank of the update. More can learn more and costs memory in proportion; 8 to 64 is usual."""
    alpha: float = Field(default=16, gt=0)
    """The update is scaled by ``alpha / r`` (``alpha / sqrt(r)`` with ``use_rslora``)."""
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)
    """Share of the adapter's input that is dropped in training, against overfitting."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases are trained too: none, all, or those of the adapted modules."""
    target_modules: list[str] | str | None = None
    """Modules to adapt: last parts of their names (``[qkv_proj, o_proj]``), or one regular expression for whole names.
    Default: every attention and MLP projection."""
    exclude_modules: list[str] | str | None = None
    """Modules to leave alone although ``target_modules`` names them."""
    modules_to_save: list[str] | None = None
    """Modules to train in full beside the adapter (``lm_head``, ``embed_tokens``). Large."""
    layers_to_transform: list[int] | int | None = None
    """Numbers of the layers to adapt, from 0. Default: all."""
    layers_pattern: list[str] | str | None = None
    """Name of the list of layers (``layers``, ``h``), if ``layers_to_transform`` is given and it is unusual."""
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    """Ranks that differ from ``r``, by name or regular expression of the module."""
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    """Alphas that differ from ``alpha``, by name or regular expression of the module."""
    init_weights: bool | Literal["gaussian", "orthogonal"] = True
    """How the adapter starts: ``true`` (Kaiming, as Microsoft's reference), ``gaussian``, ``orthogonal`` (even ranks).
    With these the model starts unchanged; ``false`` starts from noise and is for tests."""
    use_rslora: bool = False
    """Rank-stabilised scaling, ``alpha / sqrt(r)``: steadier at high ranks (https://arxiv.org/abs/2312.03732)."""
    torch_dtype: Dtype = "auto"
    """Number format of the base while it trains. ``auto``: bfloat16 where the hardware multiplies it, else float32.
    ``float16``: a float32 base with mixed precision, on a GPU only."""
    allow_tf32: bool = True
    """On a GPU, multiply float32 in TF32: faster, 10 bits of mantissa."""
    device_map: Literal["auto", "current_device"] | None = "auto"
    """On a GPU: spread the base over what there is (``auto``), or put it on the current device."""
    ephemeral_gpu_offload: bool = False
    """Use the GPU briefly for parts of DoRA and others that lie on the CPU."""
    train_data_config: str
    """Name of the data config to train on."""
    eval_data_config: str | None = None
    """Name of the data config to evaluate on."""
    eval_dataset_size: float | int | None = Field(default=None, gt=0)
    """Part of the training rows to evaluate on instead: a share below 1, or a number of rows."""
    training_args: dict[str, Any] = Field(default_factory=dict)
    """Fields of transformers' ``TrainingArguments``; names of former versions are understood. Defaults: batch size 1,
    accumulation 4, learning rate 2e-4, constant schedule, 3 epochs, AdamW, seed 42, a log line every 10 steps; the
    rest are the library's. ``save_steps`` is how many steps may be lost at most when a worker is killed; ``eval_steps``
    with ``eval_strategy: steps`` evaluates while training. There is always an evaluation at the end if there is
    evaluation data."""
