"""An index that somebody else built is adopted as the live version, or refused with the reason; never written to."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from opensearchpy import OpenSearch

from include.documents.source import document_id
from include.errors import GateError, UserError
from include.models import embeddings
from include.models.embeddings import Hashing
from include.rag import manage, pipeline
from include.rag.adopt import adopt, read_fields
from include.rag.search import search
from include.rag.stores import chunk_schema
from include.rag.trace import trace
from include.rag.versions import Version, Versions
from include.storage import local_uri
from tests.opensearch.launcher import server
from tests.rag.ingestion import Ingestion

WORDS = ("amber", "basalt", "cedar", "dune", "ember", "fjord", "garnet", "harbor", "island", "jasper", "kelp", "lagoon")
COUNT = 30
Row = dict[str, Any]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for n in range(COUNT):
        one, two, three = (WORDS[(n * step + step) % len(WORDS)] for step in (1, 5, 7))
        text = f"The {one} keeper number {n} carries {two} across every {three} in winter. It rests at noon."
        (folder / f"{n:02d}.md").write_text(f"# Keeper {n}\n\n{text}\n")
    return folder


@pytest.fixture
def ours(ingestion: Ingestion) -> Ingestion:
    lines = [json.dumps({"question": f"keeper number {n}", "relevant": [f"{n:02d}.md"]}) for n in range(COUNT)]
    golden = Path(ingestion.source).parent / "golden.jsonl"
    golden.write_text("\n".join(lines))
    ingestion.params |= {"golden": str(golden), "min_recall_at_5": 0, "min_mrr": 0, "documents_per_shard": 50}
    return ingestion


@pytest.fixture
def rows(corpus: Path) -> list[Row]:
    """What LangChain's loaders and a splitter make of the corpus: texts, and the path of the file as `source`."""
    return made_of(sorted(corpus.iterdir()))


def made_of(files: Sequence[Path]) -> list[Row]:
    texts = [file.read_text() for file in files]
    vectors = Hashing().embed(texts)
    return [
        {"id": f"chunk-{file.stem}", "text": text, "metadata": {"source": str(file)}, "vector": vector.tolist()}
        for file, text, vector in zip(files, texts, vectors, strict=True)
    ]


@dataclass
class Theirs:
    """A place of somebody else's, in the layout of LangChain's class for the store."""

    store: str
    place: str
    write: Callable[[list[Row]], None]
    state: Callable[[], object]
    """All that could be written to: rows, fields, settings, aliases."""
    remove: Callable[[], None]


def table_of(tmp_path: Path) -> Theirs:
    folder = tmp_path / "theirs"

    def write(rows: list[Row]) -> None:
        schema = pa.schema([(name, pa.string()) for name in ("id", "text", "metadata")])
        schema = schema.append(pa.field("vector", pa.list_(pa.float32(), len(rows[0]["vector"]) if rows else 256)))
        stored = [{**row, "metadata": json.dumps(row["metadata"])} for row in rows]
        table = pa.Table.from_pylist(stored, schema=schema)
        lancedb.connect(folder).create_table("vectorstore", table, mode="overwrite")

    def state() -> object:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [(str(path), path.stat().st_mtime_ns, path.read_bytes()) for path in files]

    def remove() -> None:
        lancedb.connect(folder).drop_table("vectorstore")

    return Theirs("lancedb", f"{folder.as_uri()}#vectorstore", write, state, remove)


def index_of(client: OpenSearch, name: str, space: str = "l2") -> Theirs:
    def write(rows: list[Row]) -> None:
        method = {"name": "hnsw", "engine": "lucene", "space_type": space}
        vector = {"type": "knn_vector", "dimension": len(rows[0]["vector"]) if rows else 256, "method": method}
        # LangChain maps the vector alone; a text is mapped when the first one comes.
        properties = {"vector_field": vector} if rows else {"vector_field": vector, "text": {"type": "text"}}
        client.indices.delete(index=name, ignore=[404])
        client.indices.create(
            index=name,
            body={"settings": {"index.knn": True}, "mappings": {"properties": properties}},
        )
        for row in rows:
            body = {"vector_field": row["vector"], "text": row["text"], "metadata": row["metadata"]}
            client.index(index=name, id=row["id"], body=body)
        client.indices.refresh(index=name)

    def state() -> object:
        hits = client.search(index=name, body={"size": 100, "sort": "_doc", "version": True})["hits"]["hits"]
        return client.indices.get(index=name), hits, client.indices.stats(index=name)["_all"]["total"]["indexing"]

    return Theirs("opensearch", name, write, state, lambda: client.indices.delete(index=name))


