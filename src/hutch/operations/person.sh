# hutch-provision: person
# Arguments: the person's name, the host name.
# Standard input, base64, a line each: private host key, public host key, authorized keys.
set -eu
umask 022
user=$1
name=$2
IFS= read -r host_secret
IFS= read -r host_public
IFS= read -r keys

printf '%s\n' "$name" >/etc/hostname
hostname "$name" 2>/dev/null || printf '%s' "$name" >/proc/sys/kernel/hostname || true
# sudo and many programs look their own host name up.
if grep -q '^127\.0\.1\.1[[:space:]]' /etc/hosts 2>/dev/null; then
    sed -i "s/^127\.0\.1\.1[[:space:]].*/127.0.1.1 $name/" /etc/hosts
else
    printf '127.0.1.1 %s\n' "$name" >>/etc/hosts
fi

if ! id -u "$user" >/dev/null 2>&1; then
    # No password fits '*', and unlike '!' it does not lock the account for sshd.
    useradd --create-home --shell /bin/bash --user-group --password '*' "$user"
fi
if [ "$(id -u "$user")" -lt 1000 ]; then
    echo "the account $user belongs to the operating system" >&2
    exit 3
fi
if [ -d /etc/sudoers.d ]; then
    printf '%s ALL=(ALL:ALL) NOPASSWD:ALL\n' "$user" >/etc/sudoers.d/.90-hutch
    chmod 440 /etc/sudoers.d/.90-hutch
    mv -f /etc/sudoers.d/.90-hutch /etc/sudoers.d/90-hutch
fi

home=$(getent passwd "$user" | cut -d: -f6)
[ -d "$home/.ssh" ] || install -d -m 700 -o "$user" -g "$user" "$home/.ssh"
printf '%s' "$keys" | base64 -d >"$home/.ssh/.authorized_keys.hutch"
chown "$user:" "$home/.ssh/.authorized_keys.hutch"
chmod 600 "$home/.ssh/.authorized_keys.hutch"
mv -f "$home/.ssh/.authorized_keys.hutch" "$home/.ssh/authorized_keys.hutch"

mkdir -p /etc/ssh
key=/etc/ssh/ssh_host_ed25519_key
printf '%s' "$host_public" | base64 -d >/etc/ssh/.hutch_host_key.pub
if ! cmp -s /etc/ssh/.hutch_host_key.pub "$key.pub" || ! [ -s "$key" ]; then
    (umask 077 && printf '%s' "$host_secret" | base64 -d >/etc/ssh/.hutch_host_key)
    mv -f /etc/ssh/.hutch_host_key.pub "$key.pub"
    # The private key comes last: its appearance is what starts the SSH server in hutch's images.
    mv -f /etc/ssh/.hutch_host_key "$key"
    # Images that bring host keys of their own have a server that runs with those.
    systemctl --no-block try-restart ssh.service sshd.service 2>/dev/null || true
else
    rm -f /etc/ssh/.hutch_host_key.pub
fi
