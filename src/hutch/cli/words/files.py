"""The words of files."""

HELP = {
    "files": "Files of an instance, whether it runs or not.",
    "files list": "List a folder.",
    "files show": "Show what is known of one file, folder or link.",
    "files get": (
        "Bring a file here, or a folder: as an archive, or unpacked with --recursive. After an"
        " interruption the same command goes on with a file where it stopped."
    ),
    "files put": (
        "Bring a file of yours there, or a folder with --recursive. A file has its name once all of"
        " it is there; after an interruption the same command goes on where it stopped."
    ),
    "files rename": "Rename or move a file or folder.",
    "files delete": "Delete a file or folder.",
    "files mkdir": "Make a folder.",
}
PATH = "There: from / on, or from the owner's home."
FOLDER = "The folder there; without it the owner's home."
HERE = "Here; without it the same name in this folder. - writes to standard output."
FILE_HERE = "The file here; or a folder, of which one with / at its end means what is in it."
THERE = "There: a path, or a folder to put it into; without it the owner's home."
NEW_PATH = "The new path there."
AS_ZIP = "A folder as a zip archive instead of a tar archive."
RECURSIVE = "A folder with everything in it."
UNPACK = "A folder as a folder, not as an archive."
UNPACK_ALONE = "Give --recursive without --zip, and not to standard output."

HEADS = ("NAME", "SIZE", "MODIFIED (UTC)", "MODE", "OWNER")
OF_ONE = ("path", "kind", "size", "modified", "mode", "owner", "leads to")
BYTES = "{size} ({bytes} bytes)"
EMPTY = "There is nothing in {path}."
TRUNCATED = "{path} has more than the {count} that are shown."
GOT = "{path} is here as {here} ({size})."
PUT = "{name} is there as {path} ({size})."
RENAMED = "{path} is {to} now."
DELETED = "{path} is deleted."
MADE = "{path} is made."
PROGRESS = "{name}  {part} of {size}  {speed}/s"
PROGRESS_UNKNOWN = "{name}  {part}  {speed}/s"
GOES_ON = "Going on with what came before ({size})."
ASK_REPLACE = "Replace {path}?"
ASK_DELETE = "Delete {path}? This cannot be undone."
ASK_DELETE_ALL = "Delete {path} and everything in it? This cannot be undone."
CUT_OFF = "{name} broke off at {part}."
GO_ON = "Give the same command again: it goes on from there."
ARCHIVE_CUT_OFF = "The archive of {path} broke off, and what came is removed."
CHANGED_OR_LOST = "The connection was lost, or a file became shorter meanwhile: try again."
CHANGED_THERE = "{path} changed while it was sent."
CHANGED_HERE = "{path} changed while it was sent, and nothing of it is kept there."
STEADY = "Send it once nothing writes to it, or send a copy."
NOT_HERE = "{path} cannot be read here: {reason}."
NOT_WRITABLE = "{path} cannot be written here: {reason}."
CHECK_PATH = "Check the path and its rights."
A_FOLDER_HERE = "{path} is a folder."
SAY_RECURSIVE = "Say --recursive for all that is in it."
NO_FILES_OVER_SSH = "There are no files of yours at the gateway."
USE_LAPTOP = "Run `hutch files` on your own machine, or use scp to your instance."
"""For get and put, which open files."""

PUT_FOLDER = "{name} is there as {path}"
GOT_FOLDER = "{path} is here as {here}"
COUNTS = "{files} files ({size}) and {links} links came over, {same} were there already"
LEFT_OUT = "Left out: {path} ({reason})."
FAILED = "Failed: {path} ({reason})."
SPECIAL = "a pipe, socket or device"
UNSAFE_NAME = "its name leads elsewhere"
LINK_OUT = "a link out of the folder, to {target}"
INCOMPLETE = "{count} could not be brought over."
INCOMPLETE_HINT = "See above why. Everything else is done; the same command tries these again."
BROKE_OFF = "Broken off after {files} files. The same command sends only what is missing."
NO_FOLDER_THERE = "Something that is no folder has the name {path}."
A_FOLDER_THERE = "A folder has the name {path}."
FULL_HERE = "The disk here is full."
ASK_REPLACE_MANY = "Replace {count} in {path} that are different there, {first} among them?"
ASK_MERGE = "{path} is there already. Replace files of the same names in it?"
