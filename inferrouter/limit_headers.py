"""Says by which words the headers are known that speak of limits.

Strategy: an answer none of whose headers has one of these words is not looked at any further, and what reads them is not even
loaded. The reader itself, `rate_headers`, knows no name without one, so that a word which is missing here is missed by its first
test. Must never know what a header means.
"""

HEARD = (
    "ratelimit",  # most providers' and gateways'
    "call-",  # Cohere's
)
"""One of them is in every name that `rate_headers` reads; the likeliest first."""
