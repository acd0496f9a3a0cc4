"""Every word that the command line says; those of accelerators and groups are in `words`."""

# ruff: noqa: S105 - texts that speak of passwords are not passwords

# Questions, errors and hints

ERROR = "Error:"
USAGE_HINT = "`{command} --help` shows how it is used."
UNFORESEEN = "hutch met something that nobody foresaw: {error}."
UNFORESEEN_HINT = "Run it again with HUTCH_DEBUG=1 set, and show your administrator what it prints."
INTERRUPTED = "Interrupted."
YES_OR_NO = "[y/N]"
ANSWERS_OF_YES = frozenset({"y", "yes"})
NOTHING_CHANGED = "Nothing was changed."
NOT_CONFIRMED = "This needs a yes, and there is no terminal to ask on: {question}"
REPEAT_WITH_YES = "If you mean it, repeat the command with --yes. Nothing was changed."
NOTHING_TO_SET = "Say what to change: {options}."

# Signing in

ASK_NAME = "Name: "
ASK_PASSWORD = "Password for {name} at {url}: "
ASK_OLD_PASSWORD = "Present password: "
ASK_NEW_PASSWORD = "New password: "
ASK_AGAIN = "New password again: "
PASSWORDS_DIFFER = "The two passwords are not the same."
NO_TERMINAL_FOR_PASSWORD = "There is no terminal to ask for the password."
USE_PASSWORD_STDIN = "Give it on standard input: `{command} --password-stdin < FILE`."
NO_PASSWORD = "The password on standard input is empty."
NOT_ENCRYPTED = (
    "Warning: {url} is not encrypted. Your password and everything else can be read on the way."
)
READABLE_BY_OTHERS = (
    "Warning: {path} can be read by others, and with it your token. Run: chmod 600 {path}"
)
SIGNED_IN = "You are signed in at {url} as {name} ({role}) until {until}."
SIGNED_OUT = "You are signed out of {url}."
NOT_SIGNED_IN = "You were not signed in."
TOKEN_FROM_ENVIRONMENT = "HUTCH_TOKEN is set: it is used instead of a sign-in. Unset it."
TOKEN_STILL_VALID = "The sign-in is forgotten here, but the server did not hear of it."
FOR_EVER = "you sign out"
NO_TERMINAL_FOR_NAME = "There is no terminal to ask for your name."
PASSWORD_CHANGED = "Your password is changed."
RESOURCES = {"instances": "instances", "cpus": "CPUs", "memory": "memory", "disk": "disk",
             "accelerators": "GPUs"}  # fmt: skip

# Instances

NO_INSTANCE = "You have no instance yet. Make one: hutch create box"
NO_INSTANCE_OF_ANYONE = "Nobody has an instance yet."
NO_INSTANCE_OF_OWNER = "{owner} has no instance."
DRIFT = "{name} is not as it should be since {since}: {message}"
WITH_DRIFT = "{state} (drift)"
FAILED_INSTANCE = "{name} could not be made: {error} Remove it: hutch delete {name}"
TROUBLED_INSTANCE = "{name}: {error}"
CREATING = "Creating {name}"
STARTING = "Starting {name}"
STOPPING = "Stopping {name}"
RESTARTING = "Restarting {name}"
REBUILDING = "Rebuilding {name}"
CONFIGURING = "Changing {name}"
DELETING = "Deleting {name}"
CREATED = "{name} is ready."
STARTED = "{name} is running."
STOPPED = "{name} is stopped."
RESTARTED = "{name} runs again."
REBUILT = "{name} is new again."
CONFIGURED = "{name} has its new limits."
WAKES = "{name} is started when you come by ssh and it is stopped."
WAKES_NOT = "{name} is started by `hutch start {name}` alone."
DELETED = "{name} is deleted."
LOG_IN = "Log in:  hutch ssh {name}"
OR_WITH_SSH = "    or:  {command}"
LOG_IN_THROUGH = "Log in:  {command}"
OR_CONFIGURE = "    or:  ssh {name}, once `ssh lab config --script | sh` has set that up"
NO_KEY = (
    "You have no SSH key at hutch yet, so you cannot log in. Add one:"
    " hutch key add ~/.ssh/id_ed25519.pub (ssh-keygen -t ed25519 makes one). It reaches running"
    " instances within seconds."
)
ASK_DELETE = "Delete {name} and everything on its disk{snapshots}? This cannot be undone."
ASK_REBUILD = (
    "Replace the disk of {name} by a fresh one of {image}? Everything on it{snapshots} is lost."
)
AND_SNAPSHOTS = " and its {count} snapshots"
AND_SNAPSHOT = " and its snapshot"
USED_OF = "{used} of {allowed}"
CPU_USED = "{allowed}, {seconds:.0f} s used since its start"
NOT_RUNNING = "{name} is {state}, so nobody can log in."
START_FIRST = "Start it: hutch start {name}"
WAIT_FOR_IT = "Wait until it is running: hutch show {name}"
FAILED_SO_DELETE = "Remove it: hutch delete {name}"
NO_SSH = "There is no `ssh` program on the PATH."
INSTALL_SSH = "Install the OpenSSH client (on Debian and Ubuntu: openssh-client)."
ODD_SSH = "The server's answer on how to reach {name} is not valid: {what}."
ASK_ADMINISTRATOR = "Show this to your administrator."
ODD_FOLDER = 'ssh cannot use the folder {folder}: it has one of the characters " and $ in its name.'
OTHER_FOLDER = "Set XDG_CONFIG_HOME to another folder."
NO_COMMAND = "Give a command to run: hutch exec NAME -- COMMAND."
TRUNCATED = "The output was longer than hutch passes on; the rest is missing. Use hutch ssh."

