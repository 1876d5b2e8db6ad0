"""What is promised: targets, services and channels, read from ``monitor.toml``."""

from .load import find_configuration, load
from .model import (
    LOOPBACK,
    Capacity,
    Channel,
    Configuration,
    Direction,
    Formula,
    Indicator,
    Level,
    Mean,
    Monitor,
    Percentile,
    ProcessFinder,
    Secret,
    Service,
    Target,
    histogram_limits,
)
from .problems import ConfigurationError, Problem
from .units import Unit, format_duration, format_promql_duration, format_value
from .windows import Hours, Maintenance, Once, Weekly

__all__ = [
    "LOOPBACK",
    "Capacity",
    "Channel",
    "Configuration",
    "ConfigurationError",
    "Direction",
    "Formula",
    "Hours",
    "Indicator",
    "Level",
    "Maintenance",
    "Mean",
    "Monitor",
    "Once",
    "Percentile",
    "Problem",
    "ProcessFinder",
    "Secret",
    "Service",
    "Target",
    "Unit",
    "Weekly",
    "find_configuration",
    "format_duration",
    "format_promql_duration",
    "format_value",
    "histogram_limits",
    "load",
]
