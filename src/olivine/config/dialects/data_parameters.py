"""The parameters that Olive's own data components have, and what kind of data a config is about."""

from __future__ import annotations

from typing import Any

from olivine.config.dialects.document import Section

HUGGINGFACE = frozenset({"data_name", "subset", "split", "data_files", "data_dir", "revision", "col_filters"})
"""What ``huggingface_dataset`` takes and a data config of Olivine has too."""

LOADING_WITHOUT_EFFECT = {
    "trust_remote_code": "data is read without running code",
    "token": "the hub's token comes from the environment",
    "use_auth_token": "the hub's token comes from the environment",
    "streaming": "rows are read as they are needed",
    "batch_size": "training_args and the metrics say it",
    "num_proc": "rows are read in one process",
    "cache_dir": "the hub's cache is where HF_HOME says",
    "download_mode": "files of the hub are downloaded once",
    "verification_mode": "the hub's checksums are always checked",
    "ignore_verifications": "the hub's checksums are always checked",
    "keep_in_memory": "rows are read as they are needed",
    "save_infos": "nothing is written beside the data",
    "task": "the model's task says it",
    "model_name": "the model says it",
}
"""What ``huggingface_dataset`` and ``datasets.load_dataset`` take and Olivine has no use for."""

LOAD = HUGGINGFACE | {
    "label_cols", "label_col", "input_names", "input_shapes", "input_types", "input_dirs", "input_suffix",
    "input_order_file", "annotations_file", "max_samples", "data_path", "seq_len", "past_seq_len", "max_seq_len",
    "ort_past_key_name", "ort_past_value_name", "trust_remote_code", "use_fp16", "use_step", "model_framework",
    "shared_kv", "generative", "batch_size", "seqlen", "max_seq_length",
}  # fmt: skip
"""What the other containers' ``load_dataset`` takes: raw files, dummies, lists."""

DATALOADER = frozenset(
    [
        "batch_size",
        "shuffle",
        "drop_last",
        "num_workers",
        "collate_fn",
        "pin_memory",
        "sampler",
        "batch_sampler",
        "timeout",
        "prefetch_factor",
        "persistent_workers",
        "use_distributed_sampler",
    ]
)
"""What ``default_dataloader`` takes."""

TEXT = frozenset(
    [
        "text_template",
        "text_cols",
        "text_formatting_func",
        "chat_template",
        "message_col",
        "max_seq_len",
        "source_max_len",
        "target_max_len",
        "seqlen",
        "strategy",
        "corpus_strategy",
        "dataset_type",
        "joiner",
        "stride",
        "pad_to_max_len",
        "drop_short_sequences",
        "random_retries",
        "pair_format",
        "ignore_source_in_labels",
        "use_attention_mask",
        "processing_batch_size",
    ]
)
"""What only the preparation of text for generation takes."""

TEXT_SOURCES = frozenset({"text_template", "text_cols", "text_formatting_func"})
"""Where the text of a row comes from."""

TEXT_KWARGS = TEXT_SOURCES | {
    "corpus_strategy", "joiner", "stride", "pad_to_max_len", "drop_short_sequences", "add_special_tokens",
    "use_attention_mask", "random_seed", "random_retries", "processing_batch_size",
}  # fmt: skip
"""What the function that prepares text takes by its kwargs."""

LABELLED = frozenset(
    [
        "input_cols",
        "label_col",
        "label_cols",
        "align_labels",
        "is_split_into_words",
        "padding",
        "truncation",
        "max_length",
        "model_config_path",
        "labels_to_filter",
        "audio_col",
        "text_col",
        "image_col",
        "question_col",
        "answer_col",
        "options_col",
        "input_col",
    ]
)
"""What only the preparation of rows with labels takes."""

_QUESTIONS = {"pre_process": "vision_vqa_pre_process", "dataloader": "vision_vqa_dataloader"}
BY_TASK: dict[str, dict[str, str]] = {
    "text-classification": {"post_process": "text_classification_post_process"},
    "ner": {"pre_process": "ner_huggingface_preprocess", "post_process": "ner_post_process"},
    "text-generation": {"post_process": "text_generation_post_process"},
    "audio-classification": {
        "pre_process": "audio_classification_pre_process", "post_process": "text_classification_post_process",
    },
    "feature-extraction": {"pre_process": "tokenizer_pre_process"},
    "speech-transcription": {"pre_process": "speech_transcription_pre_process"},
    "vision-vqa": _QUESTIONS,
    "vision-chart-qa": _QUESTIONS,
    "vision-ocr": _QUESTIONS,
}  # fmt: skip
"""The components that a HuggingfaceContainer took for a task, where they were not those of every task."""

OWN_LOADING = {
    "dummydatacontainer": "dummy_dataset",
    "rawdatacontainer": "raw_dataset",
    "transformersdummydatacontainer": "transformers_dummy_dataset",
    "transformerspromptdummydatacontainer": "transformers_prompt_dummy_dataset",
    "transformerstokendummydatacontainer": "transformers_token_dummy_dataset",
    "imagedatacontainer": "image_folder_dataset",
}
"""What loads the data of a container that names no component for it."""

OWN_DATALOADER = {
    "dummydatacontainer": "no_auto_batch_dataloader",
    "rawdatacontainer": "no_auto_batch_dataloader",
    "transformersdummydatacontainer": "no_auto_batch_dataloader",
    "transformerspromptdummydatacontainer": "no_auto_batch_dataloader",
    "transformerstokendummydatacontainer": "dataloader_with_ignored_batch_fields",
}
"""What makes batches of it."""

TEXT_COMPONENTS = frozenset({"text_generation_huggingface_pre_process", "text_generation_pre_process"})


def container(config: Section) -> str:
    """Return the type of a data config in lower case; ``datacontainer`` if it names none."""
    return str(config.get("type") or "DataContainer").lower()


def holds_rows(config: Section) -> bool:
    """Return whether a data config reads a data set, rather than raw files or made-up tensors."""
    return container(config) in ("huggingfacecontainer", "datacontainer")


def loads_from_hub(config: Section) -> bool:
    """Return whether rows are loaded by ``huggingface_dataset``."""
    if not holds_rows(config):
        return False
    kind = config.section("load_dataset_config").get("type")
    if kind is not None:
        return str(kind).lower() == "huggingface_dataset"
    return container(config) == "huggingfacecontainer" or any(
        config.section("load_dataset_config").get(key) is not None for key in ("data_name", "data_files")
    )


def prepares_text(config: Section, model_task: Any) -> bool:
    """Return whether rows become token sequences for text generation."""
    if not holds_rows(config):
        return False
    process = config.section("pre_process_data_config")
    kind = process.get("type")
    if kind is not None:
        return str(kind).lower() in TEXT_COMPONENTS
    if any(key in LABELLED for key in process) and "seqlen" not in process:
        return False
    if any(key in TEXT for key in process):
        return True
    task = process.get("task") or model_task
    if isinstance(task, str) and task:
        return container(config) == "huggingfacecontainer" and task.lower().startswith("text-generation")
    return container(config) == "huggingfacecontainer" and not process
