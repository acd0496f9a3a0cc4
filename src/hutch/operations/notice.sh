# hutch-provision: notice
# Arguments: the person's name, the notice's id.
# Standard input, base64, a line each: the text for terminals, what the next login shows.
set -eu
umask 022
user=$1
id=$2
IFS= read -r text
IFS= read -r login
uid=$(id -u "$user")

# pam_motd shows what lies in this folder. Below /run, so that a full disk keeps nothing from being
# said, and a restart clears away what is old.
mkdir -p /run/motd.d /run/hutch
printf '%s' "$login" | base64 -d >/run/hutch/.login
mv -f /run/hutch/.login /run/motd.d/90-hutch

# Once is enough, also when it is said again because nobody knows whether it was said.
if ! [ -e "/run/hutch/said-$id" ]; then
    for terminal in /dev/pts/[0-9]*; do
        if [ -c "$terminal" ] && ! [ -L "$terminal" ] &&
            [ "$(stat -c %u "$terminal")" = "$uid" ]; then
            # Never waits for a terminal that nobody reads, and follows no link.
            printf '%s' "$text" | base64 -d | timeout 2 dd of="$terminal" bs=64k \
                oflag=nofollow,noctty,nonblock conv=notrunc 2>/dev/null || true
        fi
    done
    : >"/run/hutch/said-$id"
fi
