# The X server that VNC is spoken to, at a socket which its owner alone can open, and on it the
# desktop. No port is listened at, by neither of them.
set -eu
folder=/run/hutch-desktop
rm -f "$folder/vnc" "$folder/Xauthority"
export XAUTHORITY="$folder/Xauthority"
umask 077
xauth -q add :1 . "$(mcookie)"
umask 022
exec xinit /bin/sh /usr/lib/hutch/desktop-client -- /usr/bin/Xtigervnc :1 \
    -rfbunixpath "$folder/vnc" -rfbunixmode 0600 -rfbport -1 -SecurityTypes None \
    -nolisten tcp -auth "$XAUTHORITY" -desktop "$(uname -n)" -geometry 1280x800 -depth 24 \
    -AlwaysShared -AcceptSetDesktopSize
