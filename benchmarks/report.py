"""Measure set-up, every lesson and the other benchmarks, and write benchmarks/report.md and the README's summary.

    python benchmarks/report.py                       all of it (`make report`); let the machine do nothing else
    python benchmarks/report.py --lessons 00,05       some lessons; the rest stays as it was measured last
    python benchmarks/report.py --setup               set-up from nothing, and again (downloads everything anew)
    python benchmarks/report.py --benchmarks maml     some benchmarks
    python benchmarks/report.py --write               measure nothing, write the report from what is there

Every piece is kept as JSON in build/report, so that pieces can be measured at different times. A piece that is not
kept there, such as in a new copy of the course, stays as benchmarks/report.md tells it. Times are the clock's.
A lesson's time is from the start of its kernel to its last output, its first result the first output that a reader
sees, and its memory the most that the kernel and all its children held at one time, looked at up to five times a
second: RSS, which counts mapped files in full, and PSS, which counts what is shared with other processes in part
(Linux).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build" / "report"
REPORT, README = ROOT / "benchmarks" / "report.md", ROOT / "README.md"
BEGIN, END = "<!-- report -->", "<!-- /report -->"
ALL_LESSONS_SECONDS = 15 * 60  # the budget of all lessons together, on 2 cores
BUDGET_FLOPS = 0.33e12  # of the machine for which it was set, in float32 products of 2048-square matrices
LESSON_BYTES = 2e9  # the budget of one lesson's memory
BUSY = 15.0  # percent: where the cores were busier than this before a piece began, its times are too long
BRIEF = {  # how each benchmark is run for the report; one that is not here runs as it does by itself
    "import_time": ["5"],
    "prefix_cache": ["3"],
    "lora": ["3"],
    "maml": ["9", "--no-compile"],
    "continual": ["2"],
    "predict": ["2"],
    "scaling": ["5"],
}
Piece = dict[str, Any]
ROW = re.compile(  # of the table of lessons, as `lesson_row` writes it
    r"^\| \[(?P<stem>\w+)\]\(\S+\)(?: \(changed since\))? \| (?P<seconds>\d+) \| (?P<first>[\d.]+|none) \| "
    r"(?P<rss>\d+) \| (?P<pss>\d+) \| \S+ \| (?P<speed>[\d.]+|unknown) \| "
    r"(?P<day>[\d-]+)(?: <!-- code (?P<code>\w+) -->)? \|$",
    re.MULTILINE,
)
BENCHMARK = re.compile(r"^### (\w+)\n\nMeasured on (\S+)\.\n\n```text\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
SETUP = re.compile(r"^\| set-up from nothing; again \| ([\d min]+ s); ([\d min]+ s) \|", re.MULTILINE)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lessons", help="numbers of lessons, such as 00,03; or all")
    parser.add_argument("--benchmarks", help="names of benchmarks, such as maml,lora; or all")
    parser.add_argument("--setup", action="store_true", help="set-up in a new environment, with an empty cache")
    parser.add_argument("--write", action="store_true", help="measure nothing")
    chosen = parser.parse_args(arguments)
    parts = (chosen.lessons, chosen.benchmarks, chosen.setup, chosen.write)
    everything = not any(parts)
    KEPT.mkdir(parents=True, exist_ok=True)
    failed = []
    if chosen.setup or everything:
        failed += keep("setup", measure_setup)
    for path in pick(lessons(), "all" if everything else chosen.lessons):
        failed += keep(f"lesson-{path.stem}", lambda path=path: measure_lesson(path))
    for path in pick(benchmarks(), "all" if everything else chosen.benchmarks):
        failed += keep(f"benchmark-{path.stem}", lambda path=path: run_benchmark(path))
    text = report_text(earlier=from_report(REPORT.read_text(encoding="utf-8")))
    replace_file(REPORT, text)
    replace_file(README, with_summary(README.read_text(encoding="utf-8"), summary_of(text)))
    print(f"Written: {REPORT.relative_to(ROOT)}, and the summary in README.md", flush=True)
    return int(bool(failed))


def lessons() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def benchmarks() -> list[Path]:
    others = ("report", "matrix_product")
    return sorted(path for path in (ROOT / "benchmarks").glob("*.py") if path.stem not in others)


def pick(paths: list[Path], names: str | None) -> list[Path]:
    """Return the files whose names begin with one of those given. Exits where a name fits none."""
    if not names or names == "all":
        return paths if names else []
    wanted = names.split(",")
    if unknown := [name for name in wanted if not any(path.stem.startswith(name) for path in paths)]:
        raise SystemExit(f"There is no {', '.join(unknown)}; there are {', '.join(path.stem for path in paths)}.")
    return [path for path in paths if path.stem.startswith(tuple(wanted))]


# Measuring


def keep(name: str, measure) -> list[str]:
    """Measure a piece and keep it with the day and the machine. Returns its name where that failed."""
    print(f"{name} ...", flush=True)
    busy = psutil.cpu_percent(interval=2.0)
    try:
        piece = measure()
    except Exception as error:
        print(f"{name} failed, and what was measured last is kept: {error}", file=sys.stderr)
        return [name]
    piece |= {"day": date.today().isoformat(), "machine": machine(), "busy_before": busy}
    replace_file(KEPT / f"{name}.json", json.dumps(piece, indent=1) + "\n")
    return []


def measure_setup() -> Piece:
    """Set up into a new environment with nothing cached, then again.

    Raises:
        RuntimeError: it failed.
    """
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "tools" / "bootstrap.py"), "--venv", f"{folder}/venv"]
        environment = {**os.environ, "RAPIDADAPT_CACHE": f"{folder}/cache", "PIP_NO_CACHE_DIR": "1"}
        for _ in range(2):
            start = time.perf_counter()
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode:
                raise RuntimeError("set-up: " + done.stdout[-1500:])
            seconds.append(time.perf_counter() - start)
    return {"cold_seconds": seconds[0], "warm_seconds": seconds[1]}


def measure_lesson(path: Path) -> Piece:
    """Run a lesson from a fresh kernel, in its folder. Nothing is stored in it.

    Raises:
        CellExecutionError: a cell failed.
    """
    import nbformat
    from nbclient import NotebookClient

    class Client(NotebookClient):
        first: float | None = None

        def process_message(self, message, cell, index):
            if self.first is None and message["msg_type"] in ("stream", "display_data", "execute_result"):
                self.first = time.perf_counter()
            return super().process_message(message, cell, index)

    notebook = nbformat.read(path, as_version=4)
    options = {"timeout": 900, "kernel_name": "python3", "resources": {"metadata": {"path": path.parent}}}
    client = Client(notebook, **options)
    environment = {**os.environ, "RAPIDADAPT_PROGRESS": "off"}
    speeds = [machine_flops()]
    start = time.perf_counter()
    with client.setup_kernel(env=environment), Watcher(client.km.provisioner.process.pid) as watcher:
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        seconds = time.perf_counter() - start
    speeds.append(machine_flops())
    first = client.first - start if client.first else None
    found = {"seconds": seconds, "first_seconds": first, "peak": {"rss": watcher.rss, "pss": watcher.pss}}
    return found | {"flops": sum(speeds) / 2, "code": code_digest(path)}


def machine_flops() -> float:
    """Return how many operations a second the machine does now, in a process of its own."""
    command = [sys.executable, str(ROOT / "benchmarks" / "matrix_product.py")]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


class Watcher:
    """Looks at the memory of a process and its children, and keeps the highest sums in bytes.

    Five times a second, or less often: a look at a process of 2 GB takes a twentieth of a second, in which that process
    may have to wait, so the pause after it is twenty times as long.
    """

    def __init__(self, pid: int):
        self._root, self._over = psutil.Process(pid), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.rss, self.pss = 0, 0

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        pause = 0.2
        while not self._over.wait(pause):
            begun, rss, pss = time.perf_counter(), 0, 0
            try:
                for process in [self._root, *self._root.children(recursive=True)]:
                    rss, pss = rss + process.memory_info().rss, pss + proportional(process.pid)
            except (psutil.Error, OSError):  # a child has just ended
                continue
            self.rss, self.pss = max(self.rss, rss), max(self.pss, pss)
            pause = max(0.2, 20 * (time.perf_counter() - begun))


def proportional(pid: int) -> int:
    """Return a process's PSS in bytes, from the file in which Linux adds it up; 0 on other systems."""
    if not sys.platform.startswith("linux"):
        return 0
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return 1024 * int(re.search(r"^Pss:\s*(\d+) kB$", rollup, re.MULTILINE)[1])


