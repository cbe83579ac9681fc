"""Files of Azure Machine Learning come whole and right, whatever credential, workspace or fault there is."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from standin.cloud import VAULT, Cloud

from olivine.config.schema import AzureMLClient
from olivine.errors import DataError, PlanError, UnavailableError
from olivine.redaction import redact
from olivine.storage.addresses import parse
from olivine.storage.fetching import Fetcher, download_all
from olivine.storage.opening import Origins
from olivine.storage.selection import model_files
from olivine.storage.transfer import Patience
from olivine.store import Store

SOURCES = Path(__file__).parents[2] / "src"
ROWS = b'{"text": "a"}\n{"text": "b"}\n'
FILE = "azureml://datastores/training/paths/"


@pytest.fixture(scope="session")
def large() -> bytes:
    """Nine megabytes: more than two blocks."""
    return random.Random(11).randbytes(9 * (1 << 20) + 4321)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def client(cloud: Cloud, workspace: str = "one", **keys: Any) -> AzureMLClient:
    return AzureMLClient(**cloud.client(workspace, **keys))


def hurried() -> Patience:
    """Return patience whose waiting is short."""
    return Patience(600.0, sleep=lambda seconds: time.sleep(min(seconds, 0.2)))


def fetcher(cloud: Cloud, store: Store, **keys: Any) -> Fetcher:
    return Fetcher(store, client(cloud, **keys), patience=hurried)


@pytest.mark.parametrize("credential", ["key", "sas", "identity"])
def test_a_datastore_is_read_and_written_with_each_credential(
    credential: str, signed_in: Cloud, store: Store, tmp_path: Path
) -> None:
    signed_in.put_data("one", "training", f"{credential}/rows.jsonl", ROWS)
    signed_in.credential(credential)
    found = fetcher(signed_in, store).fetch(f"{FILE}{credential}/rows.jsonl")
    assert (found.path / "rows.jsonl").read_bytes() == ROWS
    (tmp_path / "new.jsonl").write_bytes(ROWS * 2)
    folder = Origins(client(signed_in)).folder(f"{FILE}{credential}-out")
    folder.upload(tmp_path / "new.jsonl", "deep/new.jsonl")
    [entry] = folder.entries()
    assert (entry.name, entry.facts.sha256) == ("deep/new.jsonl", hashlib.sha256(ROWS * 2).hexdigest())
    assert folder.read_from("deep/new.jsonl", 10) == (ROWS * 2)[10:]
    assert folder.read_from("deep/new.jsonl", 10_000) == b""
    assert folder.read_from("absent", 0) == b""
    assert os.environ.get("AZUREML_CURRENT_CLOUD") is None


def test_data_of_another_workspace_and_patterns(signed_in: Cloud, store: Store) -> None:
    for name in ("a.jsonl", "b.jsonl", "c.csv"):
        address = signed_in.put_data("two", "training", f"many/{name}", ROWS)
    signed_in.credential("identity", "two")
    long = address.rpartition("/")[0]
    found = fetcher(signed_in, store)
    assert found.fetch(f"{long}/*.jsonl").names == ("a.jsonl", "b.jsonl")
    assert found.fetch(long).names == ("a.jsonl", "b.jsonl", "c.csv")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An MLflow folder."""
    made = tmp_path / "mlflow_model_folder"
    (made / "data/model").mkdir(parents=True)
    (made / "MLmodel").write_text("flavors:\n  hftransformersv2: {model_data: data}\n")
    (made / "data/model/config.json").write_text("{}")
    (made / "data/model/model.safetensors").write_bytes(b"weights")
    return made


def test_models_of_a_registry_and_of_a_workspace(signed_in: Cloud, store: Store, folder: Path) -> None:
    signed_in.add_model("olivine-models", "stored-tiny", "11", folder, registry=True)
    signed_in.add_model("one", "stored-mine", "1", folder)
    (folder / "data/model/config.json").write_text('{"newer": 1}')
    signed_in.add_model("one", "stored-mine", "2", folder)
    found = fetcher(signed_in, store)
    names = ("config.json", "model.safetensors")
    assert found.fetch("azureml://registries/olivine-models/models/stored-tiny/versions/11", model_files).names == names
    first = found.fetch("azureml://models/stored-mine/versions/1", model_files)
    latest = found.fetch("azureml://models/stored-mine", model_files)
    assert (first.path / "config.json").read_text() == "{}"
    assert (latest.path / "config.json").read_text() == '{"newer": 1}'


