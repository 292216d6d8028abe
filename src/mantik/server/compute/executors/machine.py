"""What this machine has for jobs, and which job has what of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mantik.compute.quantities import size_text
from mantik.server.compute.executors import CannotRunError, NoRoomError
from mantik.server.compute.task import Share

if TYPE_CHECKING:
    from mantik.compute.resources import Resources

_COMMAND_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine has.

    Attributes:
        cpus: The numbers of the CPUs that this process may use.
        memory: Bytes of memory.
        gpus: NVIDIA's names of its GPUs; those that this process may not use are left out.
    """

    cpus: tuple[int, ...]
    memory: int
    gpus: tuple[str, ...] = ()

    @classmethod
    def here(cls) -> Machine:
        """Look at it."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(tuple(sorted(os.sched_getaffinity(0))), memory, _gpus(os.environ.get("CUDA_VISIBLE_DEVICES")))


def _gpus(visible: str | None) -> tuple[str, ...]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return ()
    query = [command, "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)  # noqa: S603 - fixed
    except (OSError, subprocess.TimeoutExpired):
        return ()
    if done.returncode != 0:
        # It is installed, and there is no driver or no GPU.
        return ()
    found = [tuple(part.strip() for part in line.split(",")) for line in done.stdout.splitlines() if "," in line]
    allowed = None if visible is None else {name.strip() for name in visible.split(",")}
    return tuple(name for index, name in found if allowed is None or index in allowed or name in allowed)


@dataclass
class Shares:
    """Which job has what of the machine. One thread at a time may use it.

    GPUs are given to one job at a time. CPUs are given to the job that finds them least used: as many as it has slots,
    and there may be more slots than CPUs. Memory is a limit for each job and not set aside.

    Attributes:
        machine: The machine.
        held: What each running job has.
    """

    machine: Machine
    held: dict[str, Share] = field(default_factory=dict)

    def give(self, job_id: str, slots: int, resources: Resources) -> Share:
        """Give a job its share, until it is taken back.

        Raises:
            CannotRunError: It asks for more than there is.
            NoRoomError: Others have what it asks for.
        """
        self._check(resources)
        cpus = self._cpus(min(slots, len(self.machine.cpus)))
        self.held[job_id] = share = Share(
            cpus, self._free_gpus(resources.gpus_per_node or 0), resources.memory_per_node, resources.runtime
        )
        return share

    def take_back(self, job_id: str) -> None:
        """Take back what a job had, if it had anything."""
        self.held.pop(job_id, None)

    def note(self, job_id: str, share: Share) -> None:
        """Take note of what a job was given before this process was started."""
        self.held.setdefault(job_id, share)

    def _check(self, resources: Resources) -> None:
        if (resources.nodes or 1) > 1:
            raise CannotRunError(f"it asks for {resources.nodes} nodes, and the platform runs its jobs on one machine")
        gpus, there = resources.gpus_per_node or 0, len(self.machine.gpus)
        if gpus > there:
            raise CannotRunError(f"it asks for {gpus} GPU(s), and this machine has {there or 'none'}")
        memory = resources.memory_per_node or 0
        if memory > self.machine.memory:
            raise CannotRunError(
                f"it asks for {size_text(memory)} of memory, and this machine has {size_text(self.machine.memory)}"
            )

    def _cpus(self, count: int) -> tuple[int, ...]:
        users = Counter(cpu for share in self.held.values() for cpu in share.cpus or ())
        return tuple(sorted(sorted(self.machine.cpus, key=lambda cpu: (users[cpu], cpu))[:count]))

    def _free_gpus(self, count: int) -> tuple[str, ...] | None:
        if not self.machine.gpus:
            return None
        taken = {gpu for share in self.held.values() for gpu in share.gpus or ()}
        free = [gpu for gpu in self.machine.gpus if gpu not in taken]
        if count > len(free):
            raise NoRoomError(f"{count} GPUs are not free")
        return tuple(free[:count])
