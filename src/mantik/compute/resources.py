"""What a job asks of the machine: the section ``Resources`` of a backend configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mantik.compute.quantities import duration_in, duration_text, size_in, size_text
from mantik.compute.section import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mantik.compute.mistakes import Mistakes

__all__ = ["RESOURCES_KEYS", "Resources"]

RESOURCES_KEYS = (
    "Queue",
    "Runtime",
    "Nodes",
    "CPUs",
    "TotalCPUs",
    "CPUsPerNode",
    "GPUsPerNode",
    "Memory",
    "MemoryPerNode",
    "QoS",
    "Reservation",
    "NodeConstraints",
)
"""All keys of the section, renamed ones in both spellings."""

_WORD = r"[^\s\x00-\x1f\x7f]{1,200}"
"""What stands behind an option of a batch system: without white space, of which no name of such a system has any."""

_DURATION = "a whole number and one unit of s, m, h, d, e.g. 12h"
_SIZE = "a number and a unit, e.g. 12GiB"


@dataclass(frozen=True, slots=True)
class Resources:
    """What a job asks for; None is what the queue gives by itself.

    Attributes:
        queue: ``Queue``, a partition of Slurm.
        runtime: ``Runtime`` in seconds.
        nodes: ``Nodes``.
        cpus: ``CPUs`` or ``TotalCPUs``, on all nodes together.
        cpus_per_node: ``CPUsPerNode``.
        gpus_per_node: ``GPUsPerNode``.
        memory_per_node: ``Memory`` or ``MemoryPerNode``, in bytes.
        qos: ``QoS``.
        reservation: ``Reservation``.
        node_constraints: ``NodeConstraints``.
    """

    queue: str
    runtime: int | None = None
    nodes: int | None = None
    cpus: int | None = None
    cpus_per_node: int | None = None
    gpus_per_node: int | None = None
    memory_per_node: int | None = None
    qos: str | None = None
    reservation: str | None = None
    node_constraints: str | None = None

    @classmethod
    def read(cls, content: Mapping[Any, Any], place: str, mistakes: Mistakes) -> Resources:
        """Read the section.

        Args:
            content: What is in it.
            place: Its path in the file.
            mistakes: Where to say what is wrong; then the result is not to be used.
        """
        section = Section(content, place, RESOURCES_KEYS, mistakes)
        if content.get("Queue") is None:
            section.refuse("Queue", "is missing, expected the name of a queue (a partition of Slurm), e.g. batch")
        resources = cls(
            queue=section.text("Queue", pattern=_WORD, expected="the name of a queue, e.g. batch") or "",
            runtime=section.quantity("Runtime", read=duration_in, kind="duration", expected=_DURATION),
            nodes=section.whole("Nodes"),
            cpus=section.whole("TotalCPUs", "CPUs"),
            cpus_per_node=section.whole("CPUsPerNode"),
            gpus_per_node=section.whole("GPUsPerNode", least=0),
            memory_per_node=section.quantity("MemoryPerNode", "Memory", read=size_in, kind="size", expected=_SIZE),
            qos=section.text("QoS", pattern=_WORD, expected="one word, e.g. normal"),
            reservation=section.text("Reservation", pattern=_WORD, expected="one word, e.g. course"),
            node_constraints=section.text("NodeConstraints", pattern=_WORD, expected="no white space, e.g. gpu&a100"),
        )
        resources._check(section)
        return resources

    def to_mapping(self) -> dict[str, object]:
        """Return the section as it would be written."""
        written: dict[str, object | None] = {
            "Queue": self.queue,
            "Runtime": duration_text(self.runtime) if self.runtime is not None else None,
            "Nodes": self.nodes,
            "CPUs": self.cpus,
            "CPUsPerNode": self.cpus_per_node,
            "GPUsPerNode": self.gpus_per_node,
            "Memory": size_text(self.memory_per_node) if self.memory_per_node is not None else None,
            "QoS": self.qos,
            "Reservation": self.reservation,
            "NodeConstraints": self.node_constraints,
        }
        return {key: value for key, value in written.items() if value is not None}

    def _check(self, section: Section) -> None:
        if self.cpus is None or self.cpus_per_node is None:
            return
        nodes = self.nodes or 1
        if self.cpus != nodes * self.cpus_per_node:
            key, _ = section.value("TotalCPUs", "CPUs")
            section.refuse(
                key,
                f"{self.cpus} contradicts {nodes} node(s) with {self.cpus_per_node} CPUs each; leave out one of them",
            )
