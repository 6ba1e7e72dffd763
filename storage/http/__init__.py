"""JSON over HTTP: typed routes, typed errors, an OpenAPI document, and a client."""
