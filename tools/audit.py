"""Look for known vulnerabilities in everything that is pinned, with pip-audit. `make audit` calls this.

    python tools/audit.py [--url URL]

pip-audit ends with the same status when it finds something and when it cannot ask, so its answer is read here. This
ends with 0 where every pinned package was looked up and nothing is known, 1 where something is known, and 3 where the
look-up did not succeed for all of them: that says nothing about the packages, and is never counted as clean.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-upkeep.lock")
OSV = "https://api.osv.dev/v1/query"  # the database of known vulnerabilities of open source, osv.dev
CLEAN, FOUND, NOT_RUN = 0, 1, 3


def main(arguments: list[str] | None = None) -> int:
    """Audit, tell, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=OSV, help="the service to ask, which speaks as osv.dev does")
    chosen = parser.parse_args(arguments)
    wanted = pins()
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "pins.txt"
        listed.write_text("\n".join(wanted) + "\n", encoding="utf-8")
        command = [
            sys.executable, "-m", "pip_audit", "--requirement", str(listed), "--disable-pip", "--no-deps",
            "--vulnerability-service", "osv", "--osv-url", chosen.url, "--cache-dir", f"{folder}/cache",
            "--format", "json", "--progress-spinner", "off", "--timeout", "15",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
    status, told = verdict(wanted, done.returncode, done.stdout, done.stderr)
    print("\n".join(told), file=sys.stderr if status == NOT_RUN else sys.stdout)
    return status


def pins() -> list[str]:
    """Return every pinned requirement, from both locks and what is built separately, such as "torch==2.13.0"."""
    lines = [line for lock in LOCKS for line in (ROOT / lock).read_text(encoding="utf-8").splitlines()]
    pinned = [found[0] for line in lines if (found := re.match(r"[A-Za-z0-9._-]+==[^\s;]+", line))]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return sorted({*pinned, *settings["tool"]["rapidadapt"]["built-separately"]}, key=str.lower)


def verdict(wanted: list[str], returned: int, out: str, err: str) -> tuple[int, list[str]]:
    """Say what pip-audit's answer means.

    Args:
        wanted: the pinned requirements.
        returned: pip-audit's exit status.
        out, err: what it wrote. On success, and where it found something, `out` is one JSON document.

    Returns:
        The exit status, and lines to print.
    """
    try:
        entries = json.loads(out)["dependencies"]
        asked = {plain(entry["name"]) for entry in entries if "vulns" in entry}
        known = [(entry, vuln["id"], vuln["fix_versions"]) for entry in entries for vuln in entry.get("vulns", ())]
        skipped = [f"{entry['name']}: {entry['skip_reason']}" for entry in entries if "skip_reason" in entry]
    except (ValueError, KeyError, TypeError, AttributeError):
        last = [line for line in err.strip().splitlines() if line.strip()][-1:] or ["nothing"]
        lines = ["NOT AUDITED: pip-audit could not ask. Nothing is known about the packages.", f"It said: {last[0]}"]
        return NOT_RUN, [*lines, "What to do: run `make audit` where the network reaches its service."]
    told = [f"{e['name']} {e['version']}: {name}, mended in {', '.join(fix) or 'no version'}" for e, name, fix in known]
    missing = [pin for pin in wanted if plain(pin.partition("==")[0]) not in asked]
    if known:
        return FOUND, [f"Known vulnerabilities: {len(known)}.", *told, *unasked(missing, skipped)]
    if missing or returned:
        lines = [f"NOT AUDITED in full: nothing known in {len(asked)} packages, and pip-audit ended with {returned}."]
        return NOT_RUN, [*lines, *unasked(missing, skipped)]
    return CLEAN, [f"Nothing is known against any of the {len(wanted)} pinned packages."]


def unasked(missing: list[str], skipped: list[str]) -> list[str]:
    return ([f"Not looked up: {', '.join(missing)}."] if missing else []) + skipped


def plain(name: str) -> str:
    """Return a package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