@pytest.fixture
def client(prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenSearch]:
    """A plain client; what a test made by names that begin with its prefix is deleted afterwards."""
    for name, value in {"url": server().url, "replicas": "0", "deadline_s": "60", "prefix": prefix}.items():
        monkeypatch.setenv(f"FMOPS_OPENSEARCH_{name.upper()}", value)
    client = OpenSearch(server().url)
    yield client
    for name in client.indices.get(index=f"{prefix}*"):
        client.indices.delete(index=name)


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def their_name(prefix: str) -> str:
    return f"{prefix}-theirs"


@pytest.fixture(params=["lancedb", "opensearch"])
def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> Theirs:
    """A place of each store, not written yet."""
    if request.param == "lancedb":
        return table_of(tmp_path)
    client = request.getfixturevalue("client")
    return index_of(client, request.getfixturevalue("their_name"))


@pytest.fixture
def versions(ours: Ingestion) -> Versions:
    return ours.versions


def adopted(versions: Versions, theirs: Theirs, source: str | None = None, **rest: Any) -> Version:
    values: Row = {"embedder": "hashing", "fields": {}, "by": "ann", "place": theirs.place}
    return adopt(versions, store=theirs.store, source=source, **{**values, **rest})


class Blind(Hashing):
    """Questions point in a direction that has nothing to do with the documents."""

    name = "blind-1"

    def embed_queries(self, texts: Any) -> Any:
        return super().embed([f"query {uuid.uuid5(uuid.NAMESPACE_URL, text)}" for text in texts])


@pytest.fixture(autouse=True)
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(embeddings.EMBEDDERS, "blind", Blind)


def whole(ours: Ingestion, run_id: str, **params: Any) -> dict[str, Any]:
    """All of the DAG's steps; what the switch says."""
    config = Ingestion(ours.root, ours.source, {**ours.params, **params}).prepare(run_id)
    ours.embed(config, pipeline.plan(config))
    ours.settle(config)
    pipeline.commit(config)
    pipeline.check(config)
    pipeline.gate(pipeline.evaluate(config, dag_id="test", task_id="evaluate"))
    return pipeline.switch(config)


def test_what_is_adopted_answers_at_once_in_every_mode(ours: Ingestion, theirs: Theirs, rows: list[Row]) -> None:
    theirs.write(rows)
    before = theirs.state()
    version = adopted(ours.versions, theirs, ours.source)
    assert (version.number, ours.versions.live().version) == (1, 1)
    assert version.adopted is not None
    assert (version.adopted.rows, version.adopted.by) == (COUNT, "ann")
    for mode in ("hybrid", "full_text", "dense"):
        best = search("keeper number 7", index="test", mode=mode)[0]
        assert (best.id, best.path, best.title) == ("chunk-07", "07.md", "07.md")
        assert (best.locator, best.start, best.end, best.page, best.headings) == (None, 0, 0, None, ())
    assert best.text == rows[7]["text"]
    assert best.source == local_uri(ours.source)
    assert best.doc_id == document_id(local_uri(ours.source), "07.md")
    (hit, *_) = ours.versions.reader(1).full_text("keeper", 1, {})
    assert set(hit.row) == set(chunk_schema(256).names) - {"vector"}
    assert theirs.state() == before


