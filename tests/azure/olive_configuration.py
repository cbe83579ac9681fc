"""The configuration of a user of Olive 0.6 that trains in the cloud, with names of the stand-in, and shorter texts.

It asks for a GPU and CUDA, as it does in the cloud. The stand-in's machines have none: its jobs say so, and train on
the processor.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import yaml
from standin.cloud import Cloud

MODEL = "microsoft/Phi-3-mini-4k-instruct"
REGISTERED = "Phi-3-mini-4k-instruct"
"""Assets have no slash in their names, though configurations were written with one."""
ROWS = [
    {"Question": f"what does the {animal} do on the {place}?", "Best Answer": answer}
    for animal in ("cat", "dog", "bird", "fish", "horse")
    for place, answer in (("mat", "it sits"), ("hat", "it sleeps"), ("sport", "it wins"), ("tone", "it sings"))
]


def rows() -> bytes:
    """The training rows."""
    return json.dumps(ROWS).encode()


def mlflow_folder(checkpoint: Path, folder: Path, layout: Literal["hftransformersv2", "transformers"]) -> Path:
    """Write ``checkpoint`` as an MLflow model, as registries hold them (the first) or as mlflow saves it."""
    folder.mkdir(parents=True)
    if layout == "hftransformersv2":
        model, tokenizer, config = (folder / "data" / each for each in ("model", "tokenizer", "config"))
        flavor: dict[str, Any] = {
            "model_data": "data", "huggingface_id": MODEL, "task_type": "text-generation",
            "hf_pretrained_class": "AutoModelForCausalLM", "hf_tokenizer_class": "AutoTokenizer",
            "hf_config_class": "AutoConfig", "code": None,
        }  # fmt: skip
    else:
        model, tokenizer, config = folder / "model", folder / "components" / "tokenizer", folder / "model"
        flavor = {"model_binary": "model", "components": ["tokenizer"], "task": "text-generation",
                  "source_model_name": MODEL, "code": None}  # fmt: skip
    for file in checkpoint.iterdir():
        place = tokenizer if file.name.startswith(("tokenizer", "chat_template", "special_tokens")) else model
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place / file.name)
        if file.name == "config.json" and config != model:
            config.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, config / file.name)
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {layout: flavor}, "mlflow_version": "2.9.2"}))
    (folder / "conda.yaml").write_text("dependencies: [python=3.10]\n")
    return folder


def configuration(
    cloud: Cloud,
    *,
    host: Literal["aml", "azure_arc"] = "aml",
    data_workspace: str = "one",
    datastore: str = "training",
    provider: str = "CUDAExecutionProvider",
) -> dict[str, Any]:
    """Return the configuration; the training data is ``train_data.json`` of that datastore of that workspace."""
    docker = {"base_image": "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04", "conda_file_path": "conda.yaml"}
    return {
        "azureml_client": cloud.client("one", keyvault_name="olivine-vault"),
        "data_configs": [
            {
                "name": "dataset_default_train",
                "type": "HuggingfaceContainer",
                "load_dataset_config": {
                    "params": {
                        "data_name": "json",
                        "data_files": {
                            "type": "azureml_datastore",
                            "config": {
                                "azureml_client": cloud.client(data_workspace),
                                "datastore_name": datastore,
                                "relative_path": "train_data.json",
                            },
                        },
                        "split": "train",
                    }
                },
                "pre_process_data_config": {
                    "params": {
                        "dataset_type": "corpus",
                        "text_cols": ["Question", "Best Answer"],
                        "text_template": "<|user|>\n{Question}<|end|>\n<|assistant|>\n{Best Answer}\n<|end|>",
                        "corpus_strategy": "join",
                        "source_max_len": 64,
                        "pad_to_max_len": False,
                        "use_attention_mask": False,
                    }
                },
            }
        ],
        "systems": {
            "aml": {
                "type": "AzureML",
                "config": {
                    "accelerators": ["gpu"],
                    "hf_token": True,
                    "aml_compute": "cpu-cluster",
                    "aml_docker_config": docker,
                },
            },
            "azure_arc": {
                "type": "AzureML",
                "config": {"accelerators": ["gpu"], "aml_compute": "arc", "aml_docker_config": docker},
            },
        },
        "input_model": {
            "type": "PyTorchModel",
            "config": {
                "model_path": {
                    "type": "azureml_registry_model",
                    "config": {"name": MODEL, "registry_name": "olivine-models", "version": "11"},
                },
                "model_file_format": "PyTorch.MLflow",
                "hf_config": {
                    "model_name": MODEL,
                    "task": "text-generation",
                    "from_pretrained_args": {"trust_remote_code": True},
                },
            },
        },
        "passes": {
            "lora": {
                "type": "LoRA",
                "config": {
                    "target_modules": ["o_proj", "qkv_proj"],
                    "lora_r": 4,
                    "lora_alpha": 4,
                    "lora_dropout": 0.1,
                    "train_data_config": "dataset_default_train",
                    "eval_dataset_size": 0.3,
                    "training_args": {
                        "seed": 0,
                        "per_device_train_batch_size": 1,
                        "per_device_eval_batch_size": 1,
                        "gradient_checkpointing": False,
                        "learning_rate": 0.0001,
                        "max_steps": 2,
                        "logging_steps": 1,
                    },
                },
            },
            "merge_adapter_weights": {"type": "MergeAdapterWeights"},
            "builder": {"type": "ModelBuilder", "config": {"precision": "int4"}},
        },
        "engine": {
            "log_severity_level": 0,
            "host": host,
            "target": host,
            "search_strategy": False,
            "execution_providers": [provider],
            "cache_dir": "cache",
            "output_dir": "models",
        },
    }


CONDA = {
    "name": "olivine",
    "channels": ["conda-forge"],
    "dependencies": ["python=3.11", "pip", {"pip": ["torch", "transformers", "peft", "accelerate", "datasets"]}],
}
