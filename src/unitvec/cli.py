"""The ``unitvec`` command. Each subcommand is a module of :mod:`unitvec.commands`, imported when it is typed."""

from __future__ import annotations

import importlib
import sys

import click

from unitvec.errors import UnitvecError

# name -> what `unitvec --help` says of it, in the order in which it lists them
COMMANDS = {
    "serve": "Serve models over HTTP, with Ollama's API.",
    "embed": "Embed texts: arguments, lines from standard input, or files of any size.",
    "pull": "Fetch a model, or what has changed of it.",
    "list": "List the models at hand.",
    "show": "Show what a model is.",
    "ps": "List the models that a running server has in memory.",
    "stop": "Unload a model from a running server's memory.",
    "cp": "Give a model another name as well.",
    "rm": "Remove models.",
    "create": "Make a model from a GGUF file, a folder, or another model.",
    "push": "Send a model to a registry.",
    "verify": "Compare a model's files with their digests, and its vectors with the reference.",
    "compare": "Compare vectors, tokens and speed with another server's.",
    "bench": "Measure a server: throughput, latency, and a lone query under bulk.",
}


class _Lazy(click.Group):
    """Lists commands without importing them: `unitvec --help` and a typo answer at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"unitvec.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(None, "-v", "--version", package_name="unitvec", message="unitvec version %(version)s")
def cli() -> None:
    """An embedding server that speaks Ollama's API."""


def main() -> None:
    """Run the command line; what goes wrong is one line and exit status 1."""
    try:
        status = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UnitvecError as error:
        click.echo(f"Error: {error.message}", err=True)
        sys.exit(1)
    except BrokenPipeError:  # `unitvec ... | head`
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        click.echo(f"Error: {error.strerror or error}", err=True)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
