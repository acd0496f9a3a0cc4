# The desktop, until its owner logs out of it.
exec dbus-run-session -- startxfce4
