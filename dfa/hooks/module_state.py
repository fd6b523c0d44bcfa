"""What the modules of a segment hold beside their arguments, to run them again as they ran."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dfa.errors import PointError


@dataclass
class _Slot:
    """A place in a module where a parameter or buffer is registered, and what was there before the run."""

    holder: dict[str, Any]
    name: str
    tensor: Tensor | None

    def has_another(self) -> bool:
        """Whether another tensor is there now."""
        return self.holder.get(self.name) is not self.tensor

    def put(self, stand_in: Callable[[Tensor], Tensor]) -> None:
        """Put the tensor back, or its stand-in where it has been computed from others that learn."""
        computed = self.tensor is not None and self.tensor.requires_grad and not self.tensor.is_leaf
        self.holder[self.name] = stand_in(self.tensor) if self.tensor is not None and computed else self.tensor

    def is_sharded(self) -> bool:
        """Whether FSDP2 looks after this one: it puts whole and sharded parameters there in turns."""
        found = [tensor for tensor in (self.tensor, self.holder.get(self.name)) if tensor is not None]
        return len({type(tensor.data) for tensor in found}) > 1


class ModuleState:
    """Training flags, parameters and buffers of a segment's modules, as they are when it begins.

    Tensors are kept by reference, so that those which `torch.func.functional_call` has put in are there again. Of a
    buffer that the segment writes to, as running statistics are, a copy is kept.

    Args:
        segment: its name.
        modules: of the segment.
    """

    def __init__(self, segment: str, modules: Sequence[nn.Module]) -> None:
        self._segment = segment
        parts = list(dict.fromkeys(part for module in modules for part in module.modules()))
        self._training = [(part, part.training) for part in parts]
        self._parameters = [_Slot(part._parameters, *item) for part in parts for item in part._parameters.items()]
        self._buffers = [_Slot(part._buffers, *item) for part in parts for item in part._buffers.items()]
        buffers = {id(slot.tensor): slot.tensor for slot in self._buffers if slot.tensor is not None}
        self._before = {key: (_version(buffer), buffer.detach().clone()) for key, buffer in buffers.items()}
        self._run_with: list[tuple[_Slot, int, bool]] = []

    def end(self) -> None:
        """Note that the segment has run."""
        for slot in self._buffers:
            if slot.tensor is not None:
                version, copy = self._before[id(slot.tensor)]
                slot.tensor = slot.tensor if _version(slot.tensor) == version else copy
        self._before = {}
        # Versions after the run: a lazy module has made its parameters in it.
        self._run_with = [
            (slot, _version(slot.tensor), slot.tensor.requires_grad)
            for slot in self._parameters
            if slot.tensor is not None
        ]

    def parameters(self) -> list[Tensor]:
        """List the parameters that the segment ran with and that learn, each once."""
        used = (slot.holder[slot.name] if slot.is_sharded() else slot.tensor for slot in self._parameters)
        return list({id(tensor): tensor for tensor in used if tensor is not None and tensor.requires_grad}.values())

    def check_unchanged(self) -> None:
        """Check that the parameters are those of the first run.

        Raises:
            PointError: one has been written to, frozen, or freed.
        """
        for slot, version, learns in self._run_with:
            if slot.tensor is None or slot.is_sharded():
                continue
            if slot.tensor.requires_grad != learns:
                raise PointError(
                    f"segment '{self._segment}': requires_grad of parameter '{slot.name}' has changed since the forward"
                    " pass, and memory='recompute' runs the segment again: change it after the backward of all passes"
                )
            if _version(slot.tensor) != version:
                raise PointError(
                    f"segment '{self._segment}': parameter '{slot.name}' has changed since the forward pass, and"
                    " memory='recompute' runs the segment again: step the optimiser after the backward of all passes"
                )

    @contextmanager
    def restored(self, stand_in: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Run a block with everything as it was.

        Args:
            stand_in: what takes the place of a parameter that has been computed from others.
        """
        switched = [(part, part.training) for part, training in self._training if part.training != training]
        slots = [slot for slot in self._parameters if slot.has_another() and not slot.is_sharded()] + self._buffers
        now = [slot.holder.get(slot.name) for slot in slots]
        buffers = [slot.tensor for slot in self._buffers if slot.tensor is not None and not slot.has_another()]
        copies = [buffer.detach().clone() for buffer in buffers]
        try:
            for part, training in switched:
                part.training = not training
            for slot in slots:
                slot.put(stand_in)
            yield
        finally:
            for part, training in switched:
                part.training = training
            for slot, tensor in zip(slots, now, strict=True):
                slot.holder[slot.name] = tensor
        for buffer, copy in zip(buffers, copies, strict=True):
            buffer.data.copy_(copy)  # running statistics, whose writes torch does not count; neither does this one


def _version(tensor: Tensor) -> int:
    """Return the number of writes to a tensor; torch counts none to what was made in inference mode."""
    return 0 if tensor.is_inference() else tensor._version
