"""The library itself: no Flask, no Click, no HTTP, no schema is imported below this folder."""
