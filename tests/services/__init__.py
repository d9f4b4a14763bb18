"""Stand-ins of the services that the application talks to, for their unmodified clients, on 127.0.0.1 only."""
