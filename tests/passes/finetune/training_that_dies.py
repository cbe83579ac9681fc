"""A process that trains and is killed (signal 9), as tests of resuming need it: ``MODEL ROWS FOLDER STEP when``.

``when`` is ``training``: in the middle of that step; or ``saving``: after the files of that step's checkpoint were
written and before its mark. Every second step is saved.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from small_training import rows_config, train_small

from olivine.passes.finetune import training, training_checkpoints

TRAINING = {
    "max_steps": 40,
    "gradient_accumulation_steps": 2,
    "per_device_train_batch_size": 2,
    "group_by_length": True,
    "lr_scheduler_type": "cosine",
}


def main() -> None:
    """Train until killed."""
    import torch

    torch.set_num_threads(1)
    model, rows, folder, step, when = *map(Path, sys.argv[1:4]), int(sys.argv[4]), sys.argv[5]
    training.SAVING_SHARE = 1e9

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def progress(done: float, total: float | None, message: str = "", **_: Any) -> None:
        if when == "training" and message == "training" and done >= step:
            die()

    complete = training_checkpoints.mark_complete

    def mark_complete(saved: training_checkpoints.Saved) -> None:
        if when == "saving" and saved.step >= step:
            die()
        complete(saved)

    training_checkpoints.mark_complete = mark_complete
    train_small("LoRA", model, rows_config(rows), folder, training_args=TRAINING, progress=progress, lora_dropout=0.1)


if __name__ == "__main__":
    main()
