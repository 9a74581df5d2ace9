"""Stand-ins for the parts of a machine that no test can have: a CPU in plain Python, a hypervisor."""
