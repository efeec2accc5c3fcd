"""Telling whoever submitted a request that it has ended: addresses, signatures, and the deliveries themselves."""
