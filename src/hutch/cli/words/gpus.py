"""The words of accelerators, leases, reports about them, and notices."""

OF_GPUS = ("GPU", "MODEL", "MEMORY", "HOLDER", "UNTIL (UTC)", "USED", "STATE")
OF_QUEUE = ("NODE", "PLACE", "WHO", "GPUS", "MODEL", "SINCE (UTC)", "STARTS (UTC)", "WAITS FOR")
OF_HISTORY = ("LEASE", "WHO", "INSTANCE", "NODE", "GPUS", "ASKED (UTC)", "BEGAN (UTC)",
              "ENDED (UTC)", "WHY")  # fmt: skip
OF_NOTICES = ("AT (UTC)", "READ", "TEXT")
OF_REPORT = ("LEASES", "HELD (h)", "BUSY (h)", "BUSY (%)")
REPORTED = {"person": "PERSON", "group": "GROUP", "accelerator": "GPU", "month": "MONTH"}
MODEL = "MODEL"
TOTAL = "total"

# What there is

NO_GPU = (
    "This lab has no accelerators yet. An administrator runs the agent on each node that has some:"
    " hutch node token NODE, then hutch agent there. To try it without a GPU:"
    " hutch agent --simulated-gpus 4"
)
FREE = "free"
YOU = "you"
YOU_ON = "you: {name}"
OWNER_ON = "{owner}/{name}"
AND_MORE = "{holders} ({held} of {sharers})"
OUT_OF_SERVICE = "out of service: {reason}"
UNWELL = "{health}: {reason}"
NOT_TOLD = "-"
YOURS = "Lease {id}: {gpus} in {name} until {until}."
YOURS_WAITING = "Lease {id}: {line}. Why: hutch gpu why"
IN_ALL = "The lab has {gpus}: {free} free, {waiting}."
NO_LINE = "nobody waits"
IN_LINE_NOW = "waiting: {count}"
ANNOUNCED = {
    "expired": "Its time ends at {due}.",
    "idle": "Nothing computes on them: they go back at {due}. Keep them: hutch gpu extend {id}",
    "preempted": "They are borrowed, and go back to a group that is guaranteed them at {due}.",
}

# Taking, waiting, giving back

TAKING = "{gpus} for {name}"
ATTACHING = "on the way into {name}"
DETACHING = "Giving back {gpus} of {name}: ending what still uses them"
ATTACHED = "attached: {devices} in {name} until {until}."
ON_THE_WAY = "{devices} are on the way into {name}, until {until}. See: hutch gpu list"
DEVICES = "{count} × {model} ({names})"
LOOK_INSIDE = "Log in:     hutch ssh {name}"
MORE_TIME = "More time:  hutch gpu extend {id} --for 2h"
GIVE_BACK = "Give back:  hutch gpu release {id}"
WAITS = "You wait for {gpus}: {line}."
SEE_WHY = "Why and how long:  hutch gpu why {id}"
LEAVE_LINE = "Leave the line:    hutch gpu release {id}"
KEEPS_PLACE = "You keep your place in the line."
KEEPS_PLACE_HINT = "See it: hutch gpu why {id}. Leave it: hutch gpu release {id}"
GOES_IN = "The GPUs go into {name} without you watching."
GOES_IN_HINT = "See them: hutch gpu list. Give them back: hutch gpu release {id}"
GOES_BACK = "The GPUs go back without you watching."
GOES_BACK_HINT = "See whether they have: hutch gpu list"
CAME_TO_NOTHING = "The lease ended before the GPUs were there: {reason}."
TAKE_AGAIN = "Ask again: hutch gpu take {count}"
RELEASED = "released: {gpus} of {name}."
RELEASING = "{gpus} of {name} are on their way back."
LEFT_LINE = "You no longer wait for {gpus} for {name}."
EXTENDED = "{gpus} are in {name} until {until}."
SEE_GPUS = "`hutch gpu list` shows what there is, each as node/address."

# Why

