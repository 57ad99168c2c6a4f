"""Which cases may be open at the same time: as many as fit into memory, the baselines in every group."""

from __future__ import annotations

from collections.abc import Sequence

# What a worker needs, guessed before anything is opened: interpreter and engine, and the file once as it was read,
# once as the engine repacked it, once for whatever it keeps beside that.
WORKER_BYTES = 400 * 1024 * 1024
COPIES_OF_THE_FILE = 3
USABLE_SHARE = 0.6


def groups(sizes_bytes: Sequence[int], anchors: Sequence[int], available_bytes: int | None) -> list[list[int]]:
    """Cut the cases, given by the sizes of their files, into groups that fit into memory, in order.

    Args:
        sizes_bytes: file size of each case.
        anchors: indices of the cases that every group needs: the baselines.
        available_bytes: free memory; None when unknown, which puts all cases into one group.

    Returns:
        Indices by group. A group holds at least one case beside the anchors, however large.
    """
    needs = [WORKER_BYTES + COPIES_OF_THE_FILE * size for size in sizes_bytes]
    if available_bytes is None or sum(needs) <= USABLE_SHARE * available_bytes:
        return [list(range(len(needs)))] if needs else []
    room = USABLE_SHARE * available_bytes - sum(needs[index] for index in anchors)
    found: list[list[int]] = []
    taken = 0.0
    for index in (index for index in range(len(needs)) if index not in anchors):
        if not found or taken + needs[index] > room:
            found.append([])
            taken = 0.0
        found[-1].append(index)
        taken += needs[index]
    return [sorted([*anchors, *group]) for group in found] or [list(anchors)]
