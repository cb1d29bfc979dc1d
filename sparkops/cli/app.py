"""The command line: the commands, and where errors become text and exit statuses.

A command's module is imported when it is called; the summaries are here, so that `--help` imports none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import click

from sparkops.cli.process import MACHINE, STANDARD_OUTPUT
from sparkops.core.errors import SparkopsError
from sparkops.reports.formatting import safe

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

DEFECT = 70
CUT_OFF = 141
"""Who read the output went away before its end; what a shell shows for SIGPIPE. 0 would claim that all is well."""

COMMANDS: dict[str, str] = {
    "init": "Write a first, commented inventory",
    "discover": "Propose nodes, fabric and topology from what hosts say",
    "lint": "Find what would go wrong, offline: in the inventory, or in one pasted serve line",
    "explain": "Explain the id that an error, finding or notice shows: its cause and the way out",
    "plan": "Show what would change; touches nothing",
    "apply": "Bring the nodes into the declared state",
    "drift": "Report what differs from the declaration, with an exit status for scripts",
    "watch": "Look again and again over kept connections, and tell what came and what went",
    "report": "Show a kept run again in any format, or what differs between two; join reports of shards",
    "status": "Show nodes and services on one screen: reachable, memory, jobs, state, health",
    "endpoints": "Print where services answer: for people, LiteLLM, OpenAI clients, Prometheus",
    "start": "Start services and wait until they answer",
    "stop": "Stop services; the next apply starts them again",
    "restart": "Restart services engine by engine, each through its gate",
    "rollback": "Bring a service back to an earlier state that was stable",
    "generations": "Show the states of services that nodes keep to return to",
    "logs": "Print the logs of a service, and with -f follow them",
    "diagnose": "Write an archive for a bug report: journals, units, plan, versions; secrets removed",
    "exec": "Run a program on nodes side by side: `exec NODE… -- PROGRAM`",
    "cancel": "End the long jobs (fetch, pull, build) that run on nodes",
    "adopt": "Take over a container, unit or checkpoint that runs already, showing what differs",
    "remove": "Take back what was put on nodes, or what belongs to services",
    "gc": "Free the space of images and checkpoints that nothing needs any more",
    "history": "Show who did what to the nodes, when and why, from the nodes' own records",
    "render": "Print the exact files, unit and argument list of a node, offline",
    "fit": "Show what a service or a `vllm serve` line needs, and what then fits; offline",
    "inventory": "Look into the inventory (`inventory show NODE --origin`), or export its hosts",
    "lock": "Pin what moves upstream: tags to digests, branches to commits",
    "recipe": "List, show and compare recipes; import those of other projects",
    "checkpoint": "Look into a checkpoint here or on a hub, verify those on nodes, build one",
    "schema": "Print the JSON Schema of an inventory, for editors",
    "bench": "Measure how fast a service is, on its own node, and say what seems wrong",
    "fabric": "Measure the links between the nodes: `fabric check`",
    "facts": "Print the facts of nodes, as the nodes report them",
    "trust": "Show the host keys of nodes and add them to known_hosts",
    "completion": "Print the completion script for bash, zsh or fish",
}
"""Name → summary."""
SHARED = {
    "plan": "plan_or_drift",
    "drift": "plan_or_drift",
    **dict.fromkeys(("start", "stop", "restart"), "start_stop"),
}
"""The modules of several commands, each there by its name; any other is `command` in a module of its name."""


class Lazy(click.Group):
    """A group that imports a command's module when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"sparkops.cli.{SHARED.get(cmd_name, cmd_name)}")
        command = getattr(module, cmd_name if cmd_name in SHARED else "command")
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands without importing them, and the group's own options."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib  # --help and --version do not pay for it

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; commands: {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit statuses: 0 as declared, 1 wrong input, 2 differs, 3 unknown or unreachable, 4 some steps failed, "
    "5 held after a return, 74 this machine cannot read or write a file, 75 a lock is busy, 130 interrupted.",
)
@click.version_option(package_name="sparkops", prog_name="sparkops", message="%(prog)s %(version)s")
def cli() -> None:
    """Declarative, agentless provisioning of DGX Spark nodes and the LLM services on them.

    \b
    sparkops init                      a first inventory to fill in
    sparkops plan inventory.yml        what would change
    sparkops apply inventory.yml       bring the nodes there
    sparkops drift inventory.yml       what differs, for a timer or CI
    """


def run(args: Sequence[str]) -> int:
    """Run the command line; every error becomes its words on standard error and its exit status."""
    try:
        status = cli.main(list(args), prog_name="sparkops", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return 1
    except (click.Abort, KeyboardInterrupt):
        print("\ninterrupted; the same command resumes", file=sys.stderr)
        return 130
    except SparkopsError as error:
        print(safe(_shown(error)), file=sys.stderr)
        return error.exit_status
    except (BrokenPipeError, SystemExit) as end:  # click turns the first into the second, and ends a completion by it
        if isinstance(end, SystemExit) and end.code == 0:
            return 0
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return CUT_OFF
    except OSError as error:
        if not error.filename:
            return _defect()
        if error.filename == STANDARD_OUTPUT:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer has a place to go
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1 if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)) else MACHINE
    except Exception:  # noqa: BLE001 - whatever is left is a defect of ours and says so
        return _defect()


def _shown(error: SparkopsError) -> str:
    """An error with its id, which `sparkops explain` takes."""
    return f"error[{error.id}]: {error}" if error.id else f"error: {error}"


def _defect() -> int:
    import traceback

    traceback.print_exc()
    print("\nThis is a defect of sparkops, not of your inventory. Please report the lines above.", file=sys.stderr)
    return DEFECT