# Sharing

SHARED = "{person} can log in to {name}{until}. Their SSH keys are going in."
SHARED_TO_LOOK = "{person} can look at {name}{until}, and not log in."
UNSHARED = "{name} is shared with {person} no longer. Their SSH keys are leaving."
SHOWN_ONLY = "{name} is shared with you to look at, not to log in."
ASK_OWNER = "Ask {owner}: hutch share NAME PERSON lets you in."
UNTIL = " until {at}"
SHARED_BY = "by {owner}{until}"
SHARED_BY_TO_LOOK = "by {owner}, to look{until}"
SHARED_WITH = "{person}{until}"
SHARED_WITH_TO_LOOK = "{person}, to look{until}"

# Ports

ADDING_PORT = "Leading a port to {port} of {name}"
PORT_ADDED = {
    "network": "{place} leads to port {port} of {name}{until}.",
    "node": "{place} on its node alone leads to port {port} of {name}{until}.",
    "web": "Port {port} of {name} is open in a browser alone{until}.",
}
ONE_REACH = "--local and --web-only exclude each other: a web-only port listens nowhere."
LEADING = "{port}/{protocol} at {host}:{host_port} ({name}){ends}"
LEADING_WEB = "{port}/{protocol} in a browser alone ({name}){ends}"
IN_BROWSER = "In a browser, behind a sign-in: {url}"
NO_APP = "There is no app that you may open. Make one: hutch port add NAME 8888 --web-only"
DESKTOP_AT = "The desktop, in a browser, behind a sign-in: {url}"
VNC_AT = "For a VNC viewer: {place}, password {password}. It lets in once, within ten minutes."
NO_VNC = "{name} did not start a VNC server."
NO_VNC_HINT = "Look inside: hutch exec NAME -- systemctl status hutch-desktop-vnc"
ADDING_DESKTOP = "Leading the way to the desktop of {name}"
NO_DESKTOP = "{name} was not made from an image that has one: hutch create NAME --image desktop"
PORT_CHANGED = "Port {port} of {name} is changed."
REMOVING_PORT = "Taking port {port} of {name} away"
PORT_REMOVED = "Nothing leads to port {port} of {name} any more."
NO_PORT = "There is no port but those of SSH. Lead one to an instance: hutch port add NAME 8888"
OPEN_TO_WHOM = {"owner": "-", "people": "{people}", "everyone": "everyone"}

# The overview

YOU_ARE = "You are {name} ({role})."
YOU_HOLD = "You have {instances} of {most} machines, {cpus} CPUs, {memory} of memory, {gpus} GPUs."
WHAT_NEXT = "What to do:"
NEXT = (
    ("create box", "make a machine of your own"),
    ("show box", "what it is, and how to log in"),
    ("start box", "start it; `stop box` stops it"),
    ("snapshot create box before", "keep its disk as it is now"),
    ("gpu take 1 --on box", "take a GPU; `gpu queue` shows who waits"),
    ("key add", "register another SSH key"),
    ("ssh-config", "what makes `ssh box` work"),
    ("help", "everything else; `help create` tells of one command"),
)

