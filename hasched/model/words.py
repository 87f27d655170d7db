"""Numbers and amounts in sentences, the same in every answer: `1 task`, `2 GPUs`, `1.5 CPU, 4Gi memory`."""

from __future__ import annotations

from collections.abc import Callable

from hasched.model.spec import Resources
from hasched.model.units import format_bytes, format_cpu


def counted(number: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def none_of(number: int, noun: str) -> str:
    """`no node`, `none of 22 nodes`."""
    return f"none of {number} {noun}s" if number > 1 else f"no {noun}"


def short_bytes(size_bytes: int) -> str:
    """A size to one decimal, where nobody computes with it: 16777216000 as `15.6Gi`."""
    exact = format_bytes(size_bytes)
    if not exact.isdigit() and len(exact) <= 5:
        return exact
    for unit, length in (("Pi", 2**50), ("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if size_bytes >= length:
            return f"{size_bytes / length:.1f}{unit}"
    return str(size_bytes)


def tell_cpu(cpu_milli: int) -> str:
    return f"{format_cpu(cpu_milli)} CPU"


def tell_memory(size_bytes: int) -> str:
    return f"{format_bytes(size_bytes)} memory"


def tell_disk(size_bytes: int) -> str:
    return f"{format_bytes(size_bytes)} disk"


def tell_gpus(number: int) -> str:
    return counted(number, "GPU")


def tell_resources(
    amount: Resources,
    *,
    size: Callable[[int], str] = format_bytes,
    disk: bool = True,
    zeros_of: Resources | None = None,
) -> str:
    """`2 CPU, 512Mi memory, 1 GPU (A100 or H100, 40Gi), 10Gi disk, 2 licence`; with `zeros_of` also the zeros of what that names.

    `size` writes sizes.
    """
    shown = zeros_of or amount
    parts = []
    if shown.cpu_milli:
        parts.append(tell_cpu(amount.cpu_milli))
    if shown.memory_bytes:
        parts.append(f"{size(amount.memory_bytes)} memory")
    if shown.gpus:
        picked = [" or ".join(amount.gpu_models)] if amount.gpu_models else []
        if amount.gpu_memory_bytes:
            picked.append(size(amount.gpu_memory_bytes))
        parts.append(f"{tell_gpus(amount.gpus)} ({', '.join(picked)})" if picked else tell_gpus(amount.gpus))
    if shown.disk_bytes and disk:
        parts.append(f"{size(amount.disk_bytes)} disk")
    parts += [f"{number} {name}" for name, number in amount.countables]
    return ", ".join(parts)
