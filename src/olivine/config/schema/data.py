"""``data_configs``: rows, and how they become token sequences."""

# Annotations are not postponed: pydantic would compile each once more, at every start.

from typing import Any, Literal

from pydantic import Field, model_validator

from olivine.config.schema.node import Node, gather

Strategy = Literal["join", "join-random", "join-sliding-window", "line-by-line", "line-by-line-random"]


class Component(Node):
    """A part of a data config by its type, and its parameters beside it."""

    type: str
    """The function: one of Olive's, or of ``user_script``."""
    params: dict[str, Any] = {}
    """Filled from the keys beside ``type``."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        return gather(value, {"type"})


class DataConfig(Node):
    """Rows from files or the hub, and how they become token sequences."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """What passes and metrics call it."""
    type: str = "HuggingfaceContainer"
    """``HuggingfaceContainer``: rows of a data set, as below. Other containers are understood, and not available."""
    user_script: str | None = None
    """Python file with functions that components name. It is recorded, and not run."""
    script_dir: str | None = None
    """Folder that ``user_script`` imports from. It is recorded, and not searched."""
    load_dataset: Component | None = None
    """Loads rows in some other way than the keys below; not available yet."""
    pre_process_data: Component | None = None
    """Prepares rows for some other task than text generation; not available yet."""
    post_process_data: Component | None = None
    """Turns the outputs of a model into answers, for metrics that are not available yet; kept."""
    dataloader: Component | None = None
    """Makes batches, for metrics and passes that are not available yet; kept."""
    data_name: str | None = None
    """Format of ``data_files`` (``json``, ``csv``, ``parquet``, ``text``), a saved data set's folder, or a hub id.
    Inferred from the suffix when only ``data_files`` is given."""
    data_files: str | list[str] | None = None
    """Path, glob, or list of them."""
    data_dir: str | None = None
    """Folder inside a hub data set."""
    subset: str | None = None
    """Configuration name of a hub data set."""
    split: str = "train"
    """Split, slices allowed: ``train``, ``train[:70%]``, ``train[100:]``."""
    revision: str | None = None
    """Commit of a hub data set."""
    col_filters: dict[str, Any] | None = None
    """Only rows whose columns have these values; not available yet."""
    max_rows: int | None = Field(default=None, ge=1)
    """Read at most this many rows."""
    on_bad_row: Literal["error", "skip"] = "error"
    """A row with a null, a wrong type, or broken JSON: stop and name it, or leave it out and count it."""

    dataset_type: Literal["corpus", "pair"] = "corpus"
    """``corpus``: each row is one text. ``pair``: each row is a prompt and its completion."""
    text_template: str | None = None
    """``str.format`` template over the columns: ``"Text: {phrase}\\nTone: {tone}"``. Double literal braces."""
    text_cols: str | list[str] | None = None
    """Columns joined by one space, when there is no template. Default ``text``."""
    chat_template: bool | str | None = None
    """``true``: apply the tokenizer's chat template to ``message_col``; a string is a Jinja template of your own."""
    message_col: str = "messages"
    """Column with the list of ``{role, content}`` messages."""
    prompt_template: str | None = None
    """The prompt part of a pair, as a template; with it ``text_template`` is not needed."""
    completion_template: str | None = None
    """The completion part of a pair, as a template."""
    prompt_col: str | None = None
    """The prompt part of a pair, as a column."""
    completion_col: str | None = None
    """The completion part of a pair, as a column."""
    train_on: Literal["all", "completion"] | None = None
    """Which tokens are in the loss. Default: ``all`` for a corpus, ``completion`` for pairs and chats that ask for it.
    ``completion`` on a corpus with ``text_template`` counts the last column of the template as the completion."""

    strategy: Strategy = "join"
    """How texts become sequences; see the table in docs/data.md."""
    max_seq_len: int = Field(default=1024, ge=1)
    """Longest sequence, in tokens. For pairs: prompt and completion together."""
    max_prompt_len: int | None = Field(default=None, ge=1)
    """For pairs: prompts are cut to this many tokens."""
    max_completion_len: int | None = Field(default=None, ge=1)
    """For pairs: completions are cut to this many tokens."""
    joiner: str | None = "\n\n"
    """Text between rows in the ``join`` strategies; ``null`` puts nothing there."""
    add_special_tokens: bool = True
    """Begin each text with the BOS token and end it with EOS, as token ids, if the tokenizer has them."""
    last_block: Literal["keep", "drop"] = "keep"
    """``join``: whether the last, shorter block is trained on. What is dropped is reported."""
    stride: int | None = Field(default=None, ge=1)
    """``join-sliding-window``: tokens between the starts of two windows."""
    pad_to_max_len: bool = False
    """``line-by-line``: pad every sequence to ``max_seq_len`` rather than to the longest of its batch."""
    drop_short_sequences: bool = False
    """``line-by-line``: leave out sequences shorter than ``max_seq_len``; reported."""
    max_samples: int | None = Field(default=None, ge=1)
    """At most this many sequences. Required by the random strategies."""
    random_seed: int | None = None
    """Required by the random strategies."""
    random_retries: int = Field(default=10, ge=0)
    """``line-by-line-random``: draws to try for a sequence long enough, with ``drop_short_sequences``."""