def test_a_registry_is_reached_without_a_workspace(signed_in: Cloud, store: Store, folder: Path) -> None:
    signed_in.add_model("olivine-models", "stored-alone", "1", folder, registry=True)
    settings = AzureMLClient(cloud="loopback", cloud_metadata=signed_in.metadata())
    found = Fetcher(store, settings).fetch("azureml://registries/olivine-models/models/stored-alone/versions/1")
    assert "MLmodel" in found.names


def test_what_a_job_has_left(signed_in: Cloud, store: Store, tmp_path: Path) -> None:
    from azure.ai.ml import Output, command
    from azure.ai.ml.entities import Environment

    workspace = Origins(client(signed_in)).workspace()
    sent = command(
        command="echo '{}' > ${{outputs.made}}/x.jsonl",
        compute="cpu-cluster",
        environment=Environment(image="mcr.microsoft.com/azureml/base:latest"),
        outputs={"made": Output(type="uri_folder")},
        name="storage-left-this",
    )
    with workspace.calling("sending a job"):
        workspace.ml.jobs.create_or_update(sent)
    job = signed_in.jobs.find(signed_in.workspaces["one"], "storage-left-this")
    assert job is not None
    assert job.ended.wait(120)
    address = "azureml://jobs/storage-left-this/outputs/made/paths/"
    found = fetcher(signed_in, store).fetch(f"{address}x.jsonl")
    assert (found.path / "x.jsonl").read_text() == "{}\n"
    with pytest.raises(PlanError, match="has no output other"):
        fetcher(signed_in, store).fetch(address.replace("made", "other"))


def test_the_second_time_nobody_is_asked(signed_in: Cloud, store: Store) -> None:
    signed_in.put_data("one", "training", "once/rows.jsonl", ROWS)
    first = fetcher(signed_in, store).fetch(f"{FILE}once/rows.jsonl")
    asked = len(signed_in.seen())
    again = fetcher(signed_in, Store(store.root)).fetch(f"{FILE}once/rows.jsonl")
    assert again.path == first.path
    assert len(signed_in.seen()) == asked


@pytest.mark.parametrize(
    "text",
    [
        "azureml://datastores/absent/paths/x",
        "azureml://models/absent/versions/1",
        "azureml://registries/olivine-models/models/absent/versions/1",
        f"{FILE}absent.jsonl",
    ],
)
def test_what_is_not_there_is_said(text: str, signed_in: Cloud, store: Store) -> None:
    with pytest.raises((PlanError, DataError), match=r"not there|no file lies"):
        fetcher(signed_in, store).fetch(text)


def test_who_is_not_known_is_told_to_sign_in(signed_in: Cloud, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "not-the-right-one")
    with pytest.raises(UnavailableError, match=r"does not know who asks.*az login"):
        fetcher(signed_in, store, auth="service_principal").fetch(f"{FILE}x")


FAULTS: dict[str, list[dict[str, Any]]] = {
    "two resets": [{"kind": "reset", "after": 1 << 20, "times": 2}],
    "six resets": [{"kind": "reset", "after": 3 << 20, "times": 6}],
    "truncated": [{"kind": "truncate", "after": 1 << 20, "times": 3}],
    "a flipped byte": [{"kind": "flip", "after": 2 << 20}],
    "503": [{"kind": "status", "status": 503, "times": 6}],
    "429": [{"kind": "status", "status": 429, "times": 4, "retry_after": "1"}],
    "stalled": [{"kind": "stall", "after": 1 << 20, "seconds": 4.0}],
}


@pytest.mark.parametrize(("fault", "known"), [*((each, False) for each in FAULTS), ("a flipped byte", True)])
def test_a_fault_in_the_middle_changes_nothing(
    fault: str, known: bool, signed_in: Cloud, store: Store, large: bytes
) -> None:
    where = signed_in.workspaces["one"]
    name = f"faults/{fault}-{known}.bin".replace(" ", "-")
    # What comes in blocks has no digest but the one that is put there.
    blob = signed_in.storage.container(where.account, "training").get_blob_client(name)
    blob.stage_block("1", large)
    blob.commit_block_list(["1"], metadata={"sha256": hashlib.sha256(large).hexdigest()} if known else None)
    found = fetcher(signed_in, store, read_timeout=2)
    entries = found.look(FILE + name)
    assert entries[0].facts.md5 is None
    armed = [signed_in.faults.arm(match=r"blob GET /.*faults/", **each) for each in FAULTS[fault]]
    got = found.fetch(FILE + name)
    assert (got.path / got.names[0]).read_bytes() == large
    assert all(each.fired for each in armed)


