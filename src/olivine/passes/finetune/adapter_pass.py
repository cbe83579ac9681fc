"""What the adapter passes share: resolving for the hardware, checking, and the run from rows to a saved adapter."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from olivine.config.schema import DataConfig
from olivine.errors import DataError, Location, ModelError, Problem
from olivine.passes.base import Accelerator, Format, Pass, PassResult, PlanContext, Requirement, RunContext
from olivine.passes.estimate import Estimate
from olivine.passes.finetune.adapter_params import AdapterParams
from olivine.passes.finetune.needless_imports import taken_for_missing
from olivine.passes.importing import uncollected

if TYPE_CHECKING:
    from olivine.data.sequences import Sequences
    from olivine.models.checkpoint import Checkpoint

AdapterParamsT = TypeVar("AdapterParamsT", bound=AdapterParams)

FINETUNE = (
    Requirement("torch", "finetune", ">=2.6,<2.14"),
    Requirement("transformers", "finetune", ">=5.0,<6"),
    Requirement("peft", "finetune", ">=0.18,<0.22"),
    Requirement("accelerate", "finetune", ">=1.4,<2"),
)
BITSANDBYTES = Requirement("bitsandbytes", "finetune", ">=0.49,<0.51")

SLOW_BF16 = (
    "bfloat16 as asked, on a processor without bfloat16 units: its matrix product was measured 200 times slower than "
    "float32 (0.3 against 65 GFLOP/s); torch_dtype: float32 would be several times faster"
)


@contextlib.contextmanager
def _flushed_denormals() -> Iterator[None]:
    """Count numbers below 1e-38 as zero: gradients are full of them, and a CPU takes some 100 times longer for each.

    It is a register of each thread, inherited by those that it starts, so it must be set before the first product.
    """
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class AdapterPass(Pass[AdapterParamsT]):
    """Trains a low-rank adapter on a frozen base. Subclasses say how the base is loaded and the adapter starts."""

    accepts: ClassVar[frozenset[Format]] = frozenset({Format.HF})
    produces: ClassVar[Format] = Format.PEFT
    spreads: ClassVar[bool] = True
    requires: ClassVar[tuple[Requirement, ...]] = FINETUNE
    shaped_by: ClassVar[tuple[str, ...]] = ("torch", "transformers", "peft", "accelerate")
    default_optimiser_on_gpu: ClassVar[str] = "adamw_torch"
    four_bit: ClassVar[bool] = False
    searchable: ClassVar[Mapping[str, tuple[Any, ...]]] = {"r": (16, 32, 64)}

    # What the plan asks -------------------------------------------------------------------------------------------

    @classmethod
    def resolve(cls, params: AdapterParamsT, context: PlanContext) -> tuple[AdapterParamsT, list[str]]:
        """Choose number format, optimiser and targets for the host; see the base class."""
        from olivine.passes.finetune import training_arguments
        from olivine.passes.finetune.target_modules import default_targets
        from olivine.passes.finetune.training_packages import reporting_notes

        on_gpu = context.host.device == "gpu"
        arguments, notes = training_arguments.translate(params.training_args)
        notes += reporting_notes(arguments)
        mixed = bool(arguments.get("fp16") or arguments.get("bf16"))
        changes: dict[str, Any] = {"torch_dtype": params.torch_dtype}
        if params.torch_dtype == "auto":
            changes["torch_dtype"] = "bfloat16" if context.has_bf16 and not mixed else "float32"
            why = "the hardware multiplies it" if context.has_bf16 else "this processor has no bfloat16 units"
            notes.append(f"torch_dtype auto: {changes['torch_dtype']}" + ("" if mixed else f", for {why}"))
        elif params.torch_dtype == "bfloat16" and not context.has_bf16:
            notes.append(SLOW_BF16)
        if on_gpu:
            arguments.setdefault("optim", cls.default_optimiser_on_gpu)
        elif (twin := training_arguments.ON_CPU.get(str(arguments.get("optim")))) is not None:
            notes.append(f"the optimiser {arguments['optim']} needs a GPU: {twin} is used")
            arguments["optim"] = twin
        has_evaluation = params.eval_data_config is not None or params.eval_dataset_size is not None
        if not has_evaluation and arguments.get("eval_strategy", "no") != "no":
            notes.append("eval_strategy is set to no: there is no evaluation data")
            arguments["eval_strategy"] = "no"
        changes["training_args"] = training_arguments.with_defaults(arguments, on_gpu=on_gpu)
        if params.target_modules is None and (targets := default_targets(context.model.modules)):
            changes["target_modules"] = targets
            notes.append(f"target_modules: {', '.join(targets)} (every attention and MLP projection)")
        return params.model_copy(update=changes), notes

    @classmethod
    def check(cls, params: AdapterParamsT, context: PlanContext) -> list[Problem]:
        """Check names, values and combinations; see the base class."""
        from olivine.passes.finetune import training_arguments
        from olivine.passes.finetune.target_modules import check_names, default_targets
        from olivine.passes.finetune.training_packages import package_problems

        found = [*training_arguments.problems(params.training_args), *package_problems(params.training_args)]
        modules = context.model.modules
        for key in ("target_modules", "exclude_modules", "modules_to_save"):
            found += check_names(key, getattr(params, key), modules)
        if modules and params.target_modules is None and not default_targets(modules):
            found.append(
                Problem(
                    "no attention or MLP projection was recognised in the model",
                    Location(path="target_modules"),
                    remedy="name the modules to adapt in target_modules",
                )
            )
        found += _check_layers(params, modules)
        if params.torch_dtype == "float16" and context.host.device == "cpu":
            found.append(
                Problem(
                    "float16 cannot be trained on a CPU",
                    Location(path="torch_dtype"),
                    "small gradients vanish in it, and its mixed precision needs a GPU",
                    "set torch_dtype: auto",
                )
            )
        if params.training_args.get("fp16") and context.host.device == "cpu":
            found.append(Problem("fp16 needs a GPU", Location(path="training_args.fp16"), remedy="remove it"))
        if params.eval_data_config is not None and params.eval_dataset_size is not None:
            found.append(
                Problem(
                    "both eval_data_config and eval_dataset_size are given",
                    Location(path="eval_dataset_size"),
                    "the first names evaluation data, the second takes it from the training data",
                    "keep one",
                )
            )
        size = params.eval_dataset_size
        if size is not None and size >= 1 and size != int(size):
            found.append(
                Problem(
                    f"eval_dataset_size {size} is neither a share below 1 nor a whole number of rows",
                    Location(path="eval_dataset_size"),
                )
            )
        if params.init_weights == "orthogonal" and params.r % 2:
            found.append(Problem("an orthogonal start needs an even rank", Location(path="r")))
        if params.training_args.get("load_best_model_at_end") and params.training_args.get("eval_strategy") == "no":
            found.append(
                Problem(
                    "load_best_model_at_end needs evaluation while training",
                    Location(path="training_args.load_best_model_at_end"),
                    remedy="set eval_strategy: steps with eval_steps, and give evaluation data",
                )
            )
        return found

    @classmethod
    def needs(cls, params: AdapterParamsT) -> tuple[Requirement, ...]:
        """Return also the packages that single training arguments ask for; see the base class."""
        from olivine.passes.finetune.training_packages import packages

        known = {each.distribution for each in cls.requires}
        return (*cls.requires, *(each for each in packages(params.training_args) if each.distribution not in known))

    @classmethod
    def estimate(cls, params: AdapterParamsT, context: PlanContext, data: Mapping[str, DataConfig]) -> Estimate:
        """See :meth:`Pass.estimate`."""
        from olivine.passes.finetune.training_memory import estimate_training

        return estimate_training(params, context, data, four_bit=cls.four_bit, own_base=cls.own_base)

    @classmethod
    def adapted(cls, params: AdapterParamsT, modules: Mapping[str, Sequence[int]]) -> Mapping[str, int]:
        """See :meth:`Pass.adapted`."""
        from olivine.passes.finetune.target_modules import ranks_of

        return ranks_of(params, modules)

    @classmethod
    def within(
        cls, params: AdapterParamsT, context: PlanContext, data: Mapping[str, DataConfig]
    ) -> tuple[AdapterParamsT, list[str]]:
        """See :meth:`Pass.within`: activations are computed again, and batches are split and accumulated."""
        from olivine.passes.finetune.training_memory import keep_within

        return keep_within(params, context, data, four_bit=cls.four_bit, own_base=cls.own_base)

    # What the worker runs -----------------------------------------------------------------------------------------

    @_flushed_denormals()
    def run(self, params: AdapterParamsT, context: RunContext) -> PassResult:
        """Train the adapter and save it; see the base class.

        Raises:
            DataError: there is nothing to train on, or a sequence is longer than the model takes.
            ModelError: the weights are pickles, incomplete, or of an architecture that is no causal language model.
            StepError: the loss is not finite.
        """
        from olivine.models.checkpoint import read_checkpoint
        from olivine.passes.finetune.training import train

        base = read_checkpoint(context.inputs["model"])
        on_gpu = context.host.device == "gpu"
        context.progress(0, None, message="loading libraries")
        with uncollected():
            _import_libraries(four_bit=self.four_bit)
        _quiet()
        tokenizer = load_tokenizer(base)
        context.progress(0, None, message="reading data")
        data = read_data(params, context, tokenizer)
        check_lengths(data, base)
        prepared = self.prepare_base(params, context, base)
        context.progress(0, None, message="loading the model")
        model = self.wrap(params, context, self.load_base(params, context, prepared), base)
        if on_gpu and params.allow_tf32:
            import torch

            torch.backends.cuda.matmul.allow_tf32 = True
        pad_id = next((each for each in (tokenizer.pad_token_id, tokenizer.eos_token_id) if each is not None), 0)
        trained = train(
            model,
            data["train"],
            data.get("eval"),
            params.training_args,
            folder=context.checkpoint / "training",
            on_gpu=on_gpu,
            mixed_precision=params.torch_dtype == "float16",
            pad_id=pad_id,
            progress=context.progress,
        )
        context.progress(0, None, message="saving the adapter")
        save_adapter(model, context.output, "base" if self.own_base else name_of(base.path), base)
        trainable, total = model.get_nb_trainable_parameters()
        return PassResult(
            metrics=trained.metrics | data["metrics"] | {"trainable_parameters": trainable},
            attributes={
                "rank": params.r,
                "target_modules": params.target_modules,
                "trained_in": params.torch_dtype,
                "trainable_share": trainable / total,
            },
            history=trained.history,
        )

    def prepare_base(self, params: AdapterParamsT, context: RunContext, base: Checkpoint) -> Checkpoint:
        """Return the checkpoint to train on. A pass with a base of its own writes it here, to ``output/base``."""
        return base

    def load_base(self, params: AdapterParamsT, context: RunContext, base: Checkpoint) -> Any:
        """Load the base model, frozen or about to be."""
        return load_model(base.path, params, context)

    def adapter_options(self, params: AdapterParamsT) -> dict[str, Any]:
        """Return what the LoRA configuration of this pass has beyond the shared parameters."""
        return {}

    def wrap(self, params: AdapterParamsT, context: RunContext, model: Any, base: Checkpoint) -> Any:
        """Put the adapter around the base, from the seed."""
        with _without_bitsandbytes() if not self.four_bit else contextlib.nullcontext():
            from peft import LoraConfig, LoraRuntimeConfig, get_peft_model
            from transformers import set_seed  # its module imports peft

            config = LoraConfig(
                r=params.r,
                lora_alpha=params.alpha,
                lora_dropout=params.lora_dropout,
                bias=params.bias,
                target_modules=targets_of(params, base),
                exclude_modules=params.exclude_modules,
                modules_to_save=params.modules_to_save,
                layers_to_transform=params.layers_to_transform,
                layers_pattern=params.layers_pattern if params.layers_to_transform is not None else None,
                rank_pattern=dict(params.rank_pattern),
                alpha_pattern=dict(params.alpha_pattern),
                init_lora_weights=params.init_weights,
                use_rslora=params.use_rslora,
                runtime_config=LoraRuntimeConfig(ephemeral_gpu_offload=params.ephemeral_gpu_offload),
                task_type="CAUSAL_LM",
                **self.adapter_options(params),
            )
            set_seed(params.training_args["seed"])
            try:
                return get_peft_model(model, config)
            except ValueError as error:
                raise ModelError(
                    f"the adapter does not fit the model: {error}",
                    where=Location(path="target_modules"),
                    remedy="name linear modules of the model in target_modules",
                ) from error


def _check_layers(params: AdapterParams, modules: Mapping[str, Any]) -> list[Problem]:
    found = []
    chosen = params.layers_to_transform
    if chosen is None:
        if params.layers_pattern is not None:
            found.append(
                Problem("layers_pattern has no effect without layers_to_transform", Location(path="layers_pattern"))
            )
        return found
    if isinstance(params.target_modules, str):
        found.append(
            Problem(
                "layers_to_transform goes with a list of target_modules only",
                Location(path="layers_to_transform"),
                remedy="put the numbers of the layers into the regular expression",
            )
        )
    from olivine.passes.finetune.target_modules import layer_count

    count = layer_count(modules)
    beyond = [number for number in ([chosen] if isinstance(chosen, int) else chosen) if not 0 <= number < count]
    if modules and beyond:
        found.append(
            Problem(
                f"the model has no layer {', '.join(map(str, beyond))}",
                Location(path="layers_to_transform"),
                remedy=f"its layers are numbered 0 to {count - 1}",
            )
        )
    return found


def targets_of(params: AdapterParams, base: Checkpoint) -> list[str] | str:
    """Return the modules to adapt: those given, or the default for what the checkpoint holds."""
    from olivine.passes.finetune.target_modules import default_targets

    return default_targets(base.modules) if params.target_modules is None else params.target_modules


def name_of(folder: Path) -> str:
    """Return what to call the checkpoint in ``folder`` without naming a place on this machine."""
    for part in folder.parts:
        if part.startswith("models--"):  # the hub's cache
            return part.removeprefix("models--").replace("--", "/")
    return folder.name


def load_tokenizer(base: Checkpoint) -> Any:
    """Load the checkpoint's tokenizer; code that comes with it never runs.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"the tokenizer in {base.path} cannot be loaded: {str(error).splitlines()[0]}",
            remedy="put the model's tokenizer files (tokenizer.json, tokenizer_config.json) beside its weights",
        ) from error