IN_LINE = "{place} in line on {node}"
STARTS = "starts about {at}"
NO_START = "nobody can tell when it starts"
WAITING = {
    "instance": "waiting until {instance} runs",
    "person": "waiting until {owner} holds less: a person may hold so many and no more",
    "group": "waiting until the group holds less: it may hold so many and no more",
    "no_such_device": "waiting until {node} has as many such GPUs in service",
    "devices": "waiting for {holders}",
    "turn": "enough are free, and kept for who comes first",
    "reclaim": "waiting for {holders}, who borrowed them and were told to give them back",
    "guarantee": "waiting until a lease within the guarantee of {group} has started",
}
HOLDER = "{owner} until {until}"
SOMEBODY = "somebody else"
NOT_SEEN_YET = "in line on {node}"
NOTHING_WAITED_FOR = "You wait for no GPU. See what is free: hutch gpu list"
WHY_HEAD = "Lease {id}: {gpus} for {name} on {node}, asked for at {at}."
WHY_ACTIVE = "Lease {id} does not wait: it is {state}, with {devices} in {name} until {until}."
WHY_ENDED = "Lease {id} has ended: {reason}."
WHY_FIRST = "It is the first in line on {node}."
WHY_BEHIND = "It is {place} in line on {node}, behind {ahead}."
WHY_PLACE = "It is {place} in line on {node}."
WHY = {
    "instance": "{instance} does not run, and only a running machine can have GPUs. Start it: hutch"
    " start {instance}. Meanwhile others go first.",
    "person": "{owner} holds as many GPUs as one person may. It goes on as soon as some are"
    " released; an administrator or the group's manager can allow more. Meanwhile others go first.",
    "group": "The group {group} holds as many GPUs as it may. It goes on as soon as a member"
    " releases some; an administrator can raise the limit. Meanwhile others go first.",
    "no_such_device": "{node} has fewer such GPUs in service than it asks for: some were taken out"
    " of service, are broken, or are not heard of. See: hutch gpu list",
    "devices": "It waits for GPUs that others hold: {holders}.",
    "turn": "{free} matching GPUs are free, and kept for those who come first.",
    "reclaim": "Those who borrowed its GPUs were told to give them back: {holders}.",
    "guarantee": "Room is being made for another lease of {group}, which is within the group's"
    " guarantee. This one is beyond it, and would use it up if it started first.",
}
WHY_START = "If everybody keeps theirs to the end, it starts at about {at}."
WHY_NO_START = "Nobody can tell when it starts."
WHY_GUARANTEED = (
    "It is within what {group} is guaranteed: nobody who only borrows goes before it, or keeps"
    " theirs for long."
)
WHY_LEAVE = "Leave the line: hutch gpu release {id}"
NOBODY_WAITS = "Nobody waits for a GPU. Take one: hutch gpu take 1"
NO_HISTORY = "No lease has ended yet. Take a GPU: hutch gpu take 1"
ENDED = {
    "released": "released",
    "expired": "time was up",
    "idle": "nothing computed on them",
    "preempted": "went back to a group that is guaranteed them",
    "cancelled": "left the line",
    "stopped": "machine was stopped",
    "deleted": "machine was deleted",
    "node_lost": "node was lost",
    "failed": "could not be attached",
}

# For administrators

WITHDRAWN = "{name} is out of service. Who holds it keeps it; nobody else gets it."
RESTORED = "{name} is in service again."
SHARED = "{name} may be held by {sharers} leases at once."
EXCLUSIVE = "{name} is held by one lease at a time."
ONE_OR_ALL = "Name an accelerator, or give --all."

# Reports and notices

NO_HOURS = "Nobody held a GPU from {first} to {last}."
NO_GROUP = "(no group)"
NOT_TWO_MONTHS = "Give --month alone, or --since and --until."
CSV_OR_JSON = "Give --csv or --json, not both."
NO_NOTICE = "There is nothing that you were told."
NEW = "new"
READ = "read"
MARKED = "{count} notices are marked as read."

# Help

GPU_COUNT = "How many GPUs: all of them, or none."
OF_MODEL = "Only GPUs whose model contains this, such as A100."
FOR = "How long: 4h, 90m, 1d12h. The lab's usual time, if left out."
FOR_LONGER = "How much longer: 4h, 90m. 1h, if left out."
ON = "The instance; your only running one, if left out."
ON_HELD = "The instance; your only one with a lease, if left out."
LEASE = "The lease's id; all of the instance's, if left out."
ONE_LEASE = "The lease's id; the one that there is, if left out."
EVERYONES = "Everyone's, for administrators; your group's, for its manager."
BEFORE = "Only leases before this one, to page back."
GPU = "The accelerator: node/address as `hutch gpu list` shows it, or its id."
REASON = "Why, in one line, for everyone to read."
WITH = "How many leases may hold it at once; 1 is exclusive."
ALL = "Every accelerator of the lab."
NO_WAIT = "Do not wait: in the line, you keep your place."
NO_WAIT_RELEASE = "Do not wait until nothing uses them any more."
MONTH = "A month such as 2026-11. The present one, if left out."
SINCE = "From this month on."
UNTIL = "To this month, which is included."
BY = "What a row stands for."
CSV = "Print CSV, for a spreadsheet."
MINE = "Your own alone."
UNREAD = "Only what you have not read."

HELP = {
    "gpu": "See the lab's GPUs, take some for a time, and give them back.",
    "gpu list": "List every GPU: free, yours, or who holds it until when, and how it is used.",
    "gpu take": "Take GPUs for a running instance: at once if they are free, else in line.",
    "gpu release": "Give GPUs back, or leave the line. What still uses them is ended.",
    "gpu extend": "Keep GPUs longer, while nobody waits who is entitled to them.",
    "gpu queue": "Show who waits for GPUs, in line.",
    "gpu why": "Tell why you wait, behind whom, and when it is your turn.",
    "gpu history": "List leases that have ended.",
    "gpu withdraw": "Take a GPU out of service. Who holds it keeps it. For administrators.",
    "gpu restore": "Bring a GPU back into service. For administrators.",
    "gpu share": "Set how many leases may hold a GPU at once. For administrators.",
    "report": "Account for what was used.",
    "report gpu": "Report GPU-hours, held and truly computing: yours, your group's, or everyone's.",
    "notice": "Read what you were told about your GPUs.",
    "notice list": "List what you were told, newest first.",
    "notice read": "Mark everything that you were told as read.",
}
