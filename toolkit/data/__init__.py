"""Sample streams: files and iterables in, batches of feeds and labels out. The layouts are in docs/data.md."""

from toolkit.data.dataset import Batch as Batch
from toolkit.data.dataset import Dataset as Dataset
from toolkit.data.npz import write_npz as write_npz
from toolkit.data.opening import from_iterable as from_iterable
from toolkit.data.opening import open_data as open_data
