"""What training on a plain adapter has no use for is not imported; what has been is left as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from olivine.config.schema import DataConfig
from olivine.passes.finetune.needless_imports import taken_for_missing

TRAIN = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from small_training import rows_config, train_small
train_small("LoRA", Path({model!r}), rows_config(Path({rows!r})), Path({folder!r}))
print([name for name in ("datasets", "pandas", "bitsandbytes", "sklearn", "tensorboard") if name in sys.modules])
import datasets, bitsandbytes
"""


def test_training_imports_neither_datasets_nor_bitsandbytes(pico_model: Path, rows: DataConfig, tmp_path: Path) -> None:
    script = TRAIN.format(
        tests=str(Path(__file__).parent), model=str(pico_model), rows=str(rows.data_files), folder=str(tmp_path)
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_was_imported_stays() -> None:
    with taken_for_missing("json") as missing:
        import json

        assert not missing
        assert json.loads("1") == 1
