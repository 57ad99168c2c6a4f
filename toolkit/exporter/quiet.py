"""Keeps what exporters print, log and warn about off the screen, at the level of file descriptors."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(enabled: bool = True) -> Iterator[None]:
    """Inside the block nothing reaches stdout and stderr: no prints, logs or warnings, nor what C++ code writes.

    What a module's own code prints is hidden as well. Exceptions are not touched.
    """
    if not enabled:
        yield
        return
    threshold = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), _descriptors():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(threshold)


@contextmanager
def _descriptors() -> Iterator[None]:
    """Send file descriptors 1 and 2, and Python's two streams, into a file that nobody reads."""
    with tempfile.TemporaryFile(mode="w+") as sink:
        streams, kept = (sys.stdout, sys.stderr), [os.dup(1), os.dup(2)]
        _flush(streams)
        try:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
            sys.stdout = sys.stderr = sink
            yield
        finally:
            sys.stdout, sys.stderr = streams
            sink.flush()
            for descriptor, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, descriptor)
                os.close(copy)


def _flush(streams: tuple[object, ...]) -> None:
    for stream in streams:
        if hasattr(stream, "flush"):
            stream.flush()
