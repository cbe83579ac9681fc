"""Planning of the model that goes in: what it is, from its files alone, and what identifies it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.config.sizes import gigabytes
from olivine.errors import OlivineError, Problem
from olivine.passes.base import Format, ModelFacts
from olivine.passes.finetune.adapter_weights import ranks_in
from olivine.planning.away import (
    model_stays,
)
from olivine.planning.ground import Ground
from olivine.planning.plan import Source

if TYPE_CHECKING:
    pass


class InputModelPlanning(Ground):
    """Finds the input model."""

    def _input_model(self) -> tuple[Source, ModelFacts, Source | None]:
        """Return the model that goes in, what is known of it, and its base if it is an adapter."""
        from olivine.models.checkpoint import read_checkpoint
        from olivine.models.hub import Located, locate
        from olivine.models.mlflow import MLMODEL, checkpoint_in
        from olivine.storage.addresses import is_address

        given = self.workflow.input_model
        path = "input_model.model_path"
        unknown = Source(identity="unknown"), ModelFacts(Format.HF), None
        known: Mapping[str, str] = {}
        stays = False
        try:
            if is_address(given.model_path) and model_stays(self.workflow):
                return self._model_elsewhere(given.model_path), unknown[1], None
            if is_address(given.model_path):
                from olivine.planning.elsewhere import Absent, model_here

                found = model_here(given, self.fetcher, self._note, code=self.trust, fetch=self.fetch_models)
                if isinstance(found, Absent):
                    self.notes.append(found.note)
                    where = self.loaded.locate(path)
                    return Source(address=found.address, identity=found.identity, where=where), unknown[1], None
                located, known = Located(found.path, None), found.sha256
            else:
                stays = model_stays(self.workflow)
                located = locate(given.model_path, given.load_kwargs.revision, used_here=not stays)
            if located.path is not None and (located.path / MLMODEL).is_file():
                folder, notes = checkpoint_in(located.path, self.store.shared_dir)
                located = Located(folder, None)
                self.notes.extend(notes)
        except OlivineError as error:
            self._error(error, path)
            return unknown
        if located.path is None:
            revision = located.revision or given.load_kwargs.revision or "main"
            absent = (
                "is not on this machine yet" if "/" in given.model_path else "is no folder here, but an id of the hub"
            )
            when = "where the Steps run" if stays else "first"
            self.notes.append(f"{given.model_path} ({revision}) {absent}: it will be downloaded {when}")
            facts = self._facts_from_the_hub(given.model_path, revision) if self.online else ModelFacts(Format.HF)
            return self._on_the_hub(revision, path), facts, None
        try:
            checkpoint = read_checkpoint(located.path)
        except OlivineError as error:
            self._error(error, path)
            return unknown
        if located.revision:
            identity = f"hub:{given.model_path}@{located.revision}"
            # What is kept of the run names the commit, so that it can be repeated when the branch has moved on.
            pinned = given.load_kwargs.model_copy(update={"revision": located.revision})
            self.workflow = self.workflow.model_copy(
                update={"input_model": given.model_copy(update={"load_kwargs": pinned})}
            )
            if self.trust and checkpoint.needs_remote_code and not any(located.path.glob("*.py")):
                self.notes.append(f"the code that comes with {given.model_path} will be downloaded first")
                return self._on_the_hub(located.revision, path), ModelFacts(Format.HF), None
        else:
            # Only what shapes the model: a link in the folder may lead to the whole disk.
            identity = self._identity(located.path, checkpoint.files, known)
        source = Source(path=located.path, identity=identity)
        if located.revision and stays:
            # What this machine's cache has need not be uploaded: the hub gives it to the others too.
            source = Source(hub=given.model_path, revision=located.revision, identity=identity)
        facts = ModelFacts(
            checkpoint.format,
            checkpoint.config,
            located.path,
            checkpoint.modules,
            parameters=checkpoint.parameters,
            weights=(weights := sum(tensor.bytes for tensor in checkpoint.tensors.values()) or checkpoint.bytes),
            beside=checkpoint.bytes - weights,
        )
        if checkpoint.needs_remote_code and not self.trust:
            self.notes.append(
                "the model brings Python code of its own; it will not run, the installed library's implementation is "
                "used (--trust-remote-code allows it)"
            )
        if self.trust and (checkpoint.needs_remote_code or any(located.path.glob("*.py"))):
            from olivine.models.remote_code import code_elsewhere, describe_code

            if elsewhere := code_elsewhere(checkpoint.config):
                self._problem(
                    Problem(
                        f"the model's config.json takes code from another repository: {', '.join(elsewhere)}",
                        self.loaded.locate(path),
                        "--trust-remote-code is for the code that lies in the model's own folder, which the plan shows "
                        "with its digest; that of another repository can change without notice",
                        "copy that code into the model's folder and correct auto_map",
                    )
                )
            self.notes.append(f"code that comes with the model will run: {describe_code(located.path)}")
        if given.adapter_path is None:
            return source, facts, None
        adapter = Path(given.adapter_path)
        if is_address(given.adapter_path):
            from olivine.planning.elsewhere import adapter_here

            try:
                adapter = adapter_here(given.adapter_path, self.fetcher, self._note)
            except OlivineError as error:
                self._error(error, "input_model.adapter_path")
                return source, replace(facts, format=Format.PEFT), source
        if not (adapter / "adapter_config.json").is_file():
            self._problem(
                Problem(
                    f"there is no adapter in {adapter}",
                    self.loaded.locate("input_model.adapter_path"),
                    "an adapter folder holds adapter_config.json and adapter_model.safetensors",
                )
            )
            return Source(path=adapter), replace(facts, format=Format.PEFT), source
        adapted = None
        try:
            adapted = ranks_in({name: each.shape for name, each in read_checkpoint(adapter).tensors.items()})
        except OlivineError as error:
            self._error(error, "input_model.adapter_path")
        files = [path for path in adapter.rglob("*") if path.is_file()]
        own = sum(path.stat().st_size for path in files if path.suffix == ".safetensors" and path.parent == adapter)
        if self._unread(files):
            identity = self._identity(adapter, files, {})
        else:
            identity = f"files:{self.store.digest_tree(adapter)}"
        facts = replace(facts, format=Format.PEFT, adapter=own, adapted=adapted)
        return Source(path=adapter, identity=identity), facts, source

    def _facts_from_the_hub(self, model_id: str, revision: str) -> ModelFacts:
        """Return what the hub says of a model that is not on this machine.

        A hub that does not answer is no fault of the plan: the run will say so if it still does not.
        """
        from olivine.models.hub_facts import Unknown, ask_hub

        try:
            found = ask_hub(model_id, revision)
        except Unknown as reason:
            self.notes.append(f"what it takes is not known before it is here: {reason}")
            return ModelFacts(Format.HF)
        commit = f", of the commit {found.commit[:12]}" if found.commit else ""
        self.notes.append(f"{gigabytes(found.bytes)} will be downloaded{commit}")
        return ModelFacts(
            Format.HF_QUANTIZED if found.config.get("quantization_config") else Format.HF,
            found.config,
            None,
            found.modules,
            parameters=found.parameters,
            weights=found.bytes,
        )

    def _on_the_hub(self, revision: str, path: str) -> Source:
        """Return the input model as something to be downloaded."""
        name = self.workflow.input_model.model_path
        return Source(hub=name, revision=revision, identity=f"hub:{name}@{revision}", where=self.loaded.locate(path))

    def _model_elsewhere(self, address: str) -> Source:
        """Return a model that only other machines read, so that it stays where it is."""
        self._note(f"the model stays where it is, and is read there: {address}")
        identity = f"elsewhere:{address}@{self._version_at(address)}"
        return Source(address=address, identity=identity, where=self.loaded.locate("input_model.model_path"))