def test_a_run_builds_ours_beside_it_and_replaces_it_by_the_gate(
    ours: Ingestion, theirs: Theirs, rows: list[Row]
) -> None:
    theirs.write(rows)
    before = theirs.state()
    adopted(ours.versions, theirs, ours.source)
    with pytest.raises(GateError, match=r"mrr changed by -.* from the live version 1"):
        whole(ours, "run-1", embedder="blind", store=theirs.store)
    assert ours.versions.live().version == 1
    assert whole(ours, "run-2", store=theirs.store) == {"version": "v0003", "is_live": True, "missing": []}
    assert {one.id for one in search("keeper number 7", index="test")} & {row["id"] for row in rows} == set()
    report = json.loads(next(Path(ours.versions.home.path).glob("runs/*/retrieval_live.json")).read_text())
    hybrid = next(one for one in report["modes"] if one["mode"] == "hybrid")
    assert (report["index_version"], hybrid["scores"]["recall_at_5"]["mean"]) == (1, 1.0)
    assert theirs.state() == before


def test_a_roll_back_leads_to_it_and_clean_up_forgets_it(
    ours: Ingestion, theirs: Theirs, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    theirs.write(rows)
    before = theirs.state()
    adopted(ours.versions, theirs, ours.source)
    whole(ours, "run-1", store=theirs.store)
    assert manage.main(["roll-back", "--index", "test"]) == 0
    assert "v0001 is live again instead of v0002" in capsys.readouterr().out
    assert search("keeper number 7", index="test", k=1)[0].id == "chunk-07"
    assert theirs.state() == before
    whole(ours, "run-2", store=theirs.store, rebuild=True)
    assert manage.main(["clean-up", "--index", "test", "--keep", "1"]) == 0
    assert [one.number for one in ours.versions.all()] == [3]
    assert theirs.state() == before


def test_a_place_that_its_owner_removed_is_no_place_to_go_back_to(
    ours: Ingestion, theirs: Theirs, rows: list[Row]
) -> None:
    theirs.write(rows)
    adopted(ours.versions, theirs, ours.source)
    whole(ours, "run-1", store=theirs.store)
    theirs.remove()
    with pytest.raises(UserError, match="is not there"):
        manage.manage({"action": "roll-back", "index": "test"}, by="ann")
    assert ours.versions.live().version == 2
    assert manage.manage({"action": "clean-up", "index": "test", "keep": 1}, by="ann")[0] == "removed: v0001"


def test_without_a_source_ours_is_judged_alone_and_another_source_waits(
    ours: Ingestion, theirs: Theirs, rows: list[Row], tmp_path: Path
) -> None:
    theirs.write(rows)
    adopted(ours.versions, theirs)
    passage = search("keeper number 7", index="test", k=1)[0]
    assert passage.path == rows[7]["metadata"]["source"]
    assert theirs.place.rpartition("/")[2] in passage.source
    other = tmp_path / "other"
    other.mkdir()
    for file in Path(ours.source).iterdir():
        (other / file.name).write_text(file.read_text())
    adopted(ours.versions, theirs, ours.source)
    config = Ingestion(ours.root, str(other), ours.params)
    switched = whole(config, "run-1", store="lancedb")
    assert switched == {"version": "v0003", "is_live": False, "missing": [local_uri(ours.source)]}
    adopted(ours.versions, theirs)
    assert whole(config, "run-2", store="lancedb")["is_live"]
    assert not list(Path(ours.versions.home.path).glob("runs/*/retrieval_live.json"))


def test_a_tenant_sees_what_it_adopted_and_another_does_not(
    ours: Ingestion, theirs: Theirs, rows: list[Row], tmp_path: Path
) -> None:
    theirs.write(rows)
    adopted(ours.versions, theirs, ours.source)
    reader = ours.versions.reader(1)
    vector = Hashing().embed(["keeper number 7"])[0]
    for filters in ({"tenant": "other"}, {"source": "file:///elsewhere"}):
        assert reader.full_text("keeper", 5, filters) == reader.dense(vector, 5, filters) == []
    assert len(reader.dense(vector, 5, {"tenant": "default", "source": local_uri(ours.source)})) == 5
    with pytest.raises(UserError, match="index 'test' of tenant 'other' .* has no live version"):
        search("keeper number 7", index="test", tenant="other")
    only = search("keeper", index="test", filters={"id": "chunk-03"})
    assert [one.id for one in only] == ["chunk-03"]
    for name in ("use_case", "doc_id", "locator", "colour"):
        with pytest.raises(UserError, match=f"filter '{name}'='x' is not to be had on .*; choose among tenant, source"):
            search("keeper", index="test", filters={name: "x"})


def test_a_query_is_words_and_a_text_is_data(ours: Ingestion, theirs: Theirs, corpus: Path) -> None:
    (corpus / "odd.md").write_text('{"match_all": {}} {{ 7 * 7 }} \' OR 1=1 -- keeper:* "open')
    theirs.write(made_of(sorted(corpus.iterdir())))
    adopted(ours.versions, theirs, ours.source)
    for query in ('{"match_all": {}}', "' OR 1=1 --", 'keeper:* "open', "{{ 7 * 7 }}"):
        assert search(query, index="test", k=1)[0].path == "odd.md"
    assert search("zzz", index="test", mode="full_text") == search("***", index="test", mode="full_text") == []
    assert search("word " * 3000, index="test", mode="full_text") == []


def test_a_trace_says_that_no_run_of_ours_built_it(ours: Ingestion, theirs: Theirs, rows: list[Row]) -> None:
    theirs.write(rows)
    adopted(ours.versions, theirs, ours.source)
    with pytest.raises(UserError, match="v0001 of index 'test' was adopted from .*: no run of ours built it"):
        trace("chunk-07", index="test")


def test_vectors_are_not_taken_over_from_it(ours: Ingestion, theirs: Theirs, rows: list[Row]) -> None:
    theirs.write(rows)
    adopted(ours.versions, theirs, ours.source)
    config = ours.prepare("run-1")
    (shard,) = pipeline.plan(config)
    counts = pipeline.embed(config, shard, dag_id="test", task_id="embed")
    assert (counts["chunks_reused"], counts["chunks_embedded"]) == (0, counts["chunks"])


def test_titles_of_their_own_are_shown_and_are_part_of_what_was_embedded(
    ours: Ingestion, theirs: Theirs, corpus: Path
) -> None:
    rows = made_of(sorted(corpus.iterdir()))
    titled = [f"Title {n}\n{row['text']}" for n, row in enumerate(rows)]
    for n, (row, vector) in enumerate(zip(rows, Hashing().embed(titled), strict=True)):
        row["vector"], row["metadata"]["title"] = vector.tolist(), f"Title {n}"
    theirs.write(rows)
    adopted(ours.versions, theirs, ours.source)
    assert search("keeper number 7", index="test", k=1)[0].title == "Title 7"


def changed(rows: list[Row], count: int, **values: Any) -> list[Row]:
    return [{**row, **(values if n < count else {})} for n, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda _: [], "holds no row; must hold at least one"),
        (lambda rows: changed(rows, COUNT, vector=[1.0] * 8), r"is of 8 dimensions; must be of 256, as embedder's"),
        (
            lambda rows: changed(rows, COUNT, vector=np.eye(256)[3].tolist()),
            r"its vectors are not of embedder hashing-1: 0 of 20 .*; the mean cosine is -?0\.\d+, must be 0.98 for 90%",
        ),
        (lambda rows: changed(rows, COUNT, text=""), "only 0 of 20 sampled rows show a text and a vector"),
        (lambda rows: changed(rows, COUNT, metadata={"source": "/elsewhere/a.md"}), "'/elsewhere/a.md'; give the fol"),
        (
            lambda rows: changed(rows, COUNT, metadata={"source": "../source/00.md"}),
            "20 of 20 sampled paths .* are not",
        ),
    ],
)
def test_a_place_that_does_not_hold_what_it_should_is_refused(
    ours: Ingestion, theirs: Theirs, rows: list[Row], make: Callable[[list[Row]], list[Row]], says: str
) -> None:
    theirs.write(make(rows))
    before = theirs.state()
    with pytest.raises(UserError, match=says) as refusal:
        adopted(ours.versions, theirs, ours.source)
    assert "\n" not in str(refusal.value)
    assert (ours.versions.all(), ours.versions.live().version) == ([], None)
    assert theirs.state() == before


