"""Values in, text for people and plain data for programs out.

Nothing here decides, measures or prints: the command line prints what these functions return.  Each
file is one report.  What a reader of a report needs to know is said in the report itself.

May import: abi, errors, memory, model, x86
"""
