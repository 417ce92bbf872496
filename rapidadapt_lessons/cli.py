"""`python -m rapidadapt_lessons ...`: the course's commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .errors import CourseError
from .exercises import progress as progress_of_exercises
from .lm import download
from .setup import doctor as doctor_checks
from .setup import learn2learn

INTERRUPTED = 130  # the exit status after Ctrl-C

app = typer.Typer(
    help="Set up the course and look after it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def setup() -> None:
    """Build learn2learn and fetch the model, where they are missing. Safe to run again."""
    console = Console()
    if learn2learn.installed_version() != learn2learn.VERSION:
        console.print(f"Building learn2learn {learn2learn.VERSION} (once, about a minute) ...", highlight=False)
        learn2learn.build()
    if download.check_model().state != "ok":
        console.print(f"Fetching {download.DEFAULT_MODEL} ...", highlight=False)
    folder = download.ensure_model(progress=True)
    where = doctor_checks.short_path(folder)
    console.print(f"Set up: learn2learn {learn2learn.VERSION}; model in {where}", highlight=False, soft_wrap=True)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False) -> None:
    """Say what is installed, what is missing and what to do. Exit status 1 when a lesson cannot run."""
    checks = doctor_checks.run_checks()
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        table = Table("Check", "Status")
        table.add_column("What was found", overflow="fold")
        for check in checks:
            style = {"ok": "green", "warn": "yellow", "fail": "bold red"}[check.status]
            remedy = f"\nWhat to do: {check.remedy.rstrip('.')}." if check.remedy else ""
            table.add_row(Text(check.name), Text(check.status, style), Text(check.detail + remedy))
        console = Console()
        console.print(table)
        console.print(doctor_checks.summary(checks), highlight=False, soft_wrap=True)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)


@app.command()
def progress(
    export: Annotated[
        Path | None, typer.Option("--export", help="Write one row per exercise to this CSV file.")
    ] = None,
    learner: Annotated[str, typer.Option("--learner", help="The name in the CSV file's first column.")] = "",
) -> None:
    """Show which exercises are done, tried and next; or export that for a teacher."""
    if export is None:
        typer.echo(repr(progress_of_exercises.panel()))
    else:
        typer.echo(f"Written: {progress_of_exercises.export_csv(export, learner)}")


@app.command()
def adapt(
    data: Annotated[Path, typer.Argument(metavar="DATA.csv", help="A CSV file with a header, one pair per row.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write: new, or empty.")],
    x: Annotated[str | None, typer.Option("--input", metavar="COL", help="The column that the model reads.")] = None,
    y: Annotated[str | None, typer.Option("--output", metavar="COL", help="The column that it answers.")] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="auto (tries all), prompt, calibrated, lora or meta. [auto]")
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="TIME", help='As "120s" or "5m"; timing comes on top. [120s]')
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of the split and of the training. [0]")] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="Repeat this plan.json, with its options.")
    ] = None,
) -> None:
    """Adapt the model to 8 to 2000 text pairs of your own (20 to 500 is what it is made for), on this machine.

    Splits the data in three, times a few steps, plans what each method may do within the budget, tries them, chooses
    by the validation split, and reports on the test split, which no choice has seen. Rows with a missing cell are
    skipped and counted. With more than two columns, name both with --input and --output.

    DIR, new or empty, then holds report.html, a model card (README.md), the prompt (prompt.json), the plan (plan.json)
    and, where one was trained, an adapter that peft loads (adapter/). Interrupted, the same command starts anew.

    The same data, seed and plan give the same result on any machine. A plan holds its method, seed and budget.
    """
    if plan and any(value is not None for value in (method, budget, seed)):
        raise CourseError("--plan holds a method, a seed and a budget.", "leave --method, --seed and --budget out.")
    from .tool import adapt as adapting  # late, as torch takes seconds to import
    from .tool.plan import parse_budget  # late, likewise

    seconds = adapting.BUDGET if budget is None else parse_budget(budget)
    adapting.adapt(
        data, out, x=x, y=y, method=method or "auto", budget=seconds, seed=seed or 0, plan=plan,
        say=lambda line: typer.echo(line), progress=sys.stderr.isatty(),
    )  # fmt: skip


@app.command("predict")
def answer_queries(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `adapt` wrote.")],
    file: Annotated[str, typer.Argument(metavar="[FILE|-]", help="One query per line; - for standard input.")] = "-",
    table: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="A CSV file instead.")] = None,
    column: Annotated[str | None, typer.Option("--column", metavar="COL", help="Its column of queries.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where the CSV goes. [standard output]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Let --out replace a file.")] = False,
) -> None:
    """Ask an adapted model: one answer per line, a tab, and its probability. An empty line stays empty.

    With --csv and --column, the table comes out with two columns more, prediction and probability. The file itself is
    never changed, unless --out names it and --overwrite is given.

    Cells are data: one that begins with = + - or @ is written as it is, since anything put before it would change your
    data (-5, +49 30, @name). Some spreadsheets take such cells for formulas: import the file as text.
    """
    if table is None and (column or out or overwrite):
        raise CourseError("--column, --out and --overwrite go with --csv.", "add --csv FILE, or redirect with >.")
    if table is not None and (column is None or file != "-"):
        raise CourseError("--csv needs --column, and no other file.", "write: predict DIR --csv FILE --column COL.")
    if Path(file).suffix.lower() in (".csv", ".tsv"):
        raise CourseError(
            f"{Path(file).name} is a table, and lines are asked.",
            "add --csv FILE --column COL, or pipe it: predict DIR < FILE.",
        )
    from .tool import predict as predicting  # late, as torch takes seconds to import

    if table is not None:
        options = {"overwrite": overwrite, "progress": sys.stderr.isatty()}
        typer.echo(predicting.predict_csv_file(folder, table, column, out, **options), err=True)
        return
    predictor = predicting.load_predictor(folder)
    if file == "-" and sys.stdin.isatty():
        typer.echo("Type a query and press Enter; end with Ctrl-D.", err=True)
    groups = predicting.lines_of_stream(sys.stdin.buffer) if file == "-" else predicting.lines_of_file(file)
    for line in predicting.predict_lines(predictor, groups):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0: well. 1: `doctor` found something that blocks lessons. 2: a `CourseError`, as one message on standard error, or
    a command line that makes no sense. 130: interrupted, which is said there too.
    """
    try:
        app(args=None if arguments is None else list(arguments), prog_name="python -m rapidadapt_lessons")
    except CourseError as error:
        typer.echo(f"Error: {error}", err=True)
        return 2
    except SystemExit as done:
        if done.code == INTERRUPTED:
            typer.echo("Interrupted.", err=True)
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0
