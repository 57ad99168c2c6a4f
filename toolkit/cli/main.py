"""The ``toolkit`` command: a group that imports a command's module only when that command runs."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import click

INTERRUPTED = 130

# command: (module, attribute, one line of help). Kept here so that --help imports nothing else.
_COMMANDS: dict[str, tuple[str, str, str]] = {
    "export": ("toolkit.cli.export", "export", "Turn a PyTorch model into ONNX and prove that it computes the same."),
    "inspect": ("toolkit.cli.inspect", "inspect", "Show what an ONNX file holds and what it costs to run."),
    "optimize": ("toolkit.cli.optimize", "optimize", "Simplify a graph with standard operators only; verified."),
    "quantize": ("toolkit.cli.quantize", "quantize", "Lower a model's precision for one target; verified."),
    "verify": ("toolkit.cli.verify", "verify", "Compare two models on the same inputs."),
    "evaluate": ("toolkit.cli.evaluate", "evaluate", "Measure a model's quality on labelled data."),
    "profile": ("toolkit.cli.profile", "profile", "Measure latency on every target, side by side."),
    "compare": ("toolkit.cli.compare", "compare", "Compare two records of measurements."),
    "check": ("toolkit.cli.check", "check", "Fail when a model got slower than allowed; for CI."),
    "history": ("toolkit.cli.history", "history", "List, show and plot what was measured before."),
    "run": ("toolkit.cli.run", "run", "Run a model on the arrays of an .npz file."),
    "bundle": ("toolkit.cli.bundle", "bundle", "Create, extend, check and pack what an application ships."),
    "cache": ("toolkit.cli.cache", "cache", "List and prune what is cached: unpacked bundles, prepared forms."),
    "zoo": ("toolkit.cli.zoo", "zoo", "List and train the built-in models."),
    "targets": ("toolkit.cli.targets", "targets", "List the targets and whether they can be used here."),
    "doctor": ("toolkit.cli.doctor", "doctor", "Show what this machine has, and what to install for the rest."),
    "demo": ("toolkit.cli.demo", "demo", "Run the whole chain on four small models."),
}


@final
class LazyGroup(click.Group):
    """A group whose commands come from :data:`_COMMANDS` and all take ``--debug``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        with _dying_at_once():
            command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        _add_debug(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from toolkit.tensors import nearest

            raise click.UsageError(f"no such command {args[0]!r}; expected {nearest(args[0], _COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@contextmanager
def _dying_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process while modules are imported: a KeyboardInterrupt inside an extension module's start-up
    was seen to end in a segmentation fault."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _add_debug(command: click.Command) -> None:
    """Give ``command`` and its subcommands a ``--debug`` flag that no command has to declare."""
    if isinstance(command, click.Group):
        for child in command.commands.values():
            _add_debug(child)
    elif not any(parameter.name == "debug" for parameter in command.params):
        command.params.append(
            click.Option(
                ["--debug"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=lambda ctx, _, value: ctx.find_root().meta.update(debug=value or debugging(ctx)),
                help="Show tracebacks and what the engines print.",
            )
        )


def debugging(ctx: click.Context | None = None) -> bool:
    """Whether ``--debug`` was given."""
    ctx = ctx or click.get_current_context(silent=True)
    return bool(ctx and ctx.find_root().meta.get("debug"))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(package_name="onnx-toolkit", prog_name="toolkit")
def toolkit() -> None:
    """Export PyTorch models to ONNX, prove that they still compute the same, and
    measure and run them on every provider."""


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit: 0 well, 1 a failed run, 2 misuse, 3 a failed check, 128 and a signal's number."""
    args = sys.argv[1:] if args is None else args
    code = run(args)
    if code == INTERRUPTED:
        from toolkit.profiler.interrupts import SIGNALS, exit_code

        code = exit_code()
        # An impatient second Ctrl-C while the interpreter shuts down would replace the exit code by a signal.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def run(args: list[str]) -> int:
    """Run the command line; returns the exit code. Every expected failure is one line on stderr."""
    from toolkit.cli.printing import say
    from toolkit.errors import ToolkitError, missing_dependency, one_line

    debug = "--debug" in args
    if not debug:
        # A warning is a line for the person, not a place in our code.
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {one_line(message)}")
    try:
        code: Any = toolkit.main(args, prog_name="toolkit", standalone_mode=False)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.ClickException as exc:
        hint = f" (see '{exc.ctx.command_path} --help')" if isinstance(exc, click.UsageError) and exc.ctx else ""
        return _fail(one_line(exc.format_message()) + hint, exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", INTERRUPTED)
    except ToolkitError as exc:
        if debug:
            raise
        return _fail(str(exc), exc.exit_code)
    except Exception as exc:
        if debug:
            raise
        if missing := missing_dependency(exc):
            return _fail(str(missing), missing.exit_code)
        text = one_line(f"{type(exc).__name__}: {exc}", 300)
        return _fail(f"unexpected {text}; run again with --debug for the traceback and please report it", 1)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    from toolkit.cli.printing import say

    say(f"error: {message}")
    return code


if __name__ == "__main__":
    main()