def load_model(folder: Path, params: AdapterParams, context: RunContext, **more: Any) -> Any:
    """Load a causal language model in the resolved number format, from safetensors only."""
    import torch
    from transformers import AutoModelForCausalLM

    # float16 trains in mixed precision: the weights stay in float32.
    dtype = torch.bfloat16 if params.torch_dtype == "bfloat16" else torch.float32
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map=_device_map(params, context.host),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=context.trust_remote_code,
            **more,
        )
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                "the model can only be loaded with its own code",
                remedy="if you trust its author, allow it: --trust-remote-code",
            ) from error
        raise ModelError(f"the model cannot be loaded: {str(error).splitlines()[0]}") from error
    model.config.use_cache = False
    return model


def _device_map(params: AdapterParams, host: Accelerator) -> Any:
    if host.device != "gpu":
        return None
    # Of several processes on a machine each has a GPU of its own; torchrun says which.
    return {"": int(os.environ.get("LOCAL_RANK", "0"))} if params.device_map == "current_device" else params.device_map


def read_data(params: AdapterParams, context: RunContext, tokenizer: Any) -> dict[str, Any]:
    """Return the sequences ``train`` and, if there is evaluation data, ``eval``, and ``metrics`` that count them.

    The evaluation rows are taken before anything is joined, so that no row lies on both sides.
    """
    from olivine.data.rows import read_rows
    from olivine.data.sequences import build_sequences
    from olivine.data.splitting import duplicates_between, split_rows

    config = context.data["train_data_config"]
    rows = read_rows(config)
    held_out: Any = None
    metrics: dict[str, float] = {}
    training = rows.rows
    held_out_config = config
    if params.eval_dataset_size is not None:
        size = params.eval_dataset_size
        seed = params.training_args.get("data_seed", params.training_args["seed"])
        training, held_out, report = split_rows(rows.rows, float(size) if size < 1 else int(size), seed)
        metrics["duplicate_rows"] = report.duplicate_rows
        metrics["duplicates_across_split"] = report.duplicates
        if report.duplicate_rows:
            context.note(
                f"{report.duplicate_rows} of {len(rows.rows)} rows repeat another; equal rows were kept on one side of "
                "the split, so that nothing is evaluated that was trained on"
            )
    elif "eval_data_config" in context.data:
        held_out_config = context.data["eval_data_config"]
        held_out = read_rows(held_out_config).rows
        shared = duplicates_between(training, held_out)
        metrics["duplicates_across_split"] = shared
        if shared:
            context.note(
                f"{shared} of {len(held_out)} evaluation rows are in the training data too: the evaluation loss is "
                "better than it would be on new data"
            )
    found: dict[str, Any] = {"train": build_sequences(training, config, tokenizer)}
    if held_out is not None:
        found["eval"] = build_sequences(held_out, held_out_config, tokenizer)
    for name, part in list(found.items()):
        metrics[f"{name}_rows"] = part.report.rows_in
        metrics[f"{name}_sequences"] = len(part)
        metrics[f"{name}_tokens"] = part.report.tokens
        for note in part.report.notes:
            context.note(note if name == "train" else f"evaluation data: {note}")
    return found | {"metrics": metrics}