def test_a_few_rows_that_differ_are_put_up_with(ours: Ingestion, tmp_path: Path, rows: list[Row]) -> None:
    """Of 20 rows that are looked at 2 may differ; the table has no others."""
    theirs = table_of(tmp_path)
    theirs.write(changed(rows[:20], 3, text="edited by hand"))
    with pytest.raises(UserError, match="17 of 20 sampled ones are what it makes of their text"):
        adopted(ours.versions, theirs)
    theirs.write(changed(rows[:20], 2, text="edited by hand"))
    assert adopted(ours.versions, theirs).number == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"text": "body"}, r"field text='body' is not there; must be"),
        ({"vector": "text"}, r"field vector='text' is (string|text); must be"),
        ({"colour": "x"}, "fields: 'colour' is not known; choose among text, vector, id, title, path, headings"),
    ],
)
def test_fields_that_are_not_there_are_named(
    ours: Ingestion, theirs: Theirs, rows: list[Row], fields: dict[str, str], says: str
) -> None:
    theirs.write(rows)
    with pytest.raises(UserError, match=says):
        adopted(ours.versions, theirs, fields=fields)


def test_an_index_of_which_a_version_of_ours_is_live_is_not_given_away(
    ours: Ingestion, theirs: Theirs, rows: list[Row]
) -> None:
    theirs.write(rows)
    whole(ours, "run-1", store="lancedb")
    with pytest.raises(UserError, match="has the live v0001, which was built here: adopt under another name"):
        adopted(ours.versions, theirs)


