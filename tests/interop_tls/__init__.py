"""TLS with the implementations of others: servers for our client, clients for our server, of two Debian releases."""
