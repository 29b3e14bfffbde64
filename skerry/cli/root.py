"""The root command: lazy groups, so that ``--help`` imports nothing heavy, and the exit codes.

Owns: the list of commands and how errors end the process.  Must not know: what commands do.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

#: command → (module below skerry.cli, attribute, one line of help)
COMMANDS = {
    "dev": ("dev", "dev", "Run a whole cluster on this machine; `dev stop` ends it."),
    "replica": ("daemons", "replica", "Run one scheduler replica."),
    "agent": ("daemons", "agent", "Run one node agent."),
    "run": ("run", "run_job", "Submit a job file."),
    "stop": ("run", "stop_job", "Stop a job."),
    "status": ("status", "status", "Show the cluster's health."),
    "job": ("job", "job", "List and show jobs."),
    "node": ("node", "node", "List, show, cordon nodes."),
    "explain": ("explain", "explain", "Say why a job is where it is, or why it waits."),
    "logs": ("logs", "logs", "Read the output of an allocation or a job."),
    "chaos": ("chaos", "chaos", "Break the cluster on purpose, and heal it."),
    "trace": ("trace", "trace", "Check, explain and view a recorded run."),
    "sim": ("sim", "sim", "Run clusters in virtual time under faults drawn from seeds."),
    "config": ("config", "config", "Show the configuration and where each value came from."),
    "conformance": ("conformance", "conformance", "Hold the placement rules against a file of cases."),
    "bench": ("bench", "bench", "Measure this build on this machine."),
}


class LazyGroup(click.Group):
    """Imports a command's module only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"skerry.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, row[2]) for name, row in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="skerry", prog_name="skerry")
def root() -> None:
    """Skerry places and runs work while the network breaks into islands, and shows what happened."""


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code of DESIGN.md §13."""
    from raft.errors import SkerryError
    from skerry import errors

    try:
        result: Any = root.main(args=arguments, prog_name="skerry", standalone_mode=False)
        return result if isinstance(result, int) else errors.OK
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        print("interrupted", file=sys.stderr)
        return 130
    except click.UsageError as error:
        error.show()
        return errors.USAGE
    except click.ClickException as error:
        error.show()
        return errors.FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return errors.OK
    except SkerryError as error:
        show_error(error, arguments)
        return errors.exit_code(error)
    except Exception:
        import traceback

        traceback.print_exc()
        print("skerry: this is a bug in Skerry; please report the lines above", file=sys.stderr)
        return errors.BUG


def show_error(error: Any, arguments: list[str]) -> None:
    """One clear error: for people on standard error, with ``-o json`` one object on standard output."""
    from skerry.errors import exit_code

    if wants_json(arguments):
        import json

        problem = {"code": error.code, "message": error.message, "hint": error.hint}
        problem |= {"retryable": error.retryable, "outcome": error.outcome, **error.details}
        print(json.dumps({"v": 1, "ok": False, "error": problem, "exit": exit_code(error)}, default=str))
    print(f"error: {error.message} [{error.code}]", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    if error.outcome == "unknown":
        print("outcome: unknown; the same --request-id asked again resolves it", file=sys.stderr)


def wants_json(arguments: list[str]) -> bool:
    """Whether the command line asked for JSON output."""
    joined = " ".join(arguments)
    return any(form in joined for form in ("-o json", "-ojson", "--output json", "--output=json"))