def check_lengths(data: Mapping[str, Any], base: Checkpoint) -> None:
    """Refuse sequences that are longer than the model has positions for.

    Raises:
        DataError: there is one.
    """
    limit = base.config.get("max_position_embeddings")
    sequences: list[Sequences] = [data[name] for name in ("train", "eval") if name in data]
    longest = max(max(map(len, part.input_ids)) for part in sequences)
    if isinstance(limit, int) and longest > limit:
        raise DataError(
            f"a sequence has {longest} tokens, and the model has positions for {limit}",
            why="what lies beyond would be trained on positions that the model never saw",
            remedy=f"set max_seq_len to at most {limit} in the data config",
        )


def save_adapter(model: Any, output: Path, base_name: str, base: Checkpoint) -> None:
    """Write the adapter and the tokenizer, so that the same weights give the same bytes anywhere."""
    model.save_pretrained(output, save_embedding_layers=False)
    (output / "README.md").unlink(missing_ok=True)
    file = output / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_name
    for key, value in config.items():
        # peft keeps some lists as sets, whose order changes from run to run.
        if key in ("target_modules", "modules_to_save", "exclude_modules") and isinstance(value, list):
            config[key] = sorted(value)
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for source in base.tokenizer_files:
        shutil.copyfile(source, output / source.name)


def _import_libraries(*, four_bit: bool) -> None:
    """Import all that training needs, so that it is done at once."""
    import torch  # noqa: F401

    with _without_bitsandbytes() if not four_bit else contextlib.nullcontext():
        import peft  # noqa: F401
    with taken_for_missing("datasets"):  # see training.py
        from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer  # noqa: F401


def _quiet() -> None:
    """Keep the libraries' bars and banners off the terminal."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@contextlib.contextmanager
def _without_bitsandbytes() -> Iterator[None]:
    """Let peft believe that bitsandbytes is missing: importing it takes 1.7 s, and only 4-bit bases need it."""
    with taken_for_missing("bitsandbytes") as missing:
        yield
    if missing:
        from peft import import_utils

        import_utils.is_bnb_available.cache_clear()
        import_utils.is_bnb_4bit_available.cache_clear()