# Operations

FOLLOW = "{title}: operation {id}. Watch it: hutch operation wait {id}"
GOES_ON = "The work goes on without you."
WATCH = "Watch it: hutch operation wait {id}"
PROGRESS = "{title}: {message} ({percent} %)"
UNDOING = "undoing: {message}"
RECONNECTING = "The server does not answer; trying again."
OPERATION_FAILED = "{title} failed: {message}"
OPERATION_FAILED_UNKNOWN = "the server gave no reason."
OPERATION_CANCELLED = "{title} was cancelled, and what had begun is undone."
OPERATION_STUCK = "{title} is stuck: {message}"
STUCK_HINT = (
    "An administrator has to look: hutch operation show {id}, then hutch operation retry {id}."
)
OPERATION_DONE = "Operation {id} is done."
OPERATION_RETRIED = "Operation {id} runs again. Watch it: hutch operation wait {id}"
NO_OPERATION = "There is no operation to show."

# Snapshots

SNAPSHOTTING = "Taking snapshot {snapshot} of {name}"
SNAPSHOT_TAKEN = "Snapshot {snapshot} of {name} is taken."
SNAPSHOT_RESTORING = "Restoring {name} to {snapshot}"
SNAPSHOT_RESTORED = "{name} is back at {snapshot}. hutch snapshot list {name} shows the way back."
SNAPSHOT_DELETING = "Deleting snapshot {snapshot} of {name}"
SNAPSHOT_DELETED = "Snapshot {snapshot} of {name} is deleted."
NO_SNAPSHOT = "{name} has no snapshot yet. Take one: hutch snapshot create {name} before-upgrade"
ASK_RESTORE = (
    "Put the disk of {name} back to {snapshot}, taken {at}? What was written since is replaced;"
    " a snapshot of the present state is taken first."
)
ASK_DELETE_SNAPSHOT = "Delete the snapshot {snapshot} of {name}? This cannot be undone."

# ssh's configuration

ONE_WAY = "Give one of --install, --known-hosts and --script."
NO_FILES_HERE = "There are no files of yours here."
SSH_SCRIPT_COMMAND = "On your own machine: ssh -p {port} {host} config --script | sh"
SSH_INSTALLED = "{config} is written. `hutch ssh-config --install` writes it anew."
SSH_BACKUP = "Your own configuration was kept as {backup}."
SSH_TRY = "Try:  ssh {alias}"
SSH_INSTALL_SCRIPT = """\
#!/bin/sh
# Puts hutch's machines into ~/.ssh/config: `ssh {alias} config --script | sh`.
set -eu
umask 077
cd "$HOME"
for path in .ssh .ssh/config .ssh/config.d .ssh/hutch; do
    if [ -L "$path" ]; then
        echo "$path is a link, which is left alone: put the configuration there yourself" >&2
        exit 1
    fi
done
mkdir -p .ssh/config.d .ssh/hutch
rm -f .ssh/config.d/hutch.conf .ssh/hutch/known_hosts
cat > .ssh/hutch/known_hosts <<'{end}'
{known_hosts}{end}
cat > .ssh/config.d/hutch.conf <<'{end}'
{config}{end}
if ! grep -qsxF '{include}' .ssh/config; then
    if [ -f .ssh/config ]; then
        cp .ssh/config .ssh/{backup}
    else
        : > .ssh/{backup}
    fi
    {{ printf '%s\\n\\n' '{include}'; cat .ssh/{backup}; }} > .ssh/config
fi
echo 'Try:  ssh {alias}'
"""

# Keys and tokens

