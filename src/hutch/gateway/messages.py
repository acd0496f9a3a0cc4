"""Every word that the gateway says to people, in one place."""

NO_INSTANCE = (
    "there is no instance {name!r}: the gateway leads to instances alone, by their names"
    " (`ssh lab list` shows yours)"
)
OTHER_PORT = (
    "only the SSH port of {name} is reached here; for port {port} inside it, give your own ssh"
    " -L {port}:localhost:{port} {name}"
)
IS_STOPPED = "{name} is stopped; start it: ssh lab start {name}"
IS_STATE = "{name} is {state}; see: ssh lab show {name}"
STILL_STATE = "{name} is still {state} after {seconds:g} s; try again in a moment"
NOT_STARTED = "{name} could not be started; see: ssh lab show {name}"
NO_ANSWER = "{name} runs, but nothing answers at its SSH port on {node}: {reason}"
GONE_SILENT = "{name} no longer answers: it has gone away, or its node {node} has."
BROKE_OFF = "The connection to {name} on {node} broke: {reason}."
HAS_STOPPED = "{name} has stopped. Going there starts it, unless its owner does not want that."
NOT_YOURS = "{name} is deleted, or no longer shared with you."
TOO_MANY_LANES = "you have {most} channels open on this connection, which is all it may have"
BROKEN = "the gateway met something that nobody foresaw; it is in its log"
WAKING = "{name} is stopped. Going there starts it, which takes some seconds.\r\n"
NO_LONGER = "Your key or your account no longer opens this gateway."
IDLE = "Nothing has moved on this connection for {minutes:g} minutes."
ENDING = "This gateway is ending."
TOO_MANY_KEYS = (
    "Your ssh offered {count} keys, and hutch knows none of them. Name the one it knows:"
    " ssh -o IdentitiesOnly=yes -i FILE"
)
UNAVAILABLE = "The gateway cannot look up keys at the moment. Try again in a moment."

# Somebody's first key

REGISTER = "Register an SSH key with your name and password at hutch."
WRONG = "The name or the password is wrong. Try again."
NAME = "Name: "
ITS_PASSWORD = "Password: "  # noqa: S105
YOU_ARE = "You are {name}."
ONE_KEY = "Your ssh offered this key:"
SEVERAL_KEYS = "Your ssh offered these keys:"
KEY_LINE = "  {number}  {fingerprint}  {type}"
WHICH_KEY = "Which is it to be? [1-{count}, or 0 for another] "
ADD_IT = "Let {fingerprint} open the machines of {name}? [y/N] "
REGISTERED = (
    "{fingerprint} opens your machines from now on, {name}. Go on with: ssh -p {port} {host}"
)
SEND_KEY = (
    "Send the line of your public key (~/.ssh/id_ed25519.pub), and press Enter. You have none?"
    " End this, and make one: ssh-keygen -t ed25519"
)
NO_KEY = "There was no key."
ONLY_REGISTERING = "This connection is for registering a key, and for nothing else."
TIME_IS_UP = "That took too long. Nothing was changed."

# Commands

NO_FILES = (
    "The gateway has no files. Copy to a machine instead: scp -J, rsync -e 'ssh -J ...', or"
    " simply `scp FILE box:` once `ssh lab config --script | sh` has set that up."
)
NOT_A_COMMAND = "This is no command of the gateway. See: ssh lab help"
BAD_QUOTES = "The quotes do not match: {reason}."
LOCAL_COMMAND = (
    "`{command}` is about the machine that it is run on, so it does not go through the gateway."
    " See: ssh lab help"
)
UNKNOWN_COMMAND = "There is no command {command!r}. {hint}See: ssh lab help"
DID_YOU_MEAN = "Did you mean {command!r}? "
TOO_MANY_COMMANDS = "You run too many commands at once. Try again in a moment."
CUT_OFF = "The command was cut off. What it had begun at the server goes on."
NO_SUBSYSTEM = "The gateway has no subsystem {name!r}."
