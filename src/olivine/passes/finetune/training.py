"""Training an adapter: transformers' Trainer, with loss over chunks, progress, and checkpoints that survive a kill.

Seen with transformers 5.23, accelerate 1.x and torch 2.13; everything that leans on the Trainer's insides is in
:func:`_trainer_class`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.errors import ConfigError, Location, OlivineError, StepError
from olivine.passes.base import Progress
from olivine.passes.finetune import training_checkpoints
from olivine.passes.finetune.needless_imports import taken_for_missing
from olivine.passes.finetune.next_token_loss import IGNORED, chunked_cross_entropy
from olivine.passes.finetune.training_arguments import known_fields

if TYPE_CHECKING:
    from olivine.data.sequences import Sequences

TRAINABLE = "trainable.safetensors"
"""The weights in a checkpoint: those that are trained, under the names they have in the wrapped model."""

SAVING_SHARE = 0.02
"""Largest share of the time that saving to resume may take: a save waits until it has been 'earned'."""

SAVES_PER_RUN = 20
"""How often to save at least, if that share allows it."""

PROBE_TOKENS = 32


@dataclass(frozen=True)
class Trained:
    """What training gave beside the weights, which stay in the model.

    Attributes:
        metrics: ``train_loss`` (of the last steps), ``eval_loss``, ``tokens``, ``seconds``, ``steps`` ...
        history: one row for each log line and evaluation.
    """

    metrics: dict[str, float]
    history: list[dict[str, float]]


def train(
    model: Any,
    training: Sequences,
    evaluation: Sequences | None,
    arguments: Mapping[str, Any],
    *,
    folder: Path,
    on_gpu: bool,
    mixed_precision: bool,
    pad_id: int,
    progress: Progress,
) -> Trained:
    """Train the trainable weights of ``model`` in place; resumes from ``folder`` if a killed run left a checkpoint.

    Args:
        model: a PEFT model around a causal language model.
        training: what to train on.
        evaluation: what to evaluate on, at the end and as ``arguments`` say.
        arguments: resolved ``training_args``.
        folder: where checkpoints go.
        on_gpu: whether the model lies on a GPU.
        mixed_precision: whether float16 mixed precision is used.
        pad_id: token to pad with; never attended, never in the loss.
        progress: told every step.

    Raises:
        ConfigError: the arguments contradict each other.
        StepError: the loss is not finite.
    """
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    saved = training_checkpoints.newest(folder)
    given = _as_installed(arguments)
    limit = int(given.pop("save_steps", 0)) if given.get("save_steps", 0) >= 1 else 0
    given.pop("save_steps", None)
    best = bool(given.get("load_best_model_at_end"))
    if evaluation is None:
        given["eval_strategy"] = "no"
    if mixed_precision:
        given["fp16"] = True
    try:
        filled = transformers.TrainingArguments(
            **given,
            output_dir=str(folder),
            save_strategy="best" if best else "no",
            disable_tqdm=True,
            use_cpu=not on_gpu,
            remove_unused_columns=False,
            logging_nan_inf_filter=False,
            label_names=["labels"],
            prediction_loss_only=True,
            **({} if on_gpu else {"dataloader_pin_memory": False}),
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"transformers refuses the training arguments: {error}", where=Location(path="training_args")
        ) from error
    if best and filled.world_size > 1:
        raise ConfigError(
            "load_best_model_at_end does not go with several processes",
            where=Location(path="training_args"),
            why="the best weights are saved on the first machine, and the others cannot read them",
            remedy="remove it, or train on one machine with one process",
        )
    trainer_type, watch_type = _trainer_class()
    trainer = trainer_type(
        model=model,
        args=filled,
        train_dataset=_Examples(training),
        eval_dataset=_Examples(evaluation) if evaluation is not None else None,
        data_collator=Padding(pad_id, 8 if on_gpu else 1),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.report = progress
    watch = watch_type(trainer, folder, limit, saved)
    trainer.add_callback(watch)
    # These change the forward pass from outside, which a call to the decoder alone would go around.
    wrapped = filled.fp16 or filled.bf16 or filled.use_liger_kernel or filled.torch_compile
    # So would it go around what adds up the gradients of several processes.
    wrapped = wrapped or filled.world_size > 1
    trainer.chunked = not wrapped and agrees_with_chunked(model, training.input_ids[0][:PROBE_TOKENS])
    if saved is not None and saved.step >= watch.total_steps():
        # Killed after the last step, with that step saved as the best: nothing is left to train.
        trainer.restore(saved.path)
    else:
        trainer.train(resume_from_checkpoint=str(saved.path) if saved is not None else None)
    history = [row for row in map(_row, trainer.state.log_history) if "loss" in row or "eval_loss" in row]
    metrics = {
        "steps": float(trainer.state.global_step),
        "tokens": trainer.over_all(float(trainer.tokens)),
        "seconds": watch.seconds(),
    }
    losses = [row["loss"] for row in history if "loss" in row]
    if losses:
        metrics["train_loss"] = losses[-1]
    if evaluation is not None:
        step = float(trainer.state.global_step)
        at_the_end = [row["eval_loss"] for row in history if "eval_loss" in row and row["step"] == step]
        # load_best_model_at_end may have put other weights in the place of those that the last evaluation measured.
        if best or not at_the_end:
            at_the_end.append(trainer.evaluate()["eval_loss"])
            history.append({"step": step, "eval_loss": at_the_end[-1]})
        metrics["eval_loss"] = at_the_end[-1]
        metrics["eval_perplexity"] = math.exp(min(at_the_end[-1], 700.0))
    return Trained(metrics, history)


def _as_installed(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with checkpointing of activations under the name that the installed library prefers."""
    found = dict(arguments)
    fields = known_fields()
    for old in ("gradient_checkpointing", "gradient_checkpointing_kwargs"):
        new = old.replace("gradient", "activation")
        if new in fields and old in found:
            found.setdefault(new, found.pop(old))
    name = "activation_checkpointing" if "activation_checkpointing" in fields else "gradient_checkpointing"
    if found.get(name):
        # The other kind needs inputs that require gradients, and frozen embeddings have none.
        found[f"{name}_kwargs"] = {"use_reentrant": False} | dict(found.get(f"{name}_kwargs") or {})
    return found