def run_benchmark(path: Path) -> Piece:
    """Run a benchmark and keep the lines that it prints.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, str(path), *BRIEF.get(path.stem, [])]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout)[-1500:])
    return {"lines": done.stdout.rstrip().splitlines(), "seconds": time.perf_counter() - start}


def machine() -> str:
    """Describe the processor, memory and system, without names of machines, users or folders."""
    name = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        name = found[1] if found else name
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 1e9
    system = f"{platform.system()} on {platform.machine()}"
    return f"{name}, {cores} cores, {memory:.0f} GB of memory, {system}"


def code_digest(path: Path) -> str:
    """Return a digest of a notebook's code, to tell whether it has changed since it was measured."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


# Writing


def report_text(earlier: dict[str, Piece] | None = None) -> str:
    """Return the report from what is kept. What was never measured is named as such.

    Args:
        earlier: pieces to take where none is kept; from `from_report`.
    """

    def piece_of(name: str) -> Piece | None:
        return load(name) or (earlier or {}).get(name)

    setup, kept = piece_of("setup"), {path: piece_of(f"lesson-{path.stem}") for path in lessons()}
    measured = {path: piece for path, piece in kept.items() if piece}
    others = {path: piece_of(f"benchmark-{path.stem}") for path in benchmarks()}
    pieces = [piece for piece in (setup, *kept.values(), *others.values()) if piece]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "jupyterlab"))
    lines = ["# Results, speed and memory", "", "Written by `make report`; do not edit. The budget is for 2 cores.", ""]
    machines = {text for piece in pieces for text in piece["machine"].splitlines()}
    lines += [f"- Machine: {text}." for text in sorted(machines)]
    lines += [f"- Python {platform.python_version()}, {packages}.", ""]
    busy = [name for name, piece in named_pieces(setup, kept, others) if is_busy(piece)]
    if busy:
        lines += [f"The machine had other work when these began, so their times are too long: {', '.join(busy)}.", ""]
    lines += [*summary(setup, measured, missing=len(kept) - len(measured)), ""]
    lines += [
        "What the lessons find, over seeds, is on [another page](../docs/reproductions.md).",
        "",
        "## Lessons",
        "",
    ]
    lines += ["From a fresh kernel each, one after another. MB are 10^6 bytes. Whether a lesson keeps within 2 GB goes"]
    lines += ["by PSS where the system tells it: a file of weights that is mapped several times is in memory once."]
    lines += ["TFLOP/s: what the machine reached before and after the lesson, in float32 products of 2048-square"]
    lines += [f"matrices; most of a lesson is such work. The budgets were set on one of {BUDGET_FLOPS / 1e12:.2f}.", ""]
    memory = ("peak RSS (MB)", "peak PSS (MB)", "within 2 GB")
    heads = ("lesson", "seconds", "first result after (s)", *memory, "TFLOP/s", "day")
    lines += [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [*(lesson_row(path, piece) for path, piece in kept.items()), ""]
    lines += ["## Benchmarks", "", "Each compares its sides within one run; see the head of its file.", ""]
    for path, piece in others.items():
        lines += [f"### {path.stem}", ""]
        if piece:
            lines += [f"Measured on {piece['day']}.", "", "```text", *piece["lines"], "```", ""]
        else:
            lines += ["Not measured yet.", ""]
    return "\n".join(lines)


def from_report(text: str) -> dict[str, Piece]:
    """Return the pieces that a report was written from, by their names, with their figures as it rounds them."""
    machines = "\n".join(re.findall(r"^- Machine: (.+)\.$", text, re.MULTILINE))
    busy = re.search(r"^The machine had other work .+: (.+)\.$", text, re.MULTILINE)
    names = busy[1].split(", ") if busy else []
    found: dict[str, Piece] = {}

    def put(kind: str, name: str, day: str, **values: Any) -> None:
        known = {"machine": machines, "busy_before": 100.0 if name in names else 0.0, "day": day}
        found[kind + name if kind else "setup"] = known | values

    if setup := SETUP.search(text):
        cold, warm = map(seconds_of, setup.groups())
        put("", "set-up", "", cold_seconds=cold, warm_seconds=warm)
    for row in ROW.finditer(text):
        first = None if row["first"] == "none" else float(row["first"])
        peak = {"rss": 1e6 * int(row["rss"]), "pss": 1e6 * int(row["pss"])}
        values = {"seconds": int(row["seconds"]), "first_seconds": first, "peak": peak, "code": row["code"] or ""}
        values["flops"] = None if row["speed"] == "unknown" else 1e12 * float(row["speed"])
        put("lesson-", row["stem"], row["day"], **values)
    for name, day, lines in BENCHMARK.findall(text):
        put("benchmark-", name, day, lines=lines.splitlines())
    return found


def named_pieces(setup, kept, others) -> list[tuple[str, Piece]]:
    named = {"set-up": setup} | {path.stem: piece for path, piece in (kept | others).items()}
    return [(name, piece) for name, piece in named.items() if piece]


def lesson_row(path: Path, piece: Piece | None) -> str:
    name = f"[{path.stem}](../notebooks/{path.name})"
    if not piece:
        return f"| {name} | not measured | | | | | | |"
    mark = "" if code_digest(path).startswith(piece["code"] or "unknown") else " (changed since)"
    rss, pss = piece["peak"]["rss"], piece["peak"]["pss"]
    first = f"{piece['first_seconds']:.1f}" if piece["first_seconds"] else "none"
    within = "yes" if held(piece) <= LESSON_BYTES else "**no**"
    cells = f"{piece['seconds']:.0f} | {first} | {rss / 1e6:.0f} | {pss / 1e6:.0f} | {within}"
    speed = f"{piece['flops'] / 1e12:.2f}" if piece.get("flops") else "unknown"
    return f"| {name}{mark} | {cells} | {speed} | {piece['day']} <!-- code {piece['code'][:12] or 'unknown'} --> |"


def held(piece: Piece) -> float:
    """Return the most bytes that a lesson held: by PSS, or by RSS where there is none."""
    return piece["peak"]["pss"] or piece["peak"]["rss"]


def summary(setup: Piece | None, measured: dict[Path, Piece], missing: int) -> list[str]:
    """Return the table that the README shows too, between its markers."""
    rows = [BEGIN, "| measured | | budget |", "|---|---|---|"]
    if setup:
        cold, warm = minutes(setup["cold_seconds"]), minutes(setup["warm_seconds"])
        rows.append(f"| set-up from nothing; again | {cold}; {warm} | |")
    else:
        rows.append("| set-up from nothing; again | not measured yet | |")
    if measured:
        total = sum(round(piece["seconds"]) for piece in measured.values())
        which = "all lessons" if not missing else f"{len(measured)} of {len(measured) + missing} lessons"
        over = "" if total <= ALL_LESSONS_SECONDS else " (**over**)"
        rows.append(f"| {which}, one after another | {minutes(total)}{over} | {minutes(ALL_LESSONS_SECONDS)} |")
        if all(piece.get("flops") for piece in measured.values()):
            work = sum(round(piece["seconds"]) * round(piece["flops"], -10) for piece in measured.values())
            speed = f"{BUDGET_FLOPS / 1e12:.2f} TFLOP/s, for which the budget was set"
            rows.append(f"| the same, worked out for a machine of {speed} | {minutes(work / BUDGET_FLOPS)} | |")
        path, piece = max(measured.items(), key=lambda item: held(item[1]))
        most = held(piece)
        over = "" if most <= LESSON_BYTES else " (**over**)"
        most = f"{most / 1e6:.0f} MB{over} | {LESSON_BYTES / 1e6:.0f} MB"
        rows.append(f"| the most memory, lesson {path.stem[:2]} | {most} |")
        firsts = {path: piece["first_seconds"] for path, piece in measured.items() if piece["first_seconds"]}
        path, longest = max(firsts.items(), key=lambda item: item[1])
        rows.append(f"| the longest wait for a first result, lesson {path.stem[:2]} | {longest:.1f} s | |")
        if any(map(is_busy, measured.values())):
            rows.append("| *the machine had other work: these times are too long* | | |")
    else:
        rows.append("| lessons | not measured yet | |")
    return [*rows, END]


def is_busy(piece: Piece) -> bool:
    """Say whether the machine had other work to do when a piece was measured."""
    return piece["busy_before"] > BUSY


def minutes(seconds: float) -> str:
    whole, rest = divmod(round(seconds), 60)
    return f"{whole} min {rest} s" if whole else f"{rest} s"


def seconds_of(told: str) -> int:
    """Return the seconds that `minutes` told."""
    *whole, rest = map(int, re.findall(r"\d+", told))
    return 60 * sum(whole) + rest


def summary_of(text: str) -> str:
    """Return what stands between the markers, with them. Exits where they are not there once each."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise SystemExit(f"The text needs {BEGIN} and {END}, once each and in this order.")
    return text[text.index(BEGIN) : text.index(END) + len(END)]


def with_summary(page: str, block: str) -> str:
    return page.replace(summary_of(page), block)


def load(name: str) -> Piece | None:
    try:
        return json.loads((KEPT / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def replace_file(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


if __name__ == "__main__":
    sys.exit(main())
