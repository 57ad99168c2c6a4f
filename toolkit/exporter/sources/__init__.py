"""Where models come from; ``docs/export.md`` lists the kinds."""

from toolkit.exporter.sources.opening import open_module as open_module
from toolkit.exporter.sources.opening import open_source as open_source
from toolkit.exporter.sources.source import Source as Source
from toolkit.exporter.sources.zoo import zoo_entry as zoo_entry
