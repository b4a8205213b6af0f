"""A run of the bulk command, from what the user asked for to the summary."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import click

from unitvec import human
from unitvec.bulk import carried, inputs, outputs, run, work
from unitvec.bulk.executor import Executor
from unitvec.bulk.extra import pyarrow
from unitvec.bulk.finish import Totals, finish, rejects_of, totals
from unitvec.bulk.inputs import InputFile
from unitvec.bulk.plan import Plan, Settings
from unitvec.bulk.progress import Progress
from unitvec.bulk.sources import ALL, Source, Wanted
from unitvec.bulk.window import Part, Position, Window, embed_window
from unitvec.bulk.work import Done, Work
from unitvec.errors import InvalidRequest, UnitvecError


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        model: its name.
        files: the input's, as :func:`unitvec.bulk.inputs.find` gives them.
        output: the file to make; None for lines of JSON on standard output.
        settings: how.
        restart: forget what an earlier run has done, and replace an output that is there.
        strict: a row that cannot be embedded ends the run.
    """

    model: str
    files: Sequence[str]
    output: Path | None
    settings: Settings
    restart: bool = False
    strict: bool = False

    def source(self) -> Source:
        """The input, checked.

        Raises:
            InvalidRequest, UnitvecError: see :class:`unitvec.bulk.sources.Source`; or the settings do not fit.
        """
        settings = self.settings
        if settings.input_format == "lines" and not {settings.column, *settings.carry} <= {"text", ALL}:
            raise InvalidRequest("plain lines have one column, 'text': --input-format says of what kind files are")
        if carried.EMBEDDING in settings.carry:
            raise InvalidRequest(f"{carried.EMBEDDING!r} is the name of the output's own column: it cannot be carried")
        kind = outputs.kind_of(self.output) if self.output else "jsonl"
        if kind == "npy" and settings.carry:
            raise InvalidRequest("an array holds vectors only: columns are carried to .parquet and .jsonl")
        if kind == "parquet":
            pyarrow("Parquet")
        return Source(self.files, settings.input_format, Wanted(settings.column, settings.carry, settings.window))

    def plan(self, digest: str) -> Plan:
        """What the parts depend on."""
        return Plan(
            self.model,
            digest,
            tuple(InputFile.of(file) for file in self.files if file != inputs.STDIN),
            self.settings,
        )


def files_of(asked: Sequence[str], output: Path | None) -> list[str]:
    """The input's files; what the command itself writes is none of them.

    Raises:
        InvalidRequest: see :func:`unitvec.bulk.inputs.find`.
    """
    return inputs.find(asked, [output, rejects_of(output)] if output else [])


def execute(job: Job, start: Callable[[], Executor]) -> Totals:
    """Do it.

    Args:
        job: what.
        start: gives what embeds, once the input is known to be good. It is closed at the end.

    Returns:
        What the output has.

    Raises:
        UnitvecError: of any kind; what is done stays done.
        KeyboardInterrupt: the user has had enough; likewise.
    """
    source = job.source()
    executor = start()
    try:
        return _to_stdout(job, source, executor) if job.output is None else _to_file(job, job.output, source, executor)
    finally:
        executor.close()


def _to_file(job: Job, output: Path, source: Source, executor: Executor) -> Totals:
    plan = job.plan(executor.digest)
    with work.opened(output, plan, restart=job.restart) as parts, _told_how_to_go_on(plan, parts):
        before = totals(parts.about(number) for number in parts.numbers())
        with Progress(source, before, run.frontier(parts)) as progress:
            for part in run.embed_to(parts, source, executor, dtype=job.settings.dtype, strict=job.strict):
                progress.advance(part)
        if changed := job.plan(executor.digest).changed_from(plan):
            raise InvalidRequest(f"while it was read, {changed}: begin anew with --restart")
        whole = finish(parts, output, job.files, width=executor.width, dtype=job.settings.dtype)
    _summarize(whole, progress, f"{output} ({human.size(output.stat().st_size)})")
    if whole.refused:
        click.echo(f"{_rows(whole.refused)} could not be embedded: {rejects_of(output)} says why", err=True)
    return whole


def _to_stdout(job: Job, source: Source, executor: Executor) -> Totals:
    out = sys.stdout.buffer
    whole = Totals()
    rejects = sys.stderr.buffer
    with Progress(source, whole, Position()) as progress:

        def do(window: Window) -> Part:
            return embed_window(window, executor, job.settings.dtype)

        for part in run.ordered(do, source.windows(), executor.ahead, executor.close):
            if job.strict:
                run.check(part, source)
            out.writelines(outputs.json_lines(part))
            out.flush()
            outputs.write_rejects(rejects, [part], job.files, whole.rows)
            done = Done.of(part)
            whole += done
            progress.advance(done)
    _summarize(whole, progress, "standard output")
    return whole


def _summarize(whole: Totals, progress: Progress, where: str) -> None:
    took = human.duration(timedelta(seconds=progress.seconds)).lower()
    rate = f"{progress.tokens:,} tokens in {took}, {progress.tokens / progress.seconds:,.0f} tokens/s"
    click.echo(f"{_rows(whole.rows)}, {whole.texts:,} different texts; {rate}: {where}", err=True)


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


@contextmanager
def _told_how_to_go_on(plan: Plan, parts: Work) -> Iterator[None]:
    """A run that ends early says what becomes of what it has done."""
    try:
        yield
    except (KeyboardInterrupt, UnitvecError) as error:
        if isinstance(error, KeyboardInterrupt):
            click.echo("\nstopped", err=True)
        if not plan.can_resume:
            click.echo("What came through standard input is lost: only a run on files can be resumed.", err=True)
        elif not isinstance(error, InvalidRequest):
            count = totals(parts.about(number) for number in parts.numbers()).rows
            click.echo(f"{_rows(count)} are done. The same command (without --restart) goes on from there.", err=True)
        raise
