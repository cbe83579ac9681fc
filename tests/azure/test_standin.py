"""The stand-in against the unmodified SDK: it answers, executes, refuses and goes wrong as the service does."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import pytest
from standin.cloud import VAULT, Cloud
from standin.identity_service import CLIENT_ID, CLIENT_SECRET, MSI_SECRET
from standin.shapes import differences
from standin.tokens import TENANT

pytest.importorskip("azure.ai.ml", reason="needs the extra: pip install 'olivine[azure]'")


def credential(cloud: Cloud, **keys: Any) -> Any:
    from azure.identity import ClientSecretCredential

    return ClientSecretCredential(
        keys.pop("tenant_id", TENANT), CLIENT_ID, keys.pop("secret", CLIENT_SECRET), authority=cloud.identity.base,
        disable_instance_discovery=True, **keys,
    )  # fmt: skip


@pytest.fixture
def client(signed_in: Cloud, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An ``MLClient`` of workspace one."""
    from azure.ai.ml import MLClient

    monkeypatch.setenv("AZUREML_CURRENT_CLOUD", "")  # MLClient writes it; monkeypatch takes it away again
    keys = signed_in.client()
    keys["resource_group_name"] = keys.pop("resource_group")
    return MLClient(credential(signed_in), enable_telemetry=False, show_progress=False, **keys)


def job(folder: Path, command: str, **keys: Any) -> Any:
    """A command job with some code, one output and an image."""
    from azure.ai.ml import Output
    from azure.ai.ml import command as command_job
    from azure.ai.ml.entities import Environment

    code = folder / "code"
    code.mkdir(exist_ok=True)
    (code / "hello.py").write_text("print('hello from the code')\n")
    arguments = {
        "compute": "cpu-cluster",
        "environment": Environment(image="mcr.microsoft.com/azureml/base:latest"),
        "outputs": {"results": Output(type="uri_folder")},
    }
    return command_job(code=str(code), command=command, **(arguments | keys))


def ended(cloud: Cloud, name: str, workspace: str = "one") -> Any:
    """Wait for a job and return it."""
    found = cloud.jobs.find(cloud.workspaces[workspace], name)
    assert found is not None
    assert found.ended.wait(120)
    return found


def log_of(cloud: Cloud, name: str, file: str = "std_log.txt") -> str:
    return cloud.storage.read("olivineone", "azureml", f"ExperimentRun/dcid.{name}/user_logs/{file}").decode()


