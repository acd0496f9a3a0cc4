"""From a name to an instance's SSH server: found, woken if need be, and connected to.

A name is looked up among instances and nowhere else, so nothing but an instance can be reached:
an address, the node itself, another port, a service of the network are names that no instance has.
"""

import asyncio

import asyncssh
import structlog
from asyncssh.constants import OPEN_ADMINISTRATIVELY_PROHIBITED, OPEN_CONNECT_FAILED

from hutch.domain.instances import Instance, InstanceState
from hutch.domain.people import Actor
from hutch.errors import BusyError, HutchError, NotFoundError, WrongStateError
from hutch.gateway import messages
from hutch.gateway.pipe import CONNECT_SECONDS, Pipe
from hutch.services import gateway, instances
from hutch.services.context import Context

SSH_PORT = 22
_LOOK_SECONDS = 0.2
"""Pause between two looks at an instance that is on its way."""
_NEVER = frozenset({InstanceState.FAILED, InstanceState.DELETING})

log = structlog.get_logger("hutch.gateway")


async def open_pipe(
    context: Context, actor: Actor, name: str, port: int, known: Instance | None = None
) -> Pipe:
    """A connection to the SSH server of the actor's instance; `known` when it was just looked up.

    Raises asyncssh.ChannelOpenError with a sentence for the person.
    """
    try:
        return await _open(context, actor, name, port, known)
    except NotFoundError:
        raise _refused(messages.NO_INSTANCE.format(name=name[:80])) from None
    except HutchError as error:
        raise _failed(f"{error.message} {error.hint}".strip()) from None
    except asyncssh.ChannelOpenError:
        raise
    except Exception:
        # An error that asyncssh does not know would end the whole connection.
        log.exception("Opening a way failed", person=actor.name)
        raise _failed(messages.BROKEN) from None


async def _open(
    context: Context, actor: Actor, name: str, port: int, known: Instance | None
) -> Pipe:
    instance = known or await gateway.reachable(context, actor, name)
    if port != SSH_PORT:
        raise _refused(messages.OTHER_PORT.format(name=instance.name, port=port))
    instance = await _awake(context, actor, instance)
    pipe = Pipe(instance, context.settings.gateway_silence_seconds)
    try:
        await pipe.connect(instance.ssh_host, instance.ssh_port)
    except OSError as error:
        timed_out = isinstance(error, TimeoutError)
        reason = f"no answer in {CONNECT_SECONDS:g} s" if timed_out else str(error.strerror)
        raise _failed(
            messages.NO_ANSWER.format(
                name=instance.name, node=instance.node_name, reason=reason.lower()
            )
        ) from None
    return pipe


async def _awake(context: Context, actor: Actor, instance: Instance) -> Instance:
    """The instance once it runs; one that is stopped is started if its owner allows that."""
    loop = asyncio.get_running_loop()
    patience = context.settings.gateway_wake_seconds
    deadline = loop.time() + patience
    began = False
    while instance.state is not InstanceState.RUNNING:
        if instance.state in _NEVER:
            raise _failed(messages.IS_STATE.format(name=instance.name, state=instance.state))
        if instance.state is InstanceState.STOPPED:
            if began:
                raise _failed(messages.NOT_STARTED.format(name=instance.name))
            if not instance.wake_on_ssh:
                raise _failed(messages.IS_STOPPED.format(name=instance.name))
            began = await _wake(context, actor, instance)
        if loop.time() > deadline:
            raise _failed(
                messages.STILL_STATE.format(
                    name=instance.name, state=instance.state, seconds=patience
                )
            )
        await asyncio.sleep(_LOOK_SECONDS)
        instance = await gateway.reachable(context, actor, instance.id)
    return instance


async def _wake(context: Context, actor: Actor, instance: Instance) -> bool:
    """Whether it was begun. Somebody else may have been quicker: then its new state tells."""
    try:
        await instances.start(context, actor, instance.id)
    except (BusyError, WrongStateError):
        return False
    log.info("Woken", person=actor.name, instance=instance.id)
    return True


def _refused(text: str) -> asyncssh.ChannelOpenError:
    return asyncssh.ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, text)


def _failed(text: str) -> asyncssh.ChannelOpenError:
    return asyncssh.ChannelOpenError(OPEN_CONNECT_FAILED, text)
