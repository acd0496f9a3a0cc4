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
