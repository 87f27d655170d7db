"""Marks: which resources a node has too little of for one task, as bits."""

from __future__ import annotations

from hasched.model.spec import Resources
from hasched.scheduler.slots import MAX_ATTEMPTS_PER_NODE
from hasched.statemachine.node import Node

CPU, MEMORY, GPUS, DISK, SLOTS = 1, 2, 4, 8, 16
FIRST_COUNTABLE = 5  # the number of the bit; one for each countable that the request names


def mark_shortages(node: Node, request: Resources) -> int:
    """Bits of what a node has too little of now for one task that asks for so much."""
    total = node.info.resources
    mark = 0
    if total.cpu_milli - node.allocated_cpu_milli < request.cpu_milli:
        mark = CPU
    if total.memory_bytes - node.allocated_memory_bytes < request.memory_bytes:
        mark |= MEMORY
    if request.gpus and not _has_gpus(node, total.gpus - node.allocated_gpus, request):
        mark |= GPUS
    if request.disk_bytes and total.disk_bytes - node.allocated_disk_bytes < request.disk_bytes:
        mark |= DISK
    if len(node.attempts) >= MAX_ATTEMPTS_PER_NODE:
        mark |= SLOTS
    if request.countables:
        offered = dict(total.countables)
        for number, (name, asked) in enumerate(request.countables, FIRST_COUNTABLE):
            if offered.get(name, 0) - node.allocated_countables.get(name, 0) < asked:
                mark |= 1 << number
    return mark


def _has_gpus(node: Node, free: int, request: Resources) -> bool:
    """Whether of so many free GPUs enough are those that the request wants."""
    if free < request.gpus:
        return False
    return (not request.gpu_models and not request.gpu_memory_bytes and len(node.facts.gpus) < 2) or (
        node.free_gpus(request) >= request.gpus
    )
