"""The words of groups and quotas."""

OF_GROUPS = ("NAME", "GUARANTEE", "LIMIT", "WEIGHT", "HELD", "WAITING", "MEMBERS", "IDLE")
OF_MEMBERS = ("NAME", "ROLE", "HELD", "ALLOWED")

NO_GROUP = "You are in no group. An administrator makes one: hutch group add NAME --guarantee 2"
NO_MEMBER = "{name} has no member yet. Add one: hutch group add-member {name} PERSON"
ADDED = "Group {name} is added. Put people into it: hutch group add-member {name} PERSON"
CHANGED = "Group {name} is changed."
OVER_LIMIT = (
    "{name} holds {held} accelerators and may hold {limit}. Nothing is taken away; nothing more is"
    " granted to it until it holds less."
)
TOO_MUCH = (
    "All guarantees together are {promised} accelerators, and {there} are in service. Who is"
    " guaranteed what is not there waits for it."
)
ASK_REMOVE = "Remove the group {name}? Its {members} members stay, and are in no group then."
REMOVED = "Group {name} is removed."
MEMBER_ADDED = "{user} is in {name} now."
MEMBER_REMOVED = "{user} is no longer in {name}. What they hold goes on until it ends."
IS_MANAGER = "{user} manages {name} now: they add and remove people, and see the group's leases."
IS_NO_MANAGER = "{user} no longer manages {name}."
QUOTA_CHANGED = "The quota of {name} is changed."
OVER_QUOTA = (
    "{name} holds or waits for {held} accelerators and may hold {allowed}. Nothing is taken away;"
    " nothing more is granted until they hold less."
)
NOT_MANAGED = "You may not set the quota of {name}: you manage no group."
MANAGER_SETS_GPUS = "The manager of a group sets --gpus alone."
ASK_ADMINISTRATOR = "Ask an administrator."

NONE = "none"
MANAGER = "manager"
MEMBER = "member"
IDLE = "{window} below {threshold:g} %, told {warning} before"
IDLE_NEVER = "never taken back"
IDLE_OF_LAB = "as in the lab"

GROUP_NAME = "The group's name."
PERSON = "The person's name."
GUARANTEE = "Accelerators that other groups' borrowing never keeps from it."
LIMIT = "The most accelerators it may hold at once, borrowed ones included; `none` for no limit."
WEIGHT = "Its share of what is contended for, beside the others' weights."
IDLE_WINDOW = (
    "Idle for so long, and accelerators are taken back: 2h. `never`; or `lab` for no policy of its"
    " own."
)
IDLE_BELOW = "Idle is what computes less than this."
IDLE_WARNING = "From the warning to the end: 15m."
NO_LONGER = "Not a manager any more."
GPUS = "The most accelerators they may hold at once."
WHOSE_QUOTA = "Whose. Your own, if left out."
BAD_LIMIT = "--limit takes a number, or `none`."
IDLE_ALONE = "--idle-below and --idle-warning change a policy, and `--idle lab` takes it away."

HELP = {
    "group": "Keep groups: people who share a guarantee, a limit and a weight for accelerators.",
    "group list": "List groups: all for administrators, your own for everybody else.",
    "group show": "Show a group: its shares, what it holds, and who is in it.",
    "group add": "Add a group.",
    "group set": "Change a group's shares, or when its idle accelerators are taken back.",
    "group remove": "Remove a group. Its members stay.",
    "group add-member": "Put a person into a group. Its managers may do so as well.",
    "group remove-member": "Take a person out of a group. Its managers may do so as well.",
    "group set-manager": "Let a member keep the group's people, or no longer.",
    "quota": "Look at quotas and set them.",
    "quota show": "Show what a person holds of what they may hold.",
    "quota set": "Set what a person may hold at most. A group's manager sets its members' --gpus.",
}
