"""`python -m rapidadapt_lessons ...`: the course's commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from . import doctor as doctor_checks
from . import l2l, store
from . import progress as progress_of_exercises
from .errors import CourseError

app = typer.Typer(
    help="Set up the course and look after it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _commands() -> None:
    """Keep sub-commands, however few there are."""


@app.command()
def setup() -> None:
    """Build learn2learn and fetch the model, where they are missing. Safe to run again."""
    console = Console()
    if l2l.installed_version() != l2l.VERSION:
        console.print(f"Building learn2learn {l2l.VERSION} (once, about a minute) ...", highlight=False)
        l2l.build()
    if store.check_model().state != "ok":
        console.print(f"Fetching {store.DEFAULT_MODEL} ...", highlight=False)
    folder = store.ensure_model(progress=True)
    where = doctor_checks.short_path(folder)
    console.print(f"Set up: learn2learn {l2l.VERSION}; model in {where}", highlight=False, soft_wrap=True)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
) -> None:
    """Say what is installed, what is missing and what to do. Exit status 1 when a lesson cannot run."""
    checks = doctor_checks.run_checks()
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        console = Console()
        console.print(doctor_checks.table(checks))
        console.print(doctor_checks.summary(checks), highlight=False, soft_wrap=True)
    if doctor_checks.blocked(checks):
        raise typer.Exit(1)


@app.command()
def progress(
    export: Annotated[Path | None, typer.Option("--export", help="Write one row an exercise to this CSV file.")] = None,
    learner: Annotated[str, typer.Option("--learner", help="The name in the CSV file's first column.")] = "",
) -> None:
    """Show which exercises are done, tried and next; or export that for a teacher."""
    if export is None:
        typer.echo(repr(progress_of_exercises.panel()))
    else:
        typer.echo(f"Written: {progress_of_exercises.export_csv(export, learner)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0: well. 1: `doctor` found something that blocks lessons. 2: a `CourseError`, told in one message on
    standard error, or a command line that makes no sense.
    """
    try:
        app(args=None if arguments is None else list(arguments), prog_name="python -m rapidadapt_lessons")
    except CourseError as error:
        typer.echo(f"Error: {error}", err=True)
        return 2
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0
