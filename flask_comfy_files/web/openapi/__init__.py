"""The REST interface described as OpenAPI 3.1, from the table of routes, the schemas and the records."""
