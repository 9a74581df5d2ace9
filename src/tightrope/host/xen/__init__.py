"""A hypervisor with a dom0, as a description: its part of a host file, examples, what it says of
itself.

    profile   the tables of a host file that only Xen's has
    examples  hosts of each width and interface
    capture   what `perform xen --json` printed in dom0 -> TOML text
    document  the [xen] table of a host file, as it is declared

May import: abi, errors, host.capture, host.schema, memory, model, x86
"""
