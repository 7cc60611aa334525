"""What the service refuses: requests against its own published model, and what that model does not say."""

from __future__ import annotations

import re
import threading
from functools import cache
from typing import Any

from botocore.model import OperationModel, ServiceModel, Shape
from botocore.session import get_session

ACCOUNT = "123456789012"
CLASSES = {"\\p{L}": "\\w", "\\p{N}": "\\d", "\\p{Z}": "\\s", "\\p{Alnum}": "a-zA-Z0-9"}
"""Java's names of character classes in the model's patterns, in Python's words (\\w also takes digits and _)."""


class Refusal(Exception):
    """An error answer: code, message, HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def invalid(message: str) -> Refusal:
    return Refusal("ValidationException", message)


_reading = threading.Lock()


@cache
def _model() -> ServiceModel:
    return get_session().get_service_model("sagemaker")


def operation(name: str) -> OperationModel:
    """SageMaker's own description of a call."""
    with _reading:  # some megabytes, which threads that come at once would all read
        return _model().operation_model(name)


@cache
def members_of(name: str) -> frozenset[str]:
    """Fields of a call's answer."""
    shape = operation(name).output_shape
    return frozenset(shape.members) if shape else frozenset()


def check_request(name: str, request: dict[str, Any]) -> None:
    """Refusal that names every field that is missing or does not satisfy the model."""
    shape = operation(name).input_shape
    found = list(_errors(shape, request, "")) if shape else []
    if found:
        raise invalid(f"{len(found)} validation error{'s' * (len(found) > 1)} detected: {'; '.join(found)}")


def _errors(shape: Any, value: Any, path: str) -> list[str]:
    if shape.type_name == "structure":
        return _in_structure(shape, value, path)
    if shape.type_name == "list":
        found = [error for one in value for error in _errors(shape.member, one, f"{path}.member")]
        return _size(shape, len(value), value, path, "length") + found
    if shape.type_name == "map":
        found = [error for key in value for error in _errors(shape.key, key, f"{path}.key")]
        found += [error for one in value.values() for error in _errors(shape.value, one, f"{path}.value")]
        return _size(shape, len(value), value, path, "length") + found
    if shape.type_name == "string":
        return _in_string(shape, value, path)
    if shape.type_name in ("integer", "long", "float", "double"):
        return _size(shape, value, value, path, "value")
    return []


def _in_structure(shape: Any, value: dict[str, Any], path: str) -> list[str]:
    found = []
    for name in shape.required_members:
        if name not in value:
            found.append(_error(None, _below(path, name), "Member must not be null"))
    for name, one in value.items():
        if name in shape.members and one is not None:
            found += _errors(shape.members[name], one, _below(path, name))
    return found


def _in_string(shape: Any, value: str, path: str) -> list[str]:
    if shape.enum and value not in shape.enum:
        return [_error(value, path, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")]
    pattern = _pattern(shape.metadata.get("pattern", ""))
    if pattern and not pattern.fullmatch(value):
        return [_error(value, path, f"Member must satisfy regular expression pattern: {shape.metadata['pattern']}")]
    return _size(shape, len(value), value, path, "length")


def _size(shape: Shape, size: float, value: Any, path: str, what: str) -> list[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and size < least:
        return [_error(value, path, f"Member must have {what} greater than or equal to {least}")]
    if most is not None and size > most:
        return [_error(value, path, f"Member must have {what} less than or equal to {most}")]
    return []


@cache
def _pattern(pattern: str) -> re.Pattern[str] | None:
    """None for the few whose ranges Python has no word for."""
    for java, python in CLASSES.items():
        pattern = pattern.replace(java, python)
    try:
        return re.compile(pattern, re.DOTALL) if pattern else None
    except re.error:
        return None


def _below(path: str, name: str) -> str:
    name = name[0].lower() + name[1:]
    return f"{path}.{name}" if path else name


def _error(value: Any, path: str, constraint: str) -> str:
    shown = "Value null" if value is None else f"Value '{value}'"
    return f"{shown} at '{path}' failed to satisfy constraint: {constraint}"


def check_training(request: dict[str, Any]) -> None:
    """What CreateTrainingJob refuses beyond the model."""
    for name in ("ResourceConfig", "StoppingCondition"):
        if name not in request:
            raise invalid(f"1 validation error detected: {_error(None, _below('', name), 'Member must not be null')}")
    for name in ("InstanceType", "InstanceCount"):
        if name not in request["ResourceConfig"]:
            raise invalid(f"{name} must be provided in ResourceConfig: instance groups are unknown to this endpoint")
    limits = request["StoppingCondition"]
    longest, wait = limits.get("MaxRuntimeInSeconds", 86_400), limits.get("MaxWaitTimeInSeconds")
    if request.get("EnableManagedSpotTraining"):
        if wait is None or wait < longest:
            raise invalid(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
            )
    elif wait is not None:
        raise invalid("MaxWaitTimeInSeconds is only allowed with EnableManagedSpotTraining")
    names = [channel["ChannelName"] for channel in request.get("InputDataConfig", [])]
    if len(names) != len(set(names)):
        raise invalid(f"Channel names must be unique: {', '.join(names)}")
    for channel in request.get("InputDataConfig", []):
        _check_source(
            channel["ChannelName"], channel["DataSource"].get("S3DataSource"), channel.get("InputMode", "File")
        )


def check_processing(request: dict[str, Any]) -> None:
    """What CreateProcessingJob refuses beyond the model."""
    if not request["AppSpecification"].get("ContainerEntrypoint"):
        raise invalid("AppSpecification.ContainerEntrypoint: this endpoint has no images, so a command must be given")
    for one in request.get("ProcessingInputs", []):
        _check_source(one["InputName"], one.get("S3Input"), one.get("S3Input", {}).get("S3InputMode", "File"))
        _check_local(one["InputName"], one["S3Input"].get("LocalPath", ""))
    for one in request.get("ProcessingOutputConfig", {}).get("Outputs", []):
        if "S3Output" not in one:
            raise invalid(f"{one['OutputName']}: this endpoint knows S3Output alone")
        _check_local(one["OutputName"], one["S3Output"].get("LocalPath", ""))


def _check_source(name: str, source: dict[str, Any] | None, mode: str) -> None:
    if not source or source.get("S3DataType", "S3Prefix") != "S3Prefix" or mode == "Pipe":
        raise invalid(f"{name}: this endpoint knows S3 inputs of type S3Prefix, in mode File or FastFile")


def _check_local(name: str, path: str) -> None:
    if not path.startswith("/opt/ml/processing/") or ".." in path:
        raise invalid(f"{name}: LocalPath {path!r} must lie below /opt/ml/processing")
