"""The content-addressed Store: what Steps made, each under the digest of everything that shaped it."""

from olivine.store.artifact import Artifact, FileEntry, Manifest
from olivine.store.collecting import CollectReport
from olivine.store.digests import digest_file, digest_json, digest_tree
from olivine.store.staging import Staging
from olivine.store.store import Store

__all__ = [
    "Artifact",
    "CollectReport",
    "FileEntry",
    "Manifest",
    "Staging",
    "Store",
    "digest_file",
    "digest_json",
    "digest_tree",
]
