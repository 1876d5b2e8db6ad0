"""PromQL over the embedded store: promql-parser reads, numpy evaluates.

The way of a query: ``edge`` and ``parse`` (text to tree), ``engine`` (its steps), ``evaluate`` (node by node), with
``selectors``, ``ranges``, ``spread``, ``functions``, ``aggregation``, ``binary``, ``histogram`` and ``info``
doing the work on the columns of ``frame`` and ``windows``; ``query`` holds what an answer tells besides its value,
``labelsets`` what label sets become. Semantics are those of Prometheus 3 for floats; native histograms are not kept.
"""

from .engine import Engine, check
from .values import Matrix, QueryError, Sample, Scalar, Text, Value, Vector, number_text

__all__ = ["Engine", "Matrix", "QueryError", "Sample", "Scalar", "Text", "Value", "Vector", "check", "number_text"]
