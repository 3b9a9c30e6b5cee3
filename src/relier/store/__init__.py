"""The only room that knows Redis: key names, scripts, clients and the embedded server."""
