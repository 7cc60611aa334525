"""The machines of one start of a job: what lies on them before its script runs, and what is fetched from them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.aws.containers import Command, Instance, image_command, toolkit_command
from tests.aws.sagemaker import TRAINING, Job
from tests.aws.transfer import Seen, download, join, list_keys, upload, upload_tar


class SourceError(Exception):
    """The toolkit finds no program to run."""


class Machines:
    """As many as the job asks for, each a folder that plays /opt/ml."""

    def __init__(self, job: Job, s3: Any, folder: Path, python: str) -> None:
        self.job = job
        self.s3 = s3
        self.folder = folder
        self.python = python
        hosts = [f"algo-{number}" for number in range(1, int(job.resources["InstanceCount"]) + 1)]
        self.instances = [
            Instance(number=number, hosts=hosts, instance_type=job.resources["InstanceType"], ml=folder / host)
            for number, host in enumerate(hosts)
        ]
        self._copied = self._syncs()

    @property
    def syncs(self) -> bool:
        """Whether something is copied to S3 while the script runs."""
        return bool(self._copied)

    def prepare(self) -> list[Command]:
        """Fresh folders with configuration and inputs; what to start on each."""
        self.remove()
        return [self._prepare(instance) for instance in self.instances]

    def remove(self) -> None:
        """All folders; nothing happens if there are none."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def sync(self) -> None:
        """Copy what has changed in the folders that go to S3 while the script runs."""
        for folder, uri, seen in self._copied:
            upload(self.s3, folder, uri, seen)

    def upload(self, *, model: bool) -> None:
        """What the script left; of several machines the last one's file of a name stays."""
        if self.job.kind is not TRAINING:
            for instance in self.instances if model else []:
                for folder, uri in self._outputs(instance, "EndOfJob").items():
                    upload(self.s3, folder, uri)
            return
        config = self.job.request["OutputDataConfig"]
        base = join(config["S3OutputPath"], self.job.name, "output")
        as_files = config.get("CompressionType", "GZIP") == "NONE"
        if model:
            self._put([instance.place("/opt/ml/model") for instance in self.instances], base, "model", as_files)
            name = "model/" if as_files else "model.tar.gz"
            self.job.set(ModelArtifacts={"S3ModelArtifacts": join(base, name)})
        data = [instance.place("/opt/ml/output/data") for instance in self.instances]
        self._put(data, base, "data" if as_files else "output", as_files)

    def exit_message(self) -> str:
        """What the containers of a processing job wrote for whoever describes it."""
        files = [instance.place("/opt/ml/output/message") for instance in self.instances]
        return "".join(file.read_text(errors="replace") for file in files if file.is_file())[:1024]

    def _prepare(self, instance: Instance) -> Command:
        """Folders, configuration and inputs of one machine."""
        instance.place("/opt/ml/output").mkdir(parents=True)
        return self._prepare_training(instance) if self.job.kind is TRAINING else self._prepare_processing(instance)

    def _prepare_training(self, instance: Instance) -> Command:
        request = self.job.request
        channels = {one["ChannelName"]: one for one in request.get("InputDataConfig", [])}
        hyperparameters = request.get("HyperParameters", {})
        for folder in ("model", "output/data", "checkpoints", "code"):
            (instance.ml / folder).mkdir(parents=True)
        shown = {
            name: {
                "TrainingInputMode": "File",
                "S3DistributionType": one["DataSource"]["S3DataSource"].get(
                    "S3DataDistributionType", "FullyReplicated"
                ),
                "RecordWrapperType": "None",
            }
            for name, one in channels.items()
        }
        instance.write_config("input/config", {"hyperparameters": hyperparameters, "inputdataconfig": shown})
        for name, one in channels.items():
            self._fetch(instance, one["DataSource"]["S3DataSource"], instance.place(f"/opt/ml/input/data/{name}"))
        if checkpoints := request.get("CheckpointConfig"):
            self._checkpoints(instance).mkdir(parents=True, exist_ok=True)
            if list_keys(self.s3, uri := join(checkpoints["S3Uri"], "")):
                download(self.s3, uri, self._checkpoints(instance))
        if words := request["AlgorithmSpecification"].get("ContainerEntrypoint"):
            words = [*words, *request["AlgorithmSpecification"].get("ContainerArguments", [])]
            return image_command(instance, self.python, words)
        return self._by_toolkit(instance, hyperparameters, shown)

    def _by_toolkit(self, instance: Instance, hyperparameters: dict[str, str], channels: dict[str, Any]) -> Command:
        for name in ("sagemaker_program", "sagemaker_submit_directory"):
            if name not in hyperparameters:
                raise SourceError(f"Framework Error: \nhyper-parameter {name} is missing")
        source = hyperparameters["sagemaker_submit_directory"].strip('"')
        download(self.s3, source, instance.ml / "source")
        archive = instance.ml / "source" / source.rsplit("/", 1)[-1]
        return toolkit_command(instance, self.python, hyperparameters, channels, archive)

    def _prepare_processing(self, instance: Instance) -> Command:
        request = self.job.request
        shown = {name: request.get(name) for name in ("ProcessingInputs", "ProcessingOutputConfig", "Environment")}
        instance.write_config("config", {"processingjobconfig": shown})
        for one in request.get("ProcessingInputs", []):
            self._fetch(instance, one["S3Input"], instance.place(one["S3Input"]["LocalPath"]))
        for folder in self._outputs(instance):
            folder.mkdir(parents=True, exist_ok=True)
        application = request["AppSpecification"]
        words = [*application["ContainerEntrypoint"], *application.get("ContainerArguments", [])]
        return image_command(instance, self.python, words)

    def _fetch(self, instance: Instance, source: dict[str, Any], folder: Path) -> None:
        sharded = source.get("S3DataDistributionType") == "ShardedByS3Key"
        folder.mkdir(parents=True, exist_ok=True)
        part, of = (instance.number, len(instance.hosts)) if sharded else (0, 1)
        download(self.s3, source["S3Uri"], folder, part=part, of=of)

    def _checkpoints(self, instance: Instance) -> Path:
        return instance.place(self.job.request["CheckpointConfig"].get("LocalPath", "/opt/ml/checkpoints"))

    def _outputs(self, instance: Instance, *modes: str) -> dict[Path, str]:
        """Folders of a processing job's outputs, with their URIs; of some upload modes or of all."""
        outputs = [one["S3Output"] for one in self.job.request.get("ProcessingOutputConfig", {}).get("Outputs", [])]
        return {
            instance.place(one["LocalPath"]): one["S3Uri"]
            for one in outputs
            if not modes or one.get("S3UploadMode", "EndOfJob") in modes
        }

    def _syncs(self) -> list[tuple[Path, str, Seen]]:
        """Folders that are copied to S3 while the script runs."""
        found: list[tuple[Path, str, Seen]] = []
        for instance in self.instances:
            if self.job.kind is not TRAINING:
                found += [(folder, uri, {}) for folder, uri in self._outputs(instance, "Continuous").items()]
            elif checkpoints := self.job.request.get("CheckpointConfig"):
                found.append((self._checkpoints(instance), checkpoints["S3Uri"], {}))
        return found

    def _put(self, folders: list[Path], base: str, name: str, as_files: bool) -> None:
        if as_files:
            for folder in folders:
                upload(self.s3, folder, join(base, name))
        elif name == "model" or any(any(folder.iterdir()) for folder in folders):
            upload_tar(self.s3, folders, join(base, f"{name}.tar.gz"))
