"""Other people's layouts: numbers only, each with its source named.  No I/O, no deeds.

A file here is one interface that Tightrope meets but does not own.  A layout is declared once, as
data, and checked to add up when it is imported.  Nothing here decides anything: what a value means
for a kexec is said in the room that uses it.

May import: memory
"""
