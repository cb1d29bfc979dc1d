"""`sparkops watch`: look again and again, and tell what came and what went."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.options import CommonOptions

if TYPE_CHECKING:
    from sparkops.core.messages import Fields
    from sparkops.core.report import Report
    from sparkops.core.wording import Message
    from sparkops.watching.receivers import Deliver

WORDS = "sparkops.words"
KEY = "SPARKOPS_WEBHOOK_KEY"
ENVIRONMENT = ("SPARKOPS_SSH_CONFIG", "XDG_STATE_HOME", "XDG_CACHE_HOME")
"""What the printed unit takes over of this shell's environment."""


class Watch(WithInventory):
    """A command that knows the words it was called with, for the unit that calls it again."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = tuple(args)
        return super().parse_args(ctx, args)


@click.command(
    "watch",
    cls=Watch,
    epilog="""\b
Examples:
  sparkops watch inventory.yml --interval 5m
  sparkops watch --report html=/srv/www/drift.html --report prometheus=/var/lib/node_exporter/drift.prom
  sparkops watch --hold 10m --on-change 'mail -s drift ops@example.org'
  sparkops watch --webhook https://example.org/hook --webhook-key-file /etc/sparkops/hook.key
  sparkops watch inventory.yml --hold 10m --unit > sparkops-watch.service""",
)
@options.inventory
@options.selection
@options.jobs
@click.option(
    "--interval", type=options.Duration(), default="5m", show_default=True, metavar="TIME", help="From round to round"
)
@click.option(
    "--jitter", type=options.Duration(), metavar="TIME", help="Up to so much more, by chance  [default: a tenth]"
)
@click.option(
    "--hold",
    type=options.Duration(),
    default="0s",
    show_default=True,
    metavar="TIME",
    help="Tell what has been there, or gone, for so long",
)
@click.option(
    "--on-change", metavar="COMMAND", help="Run it (without a shell) with the changes as JSON on its standard input"
)
@click.option("--webhook", metavar="URL", help="Post the changes there as JSON, signed by HMAC-SHA256")
@click.option(
    "--webhook-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"The key of the signature, instead of the variable {KEY}",
)
@click.option(
    "--heartbeat",
    type=options.NewFile(),
    metavar="PATH",
    help="Write the watcher's own sign of life there, for Prometheus",
)
@options.reports
@options.only_form
@click.option("--unit", is_flag=True, help="Only print a systemd service that runs this command")
@options.common
def command(common: CommonOptions, interval: float, unit: bool, **how: Any) -> int:
    """Look at the nodes again and again, over connections that are kept, and tell what came and what went.

    Each round is a drift: it is kept like one, and writes the files of --report anew. A finding is told once when it
    appears and once when it goes: on standard output, to --on-change and to --webhook. Nodes that do not answer are
    tried less often, at the latest after an hour.

    SIGHUP reads the inventory again; where that fails, what was read before stays. SIGTERM and Ctrl-C end the watcher
    after the round that runs. Exit status 0 then; 1: the inventory is wrong; 75: it is being watched already.
    """
    if interval < 1:
        raise click.UsageError("--interval is at least 1s")
    receivers = _receivers(how["on_change"], how["webhook"], how["webhook_key_file"], variable=not unit)
    if unit:
        click.echo(_unit(click.get_current_context().meta[WORDS], common), nl=False)
        return 0
    from sparkops.cli.interrupts import interrupts
    from sparkops.cli.loading import load
    from sparkops.watching.loop import Audience, Orders, Rhythm, Watcher

    jitter = interval / 10 if how["jitter"] is None else how["jitter"]
    orders = Orders()
    audience = Audience(
        show=lambda report, changes: _show(common, report, changes),
        say=_say,
        receivers=receivers,
        metrics=how["heartbeat"],
    )
    watcher = Watcher(
        lambda: load(common), Rhythm(interval=interval, jitter=jitter, hold=how["hold"]), orders, audience
    )
    before = signal.signal(signal.SIGHUP, lambda *_: orders.reload.set())
    try:
        with interrupts(orders.stop):
            watcher.run()
    finally:
        signal.signal(signal.SIGHUP, before)
    return 0


def _receivers(on_change: str | None, url: str | None, key_file: Path | None, *, variable: bool) -> dict[str, Deliver]:
    """Who is told of changes. `variable`: the key may be in a variable, which a unit does not have."""
    from sparkops.core.secrets import Secret
    from sparkops.watching import receivers

    found: dict[str, Deliver] = {}
    if on_change is not None:
        try:
            argv = shlex.split(on_change)
        except ValueError as error:
            raise click.UsageError(f"--on-change: {error}") from None
        if not argv:
            raise click.UsageError("--on-change needs a program")
        found["command"] = receivers.command(argv)
    if url is not None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise click.UsageError("--webhook is a URL like https://example.org/hook, without a name and password")
        key = key_file.read_text(encoding="utf-8").strip() if key_file else os.environ.get(KEY, "") if variable else ""
        if not key:
            raise click.UsageError(f"--webhook needs a key, in --webhook-key-file{f' or {KEY}' if variable else ''}")
        found["webhook"] = receivers.webhook(url, Secret(key, KEY))
    return found


def _say(message: Message) -> None:
    from sparkops.reports.formatting import safe

    click.echo(safe(f"warning[{message.id}]: {message.full}"), err=True)


def _show(common: CommonOptions, report: Report, changes: Fields | None) -> None:
    """Write the files of a round, and print what came and went; a full disk ends no watcher."""
    from sparkops.cli.printing import told_of, write_reports
    from sparkops.core.wording import Message

    told_of(report)
    write_reports(report, common)
    if changes is None:
        return
    try:
        _print(common, report, changes)
    except BrokenPipeError:
        raise
    except OSError as error:
        _say(Message.of("watch-output-not-written", reason=error.strerror or str(error)))


def _print(common: CommonOptions, report: Report, changes: Fields) -> None:
    from sparkops.reports.formatting import moment, safe

    if common.form == "json":
        click.echo(json.dumps(changes))
        return
    for each in changes["changes"]:
        finding, sign = each["finding"], "+" if each["change"] == "appeared" else "-"
        click.echo(safe(f"{moment(report.time)} {sign} {finding['severity']}[{finding['id']}] {finding['message']}"))
    sys.stdout.flush()


def _unit(words: Sequence[str], common: CommonOptions) -> str:
    """The unit that runs these words in this folder, as this user."""
    from sparkops.watching.service_unit import service_unit

    argv = [sys.executable, "-m", "sparkops", "watch", *(word for word in words if word != "--unit")]
    environment = {name: os.environ[name] for name in ENVIRONMENT if os.environ.get(name)}
    try:
        return service_unit(
            argv,
            inventory=str(common.inventory),
            user=getpass.getuser(),
            folder=Path.cwd(),
            environment=environment,
        )
    except ValueError as error:
        raise click.UsageError(f"--unit: {error}") from None
