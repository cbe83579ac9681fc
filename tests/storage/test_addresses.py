"""Addresses: what they mean, what is shown of them, and what is not taken."""

from __future__ import annotations

import pytest

from olivine.errors import PlanError
from olivine.redaction import redact
from olivine.storage.addresses import AzureAddress, UrlAddress, WorkspaceName, called, is_address, parse, unsigned

WORKSPACE = "subscriptions/s-1/resourcegroups/rg/workspaces/ws/"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("azureml://datastores/d/paths/a/b.jsonl", AzureAddress("datastore", "d", "a/b.jsonl")),
        (
            f"azureml://{WORKSPACE}datastores/d/paths/",
            AzureAddress("datastore", "d", workspace=WorkspaceName("s-1", "rg", "ws")),
        ),
        (
            "azureml://subscriptions/s-1/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/ws/"
            "datastores/d/paths/x",
            AzureAddress("datastore", "d", "x", workspace=WorkspaceName("s-1", "rg", "ws")),
        ),
        ("azureml://models/m/versions/3", AzureAddress("models", "m", version="3")),
        ("azureml://models/m/versions/latest", AzureAddress("models", "m")),
        ("azureml://models/m", AzureAddress("models", "m")),
        (
            "azureml://registries/azureml-msr/models/microsoft/Phi-3-mini-4k-instruct/versions/11",
            AzureAddress("models", "microsoft/Phi-3-mini-4k-instruct", version="11", registry="azureml-msr"),
        ),
        (
            f"azureml://{WORKSPACE}jobs/brave_1/outputs/model/paths/m",
            AzureAddress("job", "brave_1", "m", output="model", workspace=WorkspaceName("s-1", "rg", "ws")),
        ),
        ("azureml://data/rows/versions/1", AzureAddress("data", "rows", version="1")),
    ],
)
def test_an_azureml_address_means(text: str, expected: AzureAddress) -> None:
    assert parse(text) == expected
    assert parse(str(expected)) == expected


def test_only_a_version_and_a_job_stay_the_same() -> None:
    fixed = ["azureml://models/m/versions/3", "azureml://jobs/j/outputs/o"]
    others = ["azureml://models/m", "azureml://datastores/d/paths/x", "https://host/x"]
    assert [parse(each).fixed for each in fixed] == [True, True]
    assert [parse(each).fixed for each in others] == [False, False, False]


@pytest.mark.parametrize(
    "text",
    ["azureml://workspaces/x", "azureml://registries/r/datastores/d/paths/x", "ftp://host/x", "file:///etc/passwd"],
)
def test_what_is_not_known_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(PlanError, match=r"[Kk]nown are"):
        parse(text)


def test_a_signature_is_neither_shown_nor_part_of_what_is_named() -> None:
    signature = "c2VjcmV0LXNpZ25hdHVyZS1vZi1henVyZQ=="
    url = f"https://a.blob.core.windows.net/c/x.jsonl?sv=2024-01-01&sp=r&se=2027&sig={signature.replace('=', '%3D')}"
    address = parse(url)
    assert isinstance(address, UrlAddress)
    assert str(address) == "https://a.blob.core.windows.net/c/x.jsonl"
    assert address.url == url
    assert signature not in redact(f"asked {url} with {signature}")


def test_parameters_without_a_signature_say_what_is_read() -> None:
    assert unsigned("https://host/get?sp=1&se=2") == "https://host/get?sp=1&se=2"
    assert unsigned("https://host/get?key=a") != unsigned("https://host/get?key=b")


def test_a_token_in_a_url_is_hidden_and_still_tells_two_apart() -> None:
    first, second = (unsigned(f"https://host/get?file=x&access_token={each}") for each in ("secret-one", "secret-two"))
    assert first != second
    assert "secret" not in first + second


def test_a_password_is_not_shown_and_a_container_of_azure_is() -> None:
    assert unsigned("https://me:pass-word@host/x") == "https://host/x"
    assert unsigned("abfs://container@account.dfs.core.windows.net/x") == (
        "abfs://container@account.dfs.core.windows.net/x"
    )


def test_a_path_and_a_hub_id_are_no_addresses() -> None:
    assert not any(map(is_address, ["data/x.jsonl", "org/name", "C:\\x", "${env:DATA}", None]))
    assert is_address("azureml://datastores/d/paths/x")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("azureml://registries/r/models/microsoft/Phi-3/versions/11", "Phi-3"),
        ("azureml://datastores/d/paths/models/tiny/", "tiny"),
        ("https://host/models/tiny?sv=1", "tiny"),
    ],
)
def test_what_an_address_calls_a_model(text: str, name: str) -> None:
    assert called(text) == name
