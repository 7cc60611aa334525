"""Settings: where they come from, in which order, and how a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.config import PROJECT, load_settings
from include.errors import UserError


def test_defaults_are_local_and_below_the_project() -> None:
    settings = load_settings()
    assert settings.target == "local"
    assert settings.root == f"file://{PROJECT / 'data'}"


def test_the_environment_wins_over_mwaa_s_option_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('tenant = "file"\nuse_case = "file"\nstorage_root = "s3://file/x/"\n')
    monkeypatch.setenv("FMOPS_SETTINGS", str(file))
    monkeypatch.setenv("AIRFLOW__FMOPS__TENANT", "option")
    monkeypatch.setenv("AIRFLOW__FMOPS__USE_CASE", "option")
    monkeypatch.setenv("FMOPS_TENANT", "variable")
    settings = load_settings()
    assert (settings.tenant, settings.use_case, settings.root) == ("variable", "option", "s3://file/x")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FMOPS_TARGET", "azure", "FMOPS_TARGET='azure': Input should be 'local' or 'aws'"),
        ("FMOPS_TENANT", "Not A Name", "FMOPS_TENANT='Not A Name'"),
        ("FMOPS_STORAGE_ROOT", "/data", "must start with file://, s3:// or memory://"),
        ("FMOPS_CHAT_TIMEOUT_S", "-1", "greater than 0"),
        ("FMOPS_MLFLOW_TRACKING_URI", "mlruns", "must start with sqlite:///, http://, https://, arn:"),
        ("FMOPS_SETTINGS", "/does/not/exist.toml", "FMOPS_SETTINGS=/does/not/exist.toml is not a file"),
    ],
)
def test_a_wrong_setting_is_one_line_with_its_name_value_and_fix(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as error:
        load_settings()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_key_of_the_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('tennant = "typo"\n')
    monkeypatch.setenv("FMOPS_SETTINGS", str(file))
    with pytest.raises(UserError, match="tennant"):
        load_settings()


def test_a_misspelt_secret_is_not_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('chat_token = "sk-very-secret"\n')
    monkeypatch.setenv("FMOPS_SETTINGS", str(file))
    with pytest.raises(UserError, match="chat_token: Extra inputs are not permitted") as error:
        load_settings()
    assert "sk-very-secret" not in str(error.value)


def test_a_file_that_is_no_toml_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("tenant = \n")
    monkeypatch.setenv("FMOPS_SETTINGS", str(file))
    with pytest.raises(UserError, match="settings.toml: Invalid value"):
        load_settings()


def test_target_aws_needs_a_storage_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__FMOPS__TARGET", "aws")
    with pytest.raises(UserError, match="FMOPS_STORAGE_ROOT=s3://BUCKET/PREFIX"):
        _ = load_settings().root
    monkeypatch.setenv("AIRFLOW__FMOPS__STORAGE_ROOT", "s3://bucket/prefix")
    assert load_settings().root == "s3://bucket/prefix"


def test_a_secret_is_shown_neither_in_the_settings_nor_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_CHAT_API_KEY", "sk-very-secret")
    settings = load_settings()
    assert "sk-very-secret" not in repr(settings)
    assert "sk-very-secret" not in settings.model_dump_json()
    monkeypatch.setenv("FMOPS_TENANT", "NOT OK")
    with pytest.raises(UserError) as error:
        load_settings()
    assert "sk-very-secret" not in str(error.value)


def test_a_password_in_a_url_is_neither_taken_nor_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_MLFLOW_TRACKING_URI", "https://me:very-secret@mlflow.example/x")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_USERNAME") as error:
        load_settings()
    assert "very-secret" not in str(error.value)
    monkeypatch.setenv("FMOPS_MLFLOW_TRACKING_URI", "https://mlflow.example/x@y")
    assert load_settings().mlflow_tracking_uri == "https://mlflow.example/x@y"


@pytest.mark.parametrize("name", ["TARGET", "TENANT", "MLFLOW_TRACKING_URI", "mlflow_tracking_uri", "STORAGE_ROOT"])
def test_variables_of_others_are_no_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_settings()
    monkeypatch.setenv(name, "theirs")
    assert load_settings() == before
