"""The demo's documents: what is made of packages, and that a build does only what is needed."""

from __future__ import annotations

import csv
import json
import shutil
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from upath import UPath

from include.config import Settings
from include.documents import demo
from include.documents.demo_sources import Package, documents
from include.documents.loaders import load
from include.errors import UserError
from include.storage import location

SHIPPED = demo.SAMPLES
SAID = {
    "capacity.xlsx": ["Vector memory", "Embedding time"],
    "chunking-and-retrieval.docx": ["Two searches, one list", "reciprocal rank fusion", "Rank in full text"],
    "incident.eml": ["handbook answers were two days old", "What follows"],
    "mwaa-runbook.pdf": ["3. Deploy", "aws s3 sync dags/", "10. Checklist for a release"],
    "on-call.pptx": ["Second: read one line", "a red run harms nobody"],
    "rag-glossary.html": ["Reciprocal rank fusion (RRF)", "Usage event"],
    "settings.csv": ["FMOPS_STORAGE_ROOT"],
}
"""What must be found in the text of each shipped sample."""
LICENCE = "# Licensed to the Foundation\n"
LONG = "This says at length what it is good for, since a short docstring only repeats the name of the thing."
CONFIG = """
core:
  description: ~
  options:
    parallelism:
      description: |
        How many run
        at once.
      type: integer
      example: ~
      default: "32"
      version_added: 1.2.0
"""
COMMANDS = (
    LICENCE
    + """
ARG_ID = Arg(("-i", "--id"), help="The " "id" + " & more", action="store_true")
ITEM_COMMANDS = (ActionCommand(name="show", help="Show <it>", func=f("x"), args=(ARG_ID,), epilog="a\\n  b"),)
core_commands: list = [
    GroupCommand(name="items", help="Manage items", subcommands=ITEM_COMMANDS),
    ActionCommand(name="run", help=f"Run {1 + 1} things", func=f("y"), args=()),
]
"""
)
API = {
    "paths": {
        "/items/{id}": {
            "post": {
                "tags": ["Item List"],
                "operationId": "post_item",
                "summary": "Post Item",
                "description": "Makes an item.",
                "parameters": [
                    {"name": "id", "in": "path", "description": "Which one. Same for all."},
                    {"$ref": "#/components/parameters/Limit"},
                ],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Body"}}}},
            },
            "get": {"tags": ["Item List"], "description": "Reads an item."},
            "parameters": [{"name": "shared", "in": "query"}],
        }
    },
    "components": {"schemas": {"Body": {"properties": {"note": {}, "conf": {}}}}},
}
MODULE = f'''{LICENCE}"""Short."""
class Runner:
    """{LONG}

    Usage
    -----
    # not a heading of its own level
    """
    def go(self):
        """Go. {LONG}"""
    def stop(self):
        """Too short."""
    def _private(self):
        """Private. {LONG}"""
async def start():
    """Start. {LONG}"""
def hidden():
    """Hidden. {LONG}

    :meta private:
    """
'''
CORE = {
    "airflow/config_templates/config.yml": CONFIG,
    "airflow/cli/cli_config.py": COMMANDS,
    "airflow/api/openapi/v2.yaml": json.dumps(API),
    "airflow/api/openapi/_private_ui.yaml": json.dumps({"paths": {"/x": {}}}),
    "airflow/_shared/metrics_template.yaml": 'metrics:\n- {name: a.b, type: counter, description: "Number of\n  b"}\n',
    "airflow/jobs/LIFE.md": "<!--\n Licensed\n-->\n# Life of a job\n\ntext\n",
    "airflow/jobs/AGENTS.md": "# Rules\n",
    "airflow/models/runner.py": MODULE,
    "airflow/operators/run.py": f'"""Operators. {LONG}"""\n',
    "airflow/example_dags/example.py": f'"""Example. {LONG}"""\n',
    "airflow/_private.py": f'"""Private. {LONG}"""\n',
}
PROVIDER = {
    "airflow/providers/acme/get_provider_info.py": LICENCE
    + 'def get_provider_info():\n    return {"config": {"acme": {"description": "About", "options": '
    + '{"key": {"description": None, "type": "string", "default": "", "example": "x"}}}}}\n',
    "airflow/providers/acme/__init__.py": f'"""Provider. {LONG}"""\n',
}


