"""Where text goes: results to stdout, all else to stderr. A reader that went away changes no exit code.

``click`` ends the process with 1 where a pipe is broken, which would hide what the command itself has to say.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TextIO

import click

from toolkit.errors import ToolkitError


def put(text: str, *, newline: bool = True) -> None:
    """Print a result on stdout; what nobody reads any more (``| head``) is dropped.

    Raises:
        ToolkitError: it cannot be written for another reason, such as a full disk.
    """
    try:
        click.echo(text, nl=newline)
    except OSError as exc:
        _silence(sys.stdout)
        if exc.errno != errno.EPIPE:
            got = exc.strerror or exc
            raise ToolkitError("the result cannot be written", where="standard output", got=got) from exc


def say(text: str) -> None:
    """A line for the person watching, on stderr; where that is closed or full there is nobody to tell."""
    try:
        click.echo(text, err=True)
    except OSError:
        _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
    """Send what ``stream`` still holds to nowhere: the interpreter flushes it when it ends, and would complain.

    Source: docs.python.org/3/library/signal.html, "Note on SIGPIPE".
    """
    with contextlib.suppress(OSError, ValueError):  # a stream in memory, as tests use, has no descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