def test_an_outage_while_it_streams_is_waited_for(signed_in: Cloud, store: Store, large: bytes) -> None:
    signed_in.put_data("one", "training", "outage/x.bin", large)
    signed_in.faults.arm(
        "call", r"blob GET /.*outage/x", action=lambda: signed_in.faults.outage(4.0), after=1 << 20, late=True
    )
    got = fetcher(signed_in, store).fetch(f"{FILE}outage/x.bin")
    assert (got.path / "x.bin").read_bytes() == large


def test_a_blob_that_is_overwritten_meanwhile_is_begun_anew(signed_in: Cloud, store: Store, large: bytes) -> None:
    signed_in.put_data("one", "training", "changed/x.bin", large)
    found = fetcher(signed_in, store)
    assert found.look(f"{FILE}changed/x.bin")

    def overwrite() -> None:
        signed_in.put_data("one", "training", "changed/x.bin", large[::-1])

    signed_in.faults.arm("call", r"blob GET /.*changed/x", action=overwrite, after=1 << 20, late=True)
    got = found.fetch(f"{FILE}changed/x.bin")
    assert (got.path / "x.bin").read_bytes() == large[::-1]


def test_tokens_and_signatures_that_run_out_are_renewed(signed_in: Cloud, store: Store, large: bytes) -> None:
    signed_in.put_data("one", "training", "expired/x.bin", large)
    signed_in.credential("identity")
    signed_in.faults.arm("call", r"blob GET /.*expired/x", action=signed_in.tokens.revoke_all, late=True, times=1)
    got = fetcher(signed_in, store).fetch(f"{FILE}expired/x.bin")
    assert (got.path / "x.bin").read_bytes() == large
    signed_in.credential("sas")
    signed_in.storage.sas_lifetime = 1.0
    found = fetcher(signed_in, Store(store.root / "other"))
    entries = found.look(f"{FILE}expired/x.bin")
    time.sleep(2.0)
    signed_in.storage.sas_lifetime = 3600.0
    received = download_all(entries, store.root / "again", "it", patience=hurried)
    assert received["x.bin"].sha256 == hashlib.sha256(large).hexdigest()


def test_an_upload_goes_on_where_it_broke_off(signed_in: Cloud, tmp_path: Path, large: bytes) -> None:
    (tmp_path / "x.bin").write_bytes(large)
    folder = Origins(client(signed_in)).folder(f"{FILE}uploads")
    signed_in.faults.arm("reset", r"blob PUT /.*uploads/x", after=1 << 20, times=60)
    with pytest.raises(UnavailableError):
        folder.upload(tmp_path / "x.bin", "x.bin", patience=Patience(2.0, sleep=lambda seconds: None))
    assert folder.entries() == []
    signed_in.faults.clear()
    signed_in.faults.arm("reset", r"blob PUT /.*uploads/x", after=1 << 20, times=2)
    signed_in.faults.arm("status", r"blob PUT /.*uploads/x", status=503)
    folder.upload(tmp_path / "x.bin", "x.bin", patience=hurried())
    assert signed_in.storage.read("olivineone", "training", "uploads/x.bin") == large
    sent = sum(signed_in.received.values())
    folder.upload(tmp_path / "x.bin", "x.bin", patience=hurried())
    assert sum(signed_in.received.values()) == sent


def test_a_manifest_of_our_own_is_held_against_what_comes(signed_in: Cloud, tmp_path: Path) -> None:
    signed_in.put_data("one", "training", "manifest/x.jsonl", ROWS)
    entries = Origins(client(signed_in)).find(f"{FILE}manifest/x.jsonl")
    with pytest.raises(UnavailableError, match="does not arrive as it should"):
        download_all(entries, tmp_path, "it", sha256={"x.jsonl": "0" * 64}, patience=hurried)
    assert not (tmp_path / "x.jsonl").exists()


