"""Write docs/reproductions.md, published findings beside what the course's studies recorded, and the README's rows.

python tools/reproductions.py            write both (make reproductions)
python tools/reproductions.py --check    change nothing; exit status 1 where one says something else
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "studies"))

from finding import AGREES, Finding  # noqa: E402
from findings import FINDINGS  # noqa: E402

PAGE, README = ROOT / "docs" / "reproductions.md", ROOT / "README.md"
BEGIN, END = "<!-- reproductions: written by `make reproductions` -->", "<!-- /reproductions -->"
TOP = 10  # rows in the README
HEADS = "| paper | what it found | seen here: mean (range over seeds) | verdict | lesson |\n|---|---|---|---|---|"
INTRODUCTION = """\
# Published findings, reproduced

Written by `make reproductions`; do not edit. Each row is a published finding and the number that a recorded study \
of this course gives for it, over several seeds, with a model of 135 million weights or smaller networks. A row \
**agrees** if the whole 95% interval meets the stated condition, **disagrees** if none of it does, and is \
**undecided** otherwise. Rows that don't agree stay in the table.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or check, and return the exit status."""
    parser = argparse.ArgumentParser(description="Write the published findings beside what was recorded.")
    parser.add_argument("--check", action="store_true", help="change nothing; say what would change")
    chosen = parser.parse_args(arguments)
    pages = planned()
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)}{' is out of date: run `make reproductions`' if chosen.check else ''}")
        if not chosen.check:
            path.write_text(pages[path], encoding="utf-8")
    return int(chosen.check and bool(stale))


def planned(findings: Sequence[Finding] = FINDINGS) -> dict[Path, str]:
    """Return what the page and the README should say, by their paths. Exits where the README lacks the markers."""
    readme = README.read_text(encoding="utf-8")
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"The README needs {BEGIN} and {END}, in this order.")
    rows = "\n".join([HEADS, *(row(finding, "") for finding in findings[:TOP])])
    return {PAGE: page(findings), README: f"{before}{BEGIN}\n{rows}\n{END}{after}"}


def page(findings: Sequence[Finding]) -> str:
    """Return the page: all rows, then for each what agreeing means, how to compute it again, and its note."""
    lines = [INTRODUCTION, HEADS, *(row(finding, "../") for finding in findings), "", "## Row by row", ""]
    for finding in findings:
        found = finding.claim.interval()
        low, high = (f"{end:.{finding.digits}f}" for end in (found.low, found.high))
        lines += [
            f"- **{finding.paper}, {finding.figure}.** {finding.found} *Here*: {finding.number}. To agree, it has to "
            f"be {bound(finding)}; its 95% interval is {low} to {high}: {finding.verdict()}. "
            f"{finding.note + ' ' if finding.note else ''}Repeat it: `python studies/{finding.claim.study}.py`."
        ]
    return "\n".join(lines) + "\n"


def row(finding: Finding, root: str) -> str:
    """Return a row of the table; `root` is what leads from its page to the repository's folder."""
    section, verdict = finding.claim.section, finding.verdict()
    [lesson] = (ROOT / "notebooks").glob(f"{int(section.split('.')[0]):02}_*.ipynb")
    told = verdict if verdict == AGREES else f"**{verdict}**"
    paper = f"{finding.paper}, {finding.figure}"
    return f"| {paper} | {finding.found} | {finding.seen()} | {told} | [{section}]({root}notebooks/{lesson.name}) |"


def bound(finding: Finding) -> str:
    """Return what the number must satisfy, in words."""
    claim, bounds = finding.claim, []
    if claim.above > float("-inf"):
        bounds.append(f"above {claim.above:g}")
    if claim.below < float("inf"):
        bounds.append(f"below {claim.below:g}")
    return " and ".join(bounds)


if __name__ == "__main__":
    sys.exit(main())