def install(site: Path, name: str, version: str, files: dict[str, str], description: str = "") -> Distribution:
    """A package as an installer leaves it: its files, METADATA and RECORD."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    for old in site.glob(f"{name.replace('-', '_')}-*.dist-info"):
        shutil.rmtree(old)
    kind = "text/x-rst" if description.startswith("..") else "text/markdown"
    metadata = (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nDescription-Content-Type: {kind}\n\n{description}"
    )
    for path, text in {**files, f"{info}/METADATA": metadata}.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    (site / info / "RECORD").write_text("".join(f"{path},,\n" for path in files))
    return next(one for one in distributions(path=[str(site)]) if one.name == name)


@pytest.fixture(autouse=True)
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One sample, among files that are none."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("guide.pdf", "README.md", ".guide.pdf.swp", "~$guide.docx", "guide.pdf.orig", "Guide 2.pdf"):
        (folder / name).write_text(f"This is {name}")
    (folder / "folder.md").mkdir()
    monkeypatch.setattr(demo, "SAMPLES", folder)
    return folder


@pytest.fixture
def packages(tmp_path: Path) -> list[Distribution]:
    site = tmp_path / "site"
    readme = ".. Licensed to\n   the Foundation\n\n..  http://licence\n\n.. note:: kept\n\nAcme\n====\n"
    return [
        install(site, "apache-airflow-providers-acme", "2.0", PROVIDER, readme),
        install(site, "apache-airflow-core", "3.3.1", CORE, "<!-- Licensed -->\nThe core package."),
        install(site, "unrelated", "1.0", {"airflow/unrelated.py": f'"""{LONG}"""'}),
    ]


def contents(target: UPath) -> dict[str, str]:
    base = target.path.rstrip("/") + "/"
    return {str(path).removeprefix(base): target.fs.cat_file(path).decode() for path in target.fs.find(target.path)}


def test_each_kind_of_documentation_becomes_files_of_its_format(tmp_path: Path, packages: list[Distribution]) -> None:
    target = UPath(tmp_path.as_uri()) / "docs"
    assert demo.build(target, "full", packages) == 13
    made = contents(target)
    assert {name: text for name, text in made.items() if name.startswith("samples/")} == {
        "samples/guide.pdf": "This is guide.pdf"
    }
    assert made["configuration/core.md"] == (
        "# Configuration section [core]\n\n## parallelism\n\nHow many run\nat once.\n\n"
        "- Environment variable: `AIRFLOW__CORE__PARALLELISM`\n- Type: integer\n- Default: `32`\n"
        "- Added in version: 1.2.0\n"
    )
    assert made["configuration/acme.acme.md"].startswith(
        "# Configuration section [acme] of apache-airflow-providers-acme\n\nAbout\n\n## key\n\n- Env"
    )
    assert made["cli/airflow-items.html"] == (
        "<html>\n<head><title>Command line: airflow items</title></head>\n<body>\n"
        "<h1>Command line: airflow items</h1>\n<p>Manage items</p>\n"
        "<h2>airflow items show</h2>\n<p>Show &lt;it&gt;</p>\n<pre>a\n  b</pre>\n<ul>\n"
        "<li><code>-i, --id</code>: The id &amp; more</li>\n</ul>\n</body>\n</html>\n"
    )
    assert "<h2>airflow run</h2>\n<p>Run  things</p>" in made["cli/airflow.html"]
    assert "show" not in made["cli/airflow.html"]
    assert [json.loads(line) for line in made["rest-api/item-list.jsonl"].splitlines()] == [
        {
            "id": "post_item",
            "title": "Post Item (POST /items/{id})",
            "text": "Makes an item.\n- path parameter `id`: Which one.\n- body: a JSON object of `note`, `conf`",
        },
        {"id": "GET /items/{id}", "title": "(GET /items/{id})", "text": "Reads an item."},
    ]
    assert made["metrics/counters.txt"] == "Airflow metrics of type counter\n\na.b (counter): Number of b\n"
    assert made["guides/airflow.jobs.life.md"] == "# Life of a job\n\ntext\n"
    assert made["guides/apache-airflow-core.md"] == "The core package.\n"
    assert made["guides/apache-airflow-providers-acme.rst"] == ".. note:: kept\n\nAcme\n====\n"
    assert made["reference/airflow.models.runner.md"] == (
        f"# airflow.models.runner\n\n## Runner\n\n{LONG}\n\n**Usage**\n    # not a heading of its own level\n\n"
        f"### Runner.go\n\nGo. {LONG}\n\n## start\n\nStart. {LONG}\n"
    )
    assert made["reference/airflow.providers.acme.md"].startswith("# airflow.providers.acme\n\nProvider.")
    assert not [name for name in made if "example" in name or "private" in name or "unrelated" in name]


def test_operators_come_first_within_a_package_and_packages_in_a_fixed_order(packages: list[Distribution]) -> None:
    ours = demo._installed(reversed(packages))
    assert [one.name for one in ours] == ["apache-airflow-core", "apache-airflow-providers-acme"]
    names = [name for name, _ in documents(ours) if name.startswith("reference/")]
    assert [name.split(".")[1] for name in names] == ["operators", "models", "providers"]


def test_a_build_works_on_every_backend_and_the_second_writes_and_reads_nothing(
    any_root: str, tmp_path: Path, packages: list[Distribution], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = location(any_root) / "demo" / "docs"
    count = demo.build(target, "full", packages)
    before = contents(target)
    assert len(before) == count
    listed: dict[str, Any] = json.loads((target.parent / "docs.json").read_bytes())
    assert listed["packages"] == {"apache-airflow-core": "3.3.1", "apache-airflow-providers-acme": "2.0"}
    assert listed["names"] == sorted(before)
    assert listed["bytes"] == sum(len(text.encode()) for text in before.values())
    shutil.rmtree(tmp_path / "site" / "airflow")
    monkeypatch.setattr(demo, "write_bytes", None)
    monkeypatch.setattr(demo, "write_json", None)
    assert demo.build(target, "full", packages) == count
    assert contents(target) == before


def test_a_new_version_rewrites_what_changed_and_removes_what_is_gone(
    tmp_path: Path, packages: list[Distribution], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = UPath(tmp_path.as_uri()) / "docs"
    demo.build(target, "full", packages)
    (target / "reference" / "mine.md").write_text("a user's")
    changed = {**CORE, "airflow/jobs/LIFE.md": "# Another life\n"}
    del changed["airflow/models/runner.py"]
    core = install(tmp_path / "site", "apache-airflow-core", "3.3.2", changed, "The core package.")
    writes: list[str] = []
    write = demo.write_bytes
    monkeypatch.setattr(demo, "write_bytes", lambda path, data: (writes.append(path.name), write(path, data)))
    assert demo.build(target, "full", [core, packages[0]]) == 12
    assert writes == ["airflow.jobs.life.md"]
    assert "reference/airflow.models.runner.md" not in contents(target)
    assert contents(target)["reference/mine.md"] == "a user's"
    assert contents(target)["guides/airflow.jobs.life.md"] == "# Another life\n"


def test_a_build_that_was_killed_is_finished_by_the_next(
    tmp_path: Path, packages: list[Distribution], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = UPath(tmp_path.as_uri()) / "docs"
    write = demo.write_bytes

    def killed(path: UPath, data: bytes) -> None:
        if path.name == "airflow.models.runner.md":
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(demo, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        demo.build(target, "full", packages)
    monkeypatch.setattr(demo, "write_bytes", write)
    # What the killed build left is known, and goes if it is no longer made.
    small = install(tmp_path / "other", "apache-airflow-core", "3.3.1", {"airflow/a.py": f'"""{LONG}"""'})
    assert demo.build(target, "full", [small]) == 2
    assert sorted(contents(target)) == ["reference/airflow.a.md", "samples/guide.pdf"]
    assert demo.build(target, "full", packages) == 13


def test_a_document_that_was_deleted_comes_back(tmp_path: Path, packages: list[Distribution]) -> None:
    target = UPath(tmp_path.as_uri()) / "docs"
    demo.build(target, "full", packages)
    before = contents(target)
    (target / "configuration" / "core.md").unlink()
    demo.build(target, "full", packages)
    assert contents(target) == before


def test_the_list_cannot_make_a_build_remove_a_file_outside_its_folder(
    tmp_path: Path, packages: list[Distribution]
) -> None:
    victim = tmp_path / "victim.md"
    victim.write_text("stays")
    (tmp_path / "docs.json").write_text(json.dumps({"names": ["../victim.md", str(victim), "a/../../victim.md"]}))
    demo.build(UPath(tmp_path.as_uri()) / "docs", "full", packages)
    assert victim.read_text() == "stays"


def test_demo_holds_the_samples_and_the_first_documents_up_to_its_size(
    tmp_path: Path, packages: list[Distribution], monkeypatch: pytest.MonkeyPatch
) -> None:
    every = list(documents(demo._installed(packages)))
    sample = {"samples/guide.pdf": "This is guide.pdf"}
    monkeypatch.setattr(demo, "DEMO_CHARACTERS", sum(len(text) for _, text in every[:4]))
    target = UPath(tmp_path.as_uri()) / "docs"
    assert demo.build(target, "demo", packages) == 5
    assert contents(target) == sample | dict(every[:4])
    monkeypatch.setattr(demo, "DEMO_CHARACTERS", demo.DEMO_CHARACTERS - 1)
    assert demo.build(target, "demo", packages) == 4
    monkeypatch.setattr(demo, "DEMO_CHARACTERS", demo.DEMO_CHARACTERS + 1)
    assert demo.build(target, "full", packages) == 1 + len(every)
    assert demo.build(target, "demo", packages) == 5
    assert contents(target) == sample | dict(every[:4])


def test_samples_that_are_new_changed_or_gone_are_noticed(
    tmp_path: Path, packages: list[Distribution], samples: Path
) -> None:
    target = UPath(tmp_path.as_uri()) / "docs"
    count = demo.build(target, "full", packages)
    (samples / "guide.pdf").write_text("Another guide")
    (samples / "mail.eml").write_text("Subject: new")
    assert demo.build(target, "full", packages) == count + 1
    assert contents(target)["samples/guide.pdf"] == "Another guide"
    assert contents(target)["samples/mail.eml"] == "Subject: new"
    (samples / "guide.pdf").unlink()
    assert demo.build(target, "full", packages) == count
    assert "samples/guide.pdf" not in contents(target)


def test_the_shipped_samples_join_byte_by_byte_and_stay_small(
    tmp_path: Path, packages: list[Distribution], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "SAMPLES", SHIPPED)
    target = UPath(tmp_path.as_uri()) / "docs"
    demo.build(target, "demo", packages)
    built = {path.name: path.read_bytes() for path in (target / "samples").iterdir()}
    assert built == {name: (SHIPPED / name).read_bytes() for name in SAID}
    assert {path.name for path in SHIPPED.iterdir()} == {*SAID, "README.md"}
    assert sum(map(len, built.values())) < 300_000


@pytest.mark.parametrize("name", SAID)
def test_what_a_shipped_sample_says_is_read(name: str) -> None:
    document = load((SHIPPED / name).read_bytes(), name)
    read = [document.title]
    for section in document.sections:
        read += [*section.headings, document.text[section.start : section.end]]
    text = " ".join(" ".join(read).split())
    assert not document.rejects
    assert [words for words in SAID[name] if words not in text] == []
    assert [words for words in ("Accept all", "Careers", "Imprint", "newsletter") if words in text] == []


def test_the_settings_among_the_samples_are_those_of_the_code() -> None:
    with (SHIPPED / "settings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["setting"] for row in rows] == list(Settings.model_fields)
    for row in rows:
        name = row["setting"]
        default = Settings.model_fields[name].default
        value = default.get_secret_value() if isinstance(default, SecretStr) else default
        assert row["default"] == ("" if value is None else str(value)), name
        assert (row["environment_variable"], row["mwaa_option"]) == (f"FMOPS_{name.upper()}", f"fmops.{name}")


def test_packages_that_cannot_be_read_are_named(tmp_path: Path, packages: list[Distribution]) -> None:
    target = UPath(tmp_path.as_uri()) / "docs"
    with pytest.raises(UserError, match="no package apache-airflow is installed"):
        demo.build(target, "demo", packages[2:])
    next((tmp_path / "site").glob("apache_airflow_core-*/RECORD")).unlink()
    with pytest.raises(UserError, match="apache-airflow-core has no list of its files"):
        demo.build(target, "demo", packages)


@pytest.fixture(scope="module")
def installed() -> dict[str, str]:
    return dict(demo._within("demo", documents(demo._installed(distributions()))))


def test_the_installed_packages_answer_what_users_ask(installed: dict[str, str]) -> None:
    answers = {
        "configuration/core.md": "maximum number of task instances that can run concurrently per scheduler",
        "configuration/common-io.common.io.md": "location on object storage where XComs can be stored",
        "configuration/scheduler.md": "AIRFLOW__SCHEDULER__CATCHUP_BY_DEFAULT",
        "reference/airflow.sdk.bases.operator.md": ":param retry_exponential_backoff:",
        "reference/airflow.sdk.definitions.dag.md": ":param catchup:",
        "reference/airflow.providers.amazon.aws.operators.sagemaker.md": "## SageMakerTrainingOperator",
        "reference/airflow.providers.standard.operators.hitl.md": "HITLOperator",
        "cli/airflow-dags.html": "<h2>airflow dags trigger</h2>",
        "rest-api/dagrun.jsonl": "POST /api/v2/dags/{dag_id}/dagRuns",
        "metrics/gauges.txt": "executor.open_slots",
    }
    missing = {name: text for name, text in answers.items() if text not in installed.get(name, "")}
    assert not missing
    assert not [name for name, text in installed.items() if "Licensed to the Apache" in text]


def test_every_document_of_the_installed_packages_can_be_read(installed: dict[str, str]) -> None:
    assert {name.rpartition(".")[2] for name in installed} == {"md", "html", "jsonl", "txt", "rst"}
    for name, text in installed.items():
        document = load(text.encode(), name)
        assert document.sections, name
        if name.startswith("reference/"):
            assert {section.headings[0] for section in document.sections} == {document.title}, name


def test_a_page_is_known_by_its_markup(tmp_path: Path) -> None:
    plain = install(tmp_path, "apache-airflow", "1", {}, "text")
    assert Package("apache-airflow", plain).description == ("text", ".md")
