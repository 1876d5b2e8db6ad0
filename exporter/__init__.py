"""What is measured: ``instrument(app)`` inside a server, and the exporter of host and processes beside it."""

from .instrument import Instrument, instrument, instrument_engine

__all__ = ["Instrument", "instrument", "instrument_engine"]
