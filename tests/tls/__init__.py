"""TLS of the whole: our client against our fake server, in every mode and with everything that a server can do
wrong."""