def test_models_and_stores_that_are_not_known_are_refused(ours: Ingestion, theirs: Theirs) -> None:
    with pytest.raises(UserError, match="embedder 'gpt' is not known; choose one of"):
        adopted(ours.versions, theirs, embedder="gpt")
    with pytest.raises(UserError, match="store 'pinecone' is not known; choose one of lancedb, opensearch"):
        adopt(ours.versions, store="pinecone", place="x", embedder="hashing", fields={}, source=None, by="ann")
    with pytest.raises(UserError, match="is not there"):
        adopted(ours.versions, theirs)


def test_a_table_is_named_by_folder_and_table_and_nothing_is_made_by_looking(
    ours: Ingestion, tmp_path: Path, rows: list[Row]
) -> None:
    theirs = table_of(tmp_path)
    theirs.write(rows)
    folder, _, _ = theirs.place.rpartition("#")
    for place in ("vectorstore", folder, f"memory://x#{folder}", f"{folder}#../vectorstore"):
        with pytest.raises(UserError, match="does not name a LanceDB table: write file:///FOLDER#TABLE or s3://"):
            adopted(ours.versions, theirs, place=place)
    with pytest.raises(UserError, match="has no table 'other'; it has vectorstore"):
        adopted(ours.versions, theirs, place=f"{folder}#other")
    missing = tmp_path / "missing"
    with pytest.raises(UserError, match="is not a folder that can be read"):
        adopted(ours.versions, theirs, place=f"{missing.as_uri()}#vectorstore")
    assert not missing.exists()


def test_a_table_with_columns_of_its_own_is_read_by_their_names(
    ours: Ingestion, tmp_path: Path, rows: list[Row]
) -> None:
    values = [
        {"Key": row["id"], "The text": row["text"], "file": Path(row["metadata"]["source"]).name, "v": row["vector"]}
        for row in rows
    ]
    schema = pa.schema([(name, pa.string()) for name in ("Key", "The text", "file")])
    table = pa.Table.from_pylist(values, schema=schema.append(pa.field("v", pa.list_(pa.float32(), 256))))
    lancedb.connect(tmp_path / "own").create_table("t", table)
    theirs = Theirs("lancedb", f"{(tmp_path / 'own').as_uri()}#t", lambda _: None, lambda: None, lambda: None)
    fields = {"id": "Key", "text": "The text", "vector": "v", "path": "file"}
    adopted(ours.versions, theirs, ours.source, fields=fields)
    assert search("keeper number 7", index="test", k=1)[0].path == "07.md"
    assert [one.id for one in search("keeper", index="test", filters={"path": "03.md"})] == ["chunk-03"]
    with pytest.raises(UserError, match=r"field id='v' is fixed_size_list.*; must be a column of strings; there are K"):
        adopted(ours.versions, theirs, fields={**fields, "id": "v"})