NO_KEYS = "You have no SSH key yet. Add one: hutch key add ~/.ssh/id_ed25519.pub"
NO_KEYS_OF_USER = "{user} has no SSH key."
KEY_ADDED = "Key {title} is added: {fingerprint}. Running instances have it within seconds."
KEY_REMOVED = "Key {title} is removed: {fingerprint}."
NO_KEY_FILE = "There is no SSH public key in {folder}."
MAKE_KEY = "Make one with `ssh-keygen -t ed25519`, or name a file: hutch key add FILE.pub"
KEY_UNREADABLE = "{file} cannot be read: {reason}."
KEY_FILE_HINT = "Name the file that ends in .pub, or - to read the key from standard input."
KEY_ON_STDIN = "Give the key on standard input: ssh lab key add < ~/.ssh/id_ed25519.pub"
KEY_FILE_EMPTY = "{file} has no SSH public key in it."
KEY_FILE_SEVERAL = "{file} has more than one key in it."
KEY_FILE_SEVERAL_HINT = "Add them one at a time: grep the line you want | hutch key add -"
KEY_AMBIGUOUS = "There is more than one key with the title {title!r}."
KEY_AMBIGUOUS_HINT = "Name it by its id or fingerprint: hutch key list"
NO_TOKENS = "You have no API token. Make one: hutch token create NAME"
TOKEN_CREATED = "Token {title} ({scope}, {until}). It is shown this once:"
TOKEN_REVOKED = "The token is revoked."
NEVER_EXPIRES = "never expires"
EXPIRES = "expires {at}"

# People, nodes, images, events

USER_ADDED = "{name} ({role}) is added."
USER_ADDED_WITH_PASSWORD = "{name} ({role}) is added. The password is shown this once:"
USER_CHANGED = "{name} is changed."
ASK_DISABLE = (
    "Shut {name} out? Their sign-ins and API tokens end. Their {instances} instances keep running."
)
USER_DISABLED = "{name} can no longer sign in. Let them in again: hutch user enable {name}"
USER_ENABLED = "{name} can sign in again, with the password they had."
PASSWORD_RESET = "The new password of {name}, shown this once:"
NODE_ADDED = "Node {name} is added."
NODE_CORDONED = "Node {name} takes nothing new. What runs there goes on."
NODE_UNCORDONED = "Node {name} takes new instances again."
NODE_CHANGED = "Node {name} is changed."
NODE_MOVED = "Node {name} is reached at {address} now. Its instances' ports follow."
AGENT_TOKEN_CREATED = (
    "A new token for the agent of {name}, shown this once; the one before is of no use any more."
    " Keep it in a file that root alone can read."
)
NO_NODE = "There is no node yet. An administrator adds one: hutch node add NAME --url URL ..."
IMAGE_ADDED = "Image {name} can be used: hutch create box --image {name}"
NO_IMAGE = "There is no image yet. An administrator adds one: hutch image add NAME"
POOL_SET = "{count} of {name} are kept ready on each node."
NO_EVENT = "There is no event to show."
UNREACHABLE = "unreachable"
DISABLED = "disabled"
ACTIVE = "active"
PROMISED_OF = "{given} of {has}"
DAYS_OR_NEVER = "Give --days or --never-expires, not both."
STANDARD_INPUT = "Standard input"

# The server

CONFIG_VALID = "The settings are valid."

# Column titles

OF_INSTANCES = ("NAME", "STATE", "CPUS", "MEMORY", "DISK", "IMAGE", "NODE", "SSH")
OF_APPS = ("INSTANCE", "NAME", "IN A BROWSER")
OF_PORTS = ("INSTANCE", "NAME", "PORT", "AT", "STATE", "OPEN TO", "UNTIL (UTC)")
OF_OPERATIONS = ("ID", "KIND", "STATE", "DONE", "BY", "BEGAN (UTC)", "MESSAGE")
OF_SNAPSHOTS = ("NAME", "STATE", "KIND", "TAKEN (UTC)")
OF_KEYS = ("ID", "TITLE", "TYPE", "FINGERPRINT", "ADDED (UTC)")
OF_TOKENS = ("ID", "TITLE", "SCOPE", "MADE (UTC)", "EXPIRES (UTC)", "LAST USED (UTC)")
OF_USERS = ("NAME", "ROLE", "STATE", "INSTANCES", "CPUS", "MEMORY", "DISK", "GPUS")
OF_NODES = (
    "NAME", "STATE", "ENGINE", "ADDRESS", "CPUS", "MEMORY", "DISK", "DISK USED", "VERSION", "AGENT",
)  # fmt: skip
NO_AGENT, AGENT_ANSWERS = "none", "answers"
AGENT_SILENT = "silent since {at}"
OF_IMAGES = ("NAME", "POOL", "DESCRIPTION")
OF_EVENTS = ("ID", "AT (UTC)", "WHO", "WHAT", "TARGET", "RESULT", "FROM")
OF_QUOTA = ("WHAT", "HELD", "ALLOWED")

