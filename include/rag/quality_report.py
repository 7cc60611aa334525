"""A run's page and its few lines for a terminal: the verdict, what the run did, how well its index finds, what it took.

Questions and names of documents come from untrusted files: all text is escaped, and the page may load nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from include.contracts import DeadLetter, IngestionManifest
from include.rag.quality import QualityReport
from include.rag.report.cost import cost_section
from include.rag.report.retrieval import SAYS, origin, retrieval_section, verdict_box
from include.rag.report.run import live_line, run_section
from include.rag.report.text import measure_name, mode_name, plural
from include.rag.versions import version_name

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Liberation Sans", Arial, sans-serif; color: #1f2328; background: #fff;
  max-width: 62rem; margin: 2rem auto; padding: 0 1.5rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; } h4 { font-size: .9rem; margin: 1.2rem 0 .4rem; }
.about, small { color: #57606a; } .about { margin: 0 0 1.2rem; }
.verdict { border-left: 6px solid; padding: .7rem 1rem; background: #f6f8fa; }
.verdict strong { font-size: 1.2rem; } .verdict ul { margin: .4rem 0 0; padding-left: 1.2rem; }
.passed { border-color: #0072b2; } .passed_in_doubt, .not_judged { border-color: #e69f00; }
.refused { border-color: #d55e00; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .5rem; margin: .6rem 0; }
.tiles div { border: 1px solid #d0d7de; border-radius: 4px; padding: .4rem .6rem; display: flex;
  flex-direction: column-reverse; justify-content: flex-end; }
.tiles dt { font-size: .8rem; line-height: 1.3; color: #57606a; }
.tiles dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tiles .none dd { color: #8c959f; font-weight: 400; } .tiles .alarming { border-color: #d55e00; background: #fdf3ec; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .7rem; border-bottom: 1px solid #d0d7de; }
thead th { white-space: nowrap; border-bottom-width: 2px; }
.figures { overflow-x: auto; } .figures td { white-space: nowrap; font-variant-numeric: tabular-nums; }
.figures small { display: block; }
.stacked, .facts { font-size: .9em; } .even table { table-layout: fixed; }
.uneven td:last-child { width: 78%; }
.facts th { white-space: nowrap; width: 8rem; }
ol { margin: 0; padding-left: 1.3rem; } .plain { margin: 0; padding: 0; list-style: none; }
.plain small { display: block; } .hit { font-weight: 600; }
figure { margin: 1.2rem 0; } svg { max-width: 100%; height: auto; }
@media (max-width: 40rem) {
  body { padding: 0 .8rem; margin: 1rem auto; } th, td { padding: .3rem; } .figures { font-size: .78em; }
  .stacked thead { display: none; } .stacked tr { display: block; border-bottom: 1px solid #d0d7de; padding: .4rem 0; }
  .stacked td, .uneven td:last-child { display: block; border: 0; width: auto; }
  .stacked td::before { content: attr(data-title); display: block; font-size: .8rem; color: #57606a; }
  .facts th, .facts td { display: block; border: 0; padding: .1rem 0; } .facts td { padding-bottom: .5rem; }
}
"""


def summary(report: QualityReport) -> str:
    """A few lines for a terminal: the verdict, its reasons unless the index simply passed, the scores of each mode."""
    decision = report.decision
    says = SAYS[decision.verdict].upper() if decision else "MEASURED"
    lines = [f"Retrieval quality of index {report.index}: {says} ({plural(report.num_questions, 'question')})"]
    compared = report.live_version not in (None, report.index_version)
    if decision and (compared or decision.verdict != "passed"):
        lines += [f"  {reason}" for reason in decision.reasons]
    for mode in report.modes:
        scores = "  ".join(f"{measure_name(name)} {score.mean:.3f}" for name, score in mode.scores.items())
        lines.append(f"  {mode_name(mode.mode):<10} {scores or 'nothing was asked'}")
    return "\n".join(lines)


def page(
    report: QualityReport,
    names: Mapping[str, str],
    *,
    manifest: IngestionManifest,
    letters: Sequence[DeadLetter],
    stages: Sequence[Mapping[str, Any]],
    before: QualityReport | None,
    max_drop: float | None = None,
) -> str:
    """A self-contained HTML page of one run.

    `names` says what to call a document id, such as its path; `letters` are the run's dead letters; `stages` the
    records of include.rag.stages; `before` the live version's report on the same questions, if another version is live,
    and `max_drop` how much worse than that the run's may be.
    """
    title = f"Index {report.index}, version {version_name(report.index_version)}"
    about = f"run {report.run_id}, ledger version {report.ledger_version}, tenant {report.tenant}"
    about += f", use case {report.use_case}, {manifest.created_at:%Y-%m-%d %H:%M} UTC"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="about">{escape(about)}</p>',
        verdict_box(report.decision),
        f"<p>{escape(live_line(report))}</p>",
        "<h2>What this run did</h2>",
        run_section(report, manifest, letters),
        f"<h2>Retrieval quality of index {escape(report.index)}</h2>",
        retrieval_section(report, before, names, max_drop),
        "<h2>Time and cost</h2>",
        cost_section(stages),
        "<h2>Where the questions come from</h2>",
        f"<p>{origin(report)}</p>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )
