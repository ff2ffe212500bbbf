"""The views and the routes, in one module for each subject."""
