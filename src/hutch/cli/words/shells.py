"""The words of `hutch shell`."""

HELP = {
    "shell": (
        "Open a shell in an instance through hutch's own address: no SSH key and no port needed."
        " After a lost connection it is the same shell again."
    ),
}
NO_TERMINAL = "`hutch shell` needs a terminal."
USE_EXEC = "For a single command: hutch exec NAME -- COMMAND."
LOST = "The connection is lost; trying to get back."
NEW_ONE = "That shell has ended. This is a new one."
GONE = "The connection did not come back."
GO_BACK = "The shell waits a while: hutch shell {name} --session {session}"
LEFT = "You left. The shell waits a while: hutch shell {name} --session {session}"
ENDS = {
    4403: "You may not use this terminal any more.",
    4408: "Nothing was typed for a long time: the terminal ended.",
    4409: "This terminal was opened elsewhere.",
}
SESSION = "Go back to a shell that is still there."
