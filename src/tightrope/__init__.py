"""Tightrope takes a machine from one kernel to the next without falling.

`plan` says where every byte goes, `rehearse` walks the handover on a watched CPU.  Importing this
package imports nothing else: rooms are imported where they are used.

May import: nothing
"""

__version__ = "0.1.0"
