"""Stand-in for LeRobot 0.6, with the part of its interface that drivers use: names, signatures and habits are its own.

Its arms are files. A port is a file that must exist; what is sent to the motors is appended to it as lines of JSON, and
the positions are where the last line put them.
"""
