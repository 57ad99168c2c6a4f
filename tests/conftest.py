"""In CI hypothesis tries the same examples each time, so that a run tells about the change and not about luck."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
