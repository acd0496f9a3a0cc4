"""What the agents of nodes say: one JSON object per WebSocket message, known by its `type`.

agent to server     hello, accelerators, readings, done
server to agent     welcome, do, error
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from hutch.api.fields import Body, Text
from hutch.domain.accelerators import (
    DeviceNode,
    FoundAccelerator,
    Health,
    Process,
    Reading,
    Revoked,
    Vendor,
)
from hutch.domain.sizes import LARGEST
from hutch.errors import InvalidInputError

MOST_ACCELERATORS = 256
MOST_PROCESSES = 256

Bytes = Annotated[int, Field(ge=0, le=LARGEST)]
Address = Annotated[Text, Field(min_length=1, max_length=64)]
Reason = Annotated[Text, Field(max_length=500)]
Number = Annotated[int, Field(ge=0, lt=2**32)]


class DeviceNodeBody(Body):
    path: Text = Field(max_length=255)
    major: Number
    minor: Number


class FoundBody(Body):
    address: Address
    vendor: Vendor
    model: Text = Field(max_length=128)
    memory: Bytes
    uuid: Annotated[Text, Field(min_length=1, max_length=64)] | None
    nodes: list[DeviceNodeBody] = Field(max_length=16)
    shared: list[DeviceNodeBody] = Field(max_length=16)
    health: Literal[Health.OK, Health.FAILED, Health.MISSING]
    reason: Reason

    def parsed(self) -> FoundAccelerator:
        return FoundAccelerator(
            address=self.address,
            vendor=self.vendor,
            model=self.model,
            memory=self.memory,
            uuid=self.uuid,
            nodes=tuple(DeviceNode(**each.model_dump()) for each in self.nodes),
            shared=tuple(DeviceNode(**each.model_dump()) for each in self.shared),
            health=self.health,
            reason=self.reason,
        )


def _addresses_once(found: list[FoundBody]) -> list[FoundBody]:
    if len({each.address for each in found}) != len(found):
        raise ValueError("an address is named twice")
    return found


Found = Annotated[
    list[FoundBody], Field(max_length=MOST_ACCELERATORS), AfterValidator(_addresses_once)
]


class ProcessBody(Body):
    pid: Annotated[int, Field(ge=1, lt=2**31)]
    command: Text = Field(max_length=255)
    container: Annotated[Text, Field(max_length=63)] | None
    user: Text = Field(max_length=64)
    memory: Bytes

    def parsed(self) -> Process:
        return Process(**self.model_dump())


Processes = Annotated[list[ProcessBody], Field(max_length=MOST_PROCESSES)]


class ReadingBody(Body):
    address: Address
    utilisation: Annotated[float, Field(ge=0, le=1)] | None
    memory_used: Bytes | None
    temperature: Annotated[float, Field(ge=-300, le=1000)] | None
    power: Annotated[float, Field(ge=0, le=100_000)] | None
    health: Literal[Health.OK, Health.FAILED, Health.MISSING]
    reason: Reason
    processes: Processes

    def parsed(self) -> Reading:
        return Reading(
            address=self.address,
            utilisation=self.utilisation,
            memory_used=self.memory_used,
            temperature=self.temperature,
            power=self.power,
            health=self.health,
            reason=self.reason,
            processes=tuple(each.parsed() for each in self.processes),
        )


class Hello(Body):
    """The first message, and only that."""

    type: Literal["hello"]
    version: Text = Field(max_length=64)
    boot_id: Text = Field(max_length=128)
    nvidia_container: bool
    accelerators: Found


class Accelerators(Body):
    """Everything that the node has, told again whenever that has changed."""

    type: Literal["accelerators"]
    accelerators: Found


class Readings(Body):
    """What the accelerators did in the `seconds` since the last readings."""

    type: Literal["readings"]
    seconds: Annotated[float, Field(ge=0, le=86_400)]
    readings: list[ReadingBody] = Field(max_length=MOST_ACCELERATORS)


class Done(Body):
    """The answer to `do`: which processes were found, and asked or ended."""

    type: Literal["done"]
    id: Text = Field(max_length=16)
    processes: Processes
    is_shut: bool = False

    def parsed(self) -> Revoked:
        return Revoked(tuple(each.parsed() for each in self.processes), self.is_shut)


Message = Annotated[Hello | Accelerators | Readings | Done, Field(discriminator="type")]
_MESSAGE: TypeAdapter[Hello | Accelerators | Readings | Done] = TypeAdapter(Message)


def parse(text: str) -> Hello | Accelerators | Readings | Done:
    """Raises InvalidInputError that says what is wrong, without repeating what was given."""
    try:
        return _MESSAGE.validate_json(text)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:80] or "message"
        place = place.encode(errors="replace").decode()
        raise InvalidInputError(f"{place}: {first['msg']}.", field=place) from None