def test_a_table_in_a_bucket_and_one_of_another_deployment_are_adopted(
    ours: Ingestion, s3_root: str, s3_endpoint: str
) -> None:
    """Its vectors are of title, headings and text, as ours are."""
    whole(ours, "run-1", store="lancedb")
    options = {"aws_endpoint": s3_endpoint, "allow_http": "true"}
    lancedb.connect(s3_root, storage_options=options).create_table("chunks", ours.store()._table().to_arrow())
    fields = {name: name for name in ("path", "title", "headings")}
    second = Versions(ours.root, "default", "second")
    values: Row = {"store": "lancedb", "embedder": "hashing", "source": ours.source, "by": "ann"}
    adopt(second, place=f"{s3_root}#chunks", fields=fields, **values)
    mine, theirs = (search("keeper number 7", index=index, k=1, mode="dense")[0] for index in ("test", "second"))
    assert mine.path == "07.md"
    assert replace(theirs, start=mine.start, end=mine.end) == mine
    with pytest.raises(UserError, match="its vectors are not of embedder hashing-1"):
        adopt(second, place=f"{s3_root}#chunks", fields={"path": "path", "text": "source"}, **values)


def test_what_we_built_is_not_adopted(ours: Ingestion, client: OpenSearch, tmp_path: Path) -> None:
    whole(ours, "run-1", store="opensearch")
    whole(Ingestion(ours.root, ours.source, {**ours.params, "index": "second"}), "run-2", store="lancedb")
    other = Versions(ours.root, "other", "test")
    alias = next(iter(client.indices.get_alias(index="*", name="*.default.test")))
    second = Versions(ours.root, "default", "second").home_of(1) / "lancedb"
    fields = {"id": "id", "title": "title", "path": "path", "headings": "headings"}
    (tmp_path / "link").symlink_to(second.path)
    for store, place in (
        ("opensearch", alias),
        ("opensearch", alias.rpartition(".")[0]),
        ("lancedb", f"file://{second.path}#chunks"),
        ("lancedb", f"file://{tmp_path / 'link'}#chunks"),
    ):
        with pytest.raises(UserError, match="was built here; only what was built elsewhere can be adopted"):
            adopt(
                other, store=store, place=place, embedder="hashing", source=None, by="eve",
                fields=fields if store == "lancedb" else {},
            )  # fmt: skip


def test_an_alias_stands_for_its_one_index(
    ours: Ingestion, client: OpenSearch, their_name: str, rows: list[Row]
) -> None:
    theirs = index_of(client, their_name, space="cosinesimil")
    theirs.write([{**row, "vector": [3 * value for value in row["vector"]]} for row in rows])
    client.indices.put_alias(index=their_name, name=f"{their_name}-now")
    client.indices.put_alias(index=their_name, name=f"{their_name}-some", body={"filter": {"match_all": {}}})
    with pytest.raises(UserError, match=f"is an alias with filter, which would be lost; name its index {their_name}"):
        adopted(ours.versions, theirs, place=f"{their_name}-some")
    version = adopted(ours.versions, theirs, ours.source, place=f"{their_name}-now")
    assert version.adopted is not None and version.adopted.place == their_name
    assert search("keeper number 7", index="test", k=1)[0].path == "07.md"
    assert [one.id for one in search("keeper", index="test", filters={"path": "03.md"})] == ["chunk-03"]
    index_of(client, f"{their_name}-2").write(rows[:1])
    client.indices.put_alias(index=f"{their_name}-2", name=f"{their_name}-now")
    with pytest.raises(UserError, match=f"is an alias of {their_name}, {their_name}-2; name one of them"):
        adopted(ours.versions, theirs, place=f"{their_name}-now")
    for place in ("", "_all", f"{their_name},x", "*", ".hidden", "a/b", "a b"):
        with pytest.raises(UserError, match="is not the name of one index or alias"):
            adopted(ours.versions, theirs, place=place)


@pytest.mark.parametrize("space", ["l2", "innerproduct"])
def test_other_similarities_need_unit_vectors(
    ours: Ingestion, client: OpenSearch, their_name: str, rows: list[Row], space: str
) -> None:
    theirs = index_of(client, their_name, space)
    theirs.write([{**row, "vector": [3 * value for value in row["vector"]]} for row in rows])
    with pytest.raises(UserError, match=rf"ranks by {space}, as cosine does .* its lengths are 3 to 3: must be unit"):
        adopted(ours.versions, theirs)
    theirs.write(rows)
    adopted(ours.versions, theirs, ours.source)
    assert search("keeper number 7", index="test", k=1, mode="dense")[0].path == "07.md"


