"""Everything that a person's ssh has to know of the lab."""

from hutch.domain import ssh_config
from hutch.domain.instances import Instance, InstanceState
from hutch.domain.people import Actor
from hutch.domain.permissions import Action, can
from hutch.domain.ssh_config import Entry, Lab
from hutch.errors import WrongStateError
from hutch.services.access import visible_instances
from hutch.services.context import Context
from hutch.services.hostkeys import gateway_host_key
from hutch.store import nodes
from hutch.store.db import Session


async def show(context: Context, actor: Actor, alias: str | None = None) -> tuple[Lab, str, str]:
    """The gateway, the configuration that leads to the actor's instances, and all host keys.

    Raises WrongStateError where nobody knows yet at which address the gateway is.
    """
    async with context.db.read() as session:
        lab = await _lab(session, context, alias or context.settings.gateway_alias)
        found = await visible_instances(session, actor, everyone=False, owner=None)
    entries = [_entry(each, actor) for each in found if _may_enter(each, actor)]
    return (
        lab,
        ssh_config.config(lab, actor.name, entries),
        ssh_config.known_hosts(lab, entries),
    )


async def _lab(session: Session, context: Context, alias: str) -> Lab:
    settings = context.settings
    place = settings.gateway_address
    if not place:
        everyone = await nodes.list_nodes(session)
        if not everyone:
            raise WrongStateError(
                "There is no node yet, and no address of the gateway is set.",
                hint="An administrator adds a node, or sets gateway_address.",
            )
        place = everyone[0].address
    host, port = ssh_config.split_place(place, settings.gateway_port)
    public, _ = gateway_host_key(context.vault)
    return Lab(alias, host, port, public, context.vault.lab)


def _may_enter(instance: Instance, actor: Actor) -> bool:
    made = instance.state not in {InstanceState.FAILED, InstanceState.DELETING}
    return made and can(actor, Action.INSTANCE_EXEC, instance.owner_id, instance.share)


def _entry(instance: Instance, actor: Actor) -> Entry:
    own = instance.owner_id == actor.user_id
    name = instance.name if own else f"{instance.name}.{instance.owner_name}"
    return Entry(instance.id, name, instance.owner_name, instance.ssh_host_key)
