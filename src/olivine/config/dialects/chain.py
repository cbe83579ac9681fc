"""The breaks of the format, in the order in which a document goes through them.

Each module translates one break in place, and has ``translate(document)``. A file goes through every break that is
newer than its dialect; one that came with the canonical form is for all.
"""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from typing import Any

from olivine.config.dialects.document import Break, Document, Section, origins, unwrap, wrap
from olivine.config.dialects.releases import CANONICAL, age
from olivine.config.dialects.translation import Translated
from olivine.config.notes import Note

MOST_ALIKE = 50
"""Notes that say the same of keys of one object; who has more has made them by a program."""

CHAIN: tuple[tuple[str, str], ...] = (
    (CANONICAL, "nested_objects"),
    (CANONICAL, "named_evaluators"),
    ("0.3", "singular_data_config"),
    ("0.3", "model_storage"),
    ("0.3", "evaluation_only"),
    ("0.5", "model_loading_args"),
    ("0.5.1", "accelerator_objects"),
    ("0.6", "data_config_list"),
    (CANONICAL, "data_in_place"),
    ("0.6.2", "data_components"),
    ("0.7", "data_root"),
    ("0.7", "text_generation"),
    ("0.7", "hf_model"),
    ("0.8", "adapter_parameters"),
    ("0.8", "search_algorithm"),
    (CANONICAL, "resource_paths"),
    (CANONICAL, "model_keys"),
    (CANONICAL, "data_keys"),
    (CANONICAL, "system_keys"),
    (CANONICAL, "cloud_sections"),
    (CANONICAL, "renamed_passes"),
    (CANONICAL, "adapter_defaults"),
    (CANONICAL, "metrics"),
    (CANONICAL, "search_strategy"),
    (CANONICAL, "checkpoint_quantisers"),
    (CANONICAL, "pass_keys"),
    ("0.8", "pass_flows"),
    (CANONICAL, "engine_keys"),
    (CANONICAL, "packaging"),
)
"""The dialect that came with a break, and the module that translates it."""


def translate(raw: dict[str, Any], dialect: str) -> Translated:
    """Return a configuration of a dialect in the canonical form, with notes, faults, and where everything came from."""
    if dialect == CANONICAL:
        return Translated({key: value for key, value in raw.items() if key != "$schema"})
    root = wrap(raw)
    assert isinstance(root, Section)
    document = Document(root, dialect)
    for release, module in CHAIN:
        if age(dialect) < age(release):
            found: Break = import_module(f"olivine.config.dialects.{module}").translate
            found(document)
    return Translated(
        {**unwrap(document.root), "version": 1}, origins(document.root), _bounded(document.notes), document.faults
    )


def _bounded(notes: list[Note]) -> list[Note]:
    """Return the notes; of very many that say the same of keys of one object, the first and how many more there are."""
    alike = Counter((note.path.rpartition(".")[0], note.text) for note in notes)
    if not any(count > MOST_ALIKE for count in alike.values()):
        return notes
    kept: list[Note] = []
    seen: Counter[tuple[str, str]] = Counter()
    for note in notes:
        about = (note.path.rpartition(".")[0], note.text)
        seen[about] += 1
        if seen[about] <= MOST_ALIKE:
            kept.append(note)
        elif seen[about] == alike[about]:
            kept.append(Note(about[0] or note.path, f"{alike[about] - MOST_ALIKE} more keys: {note.text}"))
    return kept
