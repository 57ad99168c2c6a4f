"""The answer of a check as CI systems read it: JUnit XML, and GitHub's Markdown and annotations.

Sources: the JUnit schema as Jenkins and GitLab read it (testsuite, testcase, failure, error, skipped);
docs.github.com, "Workflow commands for GitHub Actions" (``::error title=…::message``, ``%``, CR and LF escaped, in
properties ``:`` and ``,`` too); the runner looks for them on both output streams.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from xml.etree import ElementTree

from toolkit.profiler.judging import Checked, CheckReport
from toolkit.report.comparison import ratio_text, summary
from toolkit.report.numbers import duration
from toolkit.report.rows import MISSING

_SUITE = "toolkit check"
# What XML 1.0 has no way to write, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(found: CheckReport, *, tolerate_doubt: bool) -> str:
    """One test case per case. With ``tolerate_doubt`` an inconclusive one is skipped, else it is a failure."""
    elements = {
        "slower": "failure",
        "not measured": "error",
        "inconclusive": "skipped" if tolerate_doubt else "failure",
    }
    kinds = [elements.get(case.answer, "") for case in found.cases]
    counts = {
        f"{name}s" if name != "skipped" else name: str(kinds.count(name)) for name in ("failure", "error", "skipped")
    }
    suite = ElementTree.Element("testsuite", {"name": _SUITE, "tests": str(len(kinds)), **counts})
    for case, kind in zip(found.cases, kinds, strict=True):
        name = _clean(case.new or case.old)
        element = ElementTree.SubElement(suite, "testcase", {"classname": _SUITE, "name": name})
        if kind:
            trouble = ElementTree.SubElement(element, kind, {"message": _clean(described(case, found.limit))})
            trouble.set("type", case.answer)
        ElementTree.SubElement(element, "system-out").text = _clean(described(case, found.limit))
    ElementTree.SubElement(suite, "system-out").text = _clean("\n".join([summary(found), *found.warnings]))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _clean(text: str) -> str:
    return _NOT_XML.sub("�", text)


def described(case: Checked, limit: float) -> str:
    """One case in a sentence."""
    if case.ratio is None:
        return f"{case.answer}: {case.reason}"
    text = f"{case.answer}: new/old {ratio_text(case)}, at most {limit:.4g} is allowed"
    return f"{text} ({case.reason})" if case.reason else text


def github_summary(found: CheckReport) -> str:
    """Markdown for the step summary of a workflow, or for a comment."""
    rows = [
        "| case | old p50 | new p50 | new/old | answer |",
        "|---|---:|---:|---|---|",
        *(_row(case) for case in found.cases),
    ]
    doubts = [f"- {_escaped(text)}" for text in found.warnings]
    return "\n".join(["### Latency check", "", *rows, "", summary(found), *([""] if doubts else []), *doubts]) + "\n"


def _row(case: Checked) -> str:
    old, new = (MISSING, MISSING) if case.p50_ns is None else (duration(value) for value in case.p50_ns)
    answer = f"**{case.answer}**" if case.answer != "passed" else case.answer
    cells = (case.new or case.old, old, new, ratio_text(case), f"{answer} {case.reason}".strip())
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


_LEVELS: Mapping[bool, Callable[[Checked], str]] = {
    True: lambda case: {"passed": "notice", "inconclusive": "warning"}.get(case.answer, "error"),
    False: lambda case: "notice" if case.answer == "passed" else "error",
}


def github_annotations(found: CheckReport, *, tolerate_doubt: bool) -> list[str]:
    """One workflow command per case: a notice for what passed, an error for what did not."""
    return [
        f"::{_LEVELS[tolerate_doubt](case)} title={_property(f'{_SUITE}: {case.new or case.old}')}::"
        + _message(described(case, found.limit))
        for case in found.cases
    ]


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