# Help

HUTCH = "A machine of your own on the lab's servers."
EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 not permitted, 5 conflict,"
    " 6 invalid input, 7 unavailable, 130 interrupted. Every command that prints takes --json."
)
PANEL_INSTANCES = "Your instances"
PANEL_ACCOUNT = "Your account"
PANEL_LAB = "The lab, for administrators"
PANEL_SERVER = "hutch itself"

HELP = {
    "create": "Make an instance: a machine of your own.",
    "list": "List your instances, and as owner/name those that others share with you.",
    "show": "Show an instance: its state, what it uses, and how to log in.",
    "start": "Start an instance.",
    "stop": "Stop an instance. Its disk stays.",
    "restart": "Restart an instance.",
    "rebuild": "Replace an instance's disk by a fresh one; name, port and keys stay.",
    "set": "Change an instance's limits, while it runs where the engine can, and its other ways.",
    "delete": "Delete an instance and everything on it.",
    "share": (
        "Let a person log in to an instance with their own SSH keys, start and stop it. They cannot"
        " delete, rebuild, restore or change it, nor share it."
    ),
    "unshare": (
        "Share an instance with a person no longer: their SSH keys leave at once. A person may"
        " also give up what is shared with them."
    ),
    "ssh": (
        "Log in to an instance with ssh, or run a command there. One argument after `--` is a"
        " command line for the shell inside; several arrive inside exactly as they are typed."
    ),
    "exec": (
        "Run a program in an instance without ssh, and end with its exit code. Standard input is"
        " passed on when it is not a terminal."
    ),
    "app": "See which web applications you may open.",
    "app list": "List the web applications that you may open in a browser.",
    "desktop": (
        "Show where the desktop of an instance is, to be opened in a browser. It starts when it is"
        " opened, and ends when nobody has had it open for eight hours."
    ),
    "port": "Open ports of an instance: by a port of the node, or in a browser alone.",
    "port add": (
        "Open a port of an instance: lead a port of the node to it, or, with --web-only, hutch's"
        " sign-in alone. It is kept over restarts, rebuilds and restores, until it is removed."
    ),
    "port list": "List the ports that lead to your instances, but for those of SSH.",
    "port set": "Change who may open a port in a browser, or until when it leads there.",
    "port remove": "Take a port away.",
    "restore": "The same as `snapshot restore`: put an instance's disk back to a snapshot.",
    "snapshot": "Take, restore and delete snapshots of an instance's disk.",
    "snapshot create": "Take a snapshot of an instance's disk, running or stopped.",
    "snapshot list": "List an instance's snapshots, oldest first.",
    "snapshot restore": (
        "Put an instance's disk back to a snapshot. A snapshot of the present state is taken"
        " first: the way back."
    ),
    "snapshot delete": "Delete a snapshot.",
    "operation": "Watch work in progress.",
    "operation list": "List operations, newest first.",
    "operation show": "Show an operation: what it does, how far it is, why it failed.",
    "operation wait": "Wait until an operation has ended; 1 is the exit code when it failed.",
    "operation retry": "Let a stuck operation try again. For administrators.",
    "login": "Sign in to a hutch server.",
    "logout": "Sign out, and end the sign-in at the server.",
    "whoami": "Show who you are, and what you hold of what you may hold.",
    "password": "Change your password.",
    "key": "Keep the SSH keys that open your instances.",
    "key add": "Add a public SSH key. Running instances have it within seconds.",
    "key list": "List SSH keys.",
    "key remove": "Remove an SSH key.",
    "ssh-config": (
        "Print the configuration with which `ssh NAME` leads to your instances, every host key"
        " known; or put it into your ~/.ssh."
    ),
    "token": "Keep API tokens, which programs sign in with.",
    "token create": "Make a token. It is shown this once.",
    "token list": "List your tokens.",
    "token revoke": "Revoke a token at once.",
    "user": "Keep the people of the lab.",
    "user add": "Add a person. A password is made and shown this once, unless you give one.",
    "user list": "List people, with what each holds of what they may hold.",
    "user show": "Show a person.",
    "user set": "Change a person's role, or what they may hold at most.",
    "user disable": "Shut a person out. Their instances stay.",
    "user enable": "Let a person in again.",
    "user reset-password": "Make a new password. It is shown this once; sign-ins and tokens end.",
    "node": "Keep the servers that run instances.",
    "node list": "List nodes, with what is promised of what they have.",
    "node add": "Add a node whose engine answers.",
    "node set": (
        "Tell a node's new address (its instances go on running, and their ports follow), or when"
        " idle accelerators there are taken back."
    ),
    "node cordon": "Give a node nothing new. What runs there goes on.",
    "node uncordon": "Let a node take new instances again.",
    "node token": "Make a token with which a node's agent signs in.",
    "image": "Keep what instances are created from.",
    "image list": "List images.",
    "image add": "Offer an image that the nodes' engines have under this alias.",
    "image pool": "Set how many instances of an image each node keeps ready, so creating is fast.",
    "events": "Show who did what to what, when, from where, with what result.",
    "server": "Run the server until it is told to stop.",
    "gateway": "Run the SSH gateway until it is told to stop.",
    "up": "Start hutch on this machine.",
    "agent": (
        "Watch this node's accelerators for the server until it is told to stop. It connects to the"
        " server; nothing connects to it."
    ),
    "down": "Stop what `hutch up` started.",
    "config": "Look at the server's settings.",
    "config show": "Print every setting with its meaning, as a settings file.",
    "config check": "Say whether the settings are valid.",
    "overview": "Show your machines, what you hold, and what to do next.",
    "version": "Show the version.",
    "reference": "Print this reference.",
}

