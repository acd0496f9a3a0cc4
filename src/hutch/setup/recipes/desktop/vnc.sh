# The same desktop for a VNC viewer, with a password that lets in once: `new` prints one, `serve` is
# the unit. It ends when no viewer has been there for ten minutes.
set -eu
folder=/run/hutch-desktop-vnc
case ${1:-} in
new)
    umask 077
    install -d -m 700 -o 1000 "$folder"
    # What VNC can take: eight characters. None of them looks like another.
    password=$(tr -dc a-km-zA-HJ-NP-Z2-9 </dev/urandom | head -c 8)
    printf '%s\n' "$password" | vncpasswd -f >"$folder/new"
    chown 1000 "$folder/new"
    mv -f "$folder/new" "$folder/password"
    systemctl restart hutch-desktop-vnc.service
    printf '%s\n' "$password"
    ;;
serve)
    X0tigervnc -display :1 -rfbport 5900 -SecurityTypes TLSVnc,VncAuth \
        -PasswordFile "$folder/password" -MaxDisconnectionTime 600 -Log '*:stderr:30' 2>&1 |
        while IFS= read -r line; do
            case $line in
            # What it says once somebody has shown the password: it is worth nothing from now on.
            *'Server default pixel format'*) rm -f "$folder/password" ;;
            esac
        done
    ;;
*)
    exit 2
    ;;
esac