def test_fields_of_kinds_that_cannot_be_searched_are_refused(
    ours: Ingestion, client: OpenSearch, their_name: str
) -> None:
    vector: Row = {"type": "knn_vector", "dimension": 256}
    lucene: Row = {"name": "hnsw", "engine": "lucene"}
    theirs = index_of(client, their_name)
    for knn, properties, says in (
        (
            True,
            {"text": {"type": "keyword"}, "vector_field": vector},
            "field text='text' is keyword; must be of type t",
        ),
        (True, {"text": {"type": "text"}, "vector_field": {"type": "float"}}, "is float; must be of type knn_vector"),
        (
            True,
            {"text": {"type": "text"}, "vector_field": {**vector, "data_type": "byte", "method": lucene}},
            "is of bytes",
        ),
        (False, {"text": {"type": "text"}, "vector_field": vector}, "setting index.knn is None; must be true"),
    ):
        settings = {"index.knn": True} if knn else {}
        client.indices.create(index=their_name, body={"settings": settings, "mappings": {"properties": properties}})
        with pytest.raises(UserError, match=says):
            adopted(ours.versions, theirs)
        client.indices.delete(index=their_name)


def test_vectors_that_the_server_does_not_show_cannot_be_proved(
    ours: Ingestion, client: OpenSearch, their_name: str, rows: list[Row]
) -> None:
    hidden: Row = {"_source": {"excludes": ["vector_field"]}, "properties": {"text": {"type": "text"}}}
    hidden["properties"]["vector_field"] = {
        "type": "knn_vector", "dimension": 256, "method": {"name": "hnsw", "engine": "lucene"}
    }  # fmt: skip
    settings = {"index.knn": True, "index.knn.derived_source.enabled": False}
    client.indices.create(index=their_name, body={"settings": settings, "mappings": hidden})
    client.index(index=their_name, body={"text": "a", "vector_field": rows[0]["vector"]}, refresh=True)
    with pytest.raises(UserError, match="only 0 of 1 sampled rows show a text and a vector"):
        adopted(ours.versions, index_of(client, their_name))


def test_a_server_that_is_away_is_one_line(ours: Ingestion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_OPENSEARCH_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("FMOPS_OPENSEARCH_DEADLINE_S", "1")
    with pytest.raises(ConnectionError, match=r"OpenSearch: no connection: .*given up after 1 s"):
        adopt(ours.versions, store="opensearch", place="x", embedder="hashing", fields={}, source=None, by="ann")
    monkeypatch.delenv("FMOPS_OPENSEARCH_URL")
    with pytest.raises(UserError, match="store 'opensearch' needs FMOPS_OPENSEARCH_URL"):
        adopt(ours.versions, store="opensearch", place="x", embedder="hashing", fields={}, source=None, by="ann")


def test_the_command_adopts_or_says_why_not(
    ours: Ingestion, theirs: Theirs, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    theirs.write(rows)
    command = ["adopt", "--index", "test", "--store", theirs.store, "--place", theirs.place, "--embedder", "hashing"]
    assert manage.main([*command, "--fields", "text=body, path=metadata.source"]) == 2
    assert "field text='body' is not there" in capsys.readouterr().err
    assert manage.main([*command, "--source", ours.source, "--fields", ""]) == 0
    told, line = capsys.readouterr().out.splitlines()
    assert told == f"v0001 is {theirs.place}, {COUNT} rows; it is read only"
    assert line.startswith("v0001  live         adopted 2")
    assert line.endswith(f"(hashing-1), chunker=adopted, place={theirs.place}")


def test_names_of_fields_are_read_from_one_line() -> None:
    assert read_fields(" text=body,path=metadata.file  id=_id") == {
        "text": "body",
        "path": "metadata.file",
        "id": "_id",
    }
    assert read_fields("") == {}
    with pytest.raises(UserError, match="fields='text': 'text' has no field; write NAME=FIELD"):
        read_fields("text")