NEW_NAME = "Its name: a-z, 0-9 and '-', beginning with a letter. It is the host name inside."
FROM_IMAGE = "What it is made from; `hutch image list` shows what there is. base, if left out."
OTHER_IMAGE = "Another image than the present one."
WAKE = "Whether coming by ssh through the gateway starts it when it is stopped."
ON_NODE = "The node it is to be on. The one with most room, if left out."
EVERYONES = "Everyone's, for administrators."
ONE_PERSONS = "This person's: what they share with you; all of them for administrators."
WITH_WHOM = "The person's name."
ONLY_LOOK = "They may look at it, and not log in."
SHARED_UNTIL = "It ends by itself: after a span such as 8h or 2d, or at a time such as 2026-05-01."
PORT_NUMBER = "The port inside, 1 to 65535."
WHICH_PORT = "The port inside, or its name: 8888, 53/udp, jupyter."
PORTS_OF = "An instance. All that you see, if left out."
PORT_SPAN = "It is taken away by itself after a span such as 8h or 2d."
HOST_PORT = "The port of the node. hutch gives you one, if left out."
PROTOCOL = "tcp, if left out."
PORT_NAME = "What to call it."
LOCAL_PORT = "Only programs of the node itself reach it, hutch among them."
WEB_ONLY_PORT = "It is opened in a browser, behind hutch's sign-in, and takes no port of the node."
VNC = "For a VNC viewer instead: a port of the node for 8 hours, and a password that lets in once."
KEEP_PATH = "In a browser, what listens there is told the whole path: for what has a base URL."
OPEN_TO = "Who may open it in a browser: me, everyone, or names with commas between. me at first."
SNAPSHOT_NAME = "The snapshot's name: a-z, 0-9 and '-', beginning with a letter."
OPERATION_ID = "The operation's id."
ONLY_LIVE = "Only those that have not ended."
AT_MOST = "At most so many."
AS_ROOT = "As root instead of as yourself."
TIMEOUT = "Stop waiting for it after so long, at most 600."
YOUR_NAME = "Your name. Asked for if left out."
URL = "The server: https://HOST or http://HOST:PORT. The one you used last, if left out."
TWO_PASSWORDS_STDIN = "Read the present and the new password from standard input, a line each."
KEY_FILE = "The public key's file, or - for standard input. ~/.ssh/id_*.pub, if left out."
KEY_TITLE = "What to call it. The key's own comment, if left out."
GATEWAY_ALIAS = "What to call the gateway in it: `ssh NAME`. As your administrator set it."
SSH_INSTALL = "Write ~/.ssh/config.d/hutch.conf, and have ~/.ssh/config include it."
SSH_HOSTS = "Print the host keys instead, for ~/.ssh/hutch/known_hosts."
SSH_SCRIPT = "Print a shell script that installs it, for a machine without hutch."
OF_USER = "Whose, for administrators."
WHICH_KEY = "The key's id, fingerprint or title."
TOKEN_TITLE = "What it is for."
TOKEN_ID = "The token's id."
READ_ONLY = "It may only look."
DAYS = "How long it is valid. {days}, if left out."
WITHOUT_END = "It is valid until it is revoked."
USER_NAME = "The person's name."
ROLE = "What they may do."
MOST_INSTANCES = "The most instances they may have."
MOST_CPUS = "The most processors they may have in all."
MOST_MEMORY = "The most memory they may have in all, such as 64GiB."
MOST_GPUS = "The most accelerators they may hold at once."
MOST_DISK = "The most disk they may have in all, such as 500GiB."
NODE_NAME = "The node's name."
NODE_URL = "Where its engine listens: unix:///path/to/socket or https://host:8443."
NODE_ADDRESS = "The IPv4 address at which people reach it."
NODE_SUBNET = "The IPv4 network of the instances' bridge, such as 10.180.0.0/20."
NODE_ENGINE = "What runs its instances."
NODE_PROJECT = "The engine's project. hutch, if left out."
NODE_POOL = "The engine's storage pool. hutch, if left out."
NODE_NETWORK = "The engine's bridge. hutchbr0, if left out."
IMAGE_NAME = "The image's name."
DESCRIPTION = "What people are told about it."
KEPT_READY = "How many each node keeps ready; 0 keeps none."
EVENTS_BY = "Only what this person did."
EVENTS_ACTION = "Only actions that begin so, such as instance. or user.login"
EVENTS_TARGET = "Only what was done to the thing with this id."
EVENTS_BEFORE = "Only events before this one, to page back."
CONFIG_FILE = "The settings file. hutch.toml in the data folder, if left out."
DATA = "The data folder. HUTCH_DATA or /var/lib/hutch, if left out."
LISTEN_HOST = "The address to listen on."
GATEWAY_HOST = "The address to listen on. All of them, if left out."
LISTEN_PORT = "The TCP port to listen on."
AGENT_SERVER = "The server's address, http://… or https://…."
AGENT_TOKEN_FILE = (
    "The file with the token of `hutch node token`, its owner's alone to read. agent.token in the"
    " data folder, if left out."
)
AGENT_INTERVAL = "Seconds between two looks at the accelerators."
SIMULATED_GPUS = "How many accelerators to simulate, for a machine that has none."
SIMULATED_MODEL = "What the simulated ones are called."
SIMULATED_MEMORY = "The memory of each simulated one, such as 24GiB."
SIMULATED_STEERING = (
    "The file that says what the simulated ones do. simulated-gpus.json in the data folder, if"
    " left out."
)
SIMULATED_FOLDER = "Where their device nodes are made; each node needs one of its own."

# The reference

REFERENCE = (
    "`hutch` speaks to a hutch server over HTTP. Options may stand before or after the name;"
    " what follows `--` belongs to the command that runs inside. With `--json`, standard output"
    " has the API's own objects (a list is an array), standard error has an error as"
    ' `{"error": {"code", "message", "hint", "detail", "request_id"}}`, and nothing is asked.'
    " Results go to standard output, everything else to standard error; what is not written to a"
    " terminal has no colour and is never cut off."
)
REFERENCE_EXEC = (
    "`hutch exec` and `hutch ssh` end with the exit code of what they ran inside, once it ran."
)
ENVIRONMENT = {
    "HUTCH_URL": "The server, instead of the one signed in to.",
    "HUTCH_TOKEN": "The token, instead of the one signed in with.",
    "XDG_CONFIG_HOME": (
        "Where the sign-in is kept: `hutch/config.json` below it, readable by you alone."
        " `~/.config`, if not set."
    ),
    "NO_COLOR": "No colours, if set to anything.",
    "SSL_CERT_FILE": "The certificate authorities that are trusted for https.",
    "HUTCH_DEBUG": "Where an unforeseen error came from is printed, if set to anything.",
}