def _row(entry: Mapping[str, Any]) -> dict[str, float]:
    wanted = ("step", "epoch", "loss", "grad_norm", "learning_rate", "eval_loss")
    return {key: float(entry[key]) for key in wanted if key in entry}


class _Examples:
    """Sequences as the Trainer's data loader wants them."""

    def __init__(self, sequences: Sequences) -> None:
        self._sequences = sequences

    def __len__(self) -> int:
        return len(self._sequences.input_ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        found = self._sequences
        return {"input_ids": found.input_ids[index], "labels": found.labels[index], "length": found.lengths[index]}


class Padding:
    """Makes a batch of examples: padded on the right to the longest, with a mask only if something is masked.

    Without a mask the attention kernel takes its faster, purely causal way.
    """

    def __init__(self, pad_id: int, multiple: int = 1) -> None:
        self.pad_id = pad_id
        self.multiple = multiple

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return ``input_ids``, ``labels`` and, if need be, ``attention_mask``, shape (batch, longest)."""
        import torch

        lengths = [each["length"] for each in examples]
        longest = max(len(each["input_ids"]) for each in examples)
        if len(set(lengths)) > 1 or longest > min(lengths):
            longest = -(-longest // self.multiple) * self.multiple
        ids = torch.full((len(examples), longest), self.pad_id)
        labels = torch.full((len(examples), longest), IGNORED)
        for row, each in enumerate(examples):
            ids[row, : len(each["input_ids"])] = torch.tensor(each["input_ids"])
            labels[row, : len(each["labels"])] = torch.tensor(each["labels"])
        batch = {"input_ids": ids, "labels": labels}
        if min(lengths) < longest:
            batch["attention_mask"] = (torch.arange(longest)[None] < torch.tensor(lengths)[:, None]).long()
        return batch


def parts_for_chunks(model: Any) -> tuple[Any, Any] | None:
    """Return the decoder and the output head of a PEFT model, if the head is a plain frozen linear layer."""
    import torch

    inner = model.get_base_model()
    head = inner.get_output_embeddings()
    decoder = getattr(inner, "base_model", inner)
    if type(head) is not torch.nn.Linear or decoder is inner:
        return None
    if any(parameter.requires_grad for parameter in head.parameters()):
        return None
    return decoder, head


def agrees_with_chunked(model: Any, ids: Sequence[int]) -> bool:
    """Return whether the loss over chunks equals the model's own on a few tokens.

    Some architectures scale or cap their logits, or add losses of their own. Asking the model is surer than a list.
    """
    import torch

    if parts_for_chunks(model) is None or len(ids) < 2:
        return False
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            batch = torch.tensor([list(ids)], device=model.device)
            own = model(input_ids=batch, labels=batch).loss
            ours = chunked_loss(model, {"input_ids": batch, "labels": batch}, None)
    finally:
        model.train(was_training)
    tolerance = 1e-5 if own.dtype == torch.float32 and model.dtype == torch.float32 else 2e-3
    return bool(torch.isclose(own.float(), ours.float(), rtol=tolerance, atol=tolerance))


def chunked_loss(model: Any, batch: Mapping[str, Any], divisor: Any) -> Any:
    """Return the next-token loss of ``batch``, computed at labelled positions only.

    Args:
        divisor: number of labelled tokens to divide by; ``None``: those of this batch.
    """
    parts = parts_for_chunks(model)
    assert parts is not None
    decoder, head = parts
    rest = {key: value for key, value in batch.items() if key != "labels"}
    hidden = decoder(**rest, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
    targets = batch["labels"][:, 1:].flatten()
    counted = targets != IGNORED
    targets = targets.to(hidden.device)
    if not counted.all():
        chosen = counted.nonzero().squeeze(1).to(hidden.device)
        hidden, targets = hidden.index_select(0, chosen), targets.index_select(0, chosen)
    if divisor is None:
        divisor = max(1, targets.numel())
    return chunked_cross_entropy(hidden.to(head.weight.dtype), head.weight, head.bias, targets, divisor)


def _trainer_class() -> tuple[Any, Any]:
    """Define the Trainer and its callback; transformers is imported here only."""
    import torch
    from safetensors.torch import load_file, save_file

    # The Trainer imports datasets, and with it pandas, for a second, to know its classes; ours are none of them. It
    # asks but once whether there is one, and keeps to the answer.
    with taken_for_missing("datasets"):
        from transformers import Trainer, TrainerCallback, TrainerState

    class EpochOrder(torch.utils.data.Sampler):  # type: ignore[misc]
        """An order that depends on the seed and the epoch alone, so that a resumed run sees the same one."""

        def __init__(self, lengths: Sequence[int], seed: int, group: int) -> None:
            self.lengths, self.seed, self.group, self.epoch = lengths, seed, group, 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __len__(self) -> int:
            return len(self.lengths)

        def __iter__(self) -> Any:
            chance = torch.Generator().manual_seed(self.seed + self.epoch)
            order = torch.randperm(len(self.lengths), generator=chance).tolist()
            if self.group:
                # Sorted within large random lots: batches of like length, in an order that is still random enough.
                lot = self.group * 50
                order = [
                    index
                    for start in range(0, len(order), lot)
                    for index in sorted(order[start : start + lot], key=lambda i: -self.lengths[i])
                ]
            return iter(order)

    class AdapterTrainer(Trainer):  # type: ignore[misc]
        """The Trainer with our loss, order, evaluation and checkpoints."""

        chunked = False
        report: Progress
        step_loss: Any = None
        control: Any
        tokens = 0

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if not self.chunked or (self.label_smoother is not None and model.training):
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            loss = chunked_loss(self.accelerator.unwrap_model(model), inputs, num_items_in_batch)
            return (loss, {}) if return_outputs else loss

        def training_step(self, model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
            loss = super().training_step(model, inputs, *given, **named)
            mask = inputs.get("attention_mask")
            self.tokens += int(inputs["input_ids"].numel() if mask is None else mask.sum())
            self.step_loss = loss if self.step_loss is None else self.step_loss + loss
            return loss

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            strategy = self.args.train_sampling_strategy
            if strategy not in ("random", "group_by_length"):
                return super()._get_train_sampler(train_dataset)
            examples = self.train_dataset if train_dataset is None else train_dataset
            lengths = [examples[index]["length"] for index in range(len(examples))]
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            group = self.args.train_batch_size * self.args.gradient_accumulation_steps
            return EpochOrder(lengths, seed, group if strategy == "group_by_length" else 0)

        def evaluate(
            self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
        ) -> dict[str, float]:
            """Return the mean loss over all labelled tokens (the Trainer's own is a mean of means over batches)."""
            model = self.model_wrapped
            was_training = model.training
            model.eval()
            total, count = 0.0, 0
            batches = self.get_eval_dataloader(eval_dataset)
            for done, batch in enumerate(batches):
                batch = self._prepare_inputs(batch)
                labelled = (batch["labels"][:, 1:] != IGNORED).sum()
                if labelled == 0:
                    continue
                with torch.no_grad(), self.compute_loss_context_manager():
                    kwargs = {"num_items_in_batch": labelled} if self.model_accepts_loss_kwargs else {}
                    total += float(self.compute_loss(model, batch, **kwargs)) * int(labelled)
                count += int(labelled)
                self.report(done + 1, len(batches), unit="batch", message="evaluating")
            model.train(was_training)
            total, count = self.over_all(total), int(self.over_all(float(count)))
            metrics = {f"{metric_key_prefix}_loss": total / max(count, 1)}
            self.log(metrics)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            return metrics

        def over_all(self, value: float) -> float:
            """Return the sum of a number over all processes that train together."""
            if self.args.world_size == 1:
                return value
            tensor = torch.tensor(value, dtype=torch.float64, device=self.args.device)
            return float(self.accelerator.reduce(tensor, reduction="sum"))

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            save_file(_trainable(self.model), folder / TRAINABLE)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            weights = load_file(Path(resume_from_checkpoint) / TRAINABLE)
            own = _trainable(self.model if model is None else model)
            with torch.no_grad():
                for name, parameter in own.items():
                    parameter.copy_(weights[name])

        def _load_best_model(self) -> None:
            self._load_from_checkpoint(self.state.best_model_checkpoint)

        def restore(self, folder: Path) -> None:
            """Take weights and history from a checkpoint without training on."""
            self.state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
            self._load_from_checkpoint(self.state.best_model_checkpoint or str(folder))

    def _trainable(model: Any) -> dict[str, Any]:
        return {name: each.detach() for name, each in model.named_parameters() if each.requires_grad}

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Reports steps, stops when the loss is no number, and decides when to save."""

        def __init__(self, trainer: Any, folder: Path, save_limit: int, saved: Any) -> None:
            self.trainer, self.folder, self.save_limit = trainer, folder, save_limit
            trainer.tokens = saved.tokens if saved is not None else 0
            self.before = saved.seconds if saved is not None else 0.0
            self.started = time.monotonic()
            self.last_save, self.save_cost = self.started, 0.0
            self.save_began = 0.0
            self.part = 0

        def total_steps(self) -> int:
            """Return the number of optimiser steps of the whole run."""
            loader = self.trainer.get_train_dataloader()
            return int(self.trainer.set_initial_training_values(self.trainer.args, loader)[-1])

        def seconds(self) -> float:
            return self.before + time.monotonic() - self.started

        def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.part += 1
            done = state.global_step + self.part / args.gradient_accumulation_steps
            self.trainer.report(min(done, state.max_steps), state.max_steps, unit="step", message="training")

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.part = 0
            loss, self.trainer.step_loss = float(self.trainer.step_loss), None
            if not math.isfinite(loss):
                raise _not_finite(state.global_step, loss)
            self.trainer.report(state.global_step, state.max_steps, unit="step", message="training", loss=loss)
            if state.global_step >= state.max_steps:
                control.should_log = True  # so that the history ends where the training does
                return
            every = max(1, state.max_steps // SAVES_PER_RUN)
            if self.save_limit:
                every = min(every, self.save_limit)
            if args.world_size > 1:
                return  # their clocks and folders differ: they could not agree on when and where
            earned = time.monotonic() - self.last_save >= self.save_cost / SAVING_SHARE
            if state.global_step % every == 0 and earned:
                control.should_save = True
                self.save_began = time.monotonic()

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            path = self.folder / f"checkpoint-{state.global_step}"
            training_checkpoints.mark_complete(
                training_checkpoints.Saved(path, state.global_step, self.trainer.tokens, self.seconds())
            )
            keep = {path}
            if state.best_model_checkpoint:
                keep.add(Path(state.best_model_checkpoint))
            training_checkpoints.remove_others(self.folder, keep)
            self.last_save = time.monotonic()
            self.save_cost = self.last_save - (self.save_began or self.last_save)

    return AdapterTrainer, Watch


def _not_finite(step: int, loss: float) -> OlivineError:
    return StepError(
        f"the loss is {loss} at step {step}",
        why="training diverged: the learning rate is too high for this model, or its number format too coarse",
        remedy="lower training_args.learning_rate (by ten), lower max_grad_norm, or set torch_dtype: float32",
    )
