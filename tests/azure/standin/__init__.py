"""A cloud on loopback for the tests: what Azure Machine Learning, its storage, vault and identities answer to the SDK.

Storage is the real Azurite. The control plane is ours: it answers what the unmodified SDK asks for, refuses what the
service refuses, and executes jobs in processes of their own. Nothing here is imported by Olivine.
"""
