"""The record of every file: ``document`` is the truth, ``index`` a cache of it, ``catalog`` the two as one.

Nothing outside this folder reads the document or the index.
"""