def test_a_job_runs_with_its_code_its_inputs_and_a_clean_environment(
    client: Any, cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.ai.ml import Input

    monkeypatch.setenv("LEAKED", "no job sees this")
    first = cloud.put_data("one", "training", "rows/a.jsonl", b'{"a": 1}\n')
    second = cloud.put_data("two", "training", "rows/b.jsonl", b'{"b": 2}\n')
    model = tmp_path / "model"
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {}\n")
    cloud.add_model("olivine-models", "tiny", "11", model, registry=True)
    cloud.add_model("one", "mine", "2", model, "custom_model")
    sent = job(
        tmp_path,
        "cat ${{inputs.first}} ${{inputs.second}}; ls ${{inputs.registered}} ${{inputs.own}}; python hello.py; "
        "env | grep LEAKED; python -c 'import torch_is_not_here' ; python -c 'import olivine'; "
        "echo made > ${{outputs.results}}/made.txt",
        inputs={
            "first": Input(type="uri_file", path=first),
            "second": Input(type="uri_file", path=second),
            "registered": Input(
                type="mlflow_model", path="azureml://registries/olivine-models/models/tiny/versions/11"
            ),
            "own": Input(type="custom_model", path="azureml:mine:2"),
        },
    )
    name = client.jobs.create_or_update(sent).name
    done = ended(cloud, name)
    said = log_of(cloud, name)
    assert done.status == "Completed", said
    assert '{"a": 1}\n{"b": 2}\n' in said
    assert said.count("MLmodel") == 2
    assert "hello from the code" in said
    assert "no job sees this" not in said
    assert "No module named 'olivine'" in said
    client.jobs.download(name, download_path=tmp_path / "back", output_name="results")
    assert (tmp_path / "back" / "named-outputs" / "results" / "made.txt").read_text() == "made\n"


def test_a_name_is_used_once_and_a_job_is_not_run_twice(client: Any, cloud: Cloud, tmp_path: Path) -> None:
    from azure.core.exceptions import HttpResponseError

    cloud.faults.arm("lose", "arm PUT .*/jobs/only-once")  # the SDK sends it again
    client.jobs.create_or_update(job(tmp_path, "echo once", name="only-once"))
    done = ended(cloud, "only-once")
    assert (done.starts, cloud.jobs.submissions.count("only-once")) == (1, 1)
    with pytest.raises(HttpResponseError, match="cannot be changed"):
        client.jobs.create_or_update(job(tmp_path, "echo other", name="only-once"))


def test_a_job_that_fails_says_its_status_and_one_that_is_cancelled_ends(
    client: Any, cloud: Cloud, tmp_path: Path
) -> None:
    name = client.jobs.create_or_update(job(tmp_path, "echo broken; exit 3")).name
    assert ended(cloud, name).status == "Failed"
    assert "status code 3" in cloud.jobs.find(cloud.workspaces["one"], name).error["error"]["message"]
    name = client.jobs.create_or_update(job(tmp_path, "echo started; sleep 300")).name
    until = time.monotonic() + 60
    while client.jobs.get(name).status != "Running" and time.monotonic() < until:
        time.sleep(0.1)
    client.jobs.begin_cancel(name)
    assert ended(cloud, name).status == "Canceled"


def test_a_distributed_job_starts_each_rank_with_its_own_log(client: Any, cloud: Cloud, tmp_path: Path) -> None:
    from azure.ai.ml import PyTorchDistribution

    sent = job(
        tmp_path,
        "echo rank $RANK of $WORLD_SIZE on node $NODE_RANK as $LOCAL_RANK at $MASTER_ADDR",
        distribution=PyTorchDistribution(process_count_per_instance=2),
        instance_count=2,
    )
    name = client.jobs.create_or_update(sent).name
    assert ended(cloud, name).status == "Completed"
    assert log_of(cloud, name, "std_log_process_03.txt") == "rank 3 of 4 on node 1 as 1 at 127.0.0.1\n"


def test_arc_runs_jobs_with_a_workload_identity_and_refuses_that_of_the_user(
    client: Any, cloud: Cloud, tmp_path: Path
) -> None:
    from azure.ai.ml.entities import UserIdentityConfiguration
    from azure.core.exceptions import HttpResponseError

    assert client.compute.get("arc").type == "kubernetes"
    name = client.jobs.create_or_update(job(tmp_path, "env", compute="arc", instance_type="large")).name
    assert ended(cloud, name).status == "Completed"
    said = log_of(cloud, name)
    assert "AZURE_FEDERATED_TOKEN_FILE" in said
    assert "MSI_ENDPOINT" not in said
    with pytest.raises(HttpResponseError, match="not supported on Kubernetes"):
        client.jobs.create_or_update(job(tmp_path, "true", compute="arc", identity=UserIdentityConfiguration()))


def test_computes_are_made_listed_and_deleted(client: Any, cloud: Cloud) -> None:
    from azure.ai.ml.entities import AmlCompute

    made = client.compute.begin_create_or_update(
        AmlCompute(name="made-here", size="STANDARD_D2_V2", min_instances=0, max_instances=3)
    ).result()
    assert made.max_instances == 3
    assert {each.name for each in client.compute.list()} == {"cpu-cluster", "arc", "no-identity", "made-here"}
    client.compute.begin_delete("made-here").wait()
    assert "made-here" not in cloud.workspaces["one"].computes


def test_models_and_data_are_registered_and_read_back(client: Any, cloud: Cloud, tmp_path: Path) -> None:
    from azure.ai.ml.entities import Data, Model

    folder = tmp_path / "asset"
    folder.mkdir()
    (folder / "file.txt").write_text("content")
    client.models.create_or_update(Model(name="registered", version="1", path=str(folder), type="custom_model"))
    client.data.create_or_update(Data(name="rows", version="1", path=str(folder), type="uri_folder"))
    assert client.models.get("registered", label="latest").version == "1"
    assert client.data.get("rows", version="1").path.startswith("azureml://")
    client.models.download("registered", version="1", download_path=str(tmp_path / "back"))
    assert [path.read_text() for path in (tmp_path / "back").rglob("file.txt")] == ["content"]


def test_secrets_of_datastores_are_of_the_kind_that_the_datastore_has(client: Any, cloud: Cloud) -> None:
    kinds = []
    for kind in ("key", "sas", "identity"):
        cloud.credential(kind)
        kinds.append(type(client.datastores.get("training", include_secrets=True).credentials).__name__)
    assert kinds == ["AccountKeyConfiguration", "SasTokenConfiguration", "NoneCredentialConfiguration"]


def test_azurite_takes_tokens_for_its_audience_alone_and_none_that_was_revoked(signed_in: Cloud) -> None:
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
    from azure.storage.blob import BlobClient

    signed_in.put_data("one", "training", "secret.txt", b"read with a token")
    url = f"{signed_in.storage.endpoint('olivineone')}/training/secret.txt"
    assert BlobClient.from_blob_url(url, credential=credential(signed_in)).download_blob().readall()
    with pytest.raises(HttpResponseError):
        BlobClient.from_blob_url(url).download_blob()
    known = credential(signed_in)
    known.get_token("https://storage.azure.com/.default")
    signed_in.tokens.revoke_all()
    with pytest.raises(ClientAuthenticationError):
        BlobClient.from_blob_url(url, credential=known, retry_total=0).download_blob()


def test_the_vault_gives_secrets_to_the_identities_it_allows(signed_in: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
    from azure.identity import ManagedIdentityCredential
    from azure.keyvault.secrets import SecretClient

    signed_in.vault.secrets[VAULT]["hf-token"] = "the token"
    monkeypatch.setenv("MSI_ENDPOINT", f"{signed_in.identity.base}/msi/token")
    monkeypatch.setenv("MSI_SECRET", MSI_SECRET)
    vault = SecretClient(signed_in.vault.address(VAULT), ManagedIdentityCredential())
    assert vault.get_secret("hf-token").value == "the token"
    with pytest.raises(ResourceNotFoundError):
        vault.get_secret("other")
    monkeypatch.setattr(signed_in.vault, "allowed", {"workload"})
    with pytest.raises(HttpResponseError, match="managed does not have"):
        vault.get_secret("hf-token")
    assert signed_in.vault.read[-1] == ("managed", "hf-token")


@pytest.mark.parametrize("kind", ["reset", "truncate", "flip"])
def test_a_fault_strikes_inside_a_body_and_only_as_often_as_asked(signed_in: Cloud, kind: Any) -> None:
    import requests

    content = bytes(range(256)) * 1024
    signed_in.put_data("one", "training", "long.bin", content)
    where = f"{signed_in.storage.endpoint('olivineone')}/training/long.bin"
    url = f"{where}?{signed_in.storage.sas('olivineone', 'training')}"
    fault = signed_in.faults.arm(kind, "blob GET /training/long.bin", after=100_000)
    if kind == "flip":
        received = requests.get(url, timeout=60).content
        assert [at for at, (a, b) in enumerate(zip(received, content, strict=True)) if a != b] == [100_000]
    else:
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            _ = requests.get(url, timeout=60).content
    assert requests.get(url, timeout=60).content == content
    assert fault.fired == 1


def test_content_md5_is_there_for_small_blobs(signed_in: Cloud) -> None:
    import requests

    signed_in.put_data("one", "training", "small.bin", b"small")
    where = f"{signed_in.storage.endpoint('olivineone')}/training/small.bin"
    answer = requests.get(f"{where}?{signed_in.storage.sas('olivineone', 'training')}", timeout=60)
    assert base64.b64decode(answer.headers["content-md5"])


def test_the_way_out_is_closed_and_what_knocked_is_known(running_cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    for name, value in running_cloud.environment().items():
        monkeypatch.setenv(name, value)
    for url in ("https://example.com/", "http://example.com/metadata"):
        with pytest.raises(requests.RequestException):
            requests.get(url, timeout=60).raise_for_status()
    assert running_cloud.egress.denied == ["example.com:443", "GET http://example.com/metadata"]
    running_cloud.settle()


def test_an_answer_that_is_not_like_its_example_is_found() -> None:
    example = {"name": "text", "size?": 1, "tags": {"*": "text"}, "value": [{"id": "x"}]}
    assert differences({"name": "a", "tags": {"x": "y"}, "value": []}, example) == []
    wrong = {"tags": {"x": 1}, "value": [{"id": "a", "more": 1}], "size": "1"}
    assert differences(wrong, example) == [
        ".name is missing",
        ".size: '1' is not like 1",
        ".tags.x: 1 is not like 'text'",
        ".value[0].more is not in the example",
    ]
