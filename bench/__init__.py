"""Side-by-side measurements of hutch: `python -m bench --help`.

    lifecycle   one instance's life, hutch against the `incus` command, on the same private Incus
    parallel    many creations at once, hutch against as many chains of `incus` commands
    gateway     ssh through the gateway, through OpenSSH as the jump host, and direct
    forwards    three ways in which Incus leads a host port to a container
    api         the server under load: a lab of 2,000 simulated instances and 500 people
    scheduler   one pass of the scheduler over large labs, and its rules written plainly
    operations  operations carried out per second when the engine takes no time
    leases      grants per second through the database, beside a plain UPDATE of one row

Everything runs on this machine, on loopback or on a private bridge, and is removed afterwards.
"""
