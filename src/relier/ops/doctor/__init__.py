"""Is this server, with this fleet and this app, fit to keep the guarantees?"""
