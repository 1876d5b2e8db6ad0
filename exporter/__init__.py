"""What is measured: ``instrument(app)`` inside a server, and the exporter of host and processes beside it."""

from .instrument import Instrument, instrument, instrument_asgi, instrument_engine, instrument_wsgi

__all__ = ["Instrument", "instrument", "instrument_asgi", "instrument_engine", "instrument_wsgi"]
