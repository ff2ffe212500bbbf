"""What requests may say, in one module for each subject: the only place where the names of their fields stand.

A schema checks names and types; what an id or a path may look like is checked where it is used, in the
core, so that the Python API and the command line have the same rules. Of each field the schema tells
the API's description as much as it knows.
"""
