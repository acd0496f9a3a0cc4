# hutch-provision: keys
# Argument: the person's name. Standard input, base64, one line: authorized keys.
set -eu
umask 022
user=$1
IFS= read -r keys
home=$(getent passwd "$user" | cut -d: -f6)
[ -n "$home" ] || { echo "there is no account $user inside" >&2; exit 3; }
[ -d "$home/.ssh" ] || install -d -m 700 -o "$user" -g "$user" "$home/.ssh"
printf '%s' "$keys" | base64 -d >"$home/.ssh/.authorized_keys.hutch"
chown "$user:" "$home/.ssh/.authorized_keys.hutch"
chmod 600 "$home/.ssh/.authorized_keys.hutch"
mv -f "$home/.ssh/.authorized_keys.hutch" "$home/.ssh/authorized_keys.hutch"