@pytest.mark.parametrize("scheme", ["abfs", "wasbs"])
def test_a_container_by_its_url(scheme: str, signed_in: Cloud, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    where = signed_in.workspaces["one"]
    signed_in.put_data("one", "training", "url/a.jsonl", ROWS)
    host = signed_in.storage.endpoint(where.account).partition("://")[2]
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", signed_in.azurite.keys[where.account])
    found = Fetcher(store).fetch(f"{scheme}://training@{host.replace('.blob.', '.dfs.')}/url/*.jsonl")
    assert found.names == ("a.jsonl",)


def test_a_signed_address_is_read_and_shown_nowhere(signed_in: Cloud, store: Store) -> None:
    where = signed_in.workspaces["one"]
    signed_in.put_data("one", "training", "signed/a.jsonl", ROWS)
    url = f"{signed_in.storage.endpoint(where.account)}/training/signed/a.jsonl?" + signed_in.storage.sas(
        where.account, "training", write=False
    )
    found = Fetcher(store).fetch(url)
    assert (found.path / "a.jsonl").read_bytes() == ROWS
    signature = url.rpartition("sig=")[2]
    assert signature not in str(found) + str(parse(url)) + redact(url)


def test_no_secret_reaches_the_store(signed_in: Cloud, store: Store) -> None:
    signed_in.put_data("one", "training", "secret/rows.jsonl", ROWS)
    fetcher(signed_in, store).fetch(f"{FILE}secret/rows.jsonl")
    key = signed_in.azurite.keys["olivineone"]
    kept = b"".join(path.read_bytes() for path in store.root.rglob("*") if path.is_file())
    assert key.encode() not in kept
    assert key not in redact(f"the key is {key}")


MEASURED = """
import json, sys
from pathlib import Path
from olivine.config.schema import AzureMLClient
from olivine.storage.fetching import Fetcher
from olivine.store import Store
def memory(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

fetcher = Fetcher(Store(sys.argv[2]), AzureMLClient(**json.loads(sys.argv[1])))
fetcher.look("azureml://datastores/training/paths/measured/small.bin")  # the SDK is loaded, and not counted
fetcher.fetch("azureml://datastores/training/paths/measured/small.bin")
open("/proc/self/clear_refs", "w").write("5")  # the peak is counted from now on
before = memory("VmRSS")
print("begun", flush=True)
got = fetcher.fetch(f"azureml://datastores/training/paths/measured/{sys.argv[3]}.bin")
print(got.size, memory("VmHWM") - before)
"""


def test_memory_does_not_grow_with_the_blob_and_a_killed_fetch_goes_on(
    signed_in: Cloud, tmp_path: Path, large: bytes
) -> None:
    import json

    where = signed_in.workspaces["one"]
    size = int(os.environ.get("OLIVINE_MEASURED_BYTES", "100_000_000"))
    signed_in.put_data("one", "training", "measured/small.bin", large)
    signed_in.storage.put(where.account, "training", "measured/it.bin", bytes(size))
    command = [sys.executable, "-c", MEASURED, json.dumps(signed_in.client()), str(tmp_path / "cache"), "it"]
    environment = signed_in.process_environment(PYTHONPATH=str(SOURCES))
    signed_in.faults.arm("stall", r"blob GET /.*measured/it", after=3 << 20, seconds=0.5, times=1)
    killed = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"begun\n"
    until = time.monotonic() + 120
    while sum(path.stat().st_size for path in (tmp_path / "cache").rglob("it.bin.part")) < 20_000_000:
        assert time.monotonic() < until
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    [part] = (tmp_path / "cache").rglob("it.bin.part")
    here = part.stat().st_size
    seen = len(signed_in.seen("blob"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    got, grown_kb = map(int, done.stdout.split()[1:])
    assert got == size
    assert grown_kb < 40_000
    asked = [each for each in signed_in.seen("blob")[seen:] if "blob GET" in each and "measured/it" in each]
    assert len(asked) <= (size - here) / (4 << 20) + 2


def test_a_secret_of_a_key_vault_is_read_and_from_then_on_hidden(signed_in: Cloud) -> None:
    signed_in.vault.secrets[VAULT]["storage-secret"] = "the-value-of-a-secret"
    workspace = Origins(client(signed_in)).workspace()
    address = signed_in.vault.address(VAULT)
    assert workspace.secret(address, "storage-secret") == "the-value-of-a-secret"
    assert "the-value" not in redact("it is the-value-of-a-secret")
    with pytest.raises(PlanError, match="reading the secret absent"):
        workspace.secret(address, "absent")
